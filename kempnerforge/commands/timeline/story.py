"""What a journal means: when the run trained, when it waited, and how each of its shutdowns went."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...launcher.policy.tables import RUNNING_STATES, WAITING_STATES
from ..journals import Attempt, Journal, Stage

#: How the last attempt stands. `open`: it has no end, and Slurm could not be asked: it runs, or was killed.
#: `lost`: it has no end, and runs no more. `requeued`: it will run again, as far as the journal knows.
Standing = Literal["over", "requeued", "waiting", "running", "ending", "lost", "open"]

#: What is done before the notice has come to kforge-run belongs to it all the same: Slurm signals every process (s).
#: A guess.
_MOMENT_BEFORE = 2.0


class Shutdown(NamedTuple):
    """The moments of a shutdown, in seconds after the notice, without suspensions."""

    signal: str
    #: None: it did not come to that, or no process reported it.
    first_poll: float | None
    finish: float | None
    exit: float | None
    requeued: float | None
    #: When Slurm would have killed it.
    deadline: float | None
    #: From the very end to the deadline (s).
    slack: float | None
    stages: tuple[Stage, ...]
    #: The last that was heard.
    end: float


class Row(NamedTuple):
    """One attempt in the whole of the run."""

    attempt: Attempt
    standing: Standing
    #: Its end (s, epoch), or how far it is known.
    until: float
    #: How long it ran, without suspensions (s); None: its end is not known.
    ran: float | None
    #: From the end of the attempts before it to its start (s); None: it is the first, or their end is not known.
    waited: float | None
    #: The same, where that end is not known: training and waiting, how much of either is not known (s).
    unaccounted: float | None
    shutdown: Shutdown | None

    @property
    def forced(self) -> bool:
        """Whether kforge-run had to kill it."""
        return self.attempt.outcome == "forced" or any(stage.stage == "kill" for stage in self.attempt.stages)


class Extreme(NamedTuple):
    """A figure, and the attempt that it is from."""

    seconds: float
    number: int


class Totals(NamedTuple):
    """The sums over all attempts (s)."""

    ran: float
    waited: float
    unaccounted: float
    #: From the first start to the last end.
    span: float
    longest_shutdown: Extreme | None
    least_slack: Extreme | None
    forced: int
    without_progress: int


class Story(NamedTuple):
    """A job, or one task of its steps, over all attempts."""

    journal: Journal
    rows: tuple[Row, ...]
    totals: Totals
    #: The attempts of an older job of the same number, which are left out.
    older: int
    #: The job's state as Slurm says it now; None: it was not asked, or does not know the job any more.
    slurm_state: str | None

    @property
    def last(self) -> Row:
        """The latest attempt."""
        return self.rows[-1]

    @property
    def label(self) -> str:
        """What a user calls the job: an array's task by the array's number, and by its own within it."""
        array_task = self.last.attempt.array_task
        return array_task if array_task and not self.journal.task else self.journal.label

    @property
    def title(self) -> str:
        """The same, as a heading."""
        return f"job {self.label}" if self.journal.job else self.label

    @property
    def name(self) -> str:
        """The job's name, as its latest attempt had it."""
        return next((row.attempt.name for row in reversed(self.rows) if row.attempt.name), "")

    @property
    def command(self) -> list[str]:
        """What was run, as its latest attempt had it."""
        return next((row.attempt.command for row in reversed(self.rows) if row.attempt.command), [])


def may_go_on(journal: Journal) -> bool:
    """Return whether the journal alone does not tell how the job stands, and its state in Slurm does."""
    attempts = journal.of_this_job
    if not attempts or attempts[-1].place not in ("batch", ""):
        return False  # a step, or what runs in an allocation, may have ended long before its job
    return _standing(attempts[-1], None) in ("open", "requeued")


def tell(journal: Journal, now: float, slurm_state: str | None = None) -> Story | None:
    """Return what happened to a job; None: its journal tells of no attempt.

    Args:
        journal: what was written.
        now: the time (s, epoch).
        slurm_state: the job's state as Slurm says it now; None: unknown.
    """
    attempts = journal.of_this_job
    if not attempts:
        return None
    rows: list[Row] = []
    ended = attempts[0].started
    known = True
    for attempt in attempts:
        last = attempt is attempts[-1]
        standing = _standing(attempt, slurm_state) if last else "over" if attempt.end_time is not None else "lost"
        row = _row(attempt, standing, now)
        if rows:
            gap = max(attempt.started - ended, 0.0)
            row = row._replace(waited=gap) if known else row._replace(unaccounted=gap)
        rows.append(row)
        # Several may run at once, and clocks are set back: time is counted once.
        if row.until >= ended:
            ended, known = row.until, row.standing != "lost"
    older = len(journal.attempts) - len(attempts)
    return Story(journal, tuple(rows), _totals(rows), older, slurm_state)


def _standing(attempt: Attempt, slurm_state: str | None) -> Standing:
    """Return how the last attempt stands."""
    if attempt.end_time is not None:
        if not attempt.runs_again:
            return "over"
        if slurm_state in WAITING_STATES:
            return "waiting"
        # Slurm still cleans up, or has started it again and nothing is written yet.
        return "requeued" if slurm_state is None or slurm_state in {*RUNNING_STATES, "COMPLETING"} else "over"
    if slurm_state is None:
        return "open"
    if slurm_state in RUNNING_STATES:
        return "running"
    return "ending" if slurm_state == "COMPLETING" else "lost"


def _row(attempt: Attempt, standing: Standing, now: float) -> Row:
    until = attempt.last_time if attempt.end_time is None else attempt.end_time
    if standing in ("running", "ending"):
        until = max(until, now)
    until = max(until, attempt.started)
    ran = None if standing in ("lost", "open") else max(until - attempt.started - attempt.suspended, 0.0)
    return Row(attempt, standing, until, ran, None, None, _shutdown(attempt))


def _shutdown(attempt: Attempt) -> Shutdown | None:
    notice = attempt.notice
    if notice is None:
        return None

    def after(moment: float | None) -> float | None:
        belongs = moment is not None and moment >= notice.time - _MOMENT_BEFORE
        return attempt.after_notice(moment) if belongs and moment is not None else None

    end = after(attempt.end_time)
    deadline = None if end is None or attempt.slack is None else end + attempt.slack
    # What ended too early had no time to spare.
    slack = None if attempt.unsaved and attempt.outcome == "interrupted" else attempt.slack
    stages = tuple(stage._replace(time=at) for stage in attempt.stages if (at := after(stage.time)) is not None)
    return Shutdown(
        notice.signal,
        after(attempt.first_poll),
        after(attempt.last_finished),
        after(attempt.exit_time),
        end if attempt.requeued else None,
        deadline,
        slack,
        stages,
        after(attempt.last_time) or 0.0,
    )


def _totals(rows: list[Row]) -> Totals:
    took = [Extreme(s.exit, row.attempt.number) for row in rows if (s := row.shutdown) and s.exit is not None]
    slack = [Extreme(s.slack, row.attempt.number) for row in rows if (s := row.shutdown) and s.slack is not None]
    return Totals(
        ran=sum(row.ran or 0.0 for row in rows),
        waited=sum(row.waited or 0.0 for row in rows),
        unaccounted=sum(row.unaccounted or 0.0 for row in rows),
        span=max(row.until for row in rows) - min(row.attempt.started for row in rows),
        longest_shutdown=max(took, default=None),
        least_slack=min(slack, default=None),
        forced=sum(row.forced for row in rows),
        without_progress=sum(row.attempt.progress is False for row in rows),
    )
