"""The one guard of the process: it owns the signals, the wakeup fd, the watcher thread and what happens at a fork.

A notice can come in by three roads, and each fails where another works:

- the Python signal handler: exact, but runs only when the main thread is back from C;
- the wakeup fd, which the watcher thread reads: also while the main thread is in C, as long as that has released the
  GIL; but the process has only one, and asyncio takes it too;
- the launcher's socket, which the watcher reads as well: needs neither, but a launcher.

All of them are idempotent, so the same notice may come in by each.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

from ..bootstrap import forks
from . import injected
from .descriptors import NONE, Owned, above_stdio, out_of_the_way
from .dispositions import Displaced
from .forced_exit import ForcedExit
from .rank import Rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from .shutdown import Shutdown

#: SIGTERM: Slurm's and everybody's request to end. SIGUSR1: Slurm's --signal before the time limit.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

#: How long the watcher sleeps at most during a shutdown (s), and how late it has to wake up to have been stopped.
#: Guesses.
_SLICE = 0.5
_STOPPED = 0.5

_guard: ProcessGuard | None = None
#: This process among many: for all handlers, and also for those to come.
rank = Rank()
#: What each signal did before it became ours. Outlives the guard: see _on_signal().
_displaced: dict[int, Displaced] = {}
#: While a thread forks.
_held = forks.HeldSignals()
_fork_hooks_installed = False


def enter(shutdown: Shutdown, world: str | None) -> ProcessGuard:
    """Have the guard, there or new, look after this shutdown too; off the main thread without any signal.

    Args:
        world: with whom this process stops together (`Rank.begin`).
    """
    global _guard, _fork_hooks_installed  # noqa: PLW0603 - one per process is the point
    if not _fork_hooks_installed:
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
        _fork_hooks_installed = True
        forks.at_end(_take_leave)
    if _guard is None:
        _guard = ProcessGuard()
        rank.begin(world)
    elif world is not None:
        rank.is_of(world)
    pending = injected.take_pending()
    _guard.add(shutdown)
    if pending:
        _guard.take(pending)
    return _guard


def hand_on(signum: int, under_launcher: bool) -> None:
    """Send a signal that no poll has seen to where it would have gone without us."""
    # kforge-run signals whoever is registered, and would have left a program alone that dies of it. It has the notice,
    # also where Slurm sent that to all processes, and ends what does not end by itself.
    if not (under_launcher and _displaced[signum].kills):
        os.kill(os.getpid(), signum)  # off the main thread _on_signal() goes on from here


def in_main_thread() -> bool:
    """Return whether this thread may touch signal handlers."""
    return threading.current_thread() is threading.main_thread()


class ProcessGuard:
    """There is one while a handler is registered."""

    def __init__(self) -> None:
        #: Held for moments only, and never across a fork. Reentrant: a signal handler may interrupt its holder.
        self.lock = threading.RLock()
        self.forced_exit = ForcedExit()
        self._shutdowns: list[Shutdown] = []
        self._forks = 0
        self._closed = False
        self._reader = self._writer = Owned(NONE)
        #: The process's, if it is ours. The program may have closed it: then it is set again when a poll or a signal
        #: comes by, because that works in the main thread only.
        self._wakeup_fd = NONE
        self._main_clock = time.pthread_getcpuclockid(threading.main_thread().ident or threading.get_ident())
        #: None: the surroundings allow no thread, or no descriptor. Then the main thread alone takes signals, and
        #: kforge-run alone enforces the limit.
        self._watcher: threading.Thread | None = None
        try:
            self._start_watcher()
        except (OSError, RuntimeError) as error:
            self._reader.close()
            self._writer.close()
            self.forced_exit.say(f"{error}: no forced exit here, the rest works")

    def _open_pipe(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Python itself writes to the one, whatever has its number by then.
        self._reader, self._writer = Owned(above_stdio(reader)), Owned(out_of_the_way(writer))

    def _start_watcher(self) -> None:
        self._open_pipe()
        watcher = threading.Thread(target=self._watch, name="kempnerforge-watcher", daemon=True)
        # A thread inherits the mask. The kernel must not hand a signal to this one: a system call of the main thread
        # would go on uninterrupted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            watcher.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._watcher = watcher

    # --- in the main thread --------------------------------------------------------------------------

    def add(self, shutdown: Shutdown) -> None:
        """Look after this shutdown too."""
        self._shutdowns.append(shutdown)
        if not in_main_thread():
            injected.hear_by_message()
            return
        self._take_wakeup_fd()
        for signum in SIGNALS:
            if signal.getsignal(signum) is not _on_signal:
                _displaced[signum] = Displaced(signum)
                _displaced[signum].take(_on_signal)

    def remove(self, shutdown: Shutdown) -> list[int]:
        """Look after this shutdown no more; with the last one, leave no trace. Return the signals that no poll saw.

        Off the main thread, where no signal can be touched, the traces stay until a signal comes or a handler
        is registered or unregistered in the main thread.
        """
        last = in_main_thread() and self.is_alone(shutdown)
        if last:
            # First, so that a signal which came before is noted: signal.signal() runs the handlers that are due.
            self._put_back_signals()
        with self.lock:
            self._shutdowns.remove(shutdown)
            for other in self._shutdowns:
                if shutdown.seen:
                    other.came.clear()
                for signum in shutdown.unseen:
                    other.take(signum)
            unseen = [] if self._shutdowns else shutdown.unseen
            self.limits_changed()
        if last:
            self.close()
        return unseen

    def close(self) -> None:
        """Leave no trace (main thread only)."""
        global _guard  # noqa: PLW0603
        self._put_back_signals()
        if self._closed:
            return  # by a signal that was due, just now
        # Before the watcher closes the pipe, or signals would be written to whatever gets its number next.
        self._return_wakeup_fd()
        _guard = None
        with self.lock:
            self._closed = True
            self.forced_exit.close()
            self._poke()
        if self._watcher is not None:
            # Bounded: we may be inside a signal handler that interrupted a holder of the lock.
            self._watcher.join(1.0)

    def _put_back_signals(self) -> None:
        for signum in SIGNALS:
            # Anything else was put there after us, and is not ours.
            if signal.getsignal(signum) is _on_signal:
                _displaced[signum].put_back()

    def _take_wakeup_fd(self) -> None:
        if self._watcher is None:
            return  # the watcher reads it, and there is none
        there = injected.set_wakeup_fd(self._writer.fd, warn_on_full_buffer=False)
        if there not in (-1, self._writer.fd, self._wakeup_fd):
            _set_wakeup_fd(there)
        self._wakeup_fd = self._writer.fd

    def _return_wakeup_fd(self) -> None:
        if self._watcher is None:
            return
        there = injected.set_wakeup_fd(-1)
        if there not in (-1, self._writer.fd, self._wakeup_fd):
            _set_wakeup_fd(there)

    def pass_by(self) -> None:
        """Do what only the main thread can: have Python write to the watcher's pipe, if that is another one now."""
        if self._wakeup_fd != self._writer.fd and not self._closed and in_main_thread():
            self._take_wakeup_fd()

    # --- in any thread -------------------------------------------------------------------------------

    @property
    def is_needed(self) -> bool:
        """Whether anybody is registered."""
        return bool(self._shutdowns)

    def is_alone(self, shutdown: Shutdown) -> bool:
        """Return whether no other one is registered."""
        return all(one is shutdown for one in self._shutdowns)

    def take_leave(self) -> None:
        """Say that this process comes to its end by itself: its ranks need not wait for it."""
        for shutdown in self._shutdowns:
            if shutdown.link is not None:
                shutdown.link.left()

    def meet(self, shutdown: Shutdown) -> None:
        """Have this rank meet the others of its world, if there is a notice."""
        rank.arrive(shutdown.noticed_at, shutdown.link)
        if rank.stopped and not shutdown.noticed:
            # The word in the page is quicker than the message and the signal.
            with self.lock:
                self._read_links()
                shutdown.note(signal.SIGTERM)

    def looks_after(self, shutdown: Shutdown) -> bool:
        """Return whether this one is registered."""
        return any(one is shutdown for one in self._shutdowns)

    def note(self, signum: int) -> None:
        """Note a signal that another handler has got as well."""
        with self.lock:
            for shutdown in self._shutdowns:
                shutdown.note(signum)
            self.limits_changed()

    def take(self, signum: int) -> None:
        """Note a signal that no other handler gets."""
        with self.lock:
            for shutdown in self._shutdowns:
                shutdown.take(signum)
            self.limits_changed()

    def limits_changed(self) -> None:
        """Move the forced exit to where it now belongs."""
        with self.lock:
            self._rearm()
            self._poke()

    def _rearm(self) -> None:
        limited = [shutdown for shutdown in self._shutdowns if shutdown.limit is not None]
        if limited:
            first = min(limited, key=_limit)
            # No C timer during a fork: in the child its thread is gone and its lock is held, and the child would hang
            # at its end, when Python cancels it (seen on 3.8 to 3.13).
            self.forced_exit.arm(_limit(first), backstop=not first.launcher_limits and not self._forks)
        else:
            self.forced_exit.disarm()

    def _poke(self) -> None:
        """Have the watcher look around."""
        try:
            if self._writer.is_ours:
                os.write(self._writer.fd, b"\0")
        except OSError:
            pass  # full: it is going to

    # --- at a fork -----------------------------------------------------------------------------------

    def pause(self, forks: int) -> None:
        """Do without the C timer while a fork is under way: +1 before, -1 after."""
        with self.lock:
            self._forks += forks
            self._rearm()

    def abandon(self) -> None:
        """In a forked child: be what the process was before us, and leave what is the parent's alone."""
        for signum in SIGNALS:
            if signal.getsignal(signum) is _on_signal:
                displaced = _displaced[signum]
                displaced.put_back()
                if signum == signal.SIGUSR1 and displaced.is_default:
                    signal.signal(signum, forks.ignore)
        self._return_wakeup_fd()
        self._reader.close()
        self._writer.close()
        self.forced_exit.abandon()
        for shutdown in self._shutdowns:
            if shutdown.link is not None:
                # Else the connection would live as long as the child, and the launcher would take us for alive.
                shutdown.link.close()
            shutdown.reset()
        rank.forget()
        self._shutdowns.clear()

    # --- the watcher thread --------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            poller = select.poll()
            with self.lock:
                if self._closed:
                    break
                try:
                    self._mend()
                except OSError:
                    return  # no descriptor can be had here
                poller.register(self._reader.fd, select.POLLIN)
                for shutdown in self._shutdowns:
                    if shutdown.link is not None and shutdown.link.is_ours:
                        poller.register(shutdown.link, select.POLLIN)
                exit_at = self.forced_exit.at
            # No wake-up at all without a shutdown, and slices during one: a stop can only be seen by what it adds.
            # The main thread's own work is not a stop: it may have kept the GIL. Its clock is read first and last, so
            # that work done between two lines here is not taken for a stop either.
            worked = time.clock_gettime(self._main_clock)
            started = time.monotonic()
            wait = None if exit_at is None else min(max(exit_at - started, 0.0), _SLICE)
            poller.poll(None if wait is None else wait * 1000)
            passed = time.monotonic() - started
            worked = time.clock_gettime(self._main_clock) - worked
            with self.lock:
                if self._closed:
                    break
                if wait is not None:
                    self._discount(passed - max(wait, worked))
                self._read_signals()
                self._read_links()
                self._exit_if_due()
        self._reader.close()
        self._writer.close()

    def _mend(self) -> None:
        """Have our descriptors again, where a program has closed all that it does not know.

        By that it has closed both ends of the pipe, which wakes us up, or one, and then we see it the next time.

        Raises:
            OSError: none can be had.
        """
        if not (self._reader.is_ours and self._writer.is_ours):
            self._reader.close()
            self._writer.close()
            self._open_pipe()
            for shutdown in self._shutdowns:
                shutdown.quiet = False  # so that the next poll passes by
        if self.forced_exit.mend():
            self._rearm()
        for shutdown in self._shutdowns:
            if shutdown.link is not None:
                # Who mends it just now may be in a signal handler that waits for the lock.
                shutdown.link.mend(self.forced_exit.log, wait=False)

    def _discount(self, late: float) -> None:
        if late > _STOPPED:
            for shutdown in self._shutdowns:
                shutdown.discount(late)
            self._rearm()

    def _read_signals(self) -> None:
        """Note the signals that came."""
        try:
            came = os.read(self._reader.fd, 4096) if self._reader.is_ours else b""
        except OSError:
            return  # there are none; or the program has closed it this very moment
        for signum in SIGNALS:
            # If it is not ours any more, it is not meant for us either.
            if signum in came and signal.getsignal(signum) is _on_signal:
                # Not taken: _on_signal() is going to be called for it, too.
                for shutdown in self._shutdowns:
                    shutdown.note(signum)
                self._rearm()

    def _read_links(self) -> None:
        for shutdown in self._shutdowns:
            if shutdown.link is None:
                continue
            try:
                for notice in shutdown.link.receive(rank.adopt):
                    shutdown.note(notice.signal, notice.reason)
                    shutdown.limit_by_launcher(notice.forced_exit_in)
                    self._rearm()
            except EOFError:
                shutdown.lose_launcher()
                self._rearm()

    def _exit_if_due(self) -> None:
        for shutdown in self._shutdowns:
            limit = shutdown.limit
            if limit is not None and limit <= time.monotonic():
                if shutdown.link is not None:
                    shutdown.link.forced_exit()
                self.forced_exit.exit(limit - shutdown.began)


def _limit(shutdown: Shutdown) -> float:
    limit = shutdown.limit
    assert limit is not None
    return limit


def _set_wakeup_fd(fd: int) -> None:
    """Put a wakeup fd back. Whether it warned of a full buffer cannot be read; the default, as asyncio's, does."""
    try:
        injected.set_wakeup_fd(fd)
    except (OSError, ValueError):
        pass  # its owner has closed it


# --- the end -------------------------------------------------------------------------------------------


def _take_leave() -> None:
    # A process that has failed is missed by the others, and does not take leave.
    if _guard is not None and getattr(sys, "last_value", None) is None:
        _guard.take_leave()


# --- signal handlers ---------------------------------------------------------------------------------


def _on_signal(signum: int, frame: FrameType | None) -> None:
    guard = _guard
    is_installed = signal.getsignal(signum) is _on_signal
    if guard is not None and guard.is_needed:
        guard.pass_by()
        if is_installed:
            guard.take(signum)
        else:
            guard.note(signum)  # whoever has taken our place, and calls us from there, has it
        return
    # No handler is registered: the last one left off the main thread, or one that had taken our place has put us back
    # since, or calls us. The signal belongs to whom we displaced.
    if guard is not None:
        guard.close()
    if signal.getsignal(signum) is _on_signal:
        _displaced[signum].put_back()
    if is_installed:
        os.kill(os.getpid(), signum)
    else:
        _displaced[signum].call(signum, frame)


# --- fork hooks --------------------------------------------------------------------------------------
# See bootstrap/forks.py.


def _before_fork() -> None:
    guard = _guard
    if guard is not None:
        _held.hold([signum for signum in SIGNALS if signal.getsignal(signum) is _on_signal])
        guard.pause(+1)


def _after_fork() -> None:
    if _held.are_there():
        try:
            if _guard is not None:
                _guard.pause(-1)
        finally:
            _held.let_in()


def _after_fork_in_child() -> None:
    global _guard
    mask = _held.forget()
    if _guard is not None:
        guard, _guard = _guard, None
        guard.abandon()
    if not forks.let_in_child(mask):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    if mask is not None:
        injected.shield_worker()
