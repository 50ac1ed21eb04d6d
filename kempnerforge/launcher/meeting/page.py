"""Our side of the page: memory that the cooperative processes of this node share with us (`bootstrap.page`).

It is made when the first of them registers, and comes to each as a descriptor with the answer: a file in a folder could
be emptied, or its disk be full or frozen, and a poll would die or wait of that. Its size is sealed, so that no process
can take the memory away from others.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...bootstrap import page, proc
from ..policy.words import Identity, Line

if TYPE_CHECKING:
    import mmap

#: MFD_NOEXEC_SEAL (memfd_create(2), Linux 6.3): where a site demands it, there is no memory without.
_NOEXEC_SEAL = 8


class Page:
    """The page, from when somebody needs it.

    Attributes:
        descriptor: to be sent; None: there is no page (yet).
        trouble: why there cannot be one; None: there is one, or nobody has asked.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.trouble: str | None = None
        self._mapped: mmap.mmap | None = None
        self._lines: dict[Identity, memoryview] = {}
        self._numbers: dict[Identity, int] = {}

    def number_for(self, who: Identity) -> int | None:
        """Return which line is a process's; None: there is none for it."""
        if who in self._numbers:
            return self._numbers[who]
        if self._mapped is None and self.trouble is None:
            try:
                self._make()
            except OSError as error:
                self.trouble = error.strerror or str(error)
        number = None if self._mapped is None else self._free_number()
        if self._mapped is None or number is None:
            return None
        line = page.line_of(page.lines_of(self._mapped), number)
        for slot in range(page.WORDS):
            line[slot] = 0
        self._numbers[who], self._lines[who] = number, line
        return number

    def _make(self) -> None:
        # Here, because most runs begin without anybody who registers.
        import mmap

        descriptor = _memory()
        try:
            self._mapped = mmap.mmap(descriptor, page.SIZE)
        except OSError:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def _free_number(self) -> int | None:
        if len(self._numbers) < page.LINES:
            return len(self._numbers)
        for who, number in self._numbers.items():
            if proc.identity(who.pid) != f"{who.pid}.{who.start}":
                del self._numbers[who], self._lines[who]
                return number
        return None

    # --- what is written and read there ------------------------------------------------------------

    def read(self, whos: Iterable[Identity]) -> dict[Identity, Line]:
        """Return what ranks have written."""
        return {who: _read(self._lines[who]) for who in whos if who in self._lines}

    def ask(self, whos: Iterable[Identity], word: int) -> None:
        """Write a word into the lines of ranks, into one after the other."""
        for who in whos:
            self._write(who, page.WORD, word)

    def let_on(self, who: Identity, ticket: int) -> None:
        """End one of a rank's waits without a stop."""
        self._write(who, page.LET, ticket)

    def _write(self, who: Identity, slot: int, value: int) -> None:
        if who in self._lines:
            self._lines[who][slot] = value  # in one store

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def _read(line: memoryview) -> Line:
    # First what a rank writes last: what it says by that is then there as well.
    heard = line[page.HEARD]
    return Line(line[page.POLLS], line[page.WAITS], line[page.TICKET], heard)


def _memory() -> int:
    """Return a descriptor of memory of the page's size that nobody can change.

    Raises:
        OSError: none can be had.
    """
    try:
        return _sealed_memory()
    except OSError:
        # A seccomp filter may forbid it.
        descriptor = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)  # noqa: S108 - it has no name there
    try:
        # All of it now: what is not there when it is written to is SIGBUS.
        os.posix_fallocate(descriptor, 0, page.SIZE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sealed_memory() -> int:
    import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("kforge-page", flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create("kforge-page", flags)
    try:
        os.ftruncate(descriptor, page.SIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
