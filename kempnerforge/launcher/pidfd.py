"""Process descriptors (pidfd_open(2)): a signal sent through one cannot hit a process that got the pid later."""

from __future__ import annotations

import os
import signal


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
