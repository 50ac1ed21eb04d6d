"""A process that kforge-run signals, however it became known: by its connection, by the news, or by /proc."""

from __future__ import annotations

import os
import signal

from ...bootstrap import contract, proc
from ..policy.words import Identity
from . import libc, tree


class Process:
    """A process below us, and never another that gets its pid later.

    Args:
        who: it.
        program: what it runs, for the log.
    """

    def __init__(self, who: Identity, program: str = "?") -> None:
        self.who = who
        self.program = program
        #: None before Linux 5.3, where it has ended, or where no descriptor is left.
        self.pidfd = open_pidfd(who.pid)

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return f"{self.program} (pid {self.who.pid})"

    @property
    def lives(self) -> bool:
        return proc.identity(self.who.pid) == f"{self.who.pid}.{self.who.start}"

    def send(self, signum: int) -> bool:
        """Signal it, through its descriptor if there is one; return whether it was there to get it."""
        if self.who.pid == 0:
            return False  # outside our pid namespace; kill(2) would take it for our own process group
        try:
            if self.pidfd is None:
                os.kill(self.who.pid, signum)
            else:
                signal.pidfd_send_signal(self.pidfd, signum)
        except OSError:
            return False
        return True

    def notify(self, signum: int) -> bool:
        """Signal its main thread; return whether it was there to get it.

        When two signals come almost together, the kernel may give both to another thread (of torch's, of numpy's), and
        then no system call of the main thread is interrupted: Python's handler would wait for its end.
        """
        if self.pidfd is None or not self.send(0):
            return self.send(signum)
        # What is alive now and ends before the next line has its number for a while: its parent has to reap it.
        return libc.signal_main_thread(self.who.pid, signum) or self.send(signum)

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def identify(pid: int) -> Identity:
    """Return the process of this node that has a pid now."""
    return Identity(contract.node_name(), pid, tree.started(pid))


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that can only ever mean this process (pidfd_open(2)); None: there is none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def is_descriptor_left() -> bool:
    """Return whether one more file can be opened."""
    try:
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return False
    return True
