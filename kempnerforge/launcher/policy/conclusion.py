"""How the child ended, and what becomes of the run: requeued or not, and with which exit status."""

from __future__ import annotations

from . import facts, tables
from .escalation import Escalation
from .inquiry import Inquiry
from .ledger import Ledger
from .timers import Timer, Timers
from .words import (
    CHECKPOINTED_STATUS,
    Action,
    AskSlurm,
    Exit,
    History,
    Job,
    JobRead,
    Outcome,
    Phase,
    Requeue,
    RequeueAnswered,
    Rules,
    TellOuter,
    signal_name,
)
from .worlds import Worlds

#: How long to wait for Slurm where no deadline presses (s): to look at the job, and to requeue it: a guess.
LOOK_WINDOW = 5.0
REQUEUE_WINDOW = 60.0
#: The least that is left for the last questions when a deadline has passed (s): a guess.
LAST_WINDOW = 2.0
#: The wait before the second try to requeue (s), a guess; doubles each time.
RETRY_AFTER = 0.5

#: What is done, and the phase that comes of it.
Step = tuple[Phase, list[Action]]


class Conclusion:
    """The end of an attempt, from its child's end on.

    Args:
        rules: what is fixed at the start.
        inquiry, escalation, ledger, worlds: what came before.
        timers: to end waiting for Slurm.

    Attributes:
        status: the child's exit status, or minus the signal it died of; None: it runs, or outlived SIGKILL.
    """

    def __init__(
        self,
        rules: Rules,
        inquiry: Inquiry,
        escalation: Escalation,
        ledger: Ledger,
        worlds: Worlds,
        timers: Timers,
    ) -> None:
        self._rules = rules
        self._inquiry, self._escalation, self._ledger, self._worlds = inquiry, escalation, ledger, worlds
        self._timers = timers
        self.status: int | None = None
        self._history: History | None = None
        self._exit_at: float | None = None
        self._outcome: Outcome = "failed"
        self._tries = 0

    def history_read(self, history: History) -> None:
        """Keep how earlier attempts ended."""
        self._history = history

    def child_ended(self, now: float) -> list[Action]:
        """Note that the child has ended by itself, or by a signal."""
        self._exit_at = now
        return [facts.ChildEnded(self.status, self._inquiry.after_notice(now))]

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self._exit_at = None if self._exit_at is None else self._exit_at + seconds

    # --- the decision ------------------------------------------------------------------------------

    def begin(self, now: float) -> Step:
        """Have Slurm asked once more, where that can change anything."""
        self._timers.decided()
        if self._rules.place != "batch" or not self._rules.requeue or self._inquiry.reason == "interrupt":
            return self.conclude(None, now)
        self._timers.set(Timer.CONCLUDE, self._last_moment(now))
        return "decide", [AskSlurm()]

    def deadline_moved(self, now: float) -> None:
        """Wait for Slurm as long as there is time now."""
        if Timer.CONCLUDE in self._timers:
            self._timers.set(Timer.CONCLUDE, self._last_moment(now))

    def _last_moment(self, now: float) -> float:
        """Return how long Slurm may take to answer in the end."""
        if (last_word := self._escalation.last_word(now)) is not None:
            return max(last_word, now + LAST_WINDOW)
        failed = self.status != 0 and self._rules.retry_failures > 0
        worth = failed or self.status == CHECKPOINTED_STATUS or self._ledger.cooperation.finished
        return now + (REQUEUE_WINDOW if worth else LOOK_WINDOW)

    def conclude(self, job: Job | None, now: float) -> Step:
        """Decide.

        Args:
            job: as read just now; None: Slurm did not answer, or was not asked.
        """
        actions = self._inquiry.explain_in_the_end(job, now)
        if self._inquiry.reason == "requeued" and self._tries:
            return self._then(actions, self._done(True, "requeued", now))
        ending = self._ending()
        if job is not None and self._inquiry.reason is None and tables.preempted_unnoticed(job, ending, self._rules):
            actions += self._inquiry.set_reason("preempted")
            ending = self._ending()
        self._outcome = tables.outcome_of(ending, self._rules)
        decision = tables.decide(self._outcome, ending, self._rules, self._history, job)
        if decision.requeue and job is not None:
            self._tries += 1
            return "verify", [*actions, facts.RequeueAsked(decision.because, job.requeue_id), Requeue(job.requeue_id)]
        return self._then(actions, self._done(False, decision.because, now))

    def _ending(self) -> tables.Ending:
        notice = self._inquiry.notice
        signum, delivered = (None, False) if notice is None else (notice.signum, notice.delivered)
        killed, cooperation = self._escalation.killed, self._ledger.cooperation
        ended_well = self._ledger.ended_well
        lost = bool(self._worlds.lost_ranks)
        return tables.Ending(
            self.status, killed, cooperation, signum, delivered, self._inquiry.reason, ended_well, lost
        )

    @staticmethod
    def _then(actions: list[Action], step: Step) -> Step:
        return step[0], actions + step[1]

    # --- the requeue -------------------------------------------------------------------------------

    def requeue_answered(self, event: RequeueAnswered, now: float) -> Step:
        """Have Slurm asked whether it did what it has accepted, or try again."""
        if not event.ok:
            return self._requeue_failed(event.text, event.final, now)
        latest, last_word = now + LOOK_WINDOW, self._escalation.last_word(now)
        self._timers.set(Timer.VERIFY, latest if last_word is None else min(latest, max(last_word, now)))
        return "verify", [AskSlurm()]

    def verify(self, job: Job, now: float) -> Step:
        """Take a reading of the job for whether it is requeued."""
        restarts = self._inquiry.known.restarts
        if job.state in tables.WAITING_STATES or restarts is None or job.restarts > restarts:
            return self._done(True, "requeued", now)
        if job.state not in tables.KNOWN_STATES:
            unclear = JobRead(None, f"JobState={job.state}", answered=True)
            return "verify", self._inquiry.ask_again(unclear, Timer.VERIFY, now)
        return self._requeue_failed("it was accepted, but the job's Restarts did not change", False, now)

    def unconfirmed(self, now: float) -> Step:
        """Take an accepted requeue for done, though Slurm does not say so."""
        return self._done(True, "the requeue was accepted, but Slurm did not confirm it", now)

    def _requeue_failed(self, why: str, final: bool, now: float) -> Step:
        self._timers.drop(Timer.VERIFY)
        wait = RETRY_AFTER * 2 ** (self._tries - 1)
        if final or Timer.CONCLUDE not in self._timers or now + wait >= self._timers[Timer.CONCLUDE]:
            return self._done(False, f"the requeue failed: {why}", now)
        self._timers.set(Timer.ASK, now + wait)
        return "decide", [facts.RequeueFailed(why)]

    # --- the end -----------------------------------------------------------------------------------

    def done_before(self, job: Job, now: float) -> Step:
        """End without running anything (`tables.is_done`).

        To end with 0 is what lets Slurm, and whoever waits for the job, call it completed: forbidding Slurm the requeue
        would leave it PREEMPTED.
        """
        self._inquiry.job, self._inquiry.known = job, self._inquiry.known._replace(restarts=job.restarts)
        self._outcome, self.status = "completed", 0
        return self._then([facts.WasDoneBefore()], self._done(False, "it had completed", now))

    def _done(self, requeued: bool, because: str, now: float) -> Step:
        self._timers.decided()
        inquiry, deadline, lost = self._inquiry, self._escalation.deadline, self._worlds.lost_ranks
        notice = inquiry.notice
        status = tables.exit_status(self._outcome, self.status, requeued, self._rules, inquiry.site)
        slack = None if deadline is None else deadline - now
        actions: list[Action] = [
            facts.Ended(
                outcome=self._outcome,
                reason=inquiry.reason,
                requeued=requeued,
                because=because,
                status=status,
                restarts=inquiry.known.restarts,
                progress=self._ledger.cooperation.made_progress,
                retried=requeued and self._outcome == "failed",
                shutdown=self._shutdown,
                slack=slack,
            )
        ]
        if lost:
            actions.insert(0, facts.RanksLost([rank for rank, _ in lost], [pid for _, pid in lost]))
        if self._outcome == "checkpointed" and self._rules.has_outer:
            actions.append(TellOuter())
        if not requeued and (self._tries > 0 or self._worth_a_hint):
            job_id = self._rules.job_id if inquiry.job is None else inquiry.job.requeue_id
            actions.append(facts.NotRequeued(because, job_id))
        elif notice is not None or requeued or (self._rules.place == "batch" and self._outcome == "failed"):
            actions.append(facts.Decided(requeued, because, self.status if notice is None else None))
        if notice is not None:
            moments = self._moments(notice.at, now if requeued else None)
            actions.append(facts.ShutDown(self._outcome, self._assumed, signal_name(notice.signum), moments, slack))
        return "done", [*actions, Exit(status)]

    @property
    def _shutdown(self) -> float | None:
        """From the notice to the child's end (s), if it came to one by itself."""
        notice = self._inquiry.notice
        if notice is None or self._exit_at is None or self._escalation.killed:
            return None
        return self._exit_at - notice.at

    @property
    def _worth_a_hint(self) -> bool:
        """Whether the run could go on, but only a person can know that it should."""
        unknown = self._rules.place == "batch" and self._inquiry.reason == "unknown"
        return unknown and self._outcome != "completed"

    @property
    def _assumed(self) -> bool:
        regular = self.status == 0 or self.status in tables.DIED_OF_A_NOTICE
        return self._outcome == "checkpointed" and regular and not self._ledger.cooperation.registered

    def _moments(self, noticed_at: float, requeued_at: float | None) -> tuple[tuple[str, float], ...]:
        """Return what happened when (s after the notice); Slurm may have told the program a moment before us."""
        seen = (("first poll", self._ledger.first_poll), ("finish", self._ledger.finish), ("exit", self._exit_at))
        all_of_them = (*seen, ("requeued", requeued_at))
        return tuple((name, max(at - noticed_at, 0.0)) for name, at in all_of_them if at is not None)
