"""The forced exit: after too long a shutdown every thread's stack goes into the log, and the process ends.

Two mechanisms, because no single one is enough. Python code (the watcher thread) says clearly what happens, but does
not run while a C call holds the GIL. The C timer of ``faulthandler`` needs no GIL, but is the only one of the process
(the program may take it over), and its clock goes on while the process is stopped. So the watcher acts first, and the
C timer is the backstop, a moment later.
"""

from __future__ import annotations

import faulthandler
import os
import select
import time

from .descriptors import NONE, Owned, file_of, open_log, open_null, open_without_blocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: The C timer comes this much after the watcher (s), or this part of the time left, whichever is less. Guesses.
_BACKSTOP_GAP, _BACKSTOP_SHARE = 0.5, 0.05
#: How long the log may take to accept the stacks (s). A pipe that nobody reads accepts nothing. A guess.
_PATIENCE = 0.5


class ForcedExit:
    """When the process has to end, and how. One per process, like the timer it uses."""

    def __init__(self) -> None:
        #: The log, for what may block or is written with care, and for what must not block.
        self._log = Owned(open_log())
        self._never_blocking = Owned(open_without_blocking(self.log))
        self._stderr = file_of(2)
        #: When the process ends (s, monotonic); None: it does not.
        self.at: float | None = None
        self._timer_runs = False

    @property
    def log(self) -> int:
        """A descriptor for the log."""
        return self._log.fd

    def mend(self) -> bool:
        """Have descriptors of our own again, if the program has closed them; return whether it had."""
        if self._log.is_ours and self._never_blocking.is_ours:
            return False
        self.abandon()
        # It may have opened a checkpoint as 2.
        self._log = Owned(open_log() if file_of(2) == self._stderr else open_null())
        self._never_blocking = Owned(open_without_blocking(self.log))
        return True

    def arm(self, at: float, backstop: bool) -> None:
        """End the process at a time (s, monotonic).

        Args:
            backstop: whether to arm the C timer too. After a stop that outlasts it (scontrol suspend, Ctrl-Z), it
                fires before anybody can move it, and kills a save that had time left. Without a launcher that is the
                lesser evil: a process hung in C would otherwise never end. Where the launcher sets the limit, it is the
                backstop, and counts stops.
        """
        self.at = at
        if backstop:
            left = max(at - time.monotonic(), 0.05)
            gap = min(_BACKSTOP_GAP, left * _BACKSTOP_SHARE)
            try:
                faulthandler.dump_traceback_later(left + gap, exit=True, file=self._never_blocking.fd)
                self._timer_runs = True
            except (RuntimeError, ValueError):
                self._timer_runs = False  # no thread, or no descriptor, can be had here
        else:
            self._stop_timer()

    def disarm(self) -> None:
        """Do not end the process."""
        self.at = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        # Only if it is ours: the program may use it too. This waits for the timer's thread with the GIL held, also for
        # one that is writing stacks; that is why it writes where nothing blocks.
        if self._timer_runs:
            self._timer_runs = False
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Leave no timer and no descriptor."""
        self.disarm()
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors, in a forked child: the timer is its parent's."""
        self._log.close()
        self._never_blocking.close()

    def say(self, text: str) -> None:
        """Write a line into the log, if that takes it."""
        self.mend()
        _write(self.log, f"kempnerforge: {text}\n".encode(), 0.0)

    def exit(self, allowed: float) -> NoReturn:
        """Say why, with the stacks of all threads, and end the process with status 1.

        Args:
            allowed: how long the shutdown was allowed to take (s).
        """
        try:
            self.mend()
            # Ends us even if something below blocks against all reason.
            faulthandler.dump_traceback_later(2 * _PATIENCE, exit=True, file=self._never_blocking.fd)
            took = f"graceful shutdown took longer than {round(allowed, 1):g} s"
            line = f"kempnerforge: {took}: forced exit, stacks of all threads follow\n"
            _write(self.log, line.encode() + _stacks(), _PATIENCE)
        finally:
            os._exit(1)


def _stacks() -> bytes:
    """Return the stacks of all threads, taken through a pipe because ``faulthandler`` writes to descriptors only."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    faulthandler.dump_traceback(file=writer, all_threads=True)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


def _write(fd: int, data: bytes, patience: float) -> None:
    """Write for at most ``patience`` seconds: a pipe that polls writable takes PIPE_BUF bytes without blocking."""
    if fd == NONE:
        return
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    end = time.monotonic() + patience
    while data and poller.poll(max(end - time.monotonic(), 0.0) * 1000):
        data = data[os.write(fd, data[: select.PIPE_BUF]) :]
