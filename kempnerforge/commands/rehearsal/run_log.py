"""The log of a run: what kforge-run and what it ran have written, mixed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .. import files
from ..trouble import Trouble

#: A line of kforge-run's own; srun --label puts the task's number before it.
_OURS = re.compile(r"(?:\s*\d+: )?kforge-run(?:\[[^\]]*\])? (?:\d\d:\d\d:\d\d |error: )")
#: What faulthandler writes: the head of a thread, and a frame.
_THREAD = re.compile(r"(?:\s*\d+: )?(?:Current thread|Thread) 0x[0-9a-f]+ .*most recent call first")
_FRAME = re.compile(r"(?:\s*\d+: )?  File \".*\", line (?:\d+|\?\?\?) in ")
#: What our own code writes in the process itself.
_HANDLER = re.compile(r"(?:\s*\d+: )?kempnerforge: ")
#: The thread that watches over a shutdown is not what it hangs in.
_WATCHER = "/kempnerforge/resilience/"
#: Blocks of this size are copied, and so much at a time: a run may write faster than anybody reads (bytes). Guesses.
_BLOCK, _MOST_AT_A_TIME = 1 << 16, 1 << 20


class RunLog:
    """A log that may still grow, or not be there yet; what is in it already is no part of it.

    Args:
        path: the file.
        shown: copy what comes to standard error.
    """

    def __init__(self, path: Path, shown: bool) -> None:
        self.path = path
        self._shown = shown
        self._begin = self._copied = self.size

    @property
    def size(self) -> int:
        """How long it is (bytes)."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def text(self, offset: int = 0, most: int = 1 << 20) -> str:
        """Return what is behind an offset (bytes), at most so much of its end."""
        try:
            with files.open_to_read(self.path) as file:
                file.seek(max(offset, self._begin, self.size - most))
                return (file.read(most) or b"").decode("utf-8", "replace")
        except (OSError, Trouble):
            return ""

    def follow(self) -> None:
        """Copy what is new to standard error, as it is, if it is to be shown."""
        if not self._shown:
            return
        try:
            with files.open_to_read(self.path) as file:
                file.seek(self._copied)
                until = self._copied + _MOST_AT_A_TIME
                while self._copied < until and (block := file.read(_BLOCK)):
                    self._copied += len(block)
                    while block:
                        block = block[os.write(2, block) :]
        except (OSError, Trouble):
            return  # it is not there yet, or stderr is closed


def stacks_of(text: str) -> list[str]:
    """Return the stacks that processes have dumped, without our own threads and what was written in between."""
    threads: list[list[str]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([line])
        elif threads and _FRAME.match(line):
            threads[-1].append(line)
    return [line for thread in threads if not any(_WATCHER in frame for frame in thread[1:2]) for line in thread]


def last_lines(text: str, most: int) -> list[str]:
    """Return the last lines that the command itself has written."""
    lines = [line.rstrip() for line in text.splitlines()]
    others = (_OURS, _THREAD, _FRAME, _HANDLER)
    return [line for line in lines if line and not any(other.match(line) for other in others)][-most:]
