"""The shield of a multiprocessing helper: of all SIGTERMs only its parent's ends it, or a little later a grandparent's.

Slurm may send SIGTERM to every process of a job. A DataLoader worker dies of it, and its parent of that, before its
checkpoint. Ignoring it is no way out: terminate() would hang. Only sigwaitinfo(2) tells who has sent a signal, so a
thread takes SIGTERM, and every other one has it blocked.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys
from time import sleep

from .. import forks, proc
from . import notice, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How long an ancestor's SIGTERM waits (s): `timeout`, an ancestor too, may hand a notice on to its group. A guess.
_NOTICE_FOLLOWS = 1.0
#: The modules that fork multiprocessing's helpers.
_FORK_MODULES = ("multiprocessing.popen_fork", "multiprocessing.forkserver")


class _State:
    #: Who started this process, a fork server maybe, from which its helpers are forked.
    started_by = 0
    #: Who started the fork server that this process was forked from.
    server_started_by = 0
    #: Who is above it, and below kforge-run: they may end it as well, as psutil's recipes do.
    ancestors = ()  # type: tuple[int, ...]
    #: The thread that takes SIGTERM; 0: there is no shield.
    thread = 0
    #: This process was forked by multiprocessing.
    is_worker = False


#: An object: see notice.py.
_shield = _State()


def forked_by(module: "str | None") -> None:
    """Be shielded in a forked child if that is a helper."""
    was_shielded, _shield.thread = _shield.thread, 0
    _shield.server_started_by = _shield.started_by if module == "multiprocessing.forkserver" else 0
    _shield.is_worker = module in _FORK_MODULES
    if was_shielded:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
    shield_worker()


def shield_worker() -> None:
    """Shield this process if multiprocessing has forked it."""
    if _shield.is_worker:
        raise_shield()


def raise_shield() -> None:
    """Let no SIGTERM end this process but its parent's, unless it has a handler of its own."""
    ignore_strays()
    _shield.started_by = os.getppid()
    _shield.ancestors = tuple(notice.above())
    if _shield.thread or process.real_getsignal(_signal.SIGTERM) != _signal.SIG_DFL:
        return
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
    _shield.thread = signals.start_thread(_take_sigterms)
    if _shield.thread:
        _start_programs_unblocked()
    else:  # SIGTERM ends it, as without us
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def ignore_strays() -> None:
    """Let no SIGUSR1 end this process."""
    if process.real_getsignal(_signal.SIGUSR1) == _signal.SIG_DFL:
        process.real_signal(_signal.SIGUSR1, forks.ignore)


def lower_shield() -> None:
    """Let SIGTERM through to the program's own handler, which has just been installed (main thread only)."""
    thread, _shield.thread = _shield.thread, 0
    if thread:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
        _signal.pthread_kill(thread, _signal.SIGTERM)


def _take_sigterms() -> None:
    while True:
        sender = _signal.sigwaitinfo((_signal.SIGTERM,)).si_pid
        if sender == os.getpid() and not _shield.thread:
            return  # lowered
        if sender in (os.getpid(), os.getppid(), _shield.server_started_by):
            _end_as_asked()
        elif sender in _shield.ancestors:
            signals.start_thread(_end_later)


def _end_later() -> None:
    sleep(_NOTICE_FOLLOWS)
    if not notice.stands():
        _end_as_asked()


def _end_as_asked() -> None:
    if "torch" in sys.modules and _signal.SIGTERM in proc.signal_set("self", "SigCgt"):
        os._exit(0)  # as the C handler of a DataLoader worker does, which looks for the sender too
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
    signals.send_to_self(_signal.SIGTERM)


def _start_programs_unblocked() -> None:
    """Have programs started with SIGTERM unblocked: a mask is inherited across exec."""
    import _posixsubprocess

    for name in ("posix_spawn", "posix_spawnp"):
        setattr(os, name, _unblocking(getattr(os, name)))
    for name in ("execv", "execve"):
        setattr(os, name, _lowering(getattr(os, name)))

    real_fork_exec = _posixsubprocess.fork_exec

    def fork_exec(*arguments: "Any") -> "Any":
        if not _shield.thread:
            return real_fork_exec(*arguments)
        mask = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
        try:
            return real_fork_exec(*arguments)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)

    _posixsubprocess.fork_exec = fork_exec
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None and getattr(subprocess, "_fork_exec", None) is real_fork_exec:
        setattr(subprocess, "_fork_exec", fork_exec)  # noqa: B010 - typeshed does not know it


def _unblocking(spawn: "Any") -> "Any":
    """Return `os.posix_spawn()` with a signal mask that is not ours, unless the program gives one."""

    def function(*arguments: "Any", **options: "Any") -> "Any":
        if _shield.thread and "setsigmask" not in options:
            options["setsigmask"] = _signal.pthread_sigmask(_signal.SIG_BLOCK, ()) - {_signal.SIGTERM}
        return spawn(*arguments, **options)

    return function


def _lowering(execute: "Any") -> "Any":
    """Return `os.execv()` without the shield: what is executed looks after itself."""

    def function(*arguments: "Any") -> "Any":
        lower_shield()
        return execute(*arguments)

    return function
