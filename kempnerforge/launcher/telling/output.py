"""kforge-run's own lines on standard error, and nothing else anywhere."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Sequence
from typing import Literal

from .writer import Writer

Level = Literal["detail", "info", "summary", "warning"]
Verbosity = Literal["quiet", "brief", "normal", "verbose"]

_SHOWN: dict[Verbosity, tuple[Level, ...]] = {
    "quiet": ("warning",),
    # One line a task: the kforge-run above tells the rest.
    "brief": ("warning", "summary"),
    "normal": ("warning", "summary", "info"),
    "verbose": ("warning", "summary", "info", "detail"),
}


#: Lines that wait for room in a pipe; what more there is to say meanwhile is dropped. A guess.
_MOST_WAITING = 1000


class Log:
    """Writes prefixed lines; never blocks and never raises, whatever standard error is.

    Args:
        verbosity: what is shown: warnings always, what happens to the run, and every detail.
        poller, helpers: for its writer.
        name: tells apart several kforge-runs that write into one log; empty: there is one.
    """

    def __init__(self, verbosity: Verbosity, poller: select.poll, helpers: set[int], name: str = "") -> None:
        self._shown = _SHOWN[verbosity]
        self._prefix = f"kforge-run[{name}]" if name else "kforge-run"
        self._ready = select.poll()
        self._ready.register(2, select.POLLOUT)
        #: None: standard error is no file, and tells itself whether it would block. A file never says so.
        self.writer = Writer(_write_lines, poller, helpers, keep=(2,), without=_write_lines) if _is_file(2) else None
        self._descriptor = 2 if self.writer is not None else _open_without_blocking(2)
        #: For which a pipe had no room.
        self._waiting: list[bytes] = []

    def say(self, level: Level, text: str) -> None:
        if level not in self._shown:
            return
        mark = "warning: " if level == "warning" else ""
        line = f"{self._prefix} {time.strftime('%H:%M:%S')} {mark}{one_line(text)}".encode("utf-8", "backslashreplace")
        line = line[: select.PIPE_BUF - 1] + b"\n"
        if self.writer is not None:
            self.writer.put(line)
            return
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(line)
        self.flush(0.0)

    def flush(self, patience: float) -> None:
        """Write what a pipe had no room for, but wait for room no longer than so (s).

        A pipe that nobody reads is never ready, and its lines are lost: they must not hold up a shutdown.
        """
        until = time.monotonic() + patience
        try:
            # One that is ready takes PIPE_BUF bytes, unless another process was quicker: then it must not block.
            while self._waiting and self._ready.poll(max(until - time.monotonic(), 0.0) * 1000):
                os.write(self._descriptor, self._waiting[0])
                del self._waiting[0]
        except BlockingIOError:
            pass  # full
        except OSError:
            self._waiting.clear()  # closed or broken


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _write_lines(lines: Sequence[bytes]) -> None:
    for line in lines:
        os.write(2, line)


def _open_without_blocking(descriptor: int) -> int:
    """Open a pipe or a terminal once more, without blocking; where that cannot be (another user's, a socket) return it.

    The descriptor itself is the child's too, so it cannot be set to non-blocking.
    """
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return descriptor


def one_line(text: str) -> str:
    """Return a text without line ends and control characters: it may hold paths, and what other programs say."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def complain(program: str, text: str) -> None:
    """Say in one line why a program ends with an error."""
    try:
        os.write(2, f"{program}: error: {one_line(text)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # it is closed, or full; the exit status says it


def keep_standard_descriptors() -> None:
    """Put /dev/null where standard input, output or error is closed.

    Otherwise the next file opened would take that number, and our lines be written into it. It is closed on exec, so
    the child finds the descriptor closed as it was.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _take_lowest_descriptor()


def _take_lowest_descriptor() -> None:
    try:
        os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        os.open("/", os.O_RDONLY | os.O_CLOEXEC)  # no /dev here; a folder takes and gives nothing, either
