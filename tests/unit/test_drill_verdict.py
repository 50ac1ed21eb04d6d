"""Every row of a rehearsal's verdict, and the lead with its arithmetic."""

from __future__ import annotations

import math
from signal import SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.journals import Attempt, Notice, Stage
from kempnerforge.commands.rehearsal.verdict import (
    AFTER_START,
    Evidence,
    Seen,
    judge,
    lead_for,
    notice_due,
    seen_of,
)
from kempnerforge.launcher.policy import tables

LEAD = 300.0
#: It polled, saved in 2 s and ended.
SAVED = Seen(
    started_at=1000.0,
    cooperative=True,
    ready=3.0,
    noticed=3.5,
    signal="SIGUSR1",
    sender="python (pid 7)",
    first_poll=0.2,
    saved=2.1,
    exit=2.2,
    ran=5.7,
    status=0,
    outcome="checkpointed",
    reason="manual",
    over=True,
)
#: It knows nothing of us, and ended with 0 after the notice.
ASSUMED = SAVED._replace(cooperative=False, ready=None, first_poll=None, saved=None)
INTERRUPTED = ASSUMED._replace(outcome="interrupted")
UNSAVED = SAVED._replace(saved=None, outcome="interrupted")
BEFORE = Seen(started_at=1000.0, ran=3.0, status=0, outcome="completed", over=True)
WRITTEN = Evidence(None)
NOTHING = Evidence("nothing was written to run.pt after the notice")

PASSED = [
    ("finish()", SAVED, None, ""),
    ("a poll that said stop, and no finish()", SAVED._replace(saved=None), None, "did not call finish()"),
    ("85 by itself", ASSUMED._replace(status=85), None, ""),
    ("a shell died around the program that saved", SAVED._replace(status=-SIGUSR1), None, ""),
    ("assumed", ASSUMED, None, "the drill could not see whether it saved"),
    ("assumed, and seen", ASSUMED, WRITTEN, ""),
    ("ended with another status, and saved", INTERRUPTED._replace(status=3), WRITTEN, "exited with 3"),
    ("KeyboardInterrupt, and saved on the way", INTERRUPTED._replace(status=-SIGINT), WRITTEN, "died of SIGINT"),
    ("the same below a shell", INTERRUPTED._replace(status=130), WRITTEN, "exited with 130"),
    ("a lead that a slower day exceeds", SAVED._replace(exit=200.0), None, "slower day"),
]

FAILED = [
    ("completed before", BEFORE, None, "too short to rehearse: it completed 3.0 s after its start, before the notice"),
    ("85 before", BEFORE._replace(status=85), None, "too short to rehearse: it exited with 85"),
    ("failed before", BEFORE._replace(status=1, outcome="failed"), None, "it exited with 1, 3.0 s after its start"),
    ("crashed before", BEFORE._replace(status=-SIGSEGV, outcome="failed"), None, "it died of SIGSEGV"),
    ("kforge-run killed", SAVED._replace(over=False), None, "kforge-run was killed"),
    ("somebody else's SIGTERM", SAVED._replace(signal="SIGTERM"), None, "SIGTERM from python (pid 7) came before"),
    ("no handler", INTERRUPTED._replace(status=-SIGUSR1), None, "nothing handles the notice: it died of SIGUSR1"),
    ("no handler in a shell", INTERRUPTED._replace(status=138), None, "nothing handles the notice"),
    ("no handler, SIGTERM", INTERRUPTED._replace(status=-SIGTERM), None, "it died of SIGTERM"),
    ("no handler, half a file", INTERRUPTED._replace(status=-SIGUSR1), WRITTEN, "nothing handles the notice"),
    ("KeyboardInterrupt", INTERRUPTED._replace(status=-SIGINT), None, "did not see it save"),
    ("KeyboardInterrupt in a shell", INTERRUPTED._replace(status=130), None, "did not see it save"),
    ("another status", INTERRUPTED._replace(status=3), None, "it exited with 3, 2.2 s after the notice"),
    ("finish() and another status", SAVED._replace(status=1, outcome="interrupted"), None, "called finish(), but then"),
    ("killed while it ignored all", ASSUMED._replace(outcome="forced", status=-SIGKILL), None, "did not end at the"),
    (
        "killed before a poll",
        UNSAVED._replace(first_poll=None, outcome="forced"),
        None,
        "did not poll after the notice",
    ),
    ("killed while it saved", UNSAVED._replace(outcome="forced"), None, "still saving at the end of its time"),
    ("killed after it saved", SAVED._replace(outcome="forced"), None, "saved within 2.1 s, but then did not end"),
    ("not even killed", UNSAVED._replace(outcome="forced", status=None, exit=None), None, "had to be killed"),
    ("SIGTERM was needed", SAVED._replace(stages=("terminate",)), None, "ended at SIGTERM only"),
    ("completed without a look", UNSAVED._replace(first_poll=None, outcome="completed"), None, "without seeing"),
    ("ended as the notice came", ASSUMED._replace(outcome="completed"), None, "ended just when the notice came"),
    ("slower than the lead", SAVED._replace(exit=301.0), None, "Slurm would have killed it after 300 s"),
    ("saves after the child's end", SAVED._replace(saved=301.0), None, "it took 301.0 s"),
    ("a task with an error", SAVED._replace(tasks=2, failed={"0.1": 1}), None, "task 0.1 exited with 1"),
    ("nothing written", SAVED, NOTHING, "nothing was written to run.pt"),
    ("nothing written, assumed", ASSUMED, NOTHING, "nothing was written to run.pt"),
]


@pytest.mark.parametrize(("seen", "evidence", "note"), [row[1:] for row in PASSED], ids=[row[0] for row in PASSED])
def test_what_passes(seen: Seen, evidence: Evidence | None, note: str) -> None:
    verdict = judge(seen, LEAD, evidence)
    assert verdict.passed and verdict.reason == ""
    assert len(verdict.notes) == bool(note) and note in "".join(verdict.notes)
    assert verdict.lead == lead_for(seen.took)


@pytest.mark.parametrize(("seen", "evidence", "reason"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
def test_what_fails(seen: Seen, evidence: Evidence | None, reason: str) -> None:
    verdict = judge(seen, LEAD, evidence)
    assert not verdict.passed
    assert reason in verdict.reason


def test_a_program_that_never_polled_fails() -> None:
    seen = Seen(started_at=1000.0, cooperative=True)
    verdict = judge(seen, LEAD, ended=False)
    assert not verdict.passed and "did not call should_shutdown()" in verdict.reason
    assert any("--patience" in note for note in verdict.notes)


def test_its_own_forced_exit_is_told_from_an_error() -> None:
    unsaved = UNSAVED._replace(status=1, exit=103.0, forced_exit=True)
    saving = judge(unsaved, LEAD)
    assert saving.reason == "it had not saved 103.0 s after the notice: its forced exit ended it"
    assert "--lead" in saving.notes[0]
    deaf = judge(unsaved._replace(first_poll=None), LEAD)
    assert deaf.reason.startswith("it had not polled")
    assert judge(SAVED._replace(forced_exit=True), LEAD).passed


def test_a_run_that_fails_anyway_says_what_was_not_written() -> None:
    verdict = judge(INTERRUPTED._replace(status=3), LEAD, NOTHING)
    assert verdict.reason.startswith("it exited with 3")
    assert f"Besides, {NOTHING.problem}" in verdict.notes


def test_a_run_slower_than_the_lead_says_which_it_needs() -> None:
    verdict = judge(SAVED._replace(exit=400.0), LEAD)
    assert verdict.notes == ("It needs --signal=B:USR1@660",)


# --- the lead ------------------------------------------------------------------------------------


def test_the_leads_arithmetic() -> None:
    lead = lead_for(2.2)
    assert lead.needed == pytest.approx(63.3)
    assert lead.seconds == 64


@given(st.integers(0, 10**6).map(lambda tenths: tenths / 10))
def test_a_lead_is_a_slower_day_and_what_kforge_run_keeps(measured: float) -> None:
    lead = lead_for(measured)
    assert lead.seconds == math.ceil(lead.needed) == tables.recommended_lead(1.5 * measured)
    assert lead.needed == 1.5 * measured + tables.LEAD_RESERVE


# --- when the notice is sent ---------------------------------------------------------------------

RUNS = Seen(started_at=1000.0)


@pytest.mark.parametrize(
    ("seen", "after", "due"),
    [
        (Seen(), None, None),
        (Seen(), 5.0, None),
        (RUNS, None, AFTER_START),
        (RUNS, 5.0, 5.0),
        (RUNS, 0.0, 0.0),
        (RUNS._replace(cooperative=True), None, None),
        (RUNS._replace(cooperative=True), 5.0, None),
        (RUNS._replace(cooperative=True, ready=3.0), None, 3.0),
        (RUNS._replace(cooperative=True, ready=3.0), 5.0, 8.0),
    ],
)
def test_when_the_notice_is_due(seen: Seen, after: float | None, due: float | None) -> None:
    assert notice_due(seen, after) == due


# --- what the journals tell ----------------------------------------------------------------------

OWNER = Attempt(
    "1000-7",
    1,
    started=1000.0,
    last_time=1012.0,
    registered=True,
    notice=Notice(1010.0, "SIGUSR1", "python (pid 7)"),
    reason="manual",
    exit_time=1012.0,
    exit_status=85,
    end_time=1012.1,
    outcome="checkpointed",
)
TASK = OWNER._replace(first_ready_poll=1004.0, first_poll=1010.5, finished=1011.0, last_finished=1011.2)


def test_nothing_is_known_before_the_start() -> None:
    assert seen_of(None) == Seen()


def test_one_journal() -> None:
    seen = seen_of(TASK._replace(stages=(Stage(1011.5, "terminate"), Stage(1012.05, "kill"))))
    assert (seen.ready, seen.noticed, seen.first_poll, seen.saved, seen.exit) == pytest.approx((4, 10, 0.5, 1.2, 2))
    assert (seen.ran, seen.tasks, seen.over, seen.cooperative) == (12, 0, True, True)
    assert seen.stages == ("terminate",), "what comes after the child's end is for what it has left behind"


def test_of_several_tasks_the_last_counts() -> None:
    slow = TASK._replace(first_ready_poll=1006.0, first_poll=1010.9, last_finished=1011.9)
    seen = seen_of(OWNER, {"0.0": TASK, "0.1": slow})
    assert (seen.ready, seen.first_poll, seen.saved) == pytest.approx((6, 0.9, 1.9))
    assert (seen.tasks, seen.failed) == (2, {})


def test_a_task_that_did_not_poll_keeps_all_from_being_ready() -> None:
    seen = seen_of(
        OWNER._replace(notice=None, end_time=None), {"0.0": TASK, "0.1": TASK._replace(first_ready_poll=None)}
    )
    assert seen.cooperative and seen.ready is None


def test_a_task_that_failed_is_named() -> None:
    failed = TASK._replace(last_finished=None, outcome="interrupted", exit_status=1)
    seen = seen_of(OWNER, {"0.0": TASK, "0.1": failed})
    assert seen.failed == {"0.1": 1}
    assert seen.saved is None


def test_a_step_that_was_over_before_the_notice_does_not_count() -> None:
    seen = seen_of(OWNER, {"0.0": TASK._replace(end_time=1003.0, outcome="failed", exit_status=1), "1.0": TASK})
    assert (seen.tasks, seen.failed) == (1, {})
