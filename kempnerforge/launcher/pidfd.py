"""Process descriptors (pidfd_open(2)): a signal sent through one cannot hit a process that got the pid later."""

from __future__ import annotations

import os
import signal

from . import libc


def open_of(pid: int) -> int | None:
    """Return a descriptor that can only ever mean this process; None before Linux 5.3, or if it has ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send(pid: int, pidfd: int | None, signum: int) -> bool:
    """Signal a process, through its descriptor if there is one; return whether it was there to get it."""
    try:
        if pidfd is None:
            os.kill(pid, signum)
        else:
            signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        return False
    return True


def notify(pid: int, pidfd: int | None, signum: int) -> bool:
    """Signal a process's main thread; return whether it was there to get it.

    When two signals come almost together, the kernel may give both to another thread (of torch's, of numpy's), and then
    no system call of the main thread is interrupted: Python's handler would wait for its end.
    """
    if pidfd is None or not send(pid, pidfd, 0):
        return send(pid, pidfd, signum)
    # What is alive now and ends before the next line has its number for a while: at least its parent has to reap it.
    return libc.signal_main_thread(pid, signum) or send(pid, pidfd, signum)
