"""kforge-run's own lines on standard error, and nothing else anywhere."""

from __future__ import annotations

import os
import select
import time
from typing import Literal

Level = Literal["detail", "info", "summary", "warning"]
Verbosity = Literal["quiet", "brief", "normal", "verbose"]

_SHOWN: dict[Verbosity, tuple[Level, ...]] = {
    "quiet": ("warning",),
    # One line a task: the kforge-run above tells the rest.
    "brief": ("warning", "summary"),
    "normal": ("warning", "summary", "info"),
    "verbose": ("warning", "summary", "info", "detail"),
}


class Log:
    """Writes prefixed lines; never blocks and never raises, whatever standard error is.

    Args:
        verbosity: what is shown: warnings always, what happens to the run, and every detail.
        name: tells apart several kforge-runs that write into one log; empty: there is one.
    """

    def __init__(self, verbosity: Verbosity, name: str = "") -> None:
        self._shown = _SHOWN[verbosity]
        self._prefix = f"kforge-run[{name}]" if name else "kforge-run"
        self._poller = select.poll()
        self._poller.register(2, select.POLLOUT)

    def say(self, level: Level, text: str) -> None:
        if level not in self._shown:
            return
        mark = "warning: " if level == "warning" else ""
        line = f"{self._prefix} {time.strftime('%H:%M:%S')} {mark}{one_line(text)}".encode("utf-8", "backslashreplace")
        try:
            # A pipe that nobody reads is not ready, and its line is dropped: it must not hold up a shutdown. One that
            # is ready takes PIPE_BUF bytes. The descriptor is the child's too, so it cannot be set to non-blocking.
            if self._poller.poll(0):
                os.write(2, line[: select.PIPE_BUF - 1] + b"\n")
        except OSError:
            pass  # closed, full or broken


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
        pass  # nobody to tell; the exit status says it


def keep_standard_descriptors() -> None:
    """Put /dev/null where standard input, output or error is closed.

    Otherwise the next file opened would take that number, and our lines be written into it. It is closed on exec, so
    the child finds the descriptor closed as it was.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # the lowest free number is this one
