"""Children that have ended: found without reaping them, so that no pid is signalled after it was reaped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

#: How long a child that was killed may take to go (s): a guess.
_PATIENCE = 0.5


def ended_children() -> Iterator[int]:
    """Yield the pid of each child that has ended; whoever takes it must reap it before taking the next."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        yield ended.si_pid


def has_ended(pid: int) -> bool:
    """Return whether a child that was not reaped yet has ended."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for(pid: int, patience: float) -> bool:
    """Wait until a child that was not reaped yet has ended, but for a bounded time (s); return whether it has."""
    until = time.monotonic() + patience
    while not has_ended(pid):
        left = until - time.monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left)
    return True


def reap_all(patience: float = _PATIENCE) -> None:
    """Reap our children until there is none, but for a bounded time (s): one may hang in the kernel.

    Args:
        patience: as long as those take that were killed; for others, what they are given.
    """
    until = time.monotonic() + patience
    while True:
        for pid in ended_children():
            os.waitpid(pid, 0)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        left = until - time.monotonic()
        if left <= 0:
            return
        signal.sigtimedwait({signal.SIGCHLD}, left)
