"""What the policy wants to do later: the one place where a future time is kept."""

from __future__ import annotations

import enum


class Timer(enum.Enum):
    """What is due at a time, and what it does when it rings."""

    TERMINATE = "stacks are dumped, and everything below gets SIGTERM"
    KILL = "everything below gets SIGKILL"
    ABANDON = "what outlives SIGKILL is given up, and the run decided without it"
    PROGRESS = "the log says how much time is left"
    ASK = "the job's record is read"
    REPEAT_TO_SRUN = "a young srun that may have swallowed the notice gets it once more"
    REPEAT = "who has not acknowledged the notice gets it again"
    SEEK = "who is to be interrupted at another place than before gets the word at a moment that it does not choose"
    MEET = "the ranks are looked at that come together to stop at one step"
    LOOK = "the tree is looked at: whose turn it is may have changed"
    CONCLUDE = "the run is decided without the answer that Slurm owes"
    VERIFY = "an accepted requeue is taken for done, though Slurm has not confirmed it"


#: They count the time in which the child could run, so that a suspension moves them.
MOVED_BY_A_SUSPENSION = frozenset({Timer.TERMINATE, Timer.KILL, Timer.ABANDON, Timer.CONCLUDE})
#: They are about a child that may still save: nothing of it is left to do when the sweep begins.
OVER_WHEN_SWEPT = frozenset(
    {Timer.TERMINATE, Timer.PROGRESS, Timer.REPEAT_TO_SRUN, Timer.REPEAT, Timer.SEEK, Timer.MEET, Timer.LOOK}
)


class Timers:
    """When each timer rings (s, monotonic). One that is set anew rings only then."""

    def __init__(self) -> None:
        self._at: dict[Timer, float] = {}

    def __contains__(self, timer: Timer) -> bool:
        return timer in self._at

    def __getitem__(self, timer: Timer) -> float:
        return self._at[timer]

    @property
    def next(self) -> float | None:
        """When the first of them rings; None: none is set."""
        return min(self._at.values(), default=None)

    def set(self, timer: Timer, at: float) -> None:
        """Have a timer ring at a time, and at no other."""
        self._at[timer] = at

    def drop(self, timer: Timer) -> None:
        """Have a timer not ring, if it is set."""
        self._at.pop(timer, None)

    def in_order(self) -> list[Timer]:
        """Return all that are set, the next one first."""
        return sorted(self._at, key=self._at.__getitem__)

    def take(self, timer: Timer, now: float) -> bool:
        """Return whether a timer is due, and if so have it set no more."""
        if self._at.get(timer, now + 1) > now:
            return False
        del self._at[timer]
        return True

    def suspended(self, seconds: float, not_before: float) -> None:
        """Move what counts the child's own time.

        Args:
            seconds: for which nothing below us could run.
            not_before: when they may ring at the earliest (s, monotonic).
        """
        for timer in MOVED_BY_A_SUSPENSION & self._at.keys():
            self._at[timer] = max(self._at[timer] + seconds, not_before)

    def swept(self) -> None:
        """Drop what is over when the sweep begins."""
        for timer in OVER_WHEN_SWEPT:
            self.drop(timer)

    def decided(self) -> None:
        """Drop all: with the child and all below it gone, the decision sets its own."""
        self._at.clear()
