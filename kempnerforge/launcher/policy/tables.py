"""The decision tables of design.md as pure functions: reason, stages, outcome, requeue, exit status."""

from __future__ import annotations

import math
from signal import SIGINT, SIGKILL, SIGTERM, SIGUSR1
from typing import NamedTuple

from .words import (
    CHECKPOINTED_ELSE,
    CHECKPOINTED_STATUS,
    EarlierAttempt,
    History,
    Job,
    Outcome,
    Place,
    Reason,
    Rules,
    Site,
)

#: A SIGUSR1 at most this long before the end is the time limit's (s). ``--signal``'s lead cannot be read back, leads
#: of half an hour are in use, and taking a long lead for a manual signal would cut its save short.
NEAR_END = 1800.0
#: Longest shutdown when neither Slurm nor the user sets a limit (s): the default of ``ShutdownHandler``.
MANUAL_WINDOW = 600.0
#: How far Slurm's clock and ours, or its two readings of an end, may differ (s): a guess.
CLOCK_SLACK = 2.0
#: How long after the end of a batch script its requeue is Slurm's own (s): a guess.
RESTARTS_WITHIN = 15.0

#: From the child's own forced exit to the stack dump and SIGTERM (s), when time is plenty: a guess.
FORCED_EXIT_GAP = 2.0
#: From SIGKILL to the deadline: reap, read the job once more, requeue (s), when time is plenty: a guess.
REQUEUE_GAP = 5.0
#: The same where time is short (s): how long a busy machine needs for it does not shrink
#: with the window, and 0.8 s were too little.
LEAST_REQUEUE_GAP = 1.5
#: What a lead should have beside the time to stop: all that escalation and a requeue with a few tries may
#: need (s): a guess.
LEAD_RESERVE = 60.0
#: The largest part of a shutdown's window that escalation may take from the save: a guess.
ESCALATION_SHARE = 1 / 3

#: Slurm sends the signal of ``--signal`` up to so much earlier than it was asked to (s): sbatch(1).
SENT_EARLY = 60.0
#: Slurm looks for jobs out of time twice a minute or so: later than this, it was not the time limit (s).
LATE_KILL = 90.0

#: An srun younger than this may swallow a SIGUSR1 (s): seen 10 ms after its start (slurm-facts), and a guess
#: for busy machines.
SRUN_SETTLES = 10.0

#: Attempts in a row known to have made no progress after which a run is not requeued any more: a guess.
NO_PROGRESS_LIMIT = 3

#: Exit statuses of ours that are also those of shells, env(1) and timeout(1): kforge-run itself failed, the command
#: cannot be executed, it was not found. bin/kforge-run has the first one for itself.
FAILED, CANNOT_EXECUTE, NOT_FOUND = 125, 126, 127
#: What a shell adds to the number of the signal that a command died of.
DIED_OF = 128
#: How a process ends that does not handle the notice, and a shell around it.
DIED_OF_A_NOTICE = frozenset({-SIGTERM, -SIGUSR1, DIED_OF + SIGTERM, DIED_OF + SIGUSR1})

#: Reasons that say nothing of a run that should go on.
ENDED_BY_A_PERSON = frozenset({"cancelled", "manual", "interrupt"})

#: States in which the job still holds its allocation as if nothing had happened.
RUNNING_STATES = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT"})
#: States of a job that waits to be started again; EXPEDITING: by `--requeue=expedite` (25.11).
WAITING_STATES = frozenset({"EXPEDITING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
#: States of a job that ends, or has ended.
ENDING_STATES = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"}
    | {"OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
)
#: What any other state means, a newer Slurm's, we do not know: it is no answer to why.
KNOWN_STATES = RUNNING_STATES | WAITING_STATES | ENDING_STATES


def recommended_lead(time_to_stop: float) -> int:
    """Return the N of ``--signal=B:USR1@N`` (s) for a run that needs so long to stop (s)."""
    return math.ceil(time_to_stop + LEAD_RESERVE)


def reason_without_slurm(signum: int, place: Place, end: float | None, now: float) -> Reason:
    """Return the reason where the controller is not asked: in a step, and outside Slurm.

    A step's task cannot tell a preemption from a cancellation; the kforge-run above it can, and decides.
    """
    if signum == SIGINT:
        return "interrupt"
    if place == "outside":
        return "manual"
    if end is not None and end - now <= (NEAR_END if signum == SIGUSR1 else CLOCK_SLACK):
        return "time_limit"
    return "manual" if signum == SIGUSR1 else "unknown"


class Known(NamedTuple):
    """What earlier readings of the job told, needed to understand the present one."""

    #: ``Restarts`` when this attempt ran; None: never read.
    restarts: int | None = None
    #: The end as last read while the job ran; None: never read, or not to be relied on.
    end: float | None = None
    #: Seconds of grace that the partition gives before a preemption; None: unknown.
    grace_time: float | None = None
    #: So long before its end the job has asked for a SIGTERM (s); None: it has not, as far as known.
    term_lead: float | None = None


def reason_from_job(job: Job, known: Known, signum: int, now: float) -> Reason:
    """Return what a signal means, by the job's record at that moment (slurm-facts, "What a SIGTERM means")."""
    if signum == SIGINT:
        return "interrupt"
    if job.state in RUNNING_STATES:
        if job.preempted_at is not None:
            return "preempted"
        lead = NEAR_END if signum == SIGUSR1 else known.term_lead
        if lead is not None and job.end is not None and job.end - now <= lead:
            return "time_limit"
        return "manual"
    if job.state in WAITING_STATES or (known.restarts is not None and job.restarts > known.restarts):
        return "requeued"
    if job.state not in KNOWN_STATES:
        return "unknown"
    if job.timed_out or job.state == "TIMEOUT":
        return "time_limit"
    if job.state == "CANCELLED":
        return "cancelled"
    if known.restarts is None:
        return "unknown"
    if job.preempted_at is not None:
        # PreemptMode=CANCEL. When the grace is over Slurm ends the job, and sets PreemptTime again to that moment
        # (seen on 22.05). Before, only a person ends it. A grace of 0 may in truth be a longer one of the job's QOS.
        by_slurm = job.end is not None and job.end - job.preempted_at <= 1
        grace_over = bool(known.grace_time) and now >= job.preempted_at + (known.grace_time or 0) - CLOCK_SLACK
        return "preempted" if by_slurm or grace_over else "cancelled"
    # A job that was ever suspended ends later than was read, and a cancelled one would look timed out.
    if known.end is not None and not job.suspended and known.end <= now <= known.end + LATE_KILL:
        return "time_limit"
    return "cancelled"


def in_grace(job: Job) -> bool:
    """Return whether the grace of a preemption runs, of this attempt: the time of an earlier one may be kept."""
    if job.state not in RUNNING_STATES or job.preempted_at is None:
        return False
    return job.submitted is None or job.preempted_at > job.submitted


class Notice(NamedTuple):
    """What told us to stop."""

    signum: int
    sender: str
    at: float
    #: The child was alive when it came.
    delivered: bool
    #: It starts the time up to a deadline.
    opens_window: bool = True
    #: The first and the latest SIGTERM; None: there was none.
    first_term: float | None = None
    last_term: float | None = None


def deadline(
    notice: Notice, reason: Reason | None, still_runs: bool, end: float | None, rules: Rules, site: Site
) -> float:
    """Return the earliest moment known at which this attempt is over (s, monotonic).

    Args:
        reason: None: not understood yet.
        still_runs: Slurm said after the latest SIGTERM that the job runs on.
        end: when Slurm ends the job; None: unknown, unlimited or past.
    """
    limits = []
    if rules.timeout is not None:
        limits.append(notice.at + rules.timeout)
    # From its SIGTERM on Slurm leaves KillWait, also when that came just before the end.
    is_ended = rules.place == "batch" and notice.last_term is not None and not still_runs
    if end is not None and not is_ended:
        limits.append(end)
    if rules.place == "outside" or reason in ("manual", "interrupt"):
        limits.append(notice.at + MANUAL_WINDOW)
    if reason == "time_limit" and end is None and notice.first_term is None:
        limits.append(notice.at + site.kill_wait)  # its end has passed: Slurm may kill at any moment
    if notice.first_term is not None and notice.last_term is not None:
        if rules.place == "step":
            # A preempted step gets SIGTERM when its grace begins, and again when it is over.
            again = notice.last_term > notice.first_term
            limits.append(notice.last_term + site.kill_wait + (0 if again else site.grace_time or 0))
        elif is_ended:
            limits.append(notice.last_term + site.kill_wait)
    return min(limits, default=notice.at + MANUAL_WINDOW)


class Stages(NamedTuple):
    """When each stage of the escalation is due, in this order."""

    forced_exit: float
    terminate: float
    kill: float


def stages(start: float, deadline: float, term_grace: float, wanted_until: float | None = None) -> Stages:
    """Spread the escalation over the end of the window from ``start`` to ``deadline``.

    In a short window every gap shrinks, the last one least, and none changes its place.

    Args:
        start: when the notice came (s, monotonic).
        deadline: when Slurm kills us (s, monotonic).
        term_grace: from SIGTERM to SIGKILL (s), when time is plenty.
        wanted_until: how long the save asked to run (s, monotonic). It gets three quarters of every gap for it.
    """
    gaps = FORCED_EXIT_GAP + term_grace + REQUEUE_GAP
    usual_time = min(gaps, max(deadline - start, 0.0) * ESCALATION_SHARE)

    def within(time: float) -> Stages:
        requeue = max(REQUEUE_GAP * time / gaps, min(LEAST_REQUEUE_GAP, time / 2))
        scale = (time - requeue) / (FORCED_EXIT_GAP + term_grace)
        kill = deadline - requeue
        terminate = kill - term_grace * scale
        return Stages(terminate - FORCED_EXIT_GAP * scale, terminate, kill)

    usual = within(usual_time)
    if wanted_until is None or wanted_until <= usual.forced_exit:
        return usual
    latest = within(usual_time / 4)
    forced_exit = min(wanted_until, latest.forced_exit)
    # Between the usual and the latest plan, all stages move in step.
    part = (forced_exit - usual.forced_exit) / max(latest.forced_exit - usual.forced_exit, 1e-9)
    return Stages(*(a + (b - a) * part for a, b in zip(usual, latest, strict=True)))


class Cooperation(NamedTuple):
    """What cooperative processes reported."""

    registered: bool = False
    polled: bool = False
    stop_polled: bool = False
    finished: bool = False

    @property
    def made_progress(self) -> bool | None:
        """Whether a step was completed in this attempt; None: no process reports polls."""
        return (self.polled or self.finished) if self.registered else None


class Ending(NamedTuple):
    """How the child ended, and under which circumstances."""

    #: Exit status, or minus the signal it died of; None: it outlived SIGKILL.
    status: int | None
    #: We had to send SIGKILL.
    killed: bool
    cooperation: Cooperation
    #: The first signal of the notice; None: there was no notice.
    signum: int | None
    #: The notice came while the child was alive.
    delivered: bool
    reason: Reason | None
    #: Whether all who were told but had no handler of ours have come to a regular end; False: none of them has;
    #: None: some have, or it cannot be known.
    ended_well: bool | None = None
    #: Of ranks that were told to stop together some have ended without having saved.
    ranks_lost: bool = False


def outcome_of(ending: Ending, rules: Rules) -> Outcome:
    """Return how the child ended (design.md, "Outcome and decision")."""
    cooperation = ending.cooperation
    noticed = ending.reason is not None
    if ending.killed or ending.status is None:
        return "forced"
    if ending.status == CHECKPOINTED_STATUS:
        return "checkpointed"
    if noticed and ending.ranks_lost:
        return "interrupted"
    if noticed and (cooperation.finished or ending.ended_well) and ending.status in DIED_OF_A_NOTICE:
        return "checkpointed"  # a shell around the program that saved
    if ending.status != 0:
        return "interrupted" if noticed else "failed"
    if not noticed:
        return "completed"
    if cooperation.finished or cooperation.stop_polled:
        return "checkpointed"
    # An inner kforge-run that ends 0 instead of 85 (kill_on_bad_exit) is not seen as cooperative from here.
    if rules.kill_on_bad_exit:
        return "checkpointed"
    if cooperation.registered or not ending.delivered:
        return "completed"
    by_a_person = rules.place != "step" and ending.signum != SIGUSR1 and ending.reason in ENDED_BY_A_PERSON
    if by_a_person:
        return "completed"
    return "interrupted" if ending.ended_well is False else "checkpointed"


def preempted_unnoticed(job: Job, ending: Ending, rules: Rules) -> bool:
    """Return whether a child that ended without a notice was in truth preempted.

    Slurm tells a step at the start of the grace, and the batch process not. A child that ended otherwise than 0 then
    ended because of it, and one that ended 0 did so if a process checkpointed.
    """
    if job.preempted_at is None:
        return False
    return ending.status != 0 or ending.cooperation.finished or rules.kill_on_bad_exit


class Past(NamedTuple):
    """What counts of the earlier attempts."""

    failures_retried: int
    #: Attempts in a row, up to the last one, known to have made no progress.
    without_progress: int
    #: How long the last attempt took from the notice to the child's end (s); None: it got no notice.
    last_shutdown: float | None


def past_of(history: History | None, restarts: int) -> Past:
    """Sum up the attempts before the one whose job record says ``Restarts=`` `restarts`.

    Without a history every restart may have been a retry. Job numbers come round again: going back in time
    ``Restarts`` falls, and where it does not, another job begins.
    """
    if history is None:
        return Past(restarts, 0, None)
    # One script may run several kforge-runs, one after another: all of an attempt's records count as one.
    attempts: dict[int, list[EarlierAttempt]] = {}
    latest = restarts
    for record in reversed(history):
        if record.restarts is None or record.restarts > latest:
            break
        latest = record.restarts
        if latest < restarts:
            attempts.setdefault(latest, []).append(record)
    shutdowns = [record.shutdown for records in attempts.values() for record in records]
    retried = sum(any(record.retried for record in records) for records in attempts.values())
    without_progress = 0
    for records in attempts.values():
        if not all(record.progress is False for record in records):
            break
        without_progress += 1
    return Past(retried, without_progress, shutdowns[0] if shutdowns else None)


def may_be_done(history: History) -> bool:
    """Return whether it is worth to ask Slurm before anything is run: the last attempt has completed the run."""
    return bool(history) and history[-1].completed_at is not None


def is_done(history: History, job: Job) -> bool:
    """Return whether the run has completed before, and it was Slurm that started it again.

    Whoever was preempted with a grace is requeued at the end of its batch script, whatever the exit status
    (slurm-facts, "A finished run that starts again"). Slurm counts that as a new submission, at the same moment; a
    person who wants a completed run once more is slower.
    """
    # One script may run several kforge-runs, one after another: those of this attempt tell nothing.
    last = next((attempt for attempt in reversed(history) if attempt.restarts != job.restarts), None)
    if last is None or last.completed_at is None or job.submitted is None or last.restarts != job.restarts - 1:
        return False
    return -CLOCK_SLACK <= job.submitted - last.completed_at <= RESTARTS_WITHIN


class Decision(NamedTuple):
    requeue: bool
    because: str


def decide(outcome: Outcome, ending: Ending, rules: Rules, history: History | None, job: Job | None) -> Decision:
    """Return whether to requeue the job, and why (design.md, "Outcome and decision").

    Args:
        job: the job's record, read after the child had ended; None: Slurm did not answer.
    """
    reason = ending.reason
    if rules.place == "outside":
        return Decision(False, "not a batch job")
    if rules.place == "step":
        return Decision(False, "a step is not requeued, its job is")
    if reason == "requeued":
        return Decision(False, "Slurm requeues it already")
    if reason == "cancelled":
        return Decision(False, "its owner cancelled it")
    if reason == "interrupt":
        return Decision(False, "interrupted by hand")
    # With --no-requeue Slurm's answer is not waited for.
    if reason == "unknown" and rules.requeue:
        return Decision(False, "Slurm did not say why it was told to stop")
    if reason == "manual" and ending.signum == SIGTERM:
        return Decision(False, "SIGTERM was sent by hand")
    if outcome == "completed":
        return Decision(False, "it completed")
    if outcome == "failed" and not rules.retry_failures:
        return Decision(False, "it failed")
    if not rules.requeue:
        return Decision(False, "--no-requeue")
    if job is None:
        return Decision(False, "Slurm did not answer")
    if not job.requeueable:
        return Decision(False, "the job may not be requeued: submit it with --requeue")
    if rules.max_requeues is not None and job.restarts >= rules.max_requeues:
        return Decision(False, f"--max-requeues {rules.max_requeues} is reached")
    past = past_of(history, job.restarts)
    if outcome == "failed" and past.failures_retried >= rules.retry_failures:
        return Decision(False, "it failed, and all its retries are used")
    if ending.cooperation.made_progress is False and past.without_progress + 1 >= NO_PROGRESS_LIMIT:
        return Decision(False, f"{past.without_progress + 1} attempts in a row made no progress")
    if outcome == "failed":
        return Decision(True, f"retry {past.failures_retried + 1} of {rules.retry_failures} after a failure")
    return Decision(True, f"{outcome} after {reason}" if reason else outcome)


#: Printed by ``kforge-run --help``.
EXIT_STATUSES = (
    ("the child's own", "it ended by itself"),
    (f"{DIED_OF}+n", "the child died of signal n"),
    ("0", "the job was requeued (or the child ended 0)"),
    ("2", "usage error"),
    (f"{CHECKPOINTED_STATUS}", "checkpointed, and not requeued by this kforge-run"),
    (f"{CHECKPOINTED_ELSE[0]}", f"the same, where the site's RequeueExit names {CHECKPOINTED_STATUS}"),
    (f"{FAILED}", "kforge-run itself failed"),
    (f"{CANNOT_EXECUTE}", "the command cannot be executed"),
    (f"{NOT_FOUND}", "the command was not found"),
)


def checkpointed_status(requeue_exits: frozenset[int]) -> int:
    """Return the status of a checkpointed run: one after which Slurm does not requeue what we have decided to leave."""
    choices = (CHECKPOINTED_STATUS, *CHECKPOINTED_ELSE)
    return next((status for status in choices if status not in requeue_exits), CHECKPOINTED_STATUS)


def exit_status(outcome: Outcome, status: int | None, requeued: bool, rules: Rules, site: Site) -> int:
    """Return kforge-run's exit status.

    Args:
        status: the child's exit status, or minus the signal it died of; None: it could not even be killed.
        site: what it makes of a status.
    """
    if requeued:
        return 0
    if outcome == "checkpointed":
        if rules.place == "step":
            return 0 if rules.kill_on_bad_exit else CHECKPOINTED_STATUS
        return checkpointed_status(site.requeue_exits)
    return shell_status(-SIGKILL if status is None else status)


def shell_status(status: int) -> int:
    """Return a shell's exit status for a command's.

    Args:
        status: its exit status, or minus the signal it died of.
    """
    return status if status >= 0 else DIED_OF - status
