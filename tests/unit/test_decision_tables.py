"""Every row of design.md's tables: reason, deadline, stages, outcome, decision, exit status."""

from __future__ import annotations

from collections.abc import Iterable
from signal import SIGINT, SIGKILL, SIGTERM, SIGUSR1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.launcher.policy import tables
from kempnerforge.launcher.policy.tables import Cooperation, Ending, Known, Notice
from kempnerforge.launcher.policy.words import EarlierAttempt, Job, Rules, Site

NOW = 10_000.0
RUNNING = Job("RUNNING", 0, NOW + 5000, None, False, False, True, "7")
COMPLETING = RUNNING._replace(state="COMPLETING", end=NOW)
BEFORE = Known(restarts=0, end=NOW + 5000, grace_time=20)


@pytest.mark.parametrize(
    ("job", "known", "signum", "reason"),
    [
        (RUNNING._replace(preempted_at=NOW, end=NOW + 20), BEFORE, SIGUSR1, "preempted"),
        (RUNNING._replace(preempted_at=NOW, end=NOW + 20), BEFORE, SIGTERM, "preempted"),
        (RUNNING._replace(end=NOW + 120), BEFORE, SIGUSR1, "time_limit"),
        (RUNNING._replace(end=NOW + 120), BEFORE, SIGTERM, "manual"),
        # --signal=B:TERM@120, which Slurm sends up to 60 s earlier
        (RUNNING._replace(end=NOW + 120), BEFORE._replace(term_lead=180), SIGTERM, "time_limit"),
        (RUNNING._replace(end=NOW + 180), BEFORE._replace(term_lead=180), SIGTERM, "time_limit"),
        (RUNNING._replace(end=NOW + 181), BEFORE._replace(term_lead=180), SIGTERM, "manual"),
        (RUNNING._replace(end=None), BEFORE._replace(term_lead=180), SIGTERM, "manual"),
        (RUNNING._replace(end=NOW + 120), BEFORE._replace(term_lead=180), SIGINT, "interrupt"),
        (RUNNING._replace(preempted_at=NOW), BEFORE._replace(term_lead=9000), SIGTERM, "preempted"),
        (RUNNING, BEFORE, SIGUSR1, "manual"),
        (RUNNING._replace(end=NOW + tables.NEAR_END), BEFORE, SIGUSR1, "time_limit"),
        (COMPLETING._replace(preempted_at=NOW - 1), BEFORE._replace(grace_time=None), SIGTERM, "preempted"),
        (RUNNING, BEFORE, SIGTERM, "manual"),
        (RUNNING._replace(end=None), BEFORE, SIGUSR1, "manual"),
        (RUNNING, BEFORE, SIGINT, "interrupt"),
        (COMPLETING._replace(restarts=1), BEFORE, SIGTERM, "requeued"),
        (COMPLETING._replace(restarts=1, preempted_at=NOW - 20), BEFORE, SIGTERM, "requeued"),
        (COMPLETING._replace(restarts=3), BEFORE._replace(restarts=2), SIGTERM, "requeued"),
        (COMPLETING._replace(state="PENDING"), BEFORE, SIGTERM, "requeued"),
        (COMPLETING._replace(preempted_at=NOW - 20), BEFORE, SIGTERM, "preempted"),
        (COMPLETING._replace(preempted_at=NOW), BEFORE, SIGTERM, "preempted"),
        # scancel during the grace of a preemption: only a person ends it before the grace is over
        (COMPLETING._replace(preempted_at=NOW - 5), BEFORE, SIGTERM, "cancelled"),
        (COMPLETING._replace(timed_out=True), BEFORE, SIGTERM, "time_limit"),
        (COMPLETING, BEFORE._replace(end=NOW), SIGTERM, "time_limit"),
        (COMPLETING._replace(state="TIMEOUT"), BEFORE, SIGTERM, "time_limit"),
        (COMPLETING, BEFORE._replace(end=NOW - 60), SIGTERM, "time_limit"),
        # an end that was extended while Slurm did not answer
        (COMPLETING, BEFORE._replace(end=NOW - 400), SIGTERM, "cancelled"),
        (COMPLETING, BEFORE, SIGTERM, "cancelled"),
        (COMPLETING, BEFORE, SIGUSR1, "cancelled"),
        (COMPLETING._replace(state="CANCELLED"), BEFORE, SIGTERM, "cancelled"),
        # suspended past its original end, then cancelled: the clock proves nothing
        (COMPLETING._replace(suspended=True), BEFORE._replace(end=NOW - 50), SIGTERM, "cancelled"),
        # the partition's grace is unknown, or 0 because the QOS has the real one
        (COMPLETING._replace(preempted_at=NOW - 20), BEFORE._replace(grace_time=None), SIGTERM, "cancelled"),
        (COMPLETING._replace(preempted_at=NOW - 20), BEFORE._replace(grace_time=0), SIGTERM, "cancelled"),
        (COMPLETING._replace(preempted_at=NOW), BEFORE._replace(grace_time=0), SIGTERM, "preempted"),
        (COMPLETING._replace(preempted_at=NOW - 5, end=None), BEFORE, SIGTERM, "cancelled"),
        # the first reading came too late to tell a requeue from a cancellation
        (COMPLETING, Known(), SIGTERM, "unknown"),
        (COMPLETING._replace(timed_out=True), Known(), SIGTERM, "time_limit"),
        # --requeue=expedite, and what a newer Slurm may say
        (COMPLETING._replace(state="EXPEDITING"), BEFORE, SIGTERM, "requeued"),
        (COMPLETING._replace(state="NEWFANGLED"), BEFORE, SIGTERM, "unknown"),
        (COMPLETING._replace(state="NEWFANGLED", restarts=1), BEFORE, SIGTERM, "requeued"),
    ],
)
def test_reason_from_the_jobs_record(job: Job, known: Known, signum: int, reason: str) -> None:
    assert tables.reason_from_job(job, known, signum, NOW) == reason


@pytest.mark.parametrize(
    ("signum", "place", "end", "reason"),
    [
        (SIGTERM, "outside", None, "manual"),
        (SIGUSR1, "outside", None, "manual"),
        (SIGINT, "outside", None, "interrupt"),
        (SIGUSR1, "step", NOW + 100, "time_limit"),
        (SIGUSR1, "step", NOW + tables.NEAR_END, "time_limit"),
        (SIGUSR1, "step", NOW + 9000, "manual"),
        (SIGTERM, "step", NOW + 9000, "unknown"),
        (SIGTERM, "step", NOW + 1, "time_limit"),
        (SIGTERM, "step", None, "unknown"),
    ],
)
def test_reason_where_slurm_is_not_asked(signum: int, place: str, end: float | None, reason: str) -> None:
    assert tables.reason_without_slurm(signum, place, end, NOW) == reason  # type: ignore[arg-type]


BATCH, STEP, OUTSIDE = Rules("batch"), Rules("step"), Rules("outside")
USR1 = Notice(SIGUSR1, "", NOW, True)
TERM = Notice(SIGTERM, "", NOW, True, True, NOW, NOW)


@pytest.mark.parametrize(
    ("notice", "reason", "still_runs", "end", "rules", "after"),
    [
        (USR1, "time_limit", True, NOW + 120, BATCH, 120),
        (USR1, "preempted", True, NOW + 20, BATCH, 20),
        (USR1, "time_limit", True, None, BATCH, 8),
        (USR1, "manual", True, NOW + 5000, BATCH, 600),
        (USR1, "manual", True, NOW + 300, BATCH, 300),
        (USR1, None, False, None, BATCH, 600),
        (TERM, None, False, NOW + 5000, BATCH, 8),
        (TERM, "unknown", False, None, BATCH, 8),
        (TERM, "manual", True, NOW + 5000, BATCH, 600),
        (TERM, "time_limit", False, None, BATCH, 8),
        (TERM, "cancelled", False, NOW + 5000, BATCH, 8),
        (TERM, "preempted", True, NOW + 20, BATCH, 20),
        # USR1 first, then the time limit itself: KillWait from that SIGTERM, and not more than was known before
        (TERM._replace(signum=SIGUSR1, at=NOW - 100), "time_limit", False, None, BATCH, 8),
        (USR1, "time_limit", True, NOW + 120, BATCH._replace(timeout=30), 30),
        (TERM, "manual", False, None, OUTSIDE, 600),
        (TERM, "manual", False, None, OUTSIDE._replace(timeout=5), 5),
        (TERM, "unknown", False, None, STEP, 28),
        (TERM._replace(last_term=NOW + 20), "unknown", False, None, STEP, 28),
        (TERM._replace(last_term=NOW + 10), "unknown", False, None, STEP, 18),
        (USR1, "time_limit", False, NOW + 120, STEP, 120),
    ],
)
def test_deadline(
    notice: Notice, reason: str | None, still_runs: bool, end: float | None, rules: Rules, after: float
) -> None:
    site = Site(kill_wait=8, grace_time=20)
    assert tables.deadline(notice, reason, still_runs, end, rules, site) == NOW + after  # type: ignore[arg-type]


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1e3), st.none() | st.floats(0, 1e7))
def test_stages_keep_their_order_and_leave_room_to_requeue(
    start: float, window: float, term_grace: float, wanted: float | None
) -> None:
    plan = tables.stages(start, start + window, term_grace, wanted)
    tolerance = 1e-6
    assert start - tolerance <= plan.forced_exit <= plan.terminate + tolerance
    assert plan.terminate <= plan.kill + tolerance
    assert plan.kill <= start + window + tolerance
    if window > 1:
        assert plan.forced_exit < plan.kill < start + window
        # the save keeps its share
        assert plan.forced_exit - start >= window * (1 - tables.ESCALATION_SHARE) - tolerance
    if wanted is None and window * tables.ESCALATION_SHARE <= tables.FORCED_EXIT_GAP + term_grace + tables.REQUEUE_GAP:
        half = window * tables.ESCALATION_SHARE / 2
        assert start + window - plan.kill >= min(tables.LEAST_REQUEUE_GAP, half) - tolerance


def test_more_time_moves_the_stages_only_as_far_as_leaves_room_for_the_rest() -> None:
    usual = tables.stages(0, 120, 10)
    some = tables.stages(0, 120, 10, wanted_until=usual.forced_exit + 5)
    most = tables.stages(0, 120, 10, wanted_until=10_000)
    assert some.forced_exit == pytest.approx(usual.forced_exit + 5)
    assert usual.terminate < some.terminate < most.terminate < most.kill < 120
    assert tables.stages(0, 120, 10, wanted_until=1) == usual


SAVED = Cooperation(registered=True, polled=True, stop_polled=True, finished=True)
SAW_IT = Cooperation(registered=True, polled=True, stop_polled=True)
ONLY_FINISHED = Cooperation(registered=True, finished=True)
NEVER_SAW_IT = Cooperation(registered=True, polled=True)
NOBODY = Cooperation()
CASE = Ending(0, False, NOBODY, SIGUSR1, True, "time_limit")


@pytest.mark.parametrize(
    ("ending", "rules", "outcome", "requeue"),
    [
        (CASE._replace(cooperation=SAVED), BATCH, "checkpointed", True),
        (CASE._replace(cooperation=SAW_IT), BATCH, "checkpointed", True),
        (CASE._replace(cooperation=ONLY_FINISHED), BATCH, "checkpointed", True),
        (CASE._replace(cooperation=NEVER_SAW_IT), BATCH, "completed", False),
        (CASE, BATCH, "checkpointed", True),
        (CASE._replace(delivered=False), BATCH, "completed", False),
        (CASE._replace(status=85), BATCH, "checkpointed", True),
        (CASE._replace(status=1), BATCH, "interrupted", True),
        (CASE._replace(status=1, cooperation=SAVED), BATCH, "interrupted", True),
        (CASE._replace(status=-SIGTERM), BATCH, "interrupted", True),
        # a shell around the program that saved
        (CASE._replace(status=-SIGUSR1, cooperation=SAVED), BATCH, "checkpointed", True),
        (CASE._replace(status=143, cooperation=SAVED), STEP, "checkpointed", False),
        (CASE._replace(status=-SIGKILL, killed=True), BATCH, "forced", True),
        (CASE._replace(status=None, killed=True), BATCH, "forced", True),
        (CASE._replace(status=None), BATCH, "forced", True),
        (CASE._replace(reason="interrupt", signum=SIGINT), STEP, "checkpointed", False),
        (CASE._replace(reason=None, signum=None, status=-SIGTERM, cooperation=SAVED), BATCH, "failed", False),
        (CASE._replace(reason="preempted", signum=SIGTERM), BATCH, "checkpointed", True),
        (CASE._replace(reason="manual"), BATCH, "checkpointed", True),
        (CASE._replace(reason="manual", signum=SIGTERM), BATCH, "completed", False),
        (CASE._replace(reason="manual", signum=SIGTERM, cooperation=SAVED), BATCH, "checkpointed", False),
        (CASE._replace(reason="requeued", cooperation=SAVED), BATCH, "checkpointed", False),
        (CASE._replace(reason="requeued", status=1), BATCH, "interrupted", False),
        (CASE._replace(reason="cancelled", cooperation=SAVED), BATCH, "checkpointed", False),
        (CASE._replace(reason="cancelled", status=-SIGKILL, killed=True), BATCH, "forced", False),
        (CASE._replace(reason="interrupt", signum=SIGINT, status=-SIGINT), BATCH, "interrupted", False),
        (CASE._replace(reason="unknown", cooperation=SAVED), BATCH, "checkpointed", False),
        (CASE._replace(reason=None, signum=None), BATCH, "completed", False),
        (CASE._replace(reason=None, signum=None, status=85), BATCH, "checkpointed", True),
        (CASE._replace(reason=None, signum=None, status=1), BATCH, "failed", False),
        (CASE._replace(reason=None, signum=None, status=1), BATCH._replace(retry_failures=1), "failed", True),
        (CASE._replace(reason=None, signum=None, status=-11), BATCH, "failed", False),
        (CASE._replace(cooperation=SAVED), BATCH._replace(requeue=False), "checkpointed", False),
        (CASE._replace(cooperation=SAVED), STEP, "checkpointed", False),
        (CASE._replace(reason="unknown", signum=SIGTERM), STEP, "checkpointed", False),
        (CASE._replace(cooperation=SAVED), OUTSIDE, "checkpointed", False),
        (CASE, BATCH._replace(kill_on_bad_exit=True), "checkpointed", True),
    ],
)
def test_outcome_and_decision(ending: Ending, rules: Rules, outcome: str, requeue: bool) -> None:
    found = tables.outcome_of(ending, rules)
    assert found == outcome
    assert tables.decide(found, ending, rules, (), RUNNING).requeue is requeue


def test_no_requeue_is_the_reason_also_where_slurm_has_not_answered_yet() -> None:
    unknown = CASE._replace(reason="unknown", cooperation=SAVED)
    decision = tables.decide("checkpointed", unknown, BATCH._replace(requeue=False), (), None)
    assert decision == tables.Decision(False, "--no-requeue")


@pytest.mark.parametrize(
    ("rules", "job", "history", "cooperation"),
    [
        (BATCH._replace(max_requeues=3), RUNNING._replace(restarts=3), (), SAVED),
        (BATCH, RUNNING._replace(requeueable=False), (), SAVED),
        (BATCH, None, (), SAVED),
        (
            BATCH,
            RUNNING._replace(restarts=2),
            (EarlierAttempt(0, False, False), EarlierAttempt(1, False, False)),
            Cooperation(registered=True),
        ),
    ],
    ids=["max requeues reached", "not requeueable", "no answer", "three attempts without progress"],
)
def test_not_requeued(
    rules: Rules, job: Job | None, history: tuple[EarlierAttempt, ...], cooperation: Cooperation
) -> None:
    ending = CASE._replace(cooperation=cooperation, status=85)
    assert not tables.decide("checkpointed", ending, rules, history, job).requeue


@pytest.mark.parametrize(
    ("history", "cooperation"),
    [
        ((EarlierAttempt(0, False, False), EarlierAttempt(1, True, False)), Cooperation(registered=True)),
        ((EarlierAttempt(0, False, False), EarlierAttempt(1, None, False)), Cooperation(registered=True)),
        ((EarlierAttempt(0, False, False), EarlierAttempt(1, False, False)), NEVER_SAW_IT),
        ((EarlierAttempt(0, False, False), EarlierAttempt(1, False, False)), NOBODY),
        # an older job of the same number
        ((EarlierAttempt(7, False, False), EarlierAttempt(8, False, False)), Cooperation(registered=True)),
    ],
    ids=["one made progress", "unknown never counts", "this one made progress", "nobody tells", "another job"],
)
def test_requeued_unless_three_in_a_row_are_known_to_have_made_no_progress(
    history: tuple[EarlierAttempt, ...], cooperation: Cooperation
) -> None:
    job = RUNNING._replace(restarts=2)
    ending = CASE._replace(cooperation=cooperation, status=85)
    assert tables.decide("checkpointed", ending, BATCH, history, job).requeue


@pytest.mark.parametrize(("retried", "allowed", "requeue"), [(0, 1, True), (1, 1, False), (1, 2, True), (2, 2, False)])
def test_failures_are_retried_so_many_times(retried: int, allowed: int, requeue: bool) -> None:
    history = tuple(EarlierAttempt(number, True, True) for number in range(retried))
    ending = CASE._replace(reason=None, signum=None, status=1)
    rules, job = BATCH._replace(retry_failures=allowed), RUNNING._replace(restarts=retried)
    assert tables.decide("failed", ending, rules, history, job).requeue is requeue


@pytest.mark.parametrize(
    ("outcome", "status", "requeued", "rules", "expected"),
    [
        ("completed", 0, False, BATCH, 0),
        ("failed", 7, False, BATCH, 7),
        ("failed", -11, False, BATCH, 139),
        ("interrupted", -SIGTERM, False, BATCH, 143),
        ("forced", -SIGKILL, False, BATCH, 137),
        ("forced", None, False, BATCH, 137),
        ("checkpointed", 0, False, BATCH, 85),
        ("checkpointed", 0, False, STEP, 85),
        ("checkpointed", 0, False, STEP._replace(kill_on_bad_exit=True), 0),
        ("checkpointed", 0, True, BATCH, 0),
        ("interrupted", 1, True, BATCH, 0),
        ("forced", -SIGKILL, True, BATCH, 0),
    ],
)
def test_exit_status(outcome: str, status: int | None, requeued: bool, rules: Rules, expected: int) -> None:
    assert tables.exit_status(outcome, status, requeued, rules, Site()) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requeued_after", "rules", "expected"),
    [
        ({1}, BATCH, 85),
        ({85}, BATCH, 75),
        (range(70, 90), BATCH, 85),  # nothing is left that it would not requeue
        ({75, 85}, BATCH, 86),
        ({85}, STEP, 85),  # Slurm looks at the batch script's status only
    ],
)
def test_a_status_after_which_the_site_does_not_requeue(
    requeued_after: Iterable[int], rules: Rules, expected: int
) -> None:
    site = Site(requeue_exits=frozenset(requeued_after))
    assert tables.exit_status("checkpointed", 0, False, rules, site) == expected


@pytest.mark.parametrize(
    ("status", "cooperation", "rules", "preempted"),
    [
        (0, NOBODY, BATCH, False),
        (0, NEVER_SAW_IT, BATCH, False),
        (0, SAVED, BATCH, True),
        (85, NOBODY, BATCH, True),
        (143, NOBODY, BATCH, True),
        (0, NOBODY, BATCH._replace(kill_on_bad_exit=True), True),
    ],
)
def test_a_child_that_ended_in_a_preemptions_grace_without_a_notice(
    status: int, cooperation: Cooperation, rules: Rules, preempted: bool
) -> None:
    ending = Ending(status, False, cooperation, None, False, None)
    job = RUNNING._replace(preempted_at=NOW)
    assert tables.preempted_unnoticed(job, ending, rules) is preempted
    assert not tables.preempted_unnoticed(RUNNING, ending, rules)


def test_without_a_history_every_restart_may_have_been_a_retry() -> None:
    ending = CASE._replace(reason=None, signum=None, status=1)
    rules = BATCH._replace(retry_failures=1)
    assert tables.decide("failed", ending, rules, None, RUNNING).requeue
    assert not tables.decide("failed", ending, rules, None, RUNNING._replace(restarts=1)).requeue


def test_several_records_of_one_attempt_count_as_one() -> None:
    history = (
        *(EarlierAttempt(0, False, True, 5), EarlierAttempt(0, True, False, 7)),
        *(EarlierAttempt(1, False, False), EarlierAttempt(1, False, True)),
        *(EarlierAttempt(2, False, False), EarlierAttempt(2, False, False, 9)),  # of the present attempt
    )
    assert tables.past_of(history, 2) == tables.Past(2, 1, None)
    assert tables.past_of(history[:2], 1) == tables.Past(1, 0, 7)
    assert tables.past_of((EarlierAttempt(5, False, True), *history), 2) == tables.Past(2, 1, None)


def completed(restarts: int | None, at: float) -> EarlierAttempt:
    return EarlierAttempt(restarts, True, False, None, at)


@pytest.mark.parametrize(
    ("history", "done"),
    [
        ((completed(1, NOW),), True),
        ((completed(1, NOW - 10),), True),
        # Slurm tells whole seconds, by another clock.
        ((completed(1, NOW + 1.5),), True),
        ((completed(1, NOW + tables.CLOCK_SLACK),), True),
        # A person has requeued it since.
        ((completed(1, NOW - tables.RESTARTS_WITHIN - 1),), False),
        # It did not come to an end.
        ((EarlierAttempt(1, True, False),), False),
        ((completed(0, NOW - 100), EarlierAttempt(1, True, False)), False),
        # An older job of the same number, an end of who knows when, and none.
        ((completed(7, NOW),), False),
        ((completed(0, NOW),), False),
        ((completed(None, NOW),), False),
        ((), False),
        # The second of two kforge-runs in one script; the first has just found itself done.
        ((completed(1, NOW - 9), completed(1, NOW), completed(2, NOW + 30)), True),
        ((completed(1, NOW - 9), EarlierAttempt(1, True, False), completed(2, NOW + 30)), False),
    ],
)
def test_a_run_that_is_done(history: tuple[EarlierAttempt, ...], done: bool) -> None:
    job = RUNNING._replace(restarts=2, submitted=NOW)
    assert tables.is_done(history, job) is done
    assert tables.may_be_done(history) or not done
    assert not tables.is_done(history, job._replace(submitted=None))


@pytest.mark.parametrize(
    ("history", "worth"),
    [((), False), ((completed(1, NOW),), True), ((completed(1, NOW), EarlierAttempt(2, True, False)), False)],
)
def test_only_where_the_last_attempt_has_completed_slurm_is_asked_first(
    history: tuple[EarlierAttempt, ...], worth: bool
) -> None:
    assert tables.may_be_done(history) is worth


@pytest.mark.parametrize(
    ("job", "runs"),
    [
        (RUNNING, False),
        (RUNNING._replace(preempted_at=NOW), True),
        (COMPLETING._replace(preempted_at=NOW), False),
        (RUNNING._replace(preempted_at=NOW, submitted=NOW - 1), True),
        # Of the attempt before.
        (RUNNING._replace(preempted_at=NOW, submitted=NOW), False),
    ],
)
def test_whether_a_grace_runs(job: Job, runs: bool) -> None:
    assert tables.in_grace(job) is runs


@pytest.mark.parametrize(("restarts", "requeue"), [(1, True), (2, False), (3, False)])
def test_no_more_requeues_than_are_allowed(restarts: int, requeue: bool) -> None:
    job, rules = RUNNING._replace(restarts=restarts), BATCH._replace(max_requeues=2)
    assert tables.decide("checkpointed", CASE._replace(status=85), rules, (), job).requeue is requeue


RETRIED = EarlierAttempt(0, True, True)


@pytest.mark.parametrize(
    ("history", "retried"),
    [
        ((RETRIED,), 1),
        ((RETRIED, EarlierAttempt(1, True, True)), 2),
        # Of which attempt it is, and of which job, is not known: nor of what came before it.
        ((RETRIED, EarlierAttempt(None, True, False)), 0),
        # An older job of the same number, which came further.
        ((RETRIED, EarlierAttempt(5, True, False), EarlierAttempt(0, True, False)), 0),
    ],
)
def test_retries_of_this_job_count(history: tuple[EarlierAttempt, ...], retried: int) -> None:
    assert tables.past_of(history, 2).failures_retried == retried


@pytest.mark.parametrize(
    ("cooperation", "progress"),
    [(NOBODY, None), (Cooperation(registered=True), False), (NEVER_SAW_IT, True), (ONLY_FINISHED, True)],
)
def test_whether_a_step_was_completed(cooperation: Cooperation, progress: bool | None) -> None:
    assert cooperation.made_progress is progress


def test_a_sigterm_just_before_the_end_leaves_kill_wait() -> None:
    notice = tables.Notice(SIGTERM, "slurmstepd", 100.0, delivered=True, first_term=100.0, last_term=100.0)
    site = Site(kill_wait=30.0)
    assert tables.deadline(notice, "preempted", False, 100.1, Rules("batch"), site) == 130.0
    assert tables.deadline(notice, "manual", True, 100.1, Rules("batch"), site) == 100.1, "it was not Slurm's"
