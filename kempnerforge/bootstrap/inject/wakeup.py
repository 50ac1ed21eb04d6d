"""The program's wakeup fd (signal.set_wakeup_fd), which asyncio and uvloop read instead of having handlers called.

Python writes to it in C, before any handler runs: a signal that waits for kforge-run's word, or repeats it, would count
all the same. So Python writes to a pipe of ours. A thread hands on what is not ours, and what is ours is handed on when
the program's handler is called.
"""

import os

from . import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _State:
    #: What the program has set; -1: nothing.
    fd = -1
    #: Our pipe's ends; -1: there is none.
    reader = writer = -1


#: An object: see notice.py.
_wakeup = _State()


def set_wakeup_fd(fd: int, **options: "Any") -> int:
    """Set the program's wakeup fd as `signal.set_wakeup_fd()` does."""
    if not process.own:
        return int(process.real_set_wakeup_fd(fd, **options))
    before = int(process.real_set_wakeup_fd(fd, **options))  # which checks it, and that this is the main thread
    if before == _wakeup.writer != -1:
        before = _wakeup.fd
    _wakeup.fd = fd
    if fd != -1 and (_wakeup.writer != -1 or _start()):
        process.real_set_wakeup_fd(_wakeup.writer, warn_on_full_buffer=False)
    return before


def write(signum: int) -> None:
    """Hand a signal of ours on, as its handler is called."""
    if _wakeup.fd != -1 and _wakeup.writer != -1:
        _write(bytes((signum,)))


def forget() -> None:
    """Leave what is the parent's alone, in a forked child: it writes to the program's wakeup fd itself."""
    global _wakeup
    before, _wakeup = _wakeup, _State()
    if before.writer != -1:
        if process.real_set_wakeup_fd(-1) == before.writer and before.fd != -1:
            process.real_set_wakeup_fd(before.fd)
        os.close(before.reader)
        os.close(before.writer)


def _start() -> bool:
    """Make the pipe and its thread; return False where no more can be had."""
    try:
        _wakeup.reader, _wakeup.writer = os.pipe()
        os.set_blocking(_wakeup.writer, False)
    except OSError:
        return False
    return signals.start_thread(_hand_on, _wakeup.reader) != 0


def _hand_on(reader: int) -> None:
    while True:
        try:
            came = os.read(reader, 4096)
        except OSError:
            return  # the program closes descriptors that it does not know
        if not came:
            return
        others = bytes(signum for signum in came if signum not in process.own and signum not in process.listeners)
        if others:
            _write(others)


def _write(signums: bytes) -> None:
    try:
        os.write(_wakeup.fd, signums)
    except OSError:
        pass  # full, as Python itself would find it; or closed
