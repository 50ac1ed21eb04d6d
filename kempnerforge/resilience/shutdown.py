"""What one handler knows of its shutdown. No signals, threads or descriptors here.

The watcher thread and a signal handler change it under the guard's lock; the training loop reads it without.
"""

from __future__ import annotations

import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .launcher_link import LauncherLink
    from .rank import Rank


class Shutdown:
    """The notice, if there is one, and when the forced exit falls. All times in seconds, monotonic."""

    def __init__(self, timeout: float | None, rank: Rank) -> None:
        #: Longest shutdown (s); None: no forced exit.
        self.timeout = timeout
        #: This process among those that stop together.
        self.rank = rank
        self.reset()

    def reset(self) -> None:
        """Know nothing."""
        #: The launcher, as long as it lives; None: there is none.
        self.link: LauncherLink | None = None
        #: A poll returns False and has nothing to report.
        self.quiet = True
        self.noticed = False
        self.signum: signal.Signals | None = None
        self.reason: str | None = None
        self.began = 0.0
        #: The forced exit by ``timeout``, and by the launcher; None: there is none.
        self.own_limit: float | None = None
        self.launcher_limit: float | None = None
        #: The program knows that it is to stop, and what comes from now on repeats it.
        self.seen = False
        #: The signals that came and that no other handler got, in their order.
        self.came: list[int] = []
        self._reported: bool | None = None

    @property
    def requested(self) -> bool:
        """Whether to stop: at the notice, and one of many ranks when all have come to where they stop together."""
        return self.noticed and (self.rank.stopped or not self.rank.agrees)

    @property
    def noticed_at(self) -> float | None:
        """Since when there is a notice (s, monotonic); None: there is none."""
        return self.began if self.noticed else None

    @property
    def limit(self) -> float | None:
        """When the forced exit falls; None: never."""
        return min((at for at in (self.own_limit, self.launcher_limit) if at is not None), default=None)

    @property
    def launcher_limits(self) -> bool:
        """Whether the launcher set the limit, and lives to see to it."""
        return self.link is not None and self.launcher_limit is not None and self.launcher_limit == self.limit

    def take(self, signum: int) -> None:
        """Note a signal that no other handler gets."""
        self.note(signum)
        if signum not in self.came:
            self.came.append(signum)

    @property
    def unseen(self) -> list[int]:
        """The signals of which the program does not know."""
        return [] if self.seen else self.came

    def note(self, signum: int, reason: str | None = None) -> None:
        """Note a notice. Later ones belong to the first: they may tell the reason, and restart nothing.

        Raises:
            ValueError: there is no such signal.
        """
        if not self.noticed:
            self.signum = signal.Signals(signum)
            self.began = time.monotonic()
            self.own_limit = None if self.timeout is None else self.began + self.timeout
            self.noticed = True
        if reason is not None:
            self.reason = reason
        self.quiet = False  # after `noticed`: see poll()

    def limit_by_launcher(self, seconds: float | None) -> None:
        """Have the launcher's limit fall in so many seconds; None: it sets none. A handler without one stays so."""
        limited = seconds is not None and self.timeout is not None
        self.launcher_limit = time.monotonic() + max(seconds or 0.0, 0.0) if limited else None

    def lose_launcher(self) -> None:
        """The launcher was killed: nothing else will tell us when to stop, so save now."""
        self.link = None
        self.rank.launcher_lost = True
        if not self.noticed:
            self.note(signal.SIGTERM, "launcher_lost")

    def extend(self, seconds: float) -> None:
        """Move our own limit to at least so many seconds from now."""
        if self.own_limit is not None:
            self.own_limit = max(self.own_limit, time.monotonic() + seconds)

    def discount(self, seconds: float) -> None:
        """Do not count these seconds: the process was stopped."""
        self.began += seconds
        if self.own_limit is not None:
            self.own_limit += seconds
        if self.launcher_limit is not None:
            self.launcher_limit += seconds

    def end(self) -> LauncherLink | None:
        """End here: there is nothing left to be forced. Return the launcher, to take leave of it."""
        link, self.link = self.link, None
        self.own_limit = self.launcher_limit = None
        return link

    def poll(self) -> bool:
        """Return whether to stop; the first poll and the first True one are reported to the launcher."""
        # In this order: a notice that comes in between sets `noticed` first and then `quiet` to False, so it is
        # either seen here or makes the next poll come here again.
        self.quiet = not self.rank.is_looking
        if self.noticed:
            self.quiet = False
        stop = self.requested
        self.seen = self.seen or stop
        if stop is not self._reported:
            self._reported = stop
            link = self.link
            if link is not None:
                link.polled(stop)
        return stop
