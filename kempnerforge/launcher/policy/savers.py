"""Who below may hold the run: what processes have told of themselves, and whether any of them still saves."""

from __future__ import annotations

from . import facts
from .tables import Cooperation
from .words import Action, Armed, Delivered, Finished, Gone, Identity, Polled, Registered


class Savers:
    """All processes below that are armed, or have a handler of ours.

    Attributes:
        cooperation: what those with a handler reported.
        first_poll: when one was first told to stop by its poll (s, monotonic); None: not yet.
        finish: when the first one had saved (s, monotonic); None: not yet.
    """

    def __init__(self) -> None:
        self.cooperation = Cooperation()
        self.first_poll: float | None = None
        self.finish: float | None = None
        #: How many handlers are registered and neither finished nor gone. An armed process counts from when it got the
        #: notice until it is gone.
        self._saving: dict[Identity, int] = {}
        #: Armed and not gone.
        self._armed: set[Identity] = set()

    @property
    def saving(self) -> tuple[Identity, ...]:
        """Who may still save."""
        return tuple(self._saving)

    @property
    def armed(self) -> bool:
        """Whether anybody is armed who lives."""
        return bool(self._armed)

    def appeared(self, event: Armed | Registered) -> list[Action]:
        """Count a process that could be told."""
        pid, program = event.who.pid, event.program
        if isinstance(event, Armed):
            self._armed.add(event.who)
            return [facts.Armed(pid, program)]
        self._saving[event.who] = self._saving.get(event.who, 0) + 1
        if not event.is_launcher:
            self.cooperation = self.cooperation._replace(registered=True)
        return [facts.Registered(pid, program, event.timeout, event.is_launcher)]

    def told(self, event: Delivered) -> None:
        """Count the armed processes that got the notice: what they do now may be the save."""
        for who in event.armed:
            self._saving[who] = self._saving.get(who, 0) + 1

    def polled(self, event: Polled, now: float, after: float | None) -> list[Action]:
        """Note a poll.

        Args:
            after: how long after the notice (s); None: there is none.
        """
        seen = self.cooperation
        self.cooperation = seen._replace(polled=True, stop_polled=seen.stop_polled or event.stop)
        first = event.stop and self.first_poll is None
        if first:
            self.first_poll = now
        return [facts.Polled(event.who.pid, event.stop, first, after)]

    def finished(self, event: Finished, now: float, after: float | None) -> list[Action]:
        """Note that a process has saved."""
        self._saves_no_more(event.who)
        self.cooperation = self.cooperation._replace(finished=True)
        self.finish = self.finish or now
        return [facts.Finished(event.who.pid, after)]

    def gone(self, event: Gone) -> None:
        """Note that a process has ended, or its handler is unregistered."""
        self._armed.discard(event.who)
        self._saves_no_more(event.who)

    def _saves_no_more(self, who: Identity) -> None:
        """Count one handler, or one armed process that had the notice, less."""
        self._saving[who] = self._saving.get(who, 0) - 1
        if self._saving[who] <= 0:
            del self._saving[who]

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self.first_poll = None if self.first_poll is None else self.first_poll + seconds
        self.finish = None if self.finish is None else self.finish + seconds
