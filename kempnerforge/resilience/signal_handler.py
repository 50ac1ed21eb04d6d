"""Graceful shutdown: a flag that the training loop polls after each step, and a forced exit if the shutdown stalls.

Slurm sends SIGTERM to preempt or end a job, and SIGUSR1 where the job asked for an early notice (sbatch(1),
``--signal``). Under ``kforge-run`` a handler also learns why, and until when.
"""

from __future__ import annotations

import os
import threading
import time

from ..bootstrap.contract import CONTROL_VARIABLE
from ..bootstrap.page import POLLS, WORD
from . import process_guard
from .shutdown import Shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import TracebackType

    from .process_guard import ProcessGuard


class ShutdownHandler:
    """Cooperative shutdown handler for long-running training jobs.

    Register it before the training loop, and poll it after each step::

        handler = ShutdownHandler(timeout_sec=120)
        handler.register()

        for step in range(max_steps):
            train_step()
            if handler.should_shutdown():
                save_checkpoint()
                handler.finish()
                break

    A shutdown that takes longer than ``timeout_sec`` is ended by ``os._exit(1)`` with the stacks of all threads in the
    log, also while the main thread is stuck in a C call. What cannot be helped: a C call that holds the GIL from before
    the signal until after the end hides it, and only SIGKILL ends that. While a shutdown is under way,
    ``faulthandler.dump_traceback_later()`` is ours.

    A signal that comes while the main thread is in C is noticed at once through the process's wakeup fd, or through
    kforge-run. Without the latter, and with the wakeup fd in use (asyncio's ``add_signal_handler()``), it is noticed
    when the call returns.

    Forked children (data workers) do not inherit the handler: SIGTERM ends them, a stray SIGUSR1 does not.

    Below one kforge-run the ranks of a world (of torch.distributed, JAX, Horovod, MPI) stop at the same poll: none of
    them gets True before all have come to it. What has to hold for that: to reach its poll, no rank needs what another
    one does after its own. Ranks whose polls do not go with each other can count them themselves: ``step`` of
    :meth:`should_shutdown`.

    Args:
        timeout_sec: longest graceful shutdown, in seconds in which the process could run. 0: no forced exit. Under
            kforge-run the forced exit may fall earlier: always before kforge-run's own.
        world: a name for those that stop together, where no library knows them (a trainer and its actors). Empty: this
            process stops alone. None: as it is found out.

    Raises:
        ValueError: ``timeout_sec`` is negative or not a number.
    """

    def __init__(self, timeout_sec: float = 600.0, world: str | None = None) -> None:
        seconds = _seconds(timeout_sec, "timeout_sec")
        # Longer than Python's timers go (three centuries) is for ever.
        limited = 0 < seconds <= threading.TIMEOUT_MAX
        self._world = world
        self._rank = process_guard.rank
        self._shutdown = Shutdown(seconds if limited else None, self._rank)
        self._guard: ProcessGuard | None = None

    # --- what is known -------------------------------------------------------------------------------

    def should_shutdown(self, step: int | None = None) -> bool:
        """Return whether the training loop should save and stop. Call it after each step: it costs some 60 ns.

        With a notice, one of many ranks waits here for the others for a moment.

        Args:
            step: the number of the step that is done, which all ranks count alike; None: the polls are counted.

        Raises:
            ValueError: ``step`` is negative, or no whole number.
        """
        rank = self._rank
        if step is None:
            rank.polls += 1
        else:
            rank.count(step)
        line = rank.line
        line[POLLS] = rank.polls
        # The word comes after the poll is there to be seen: kforge-run writes and looks in the other order.
        if not line[WORD] and self._shutdown.quiet:
            return False
        if self._guard is not None:
            self._guard.pass_by()
            self._guard.meet(self._shutdown)
        return self._shutdown.poll()

    @property
    def shutdown_requested(self) -> bool:
        """Whether a notice has come. Stays so after :meth:`finish`, until the next :meth:`register`.

        Who sees True here has been told to stop, as by :meth:`should_shutdown`.
        """
        return self._shutdown.requested and self._shutdown.poll()

    @property
    def signal_received(self) -> signal.Signals | None:
        """The signal that triggered the shutdown, the first if there were several; None: there is no shutdown (yet)."""
        # One of many ranks may know of a notice before it is told to stop: who stops at this one would stop alone.
        signum = self._shutdown.signum if self._shutdown.requested else None
        self._shutdown.seen = self._shutdown.seen or signum is not None
        return signum

    @property
    def reason(self) -> str | None:
        """Why: kforge-run's reason (``time_limit``, ``preempted`` ...), ``launcher_lost`` if it was killed, or None."""
        return self._shutdown.reason

    def remaining(self) -> float | None:
        """Return the seconds left until the forced exit; None: there is none, or no shutdown is under way."""
        limit = self._shutdown.limit
        return None if limit is None else max(limit - time.monotonic(), 0.0)

    # --- registering ---------------------------------------------------------------------------------

    def register(self) -> None:
        """Handle SIGTERM and SIGUSR1, and register with kforge-run if it is there. Does nothing if registered already.

        Under kforge-run a notice that came earlier counts: :meth:`should_shutdown` then returns True at once.

        Raises:
            ValueError: not in the main thread (see ``signal.signal()``).
        """
        if not process_guard.in_main_thread():
            raise ValueError("ShutdownHandler.register() works in the main thread only: signal handlers are set there")
        if not self._is_registered():
            self._register()

    def _register(self) -> None:
        self._shutdown.reset()
        # The launcher signals whoever registers: first be able to take it.
        self._guard = process_guard.enter(self._shutdown, self._world)
        if CONTROL_VARIABLE in os.environ:
            _connect(self._shutdown, self._guard)

    def _register_in_thread(self) -> None:
        """Hear of a notice by kforge-run's message alone: so ranks that train in threads do (Ray's).

        Raises:
            ValueError: there is no kforge-run.
        """
        self._register()
        if self._shutdown.link is None:
            self._leave(finished=False)
            raise ValueError(
                "shutdown_handler must first be imported in the main thread: signal handlers are set there"
            )

    def unregister(self) -> None:
        """Restore what the signals did before :meth:`register`. Does nothing if not registered.

        A signal that came and was not seen yet, neither by a poll nor by another handler that is registered, now goes
        where it would have gone: to the handler that was there before, and where there was none it ends the process
        (under kforge-run it does not: that has the notice as well, and the last word).

        Where other code has changed it since, it stays as that left it (a C handler put over ours is not seen,
        though). Off the main thread Python restores no signals: then the next one does it, and goes where it
        would have gone.
        """
        self._leave(finished=False)

    def finish(self) -> None:
        """Call this when the graceful shutdown is complete: no forced exit any more, signals as before."""
        self._leave(finished=True)

    def __enter__(self) -> ShutdownHandler:
        self.register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unregister()

    def _is_registered(self) -> bool:
        return self._guard is not None and self._guard.looks_after(self._shutdown)

    def _leave(self, finished: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is None or not guard.looks_after(self._shutdown):
            return
        with guard.lock:
            link = self._shutdown.end()
            self._shutdown.seen = self._shutdown.seen or finished
        is_last = guard.is_alone(self._shutdown)
        if link is not None:
            if finished:
                link.finished()
            elif is_last:
                link.left()
            link.close()
        for signum in guard.remove(self._shutdown):
            process_guard.hand_on(signum, under_launcher=link is not None)

    # --- during a shutdown ---------------------------------------------------------------------------

    def ask_for_time(self, seconds: float) -> None:
        """Ask for more time to save, during a shutdown.

        Our own limit moves at once; kforge-run's when it agrees, up to the last moment that leaves room for the rest.

        Args:
            seconds: time needed, in seconds from now.

        Raises:
            ValueError: ``seconds`` is negative or not a number.
        """
        seconds = min(_seconds(seconds, "seconds"), threading.TIMEOUT_MAX)
        guard = self._guard
        if guard is None or not self._shutdown.requested:
            return
        with guard.lock:
            self._shutdown.extend(seconds)
            guard.limits_changed()
            link = self._shutdown.link
        if link is not None:
            link.more_time(seconds)

    def status(self, text: str) -> None:
        """Have kforge-run log a text (300 characters at most); nothing happens without it."""
        link = self._shutdown.link
        if link is not None:
            link.status(text)


def _connect(shutdown: Shutdown, guard: ProcessGuard) -> None:
    """Register with the launcher that the environment names, if it is there."""
    # Here, because json and socket cost 10 ms that a program without a launcher need not pay.
    from .launcher_link import Launcher, LauncherLink

    try:
        launcher = Launcher()
    except OSError:
        return  # a stale environment
    try:
        link = LauncherLink(launcher.connect(), guard.forced_exit.log)
        link.registered(shutdown.timeout)
        # Now, not earlier: a notice from now on comes as a message, and one from before is in the file.
        notice = launcher.notice()
    except OSError:
        return  # no kforge-run listens
    finally:
        launcher.close()
    with guard.lock:
        shutdown.link = link
        shutdown.quiet = False  # the first poll is reported
        if notice is not None:
            shutdown.note(notice.signal, notice.reason)
            shutdown.limit_by_launcher(notice.forced_exit_in)
        guard.limits_changed()


def _seconds(value: float, name: str) -> float:
    """Return the value as a float; strings are not numbers, numpy's are."""
    try:
        seconds = float(value + 0.0)
    except (TypeError, OverflowError):
        seconds = -1.0
    if not seconds >= 0:  # NaN is not
        raise ValueError(f"{name}: expected a number of seconds, 0 or more, got {value!r}")
    return seconds
