"""What a command that waits shows meanwhile: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time

from ..launcher.telling.output import one_line

#: How often a line is written where nobody may be looking (s): a guess.
_EVERY = 30.0
#: How often the line on a terminal changes (s): a guess.
_REFRESH = 0.25


class Progress:
    """Tells on standard error what is waited for; whatever that is, nothing here fails.

    Args:
        live: the line may be written over: it is a terminal, and nothing else is written there.
    """

    def __init__(self, live: bool | None = None) -> None:
        self._live = sys.stderr.isatty() if live is None else live
        self._what = ""
        self._since = self._written = 0.0

    def show(self, what: str, limit: float | None = None) -> None:
        """Say what is waited for.

        Args:
            what: as long as it is the same, it is one wait.
            limit: how long it may take (s); None: not known.
        """
        now = time.monotonic()
        new = what != self._what
        if new:
            self._what, self._since = what, now
        elif now - self._written < (_REFRESH if self._live else _EVERY):
            return
        self._written = now
        waited = now - self._since
        of = "" if limit is None else f" of {limit:.0f}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{one_line(f'{what}: {waited:.0f}{of} s')[:width]}")
        elif new:
            self._write(f"{one_line(what)}{'' if limit is None else f' (at most {limit:.0f} s)'}\n")
        else:
            self._write(f"{one_line(what)}: {waited:.0f}{of} s\n")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._write(f"{one_line(text)}\n")

    def clear(self) -> None:
        """Take the changing line away."""
        if self._live and self._what:
            self._write("\r\x1b[K")
        self._what = ""

    @staticmethod
    def _write(text: str) -> None:
        try:
            os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # a terminal that is gone
