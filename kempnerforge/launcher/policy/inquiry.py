"""What told the run to stop, and why: the notice, and what Slurm says of the job when it is asked."""

from __future__ import annotations

import math
from signal import SIGINT, SIGTERM

from . import facts, tables
from .timers import Timer, Timers
from .words import Action, AskSlurm, Job, JobRead, Listen, Reason, Rules, Signalled, Site, signal_name

#: How often Slurm is asked again when it did not answer (s): a guess.
ASK_AGAIN = 1.0
#: How often our own small step is started once more: who ends that, too, does not want it.
LISTEN_AGAIN = 1
#: How often Slurm is asked again for the job's facts while nothing presses (s): a guess.
FACTS_AGAIN = 30.0
#: SIGTERMs closer together than this come from one event, which has one line in the log (s): a guess.
SAME_EVENT = 1.0


class Inquiry:
    """The notice, its reason, and what is known of the job.

    Args:
        rules: what is fixed at the start.
        site: what the cluster gives, as far as known.
        end: when Slurm ends the job (s, monotonic), as far as known.
        timers: to ask again.

    Attributes:
        site: what the cluster gives, as far as known.
        notice: None: nothing told us to stop.
        reason: None: there is no notice, or Slurm has not explained it yet.
        known: what later readings of the job are compared with.
        job: as last read; None: never.
        still_runs: Slurm said after the latest SIGTERM that the job runs on.
    """

    def __init__(self, rules: Rules, site: Site, end: float | None, timers: Timers) -> None:
        self._rules = rules
        self._timers = timers
        self.site = site
        self.notice: tables.Notice | None = None
        self.reason: Reason | None = None
        self.known = tables.Known(end=end, grace_time=site.grace_time)
        self.job: Job | None = None
        self.still_runs = False
        self._said_no_answer = False
        self._asked_at = self._said_term_at = -math.inf
        #: When our own small step ended, and Slurm has not told why; None: it has, or the step listens.
        self._step_ended_at: float | None = None
        self._listens_left = LISTEN_AGAIN

    @property
    def is_interrupt(self) -> bool:
        """Whether the notice is a Ctrl-C, which is no request to save at the next step."""
        return self.notice is not None and self.notice.signum == SIGINT

    def after_notice(self, now: float) -> float | None:
        """Return how long ago the notice came (s); None: there is none."""
        return None if self.notice is None else now - self.notice.at

    # --- the notice --------------------------------------------------------------------------------

    def begin(self, event: Signalled, now: float, opens_window: bool, reason: Reason | None) -> list[Action]:
        """Take a signal for the notice.

        Args:
            opens_window: whether a deadline comes of it.
            reason: as Slurm has said just now of a signal that only the job's steps got; None: it came to us.
        """
        self.still_runs = reason is not None
        # Of the time between Slurm's own SIGTERM to us and its SIGKILL, nothing has passed yet.
        term = now if event.signum == SIGTERM and reason is None else None
        self.notice = tables.Notice(event.signum, event.sender, now, event.child_alive, opens_window, term, term)
        return [facts.NoticeCame(signal_name(event.signum), event.sender)]

    def terminated_too(self, event: Signalled, now: float) -> list[Action]:
        """Note a SIGTERM after the notice."""
        assert self.notice is not None
        # KillWait counts from the first that Slurm has not explained yet.
        unexplained = self.notice.last_term is not None and self._rules.place == "batch" and not self.still_runs
        last_term = self.notice.last_term if unexplained else now
        self.notice = self.notice._replace(first_term=self.notice.first_term or now, last_term=last_term)
        self.still_runs = False
        is_news = now - self._said_term_at > SAME_EVENT
        self._said_term_at = now
        return [facts.SignalledToo("SIGTERM", event.sender)] if is_news else []

    # --- the reason --------------------------------------------------------------------------------

    def understand(self, now: float) -> list[Action]:
        """Find the reason, or have Slurm asked for it."""
        assert self.notice is not None
        if self._rules.place == "batch" and not self.is_interrupt:
            return self.ask(now)
        signum, end = self.notice.signum, self.known.end
        return self.set_reason(tables.reason_without_slurm(signum, self._rules.place, end, now))

    def explain(self, read: JobRead, now: float) -> list[Action]:
        """Take an answer of Slurm's for the reason of the notice."""
        assert self.notice is not None
        job = read.job
        if job is None:
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            return [] if self.reason is not None else [*self._say_no_answer(read), *self.set_reason("unknown")]
        reason = tables.reason_from_job(job, self.known, self.notice.signum, now)
        if job.state not in tables.KNOWN_STATES and reason == "unknown":
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            reason = self.reason or reason
        return self.set_reason(reason)

    def explain_in_the_end(self, job: Job | None, now: float) -> list[Action]:
        """Let the last reading of the job correct the reason: what its owner did meanwhile counts most.

        Args:
            job: None: Slurm did not answer.
        """
        notice = self.notice
        if self.is_interrupt:
            return self.set_reason("interrupt")
        if job is None:
            return self.set_reason("unknown") if notice is not None and self.reason is None else []
        if notice is None and (job.state in tables.RUNNING_STATES or job.state not in tables.KNOWN_STATES):
            return []
        reason = tables.reason_from_job(job, self.known, SIGTERM if notice is None else notice.signum, now)
        if self.reason in (None, "unknown") or reason in ("cancelled", "requeued"):
            return self.set_reason(reason)
        return []

    def set_reason(self, reason: Reason) -> list[Action]:
        """Have a reason from now on."""
        if reason == self.reason:
            return []
        self.reason = reason
        return [facts.ReasonFound(reason)]

    # --- asking Slurm ------------------------------------------------------------------------------

    def ask(self, now: float) -> list[Action]:
        """Have the job read, but not again and again while signals pour in: a new question drops the last."""
        if now - self._asked_at < SAME_EVENT:
            self._timers.set(Timer.ASK, self._asked_at + SAME_EVENT)
            return []
        self._timers.drop(Timer.ASK)
        return self.ask_at_once(now)

    def ask_at_once(self, now: float) -> list[Action]:
        """Have the job read."""
        self._asked_at = now
        return [AskSlurm()]

    def ask_again(self, read: JobRead, until: Timer, now: float) -> list[Action]:
        """Have the job read once more after an answer that tells nothing, while its answer is waited for."""
        if until in self._timers:
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
        return self._say_no_answer(read)

    def ask_for_facts_again(self, read: JobRead, now: float) -> None:
        """Have the job read once more if it never was: later, a cancellation could not be told from a time limit."""
        if read.job is None or self.known.restarts is None:
            self._timers.set(Timer.ASK, now + FACTS_AGAIN)

    def learn(self, job: Job, now: float) -> None:
        """Keep what later readings are compared with."""
        self.job = job
        if job.state not in tables.KNOWN_STATES:
            return
        self.still_runs = job.state in tables.RUNNING_STATES
        if not self.still_runs:
            return
        end = job.end
        if end is not None and end + tables.CLOCK_SLACK <= now:
            # It runs on past its end (OverTimeLimit, or Slurm has not looked yet): the clock proves nothing any more.
            end = None
        elif end is not None and self.notice is None:
            # An operator may extend the limit meanwhile. Past the old end a cancellation would look timed out.
            self._timers.set(Timer.ASK, end + tables.CLOCK_SLACK)
        restarts = job.restarts if self.known.restarts is None else self.known.restarts
        self.known = self.known._replace(restarts=restarts, end=end)

    def site_read(self, site: Site) -> None:
        """Keep what the cluster gives."""
        self.site = site
        self.known = self.known._replace(grace_time=site.grace_time)

    def term_asked(self, lead: float, now: float) -> list[Action]:
        """Keep when a SIGTERM is due, as the job has asked; one that has come may have been that."""
        self.known = self.known._replace(term_lead=lead + tables.SENT_EARLY)
        return self.ask(now) if self.reason == "manual" else []

    def _say_no_answer(self, read: JobRead) -> list[Action]:
        first, self._said_no_answer = not self._said_no_answer, True
        return [facts.SlurmIsSilent(read.error, read.answered)] if first else []

    # --- our own small step ------------------------------------------------------------------------

    def step_ended(self, now: float) -> list[Action]:
        """Have Slurm asked why our own small step has ended: at a preemption all do, but by a person's scancel, too."""
        if self.notice is None or self.is_interrupt:
            self._step_ended_at = now
        elif self.notice.last_term is not None:
            return []  # it came to us as well, and Slurm was asked
        return self.ask(now)

    def is_preemption(self, read: JobRead) -> bool:
        """Return whether Slurm says that the grace of a preemption runs, and that this was why our step has ended."""
        return self._step_ended_at is not None and read.job is not None and tables.in_grace(read.job)

    def explain_step(self, read: JobRead, now: float) -> list[Action]:
        """Take an answer of Slurm's, which is not that the job is preempted, for why our own small step has ended."""
        if self._step_ended_at is None:
            return []
        if read.job is None and not read.answered and now < self._step_ended_at + (self.known.grace_time or 0):
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            return []
        self._step_ended_at = None
        if read.job is None or read.job.state not in tables.RUNNING_STATES:
            return []  # whatever ends the job is told to us as well
        self._listens_left -= 1
        again = self._listens_left >= 0
        return [facts.StepWasEnded(again), *([Listen()] if again else [])]

    # --- a suspension ------------------------------------------------------------------------------

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        if self.known.end is not None:
            self.known = self.known._replace(end=self.known.end + seconds)
        if self.notice is not None:
            first, last = self.notice.first_term, self.notice.last_term
            self.notice = self.notice._replace(
                at=self.notice.at + seconds,
                first_term=None if first is None else first + seconds,
                last_term=None if last is None else last + seconds,
            )
