"""Signals to kforge-run and who sent them.

Nothing runs when a signal comes: all that can be caught are blocked and read from a signalfd in the loop's one wait.
It tells the sender, and a stop and continue neither invents nor loses one, while sigtimedwait may return
uninitialised memory then (slurm-facts, "Traps in Python itself").
"""

from __future__ import annotations

import os
import signal
import struct
from typing import NamedTuple

from . import libc

#: Left alone: they cannot be caught, report a fault of this very process, or stop it for touching the terminal.
_NOT_CAUGHT = {
    *(signal.SIGKILL, signal.SIGSTOP),
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN),
}
#: What a key of the terminal sends, and a shell has its background ignore.
_TYPED = (signal.SIGINT, signal.SIGQUIT)
#: ``si_code`` of a signal that the kernel sent, as the terminal does (sigaction(2)).
_SI_KERNEL = 0x80
#: The first fields of struct signalfd_siginfo (signal, errno, code, pid), and its size (signalfd(2)).
_SIGINFO = struct.Struct("=IiiI")
_SIGINFO_SIZE = 128


class Received(NamedTuple):
    signum: int
    #: 0: the kernel, or a process outside our pid namespace.
    pid: int
    from_kernel: bool

    @property
    def sender(self) -> str:
        """Who sent it, for the log."""
        if self.from_kernel:
            return "the terminal"
        if self.pid == 0:
            return "outside this pid namespace"
        if self.pid == os.getpid():
            return "kforge-run itself"
        try:
            with open(f"/proc/{self.pid}/comm", encoding="utf-8", errors="replace") as comm:
                name = comm.read().strip()
        except OSError:
            name = "another user's process" if _is_anothers(self.pid) else "a process that has ended"
        return f"{name} (pid {self.pid})"


def _is_anothers(pid: int) -> bool:
    """Return whether a process lives that may not be signalled by us; /proc may hide it (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


class CapturedSignals:
    """Catches every signal from construction to the end of the process.

    They are never unblocked again: one that comes after the last decision (Slurm sends SIGTERM within milliseconds of
    a requeue) would kill kforge-run before it has told its exit status.
    """

    def __init__(self) -> None:
        caught = {signum for signum in signal.valid_signals() if signum not in _NOT_CAUGHT}
        # An ignored SIGCHLD (inherited) would have the kernel reap our children, and their exit statuses be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, caught)
        #: A script's background ignores what the keyboard sends. Blocked, it comes all the same.
        self._not_meant = {signum for signum in _TYPED if signal.getsignal(signum) is signal.SIG_IGN}
        self.fd = libc.signalfd(caught)

    def read(self) -> list[Received]:
        """Return what came since the last time, lowest signal number first."""
        try:
            block = os.read(self.fd, 64 * _SIGINFO_SIZE)
        except BlockingIOError:
            return []
        received = []
        for offset in range(0, len(block), _SIGINFO_SIZE):
            signum, _errno, code, pid = _SIGINFO.unpack_from(block, offset)
            if code != _SI_KERNEL or signum not in self._not_meant:
                received.append(Received(signum, pid, code == _SI_KERNEL))
        return received


def stop_as_asked() -> None:
    """Do what SIGTSTP does by default, which the signalfd kept from happening.

    The kernel decides whether it really stops us: it does not stop an orphaned process group (setpgid(2)).
    """
    if signal.SIGCONT in signal.sigpending():
        return  # stopped and continued meanwhile: our SIGTSTP would discard the SIGCONT, and nothing wake us again
    os.kill(os.getpid(), signal.SIGTSTP)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
