"""How long kforge-run was stopped, and with it all below: by scontrol suspend, a preemption that suspends, Ctrl-Z.

Nothing tells when a SIGSTOP came. Slurm sends SIGTSTP before it, but SIGCONT discards one that was not read yet: then a
stop is seen by what it adds to the time that we wanted to sleep.
"""

from __future__ import annotations

import signal
import time

from .signals import stop_as_asked

#: During a shutdown we wake so often (s): what a stop adds is seen only where it is more than that. A guess.
HEARTBEAT = 0.25


class Stops:
    """Watches the clock."""

    def __init__(self) -> None:
        self._looked_at = self._slept_from = time.monotonic()
        #: How much more time has gone by than is our own doing (s), since the last signal was handled.
        self._missed = 0.0
        #: When we stopped ourselves, as a SIGTSTP asked; None: we did not.
        self._asked_at: float | None = None

    def before_sleep(self) -> float:
        """Return the time."""
        self._slept_from = self._look(0.0)
        return self._slept_from

    def after_sleep(self, allowed: float) -> None:
        """Note what a stop has added.

        Args:
            allowed: how long we may have slept (s).
        """
        self._look(allowed)

    def _look(self, allowed: float) -> float:
        now = time.monotonic()
        missed = now - self._looked_at - max(allowed, 0.0)
        if missed > HEARTBEAT:
            self._missed += missed
        self._looked_at = now
        return now

    def continued(self) -> float:
        """Return for how long we have been stopped until now (s)."""
        now = self._look(0.0)
        asked, self._asked_at = self._asked_at, None
        missed, self._missed = self._missed, 0.0
        return missed if asked is None else max(missed, now - max(asked, self._slept_from))

    def stop(self) -> bool:
        """Stop, as a SIGTSTP asks; return whether we were stopped once before, and nothing else will tell."""
        self._asked_at = time.monotonic()
        stop_as_asked()
        # Stopped just before our own SIGTSTP, which has discarded the SIGCONT.
        return time.monotonic() - self._asked_at > HEARTBEAT and signal.SIGCONT not in signal.sigpending()

    def none_is_left(self) -> None:
        """Forget what was missed: a stop leaves a SIGCONT to be read, and without one we were only slow."""
        self._missed = 0.0
