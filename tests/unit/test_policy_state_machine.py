"""Whole stories through the state machine, and what holds in every story Hypothesis can think of."""

from __future__ import annotations

import math
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGWINCH
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.policy import facts, tables, words
from kempnerforge.launcher.policy.ledger import WORD
from kempnerforge.launcher.policy.machine import NOTICE_FOLLOWS, Policy
from kempnerforge.launcher.policy.words import (
    Answer,
    Answered,
    Armed,
    AskSlurm,
    ChildExited,
    Continued,
    Deliver,
    Delivered,
    DumpStacks,
    EarlierAttempt,
    Exit,
    Finished,
    ForcedExit,
    Forward,
    Gone,
    Heard,
    HistoryRead,
    Identity,
    Job,
    JobRead,
    Kill,
    Listen,
    Look,
    MoreTime,
    Place,
    Polled,
    Probe,
    Registered,
    Requeue,
    RequeueAnswered,
    Rules,
    Seen,
    Signal,
    Signalled,
    Site,
    SiteRead,
    StepEnded,
    Tell,
    TellOuter,
    TermAsked,
    Terminate,
    TimePassed,
    TreeEmpty,
    TreeRead,
)
from kempnerforge.launcher.telling.wording import line_of

A = TypeVar("A")
START = 1000.0
RUNNING = Job("RUNNING", 0, START + 3600, None, False, False, True, "7")
TIMED_OUT = Job("COMPLETING", 0, START, None, True, False, True, "7")
CANCELLED = TIMED_OUT._replace(timed_out=False)
REQUEUED = TIMED_OUT._replace(timed_out=False, restarts=1)
SITE = Site(kill_wait=30, grace_time=20)


def process(pid: int) -> Identity:
    return Identity("n1", pid, pid * 10)


def program(pid: int = 5, parent: int = 1, **more: object) -> Seen:
    """Return an armed Python as /proc shows it."""
    seen = Seen(process(pid), parent, "program", "train.py", ("train.py", str(pid)), armed=True, used=9.0, age=10.0)
    return seen._replace(**more)  # type: ignore[arg-type]


def signalled(signum: int, *, alive: bool = True, child_has_it: bool = False) -> Signalled:
    return Signalled(signum, "somebody", child_has_it, alive)


class Story:
    """Feeds a policy and keeps what it asked for.

    Attributes:
        tree: what it sees when it looks; None: it does not get to see anything.
    """

    def __init__(self, rules: Rules | None = None, **more: object) -> None:
        self.policy = Policy(rules or Rules("batch"), site=SITE, **more)  # type: ignore[arg-type]
        self.now = START
        self.actions: list[words.Action] = []
        self.tree: tuple[Seen, ...] | None = None

    def sees(self, *tree: Seen) -> Story:
        """Have these be below from now on."""
        self.tree = tree
        return self

    def happens(self, *events: words.Event, at: float | None = None) -> Story:
        self.now = self.now if at is None else START + at
        for event in events:
            self._handle(event)
        return self

    def _handle(self, event: words.Event) -> None:
        for action in self.policy.handle(event, self.now):
            self.actions.append(action)
            if isinstance(action, Look) and self.tree is not None:
                self._handle(TreeRead(self.tree))

    def passes(self, seconds: float) -> Story:
        """Let time pass as the loop does: waking at each moment that the policy wants."""
        until = self.now + seconds
        while self.policy.due is not None and self.policy.due <= until:
            self.now = max(self.policy.due, self.now)
            self._handle(TimePassed())
        self.now = until
        return self

    def done(self, kind: type[A]) -> list[A]:
        return [action for action in self.actions if isinstance(action, kind)]

    @property
    def said(self) -> str:
        """What the log says of it all."""
        told = [action for action in self.actions if isinstance(action, facts.Fact)]
        return "\n".join(line.text for fact in told if (line := line_of(fact)) is not None)

    @property
    def status(self) -> int:
        (exit_,) = [action for action in self.actions if isinstance(action, Exit)]
        return exit_.status


def test_a_time_limit_is_survived() -> None:
    story = Story().happens(JobRead(RUNNING), Registered("train.py", process(5), 600), Polled(process(5), False))
    near = RUNNING._replace(end=START + 120)
    story.happens(signalled(SIGUSR1), JobRead(near)).happens(Polled(process(5), True), at=1).happens(
        Finished(process(5)), at=9
    )
    story.happens(ChildExited(0, True), at=10)
    assert not story.done(Requeue), "the job is read once more before it is requeued"
    story.happens(JobRead(near)).happens(RequeueAnswered(True, False, ""), JobRead(REQUEUED), at=11)
    assert story.done(Requeue) == [Requeue("7")]
    assert story.status == 0
    assert "checkpointed: SIGUSR1 → first poll +1.0 s → finish +9.0 s → exit +10.0 s → requeued +11.0 s" in story.said
    assert "109.0 s to spare" in story.said


def test_the_notice_is_delivered_before_slurm_is_asked() -> None:
    story = Story().happens(signalled(SIGTERM))
    kinds = [type(action) for action in story.actions]
    assert kinds.index(Deliver) < kinds.index(Tell) < kinds.index(AskSlurm)


@pytest.mark.parametrize(
    ("last_reading", "status"), [(CANCELLED, 85), (REQUEUED, 85)], ids=["cancelled", "requeued by somebody else"]
)
def test_what_happened_meanwhile_overrides_the_reason(last_reading: Job, status: int) -> None:
    near = RUNNING._replace(end=START + 120)
    story = Story().happens(JobRead(near), Registered("train.py", process(5), 600), signalled(SIGUSR1), JobRead(near))
    story.happens(Polled(process(5), True), Finished(process(5)), ChildExited(0, True), JobRead(last_reading), at=5)
    assert not story.done(Requeue)
    assert story.status == status


def test_a_second_signal_belongs_to_the_same_notice_and_brings_the_deadline_nearer() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=START + 500)))
    assert story.policy.deadline == START + 500
    story.happens(signalled(SIGUSR1), signalled(SIGTERM), JobRead(TIMED_OUT), at=100)
    assert len(story.done(Deliver)) == 1
    assert story.policy.deadline == START + 130


def test_escalation_in_order_against_a_child_that_ignores_everything() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT)).passes(29)
    kinds = [type(action) for action in story.actions]
    assert [kinds.count(kind) for kind in (Deliver, DumpStacks, Terminate, Kill)] == [1, 1, 1, 1]
    assert kinds.index(Deliver) < kinds.index(DumpStacks) < kinds.index(Terminate) < kinds.index(Kill)
    story.now = START + 29
    story.happens(ChildExited(-9, True)).happens(JobRead(TIMED_OUT))
    assert story.done(Requeue)


def test_a_child_that_outlives_sigkill_does_not_keep_the_job_from_its_requeue() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT)).passes(30)
    assert story.done(Kill)
    assert len(story.done(AskSlurm)) == 2
    story.happens(JobRead(TIMED_OUT), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert story.status == 0


def test_a_suspension_moves_the_stages_and_slurm_is_asked_before_any() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=START + 100)))
    story.happens(Continued(stopped_for=200), at=210)
    assert isinstance(story.actions[-1], AskSlurm)
    story.happens(TimePassed())
    assert not story.done(Terminate)
    story.happens(JobRead(RUNNING._replace(end=START + 305)))
    assert story.policy.deadline == START + 305, "what Slurm says corrects our guess"
    story.passes(60)
    assert not story.done(Terminate)
    story.passes(25)
    assert story.done(Terminate)


def test_a_limit_extended_while_nobody_looks_does_not_make_a_cancellation_a_time_limit() -> None:
    story = Story().happens(JobRead(RUNNING)).passes(3601.9)
    assert not story.done(AskSlurm)
    story.passes(1)
    assert len(story.done(AskSlurm)) == 1
    story.happens(JobRead(RUNNING._replace(end=START + 7200)), signalled(SIGTERM), JobRead(CANCELLED))
    assert "reason: cancelled" in story.said


def test_past_its_end_the_clock_does_not_make_a_cancellation_a_time_limit() -> None:
    story = Story().happens(JobRead(RUNNING)).passes(3603).happens(JobRead(RUNNING))
    story.happens(signalled(SIGTERM), JobRead(CANCELLED))
    assert "reason: cancelled" in story.said


def test_an_unreachable_controller_is_asked_until_the_deadline_and_the_command_is_told() -> None:
    story = Story(Rules("batch", job_id="7")).happens(JobRead(RUNNING), signalled(SIGTERM))
    for second in range(3):
        story.happens(JobRead(None, "down"), at=second).passes(1)
    assert len(story.done(AskSlurm)) == 4
    story.happens(ChildExited(0, True)).passes(60)
    assert not story.done(Requeue)
    assert "to run it again: scontrol requeue 7" in story.said
    assert story.status == 85


def test_a_controller_back_before_the_deadline_still_gets_the_run_requeued() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(None, "down"))
    story.happens(JobRead(TIMED_OUT), at=5).happens(ChildExited(85, True), JobRead(TIMED_OUT), at=6)
    assert story.done(Requeue)


def test_a_refused_requeue_is_tried_again_after_another_look_at_the_job() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    story.happens(JobRead(TIMED_OUT), RequeueAnswered(False, False, "try later")).passes(0.6)
    assert isinstance(story.actions[-1], AskSlurm)
    story.happens(JobRead(CANCELLED))
    assert len(story.done(Requeue)) == 1
    assert story.status == 85


def test_a_requeue_refused_for_ever_is_told_with_the_command() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(85, True), JobRead(RUNNING))
    story.happens(RequeueAnswered(False, True, "presently disabled"))
    assert "presently disabled; to run it again: scontrol requeue 7" in story.said
    assert story.status == 85


def test_a_requeue_that_took_effect_though_its_answer_was_lost_counts() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(85, True), JobRead(RUNNING))
    story.happens(RequeueAnswered(False, False, "timed out")).passes(0.6).happens(JobRead(REQUEUED))
    assert len(story.done(Requeue)) == 1
    assert story.status == 0


def test_a_preemption_that_only_the_step_was_told_of() -> None:
    story = Story(Rules("batch", child_is_srun=True)).happens(JobRead(RUNNING), ChildExited(85, True))
    story.happens(JobRead(RUNNING._replace(preempted_at=START, end=START + 20)))
    assert story.done(Requeue)


PREEMPTED = RUNNING._replace(preempted_at=START, end=START + 20, submitted=START - 60)


def test_the_end_of_our_step_is_a_preemptions_notice() -> None:
    story = Story().happens(JobRead(RUNNING), StepEnded())
    assert story.done(AskSlurm) and not story.done(Deliver), "it may have been a person's scancel"
    story.happens(JobRead(PREEMPTED))
    assert story.done(Deliver) == [Deliver(SIGTERM)]
    assert "reason: preempted" in story.said and "20 s left to save, end and requeue" in story.said
    assert story.policy.deadline == START + 20
    assert len(story.done(AskSlurm)) == 1, "the reason is known"
    # When the grace is over, the batch process is told as well. That does not give it more time.
    story.happens(signalled(SIGTERM), JobRead(REQUEUED), at=19)
    assert story.policy.deadline == START + 20 and len(story.done(Deliver)) == 1
    story.happens(ChildExited(0, True), at=19.5)
    assert "Slurm requeues it already" not in story.said
    story.happens(JobRead(REQUEUED))
    assert "Slurm requeues it already" in story.said and not story.done(Requeue)


def test_a_preempted_run_that_has_saved_in_its_grace_is_requeued() -> None:
    story = Story().happens(JobRead(RUNNING), StepEnded(), JobRead(PREEMPTED)).happens(ChildExited(0, True), at=12)
    story.happens(JobRead(PREEMPTED))
    assert story.done(Requeue)


@pytest.mark.parametrize(
    "read",
    [RUNNING, PREEMPTED._replace(preempted_at=START - 100), RUNNING._replace(state="SUSPENDED")],
    ids=["running", "preempted in an earlier attempt", "suspended"],
)
def test_our_step_ended_by_hand_is_no_notice(read: Job) -> None:
    story = Story().happens(JobRead(RUNNING), StepEnded(), JobRead(read))
    assert story.done(Listen) and story.policy.deadline is None
    story.happens(JobRead(PREEMPTED), at=2)
    assert not story.done(Deliver), "nobody has told anything"
    story.happens(StepEnded(), JobRead(read), at=4)
    assert len(story.done(Listen)) == 1, "once more is enough"
    assert "a preemption is noticed only when its grace is over" in story.said


def test_our_step_ended_with_the_job_is_not_started_again() -> None:
    story = Story().happens(JobRead(RUNNING), StepEnded(), JobRead(CANCELLED))
    assert not story.done(Listen) and not story.done(Deliver)
    story.happens(signalled(SIGTERM), JobRead(CANCELLED))
    assert "reason: cancelled" in story.said


def test_our_step_ended_while_slurm_does_not_answer() -> None:
    story = Story().happens(JobRead(RUNNING), SiteRead(SITE), StepEnded(), JobRead(None, "timed out")).passes(1.1)
    assert len(story.done(AskSlurm)) == 2
    story.happens(JobRead(PREEMPTED))
    assert story.done(Deliver)


def test_our_step_ended_and_slurm_never_answers() -> None:
    story = Story().happens(JobRead(RUNNING), SiteRead(SITE), StepEnded())
    for _second in range(30):
        story.happens(JobRead(None, "timed out")).passes(1)
    assert len(story.done(AskSlurm)) < 25 and not story.done(Deliver)


def test_a_preemption_after_a_notice_by_hand_brings_the_deadline_nearer() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=None)))
    assert story.policy.deadline == START + 600
    story.happens(StepEnded(), JobRead(PREEMPTED._replace(preempted_at=START + 60, end=START + 80)), at=60)
    assert story.policy.deadline == START + 80 and len(story.done(Deliver)) == 1


def test_our_step_ends_with_the_run() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(0, True))
    asked = len(story.done(AskSlurm))
    assert len(story.happens(StepEnded()).done(AskSlurm)) == asked


def test_more_time_is_granted_within_the_deadline() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=START + 120)))
    before = [action for action in story.actions if isinstance(action, Tell)][-1]
    story.happens(MoreTime(process(5), 110))
    after = [action for action in story.actions if isinstance(action, Tell)][-1]
    assert before.forced_exit is not None and after.forced_exit is not None
    assert before.forced_exit < after.forced_exit < START + 120
    assert after.deadline == before.deadline


def test_an_inner_one_ends_before_the_outer_ones_escalation_begins() -> None:
    outer, inner = Story(), Story(Rules("step", has_outer=True), end=START + 120)
    outer.happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=START + 120)))
    inner.happens(signalled(SIGUSR1)).passes(104)
    outer.passes(104)
    assert inner.done(Kill) and not outer.done(Terminate)
    outer.passes(2)
    assert outer.done(Terminate)


def test_ctrl_c_at_the_terminal_opens_no_window() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGINT, child_has_it=True)).passes(10_000)
    assert not story.done(Kill) and not story.done(Forward) and not story.done(Tell)
    story.happens(ChildExited(-2, True))
    assert story.status == 130


def test_sigint_by_kill_is_forwarded_and_enforced() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGINT))
    assert story.done(Forward) == [Forward(SIGINT)]
    story.happens(signalled(SIGINT)).passes(600)
    assert len(story.done(Forward)) == 2
    assert len(story.done(Kill)) == 1
    assert not story.done(Tell)


def test_other_signals_are_forwarded_as_they_are_but_never_to_an_srun_that_would_abort() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGHUP), signalled(SIGWINCH, child_has_it=True))
    assert story.done(Forward) == [Forward(SIGHUP)]
    under_srun = Story(Rules("batch", child_is_srun=True)).happens(signalled(SIGHUP), signalled(SIGWINCH))
    assert under_srun.done(Forward) == [Forward(SIGWINCH)]


def test_sigint_reaches_an_srun_as_the_notice() -> None:
    story = Story(Rules("batch", child_is_srun=True)).happens(signalled(SIGINT))
    assert story.done(Deliver) == [Deliver(SIGUSR1)]


def test_a_young_srun_gets_the_notice_until_it_has_settled() -> None:
    story = Story(Rules("batch", child_is_srun=True)).happens(signalled(SIGUSR1))
    for _ in range(30):
        story.happens(Delivered("srun", START - 5)).passes(1)
    assert len(story.done(Deliver)) == 1 + 5


@pytest.mark.parametrize("last_word", [Finished(process(5)), Gone(process(5))], ids=["finished", "gone"])
def test_a_save_outlives_the_shell_around_it(last_word: words.Event) -> None:
    registered = Registered("train.py", process(5), 600)
    story = Story().sees(program()).happens(JobRead(RUNNING), registered, signalled(SIGUSR1))
    story.happens(JobRead(RUNNING._replace(end=START + 120)), ChildExited(-10, False))
    story.passes(60)
    assert not story.done(Terminate) and not story.done(Kill)
    story.happens(MoreTime(process(5), 50), last_word).passes(1)
    assert story.done(Terminate), "what is left then is swept"
    story.happens(TreeEmpty(), JobRead(RUNNING))
    assert story.done(Requeue)


def test_a_save_that_outlives_its_shell_is_killed_in_time_all_the_same() -> None:
    story = Story().happens(JobRead(RUNNING), Registered("train.py", process(5), 600), signalled(SIGUSR1))
    story.happens(JobRead(RUNNING._replace(end=START + 120)), ChildExited(-10, False)).passes(119)
    assert len(story.done(DumpStacks)) == len(story.done(Terminate)) == len(story.done(Kill)) == 1
    story.happens(TreeEmpty(), JobRead(RUNNING), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert story.done(Requeue) == [Requeue("7")] and story.status == 0
    assert "forced: SIGUSR1 → exit +0.0 s" in story.said


def test_a_notice_reaches_a_save_that_has_outlived_its_shell() -> None:
    story = Story().happens(JobRead(RUNNING), Registered("train.py", process(5), 600), ChildExited(-9, False))
    assert story.done(Terminate)
    story.happens(signalled(SIGUSR1, alive=False))
    assert story.done(Deliver) == [Deliver(SIGUSR1)]


def test_who_does_not_acknowledge_the_notice_gets_it_again_until_it_does() -> None:
    story = Story().sees(program()).happens(JobRead(RUNNING), signalled(SIGUSR1)).passes(5)
    told = Signal((process(5),), WORD)
    assert story.done(Signal)[0] == told
    assert len(story.done(Signal)) > 3 and set(story.done(Signal)[1:]) == {told._replace(again=True)}
    count = len(story.happens(Heard(process(5), "k")).done(Signal))
    assert len(story.passes(60).done(Signal)) == count
    assert "train.py (pid 5) hears it by Ctrl-C, which it names" in story.said


def test_who_had_the_notice_may_outlive_the_child() -> None:
    story = Story(Rules("batch", term_grace=3)).sees(program()).happens(JobRead(RUNNING), signalled(SIGUSR1))
    story.happens(Heard(process(5), "k"), ChildExited(-15, False)).passes(20)
    assert facts.StillSaving((5,)) in story.actions
    assert not story.done(Terminate) and not story.done(Kill)
    story.sees().happens(Gone(process(5))).passes(1)
    assert story.done(Terminate)


def test_a_shell_dies_of_the_signal_that_is_our_notice_a_moment_later() -> None:
    """Slurm signals every process of the job, and the shell in between before us."""
    story = Story(Rules("batch", term_grace=3)).sees(program()).happens(JobRead(RUNNING), ChildExited(-15, False))
    assert not story.done(Terminate)
    story.passes(0.1).happens(signalled(SIGTERM, alive=False))
    assert story.done(Deliver) == [Deliver(SIGTERM)] and story.done(Signal)
    story.passes(5)
    assert not story.done(Terminate) and not story.done(Kill)
    story.sees().happens(Gone(process(5))).passes(1)
    assert story.done(Terminate)


def test_a_shell_dies_while_it_is_looked_into_who_is_told() -> None:
    outer = program(6, waits_for_children=True, used=1.0)
    story = Story(Rules("batch", term_grace=3)).sees(outer, program(5, parent=6))
    story.happens(JobRead(RUNNING), signalled(SIGTERM, alive=False), ChildExited(-15, False))
    assert story.done(Probe) == [Probe((process(6), process(5)))] and not story.done(Signal)
    answers = (Answered(process(5), Answer()), Answered(process(6), Answer()))
    story.happens(*answers).passes(0.2).happens(*answers).passes(0.2)
    assert story.done(Signal)[0] == Signal((process(5),), WORD) and not story.done(Terminate)
    story.happens(Heard(process(5), "k")).sees(outer).happens(Gone(process(5))).passes(5)
    assert not story.done(Terminate), "the outer one works on: what has been saved is uploaded, say"
    story.sees().happens(Gone(process(6))).passes(1.1)
    assert story.done(Terminate)


def test_what_is_below_a_shell_that_has_died_cannot_hear() -> None:
    story = Story().sees(Seen(process(5), 1, "deaf")).happens(JobRead(RUNNING), signalled(SIGTERM, alive=False))
    assert not story.happens(ChildExited(-15, False)).done(Signal)
    assert story.done(Terminate) == [Terminate()]


@pytest.mark.parametrize("status", [-15, -10, 143, 138])
def test_a_shell_dies_of_a_signal_that_nobody_else_gets(status: int) -> None:
    story = Story(Rules("batch", term_grace=3)).happens(JobRead(RUNNING), ChildExited(status, False))
    story.passes(NOTICE_FOLLOWS - 0.1)
    assert not story.done(Terminate)
    story.passes(1)
    assert story.done(Terminate) and not story.done(Kill)
    story.passes(3)
    assert story.done(Kill)


def test_a_shell_has_died_of_the_signal_when_it_comes_to_us() -> None:
    story = Story().sees(program()).happens(JobRead(RUNNING), signalled(SIGTERM, alive=False))
    assert story.done(Deliver) == [Deliver(SIGTERM)]
    story.happens(Heard(process(5), "k"), ChildExited(-15, False)).passes(5)
    assert not story.done(Terminate)


def test_whoever_comes_to_save_no_more_is_looked_for_no_more() -> None:
    story = Story().sees(program()).happens(JobRead(RUNNING), signalled(SIGUSR1), ChildExited(0, True))
    looks = len(story.done(Look))
    story.happens(Gone(process(5)), Armed("train.py", process(6))).passes(3)
    assert len(story.done(Look)) == looks


def test_an_armed_process_without_a_notice_is_swept() -> None:
    story = Story().happens(JobRead(RUNNING), Armed("train.py", process(5)), ChildExited(0, False))
    assert story.done(Terminate)


def test_a_storm_of_sigcont_postpones_nothing() -> None:
    story = Story(Rules("outside", timeout=6)).happens(signalled(SIGUSR1))
    for _ in range(20):
        story.happens(Continued(0)).passes(0.3)
    assert story.done(Terminate)
    assert story.done(Kill)


def test_a_storm_of_sigterm_moves_no_deadline_away() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM))
    for _ in range(20):
        story.happens(signalled(SIGTERM)).passes(0.4)
    assert story.policy.deadline == START + 30


def test_a_slow_controller_does_not_cost_a_retry() -> None:
    story = Story(Rules("batch", retry_failures=1)).happens(JobRead(RUNNING), HistoryRead(()), ChildExited(3, True))
    story.passes(4).happens(JobRead(RUNNING)).passes(9).happens(RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert story.status == 0


def test_what_is_left_behind_is_asked_then_killed() -> None:
    story = Story(Rules("outside", term_grace=3)).happens(ChildExited(0, False)).passes(2.9)
    assert story.done(Terminate) and not story.done(Kill)
    story.passes(0.2)
    assert story.done(Kill)
    story.happens(TreeEmpty())
    assert story.status == 0


def test_after_the_requeue_slurms_sigterm_is_swallowed() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(85, True), JobRead(RUNNING))
    count = len(story.actions)
    story.happens(signalled(SIGTERM, alive=False))
    assert len(story.actions) == count


job_records = st.builds(
    Job,
    state=st.sampled_from(["RUNNING", "COMPLETING", "PENDING", "SUSPENDED", "CANCELLED", "TIMEOUT"]),
    restarts=st.integers(0, 2),
    end=st.none() | st.floats(START - 100, START + 5000),
    preempted_at=st.none() | st.floats(START - 100, START + 100),
    timed_out=st.booleans(),
    suspended=st.booleans(),
    requeueable=st.booleans(),
    requeue_id=st.just("7"),
)
trees = st.lists(
    st.builds(
        Seen,
        st.builds(process, st.integers(4, 7)),
        st.integers(1, 8),
        st.sampled_from(["program", "cooperative", "launcher", "srun", "wrapper", "helper", "foreign", "deaf"]),
        armed=st.booleans(),
        used=st.floats(0, 1000),
        age=st.floats(0, 1000),
        waits_for_children=st.booleans(),
        caught=st.sampled_from([frozenset[int](), frozenset({int(SIGINT)}), frozenset({int(SIGTERM)})]),
    ),
    max_size=4,
).map(tuple)
answers = st.builds(
    Answer,
    helps=st.booleans(),
    mp_child=st.booleans(),
    names_door=st.booleans(),
    held_up=st.booleans(),
    awaited=st.frozensets(st.integers(4, 7), max_size=1),
)
any_event = st.one_of(
    st.builds(
        Signalled, st.sampled_from([SIGTERM, SIGUSR1, SIGINT, SIGHUP]), st.just(""), st.booleans(), st.booleans()
    ),
    st.builds(Delivered, st.just(""), st.none() | st.floats(START - 20, START)),
    st.builds(Armed, st.just("train.py"), st.builds(process, st.integers(5, 6))),
    st.builds(TreeRead, trees),
    st.builds(Answered, st.builds(process, st.integers(4, 7)), answers),
    st.builds(Heard, st.builds(process, st.integers(4, 7)), st.sampled_from("uk-"), st.booleans()),
    st.builds(Continued, st.floats(0, 100)),
    st.just(Registered("train.py", process(5), 600)),
    st.builds(Polled, st.just(process(5)), st.booleans()),
    st.just(Finished(process(5))),
    st.builds(Gone, st.builds(process, st.integers(4, 7))),
    st.builds(MoreTime, st.just(process(5)), st.floats(0, 1000)),
    st.builds(ChildExited, st.sampled_from([0, 1, 85, -9, -15]), st.booleans()),
    st.just(TreeEmpty()),
    st.just(StepEnded()),
    st.builds(SiteRead, st.builds(Site, st.floats(1, 60), st.floats(0, 60))),
    st.builds(TermAsked, st.floats(0, 7200)),
    st.builds(JobRead, st.none() | job_records, st.just("")),
    st.builds(RequeueAnswered, st.booleans(), st.booleans(), st.just("")),
    st.just(TimePassed()),
)
any_rules = st.builds(
    Rules,
    place=st.sampled_from(["batch", "step", "outside"]),
    requeue=st.booleans(),
    retry_failures=st.integers(0, 2),
    timeout=st.none() | st.floats(0.1, 100),
    term_grace=st.floats(0, 60),
    child_is_srun=st.booleans(),
    has_outer=st.booleans(),
)


@settings(max_examples=1000, deadline=None)
@given(any_rules, st.lists(st.tuples(any_event, st.floats(0, 30)), max_size=40))
def test_in_any_story(rules: Rules, events: list[tuple[words.Event, float]]) -> None:
    policy, now = Policy(rules, site=SITE), START
    exited = signalled_at_all = False
    exits = kills = terminates = 0
    known_deadline = math.inf
    reason_known = False
    for happened, pause in events:
        event = happened
        now += pause
        if isinstance(event, ChildExited):
            if exited:
                continue
            exited = True
        if isinstance(event, Signalled) and exited:
            event = event._replace(child_alive=False)
        if isinstance(event, Continued):
            known_deadline = math.inf
        for action in policy.handle(event, now):
            assert exits == 0, "nothing happens after the end"
            signalled_at_all |= isinstance(event, Signalled) or isinstance(action, Deliver)
            if isinstance(action, (Kill, Terminate)):
                # never a kill before a delivery, but to sweep what a child left behind
                assert signalled_at_all or exited
            kills += isinstance(action, Kill) and not exited
            terminates += isinstance(action, Terminate) and not exited
            exits += isinstance(action, Exit)
            if isinstance(action, Requeue):
                assert exited or kills, "the child is gone, or was given up"
                assert rules.place == "batch" and rules.requeue
            if isinstance(action, facts.ReasonFound):
                reason_known = action.reason != "unknown"
        understood = isinstance(event, JobRead) and event.job is not None and event.job.state == "RUNNING"
        if understood and reason_known and policy.deadline is not None:
            assert policy.deadline <= known_deadline + 1e-6, "a deadline that is known never recedes"
            known_deadline = policy.deadline
        if policy.due is not None:
            assert policy.due < now + 1e5
    assert kills <= 1 and terminates <= 1, "escalation is a one-way ratchet"


def test_the_same_signal_again_says_nothing_new() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING._replace(end=START + 500)))
    count = len(story.actions)
    story.happens(signalled(SIGUSR1), at=100)
    assert len(story.actions) == count and story.policy.deadline == START + 500


def test_a_second_sigterm_of_a_step_is_the_end_of_its_grace() -> None:
    story = Story(Rules("step")).happens(signalled(SIGTERM))
    assert story.policy.deadline == START + 20 + 30
    story.happens(signalled(SIGTERM), at=15)
    assert story.policy.deadline == START + 15 + 30


def test_a_storm_of_sigterm_is_told_once_and_a_later_one_again() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM))
    for tenth in range(30):
        story.happens(signalled(SIGTERM), at=tenth / 10)
    assert story.said.count("SIGTERM too, from somebody") == 1
    story.happens(signalled(SIGTERM), at=4.5)
    assert story.said.count("SIGTERM too, from somebody") == 2


def test_a_preemption_is_heard_of_behind_a_ctrl_c() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGINT, child_has_it=True), StepEnded())
    story.happens(JobRead(RUNNING._replace(preempted_at=START)))
    assert "notice: SIGTERM from slurmstepd, to the job's steps" in story.said and "reason: preempted" in story.said


def test_facts_that_are_not_known_are_asked_for_again() -> None:
    story = Story().happens(JobRead(NEWFANGLED))
    asked = len(story.done(AskSlurm))
    assert len(story.passes(30).done(AskSlurm)) == asked + 1


def test_a_sigterm_that_slurm_does_not_mean_takes_its_guess_back() -> None:
    near = RUNNING._replace(end=START + 100)
    story = Story().happens(JobRead(near), signalled(SIGUSR1), JobRead(near)).happens(signalled(SIGTERM), at=10)
    assert story.policy.deadline == START + 40
    assert "30 s left to save, end and requeue" in story.said
    story.happens(JobRead(near))
    assert story.policy.deadline == START + 100


def test_a_deadline_that_comes_nearer_ends_the_last_questions_sooner() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING), ChildExited(85, True), at=1)
    story.happens(signalled(SIGTERM, alive=False), at=2).passes(31)
    assert story.status == 85


def test_a_suspension_does_not_count_in_the_summary() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING))
    story.happens(Continued(stopped_for=200), at=210).happens(ChildExited(85, True), at=220)
    story.happens(JobRead(RUNNING), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert "checkpointed: SIGUSR1 → exit +20.0 s" in story.said


@pytest.mark.parametrize(
    ("before", "waits"),
    [
        ((), "for the child to end"),
        ((Registered("train.py", process(5), 600),), "for its first poll"),
        ((Registered("train.py", process(5), 600), Polled(process(5), True)), "to finish"),
    ],
)
def test_what_is_waited_for_is_told(before: tuple[words.Event, ...], waits: str) -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING), *before).passes(10)
    assert f"waiting {waits}: 590 s left" in story.said


def test_the_first_poll_is_the_first_that_has_seen_the_notice() -> None:
    story = Story().happens(
        JobRead(RUNNING), Registered("train.py", process(5), 600), signalled(SIGUSR1), JobRead(RUNNING)
    )
    story.happens(Polled(process(5), False), at=1).happens(Polled(process(5), True), at=2).happens(
        Polled(process(5), True), at=3
    )
    story.happens(Polled(process(5), False), ChildExited(0, True), at=4)
    story.happens(JobRead(RUNNING), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert "checkpointed: SIGUSR1 → first poll +2.0 s → exit +4.0 s" in story.said


def test_after_a_ctrl_c_slurm_is_not_asked() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGINT), ChildExited(130, True))
    assert story.status == 130 and not story.done(AskSlurm)


def test_a_status_that_the_site_requeues_is_not_given() -> None:
    site = Site(requeue_exits=frozenset({85}))
    story = Story(Rules("batch", requeue=False)).happens(SiteRead(site), JobRead(RUNNING), signalled(SIGUSR1))
    assert story.happens(JobRead(RUNNING), ChildExited(85, True)).status == 75


@pytest.mark.parametrize(
    ("rules", "status", "patience"),
    [
        (Rules("batch"), 0, 5),
        (Rules("batch"), 3, 5),
        (Rules("batch", retry_failures=1), 3, 60),
        (Rules("batch", retry_failures=1), 0, 5),
        (Rules("batch"), 85, 60),
    ],
    ids=["completed", "failed", "failed, and to be tried again", "completed, and never to be", "checkpointed"],
)
def test_slurm_is_waited_for_as_long_as_its_answer_is_worth(rules: Rules, status: int, patience: float) -> None:
    story = Story(rules).happens(ChildExited(status, True)).passes(patience - 1)
    assert not story.done(Exit)
    story.passes(1)
    assert story.done(Exit)


def test_slurm_is_waited_for_longer_where_a_process_has_saved() -> None:
    story = Story().happens(Registered("train.py", process(5), 600), Finished(process(5)), ChildExited(0, True))
    assert not story.passes(59).done(Exit)
    assert story.passes(1).done(Exit)


def test_of_several_that_save_the_last_is_waited_for() -> None:
    both = (Registered("a.py", process(5), 600), Registered("b.py", process(6), 600))
    story = Story().sees(program(5), program(6)).happens(JobRead(RUNNING), *both, signalled(SIGUSR1), JobRead(RUNNING))
    story.happens(ChildExited(-10, False))
    story.happens(Finished(process(5)), Gone(process(5)), at=3)
    assert not story.done(Terminate)
    story.happens(Finished(process(6)), at=5)
    assert story.done(Terminate)
    assert "pid 5 finished, 3.0 s after the notice" in story.said
    story.happens(TreeEmpty(), JobRead(RUNNING), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert "checkpointed: SIGUSR1 → finish +3.0 s → exit +0.0 s" in story.said


def test_the_log_says_what_each_process_below_can_do() -> None:
    inner = Registered("kforge-run", process(6), 0, is_launcher=True)
    story = Story().happens(Armed("a.py", process(4)), Registered("b.py", process(5), 600), inner)
    assert story.said.splitlines() == [
        "a.py (pid 4) can be interrupted",
        "b.py (pid 5) has a ShutdownHandler",
        "kforge-run (pid 6) looks after what runs below it",
    ]


def test_our_step_ended_where_no_grace_is_known() -> None:
    policy = Policy(Rules("batch"))
    assert policy.handle(StepEnded(), START) == [AskSlurm()]
    assert policy.handle(JobRead(None, "no answer"), START + 1) == []


def test_a_run_that_is_done_ends_as_completed() -> None:
    actions = Policy(Rules(place="batch")).already_done(RUNNING._replace(restarts=2), START)
    assert actions[-1] == Exit(0)
    (end,) = (action for action in actions if isinstance(action, facts.Ended))
    assert (end.outcome, end.requeued, end.restarts, end.status) == ("completed", False, 2, 0)
    assert facts.WasDoneBefore() in actions


# --- a state that only a newer Slurm has -------------------------------------------------------------

NEWFANGLED = RUNNING._replace(state="NEWFANGLED")


def test_a_state_that_is_not_known_takes_nothing_back_of_what_is_known() -> None:
    near = RUNNING._replace(end=START + 120)
    story = Story().happens(JobRead(near), signalled(SIGUSR1), JobRead(near), signalled(SIGTERM), JobRead(NEWFANGLED))
    assert "reason: unknown" not in story.said
    story.happens(ChildExited(85, True), JobRead(NEWFANGLED), RequeueAnswered(True, False, ""), at=5)
    assert story.done(Requeue) == [Requeue("7")]
    # Nor does it say that an accepted requeue has failed.
    story.happens(JobRead(NEWFANGLED)).happens(JobRead(NEWFANGLED._replace(restarts=1)), at=7)
    assert len(story.done(Requeue)) == 1 and story.status == 0


def test_a_state_that_is_not_known_is_asked_about_again() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(NEWFANGLED))
    assert "reason: unknown" in story.said
    asked = len(story.done(AskSlurm))
    assert len(story.passes(2).done(AskSlurm)) > asked
    assert "reason: cancelled" in story.happens(JobRead(CANCELLED)).said


def test_a_state_that_is_not_known_is_no_notice() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(0, True), JobRead(NEWFANGLED))
    assert story.status == 0 and "reason" not in story.said


# --- who else is told ----------------------------------------------------------------------------


def test_who_registers_after_the_notice_is_told_what_the_others_were() -> None:
    near = RUNNING._replace(end=START + 120)
    story = Story().happens(JobRead(near), Registered("train.py", process(5), 600), signalled(SIGUSR1), JobRead(near))
    late = process(6)
    told = story.done(Tell)
    story.happens(Registered("late.py", late, 600), at=1)
    assert story.done(Tell) == [*told, told[-1]._replace(to=late)]
    assert told[-1].to is None and told[-1].reason == "time_limit"


def test_who_registers_without_a_notice_is_told_nothing() -> None:
    story = Story().happens(Registered("train.py", process(5), 600))
    story.happens(signalled(SIGINT, child_has_it=True), Registered("late.py", process(6), 600))
    assert not story.done(Tell)


@pytest.mark.parametrize(("has_outer", "status"), [(True, 85), (True, 1), (False, 85)])
def test_the_kforge_run_above_hears_of_a_checkpoint_and_of_nothing_else(has_outer: bool, status: int) -> None:
    story = Story(Rules("step", has_outer=has_outer)).happens(signalled(SIGTERM), ChildExited(status, True))
    assert len(story.done(TellOuter)) == (has_outer and status == 85)


def test_a_forced_exit_is_told() -> None:
    story = Story().happens(signalled(SIGTERM), ForcedExit(process(5)))
    assert "pid 5 has not saved in its time, and ends itself" in story.said


# --- what only a mutant would do -----------------------------------------------------------------


@pytest.mark.parametrize("retried", [True, False])
def test_the_history_tells_whether_a_retry_is_left(retried: bool) -> None:
    story = Story(Rules("batch", retry_failures=1)).happens(JobRead(RUNNING._replace(restarts=1)))
    story.happens(HistoryRead((EarlierAttempt(0, True, retried),)), ChildExited(1, True))
    story.happens(JobRead(RUNNING._replace(restarts=1)))
    assert bool(story.done(Requeue)) is not retried


def test_the_notice_is_told_before_what_comes_of_it() -> None:
    story = Story(Rules("step")).happens(signalled(SIGTERM))
    told = [type(action) for action in story.actions if isinstance(action, facts.Fact)]
    assert told == [facts.NoticeCame, facts.ReasonFound, facts.TimeLeft]


def test_what_outlives_the_child_is_told_and_has_a_limit_without_a_notice() -> None:
    story = Story().happens(JobRead(RUNNING), Registered("train.py", process(5), 600), ChildExited(-9, False))
    assert facts.StillSaving((5,)) in story.actions
    assert story.policy.due == START + tables.MANUAL_WINDOW
    assert not story.passes(tables.MANUAL_WINDOW - 1).done(Kill)
    assert story.passes(1).done(Kill)


def test_a_child_that_goes_after_sigkill_is_not_outlived() -> None:
    story = Story().happens(JobRead(RUNNING), Registered("train.py", process(5), 600), signalled(SIGTERM))
    story.happens(JobRead(TIMED_OUT)).passes(28)
    assert len(story.done(Kill)) == 1
    story.happens(ChildExited(-9, False))
    assert len(story.done(Kill)) == 2, "what is left is swept at once"


def test_who_is_there_and_was_not_told_does_not_outlive_the_child() -> None:
    story = Story().sees().happens(JobRead(RUNNING), Armed("train.py", process(5)), signalled(SIGTERM))
    story.happens(Delivered("the child", None), ChildExited(-15, False))
    assert story.done(Terminate)


def test_a_sigterm_behind_a_ctrl_c_is_a_notice_of_its_own() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGINT, child_has_it=True))
    assert story.policy.deadline is None
    story.happens(signalled(SIGTERM), at=1)
    assert story.done(Deliver) == [Deliver(SIGTERM)]
    told = [action.signal for action in story.actions if isinstance(action, facts.NoticeCame)]
    assert told == ["SIGINT", "SIGTERM"]
    assert story.policy.deadline is not None


def test_a_second_ctrl_c_is_passed_on_and_no_notice() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGINT), signalled(SIGINT), at=1)
    assert story.done(Forward) == [Forward(SIGINT)] * 2
    assert len(story.done(facts.NoticeCame)) == 1


@pytest.mark.parametrize(
    ("signum", "child_has_it", "timeout", "opens"),
    [
        (SIGINT, True, None, False),
        (SIGINT, True, 30.0, True),
        (SIGINT, False, None, True),
        (SIGTERM, True, None, True),
    ],
)
def test_what_opens_the_window(signum: int, child_has_it: bool, timeout: float | None, opens: bool) -> None:
    story = Story(Rules("outside", timeout=timeout)).happens(signalled(signum, child_has_it=child_has_it))
    assert (story.policy.deadline is not None) == opens
    assert bool(story.passes(11).done(facts.Waiting)) == opens


def test_what_is_left_is_told_every_ten_seconds() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGTERM)).passes(31)
    assert [action.seconds for action in story.done(facts.Waiting)] == [590.0, 580.0, 570.0]


def test_a_notice_in_the_sweep_is_not_handed_on_and_waited_for() -> None:
    story = Story(Rules("outside")).happens(Armed("train.py", process(5)), ChildExited(0, False))
    story.happens(signalled(SIGUSR1, alive=False)).passes(10.5)
    assert not story.done(Deliver) and not story.done(facts.Waiting)


def test_where_nothing_lives_a_notice_finds_nobody() -> None:
    story = Story().sees().happens(JobRead(RUNNING), signalled(SIGUSR1, alive=False))
    assert story.done(Look) and not story.done(Signal)
    assert story.happens(ChildExited(-10, True)).done(AskSlurm)


def test_a_child_that_has_ended_gets_no_signal() -> None:
    assert not Story().happens(signalled(SIGWINCH, alive=False), signalled(SIGINT, alive=False)).done(Forward)


def test_while_slurm_does_not_answer_the_reason_told_is_unknown() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(None, "down"))
    assert [action.reason for action in story.done(Tell)] == [None, "unknown"]


def test_a_suspension_is_told_and_counts_in_no_moment() -> None:
    story = Story(Rules("step")).happens(Registered("train.py", process(5), 600), signalled(SIGUSR1))
    story.happens(Polled(process(5), True), at=1).happens(Finished(process(5)), at=3)
    story.happens(Continued(100.0), at=104).happens(ChildExited(0, True), at=105)
    assert facts.Continued(100.0) in story.actions
    (shut_down,) = story.done(facts.ShutDown)
    assert dict(shut_down.moments) == {"first poll": 1.0, "finish": 3.0, "exit": 5.0}


def test_a_suspension_after_the_childs_end_counts_in_no_moment() -> None:
    story = Story(Rules("step", term_grace=200)).happens(signalled(SIGUSR1)).happens(ChildExited(0, False), at=2)
    story.happens(Continued(100.0), at=103).happens(TreeEmpty(), at=104)
    (end,) = story.done(facts.Ended)
    assert end.shutdown == 2.0


@pytest.mark.parametrize("place", ["batch", "step"])
def test_after_a_suspension_only_a_batch_process_asks_slurm(place: Place) -> None:
    story = Story(Rules(place)).happens(Continued(5.0))
    assert bool(story.done(AskSlurm)) == (place == "batch")


def test_after_a_suspension_in_the_sweep_slurm_is_asked_and_later_not_once_more() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(0, False), Continued(5.0))
    assert len(story.done(AskSlurm)) == 1
    story.happens(TreeEmpty(), at=10).happens(Continued(5.0), at=20)
    assert len(story.done(AskSlurm)) == 2, "the answer is on its way"


def test_an_srun_whose_tasks_have_registered_is_not_told_again() -> None:
    story = Story(Rules("batch", child_is_srun=True)).happens(Registered("train.py", process(5), 600))
    story.happens(signalled(SIGUSR1), Delivered("srun", START)).passes(3)
    assert story.done(Deliver) == [Deliver(SIGUSR1)]


@pytest.mark.parametrize("count", [10, 30])
def test_a_storm_of_sigterm_asks_slurm_once_a_second(count: int) -> None:
    story = Story().happens(JobRead(RUNNING))
    for tenth in range(count):
        story.happens(signalled(SIGTERM), at=tenth / 10).passes(0)
    assert len(story.done(AskSlurm)) == count / 10
    story.passes(1)
    assert len(story.done(AskSlurm)) == count / 10 + 1, "the last one is not forgotten"


def test_what_was_to_be_asked_later_is_asked_now_and_not_again() -> None:
    story = Story().happens(JobRead(RUNNING._replace(end=START + 100))).happens(signalled(SIGUSR1), at=10)
    story.happens(JobRead(RUNNING._replace(end=None))).passes(200)
    assert len(story.done(AskSlurm)) == 1


def test_a_grace_that_is_read_later_is_minded() -> None:
    policy = Policy(Rules("batch"))
    policy.handle(SiteRead(SITE), START)
    assert policy.handle(StepEnded(), START) == [AskSlurm()]
    policy.handle(JobRead(None, "no answer"), START + 19)
    assert policy.due == START + 20


def test_in_the_end_slurm_is_asked_again_every_second() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    asked = len(story.done(AskSlurm))
    for second in range(3):
        story.happens(JobRead(None, "down"), at=second).passes(1)
    assert len(story.done(AskSlurm)) == asked + 3


def test_a_suspension_moves_the_end_of_a_step_too() -> None:
    story = Story(Rules("step"), end=START + 100).happens(Continued(50.0), at=100).happens(signalled(SIGTERM))
    assert story.said.splitlines()[-2:] == ["reason: unknown", "50 s left to save and end"]


def test_kill_wait_counts_from_the_first_sigterm_that_is_not_explained() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM)).happens(signalled(SIGTERM), at=10)
    assert story.policy.deadline == START + 30
    explained = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(RUNNING))
    assert explained.happens(signalled(SIGTERM), at=10).policy.deadline == START + 40
    first_usr1 = Story().happens(signalled(SIGUSR1)).happens(signalled(SIGTERM), at=10)
    assert first_usr1.policy.deadline == START + 40


def test_a_state_that_is_not_known_may_still_tell_of_a_requeue() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(NEWFANGLED._replace(restarts=1)))
    assert "reason: requeued" in story.said


def test_a_state_that_is_known_and_explains_nothing_is_not_asked_about_again() -> None:
    story = Story().happens(signalled(SIGTERM), JobRead(CANCELLED))
    assert "reason: unknown" in story.said
    assert len(story.passes(5).done(AskSlurm)) == 1


def test_while_a_requeue_is_under_way_nothing_else_is_asked() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    story.happens(JobRead(TIMED_OUT))
    asked = len(story.done(AskSlurm))
    story.happens(JobRead(None, "down")).passes(2)
    assert story.done(Requeue) and len(story.done(AskSlurm)) == asked


def test_a_question_at_the_end_that_is_not_answered_is_asked_again() -> None:
    story = Story().happens(JobRead(RUNNING._replace(end=START + 100))).passes(103)
    story.happens(JobRead(None, "down")).passes(29)
    assert len(story.done(AskSlurm)) == 1
    assert len(story.passes(1).done(AskSlurm)) == 2


@pytest.mark.parametrize(("signum", "asks"), [(SIGTERM, 1), (SIGUSR1, 2)])
def test_the_end_of_our_step_is_asked_about_unless_slurm_has_told_us_too(signum: int, asks: int) -> None:
    story = Story().happens(JobRead(RUNNING), signalled(signum)).happens(StepEnded(), at=5)
    assert len(story.done(AskSlurm)) == asks


def test_an_answer_about_our_step_that_cannot_be_read_is_the_last() -> None:
    story = Story().happens(JobRead(RUNNING), StepEnded(), JobRead(None, "rubbish", answered=True))
    assert len(story.passes(29).done(AskSlurm)) == 1


def test_kill_wait_counts_only_from_a_sigterm_that_slurm_has_sent_us() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1))
    assert story.policy.deadline == START + 3600
    by_step = Story().happens(JobRead(RUNNING), StepEnded(), JobRead(PREEMPTED._replace(end=START + 100)))
    assert by_step.policy.deadline == START + 100


def test_a_suspension_behind_a_ctrl_c_counts_in_no_moment() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGINT, child_has_it=True)).happens(Continued(50.0), at=51)
    (end,) = story.happens(ChildExited(-2, True), at=53).done(facts.Ended)
    assert end.shutdown == 3.0


def test_a_second_question_is_asked_though_the_first_is_answered_meanwhile() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1)).happens(signalled(SIGTERM), at=0.5)
    story.happens(JobRead(RUNNING), at=0.6)
    assert len(story.passes(1).done(AskSlurm)) == 2


def test_a_reason_that_is_known_stays_when_slurm_does_not_answer_in_the_end() -> None:
    near = RUNNING._replace(end=START + 120)
    story = Story().happens(JobRead(near), signalled(SIGUSR1), JobRead(near), ChildExited(85, True)).passes(200)
    (end,) = story.done(facts.Ended)
    assert (end.reason, end.because) == ("time_limit", "Slurm did not answer")


def test_kill_wait_is_the_sites() -> None:
    story = Story().happens(SiteRead(Site(kill_wait=77)), signalled(SIGTERM))
    assert story.policy.deadline == START + 77


def test_a_suspension_moves_the_deadline_where_slurm_is_not_asked() -> None:
    story = Story(Rules("outside")).happens(signalled(SIGTERM)).happens(Continued(100.0), at=101)
    assert story.policy.deadline == START + 700


def test_a_deadline_does_not_recede() -> None:
    step = Story(Rules("step")).happens(signalled(SIGTERM)).happens(signalled(SIGTERM), at=45)
    assert step.policy.deadline == START + 50
    near = RUNNING._replace(end=START + 100)
    batch = Story().happens(JobRead(near), signalled(SIGUSR1), JobRead(near), JobRead(RUNNING))
    assert batch.policy.deadline == START + 100
    guessed = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(RUNNING))
    assert guessed.policy.deadline == START + 600, "what was a guess may"


def test_a_suspension_moves_what_a_save_has_asked_for() -> None:
    story = Story(Rules("outside", timeout=100)).happens(signalled(SIGTERM), MoreTime(process(5), 90))
    assert story.done(Tell)[-1].forced_exit == START + 90
    story.happens(Continued(100.0), at=101).happens(MoreTime(process(5), 1))
    assert story.done(Tell)[-1].forced_exit == START + 190


def test_the_time_left_is_told_when_it_or_the_reason_changes() -> None:
    near = RUNNING._replace(end=START + 100)
    story = Story().happens(JobRead(near), signalled(SIGUSR1))
    assert not story.done(facts.TimeLeft), "before it is known what is to be done with it"
    story.happens(JobRead(near), JobRead(near._replace(end=START + 99.5)))
    assert story.done(facts.TimeLeft) == [facts.TimeLeft(100.0, True)]
    assert len(story.done(Tell)) == 3
    story.happens(JobRead(near._replace(end=START + 98.5)))
    assert story.done(facts.TimeLeft)[1:] == [facts.TimeLeft(98.5, True)]
    story.happens(JobRead(near._replace(end=START + 98.5, preempted_at=START)))
    assert story.done(facts.TimeLeft)[2:] == [facts.TimeLeft(98.5, True)]


def test_of_a_step_nothing_is_requeued() -> None:
    story = Story(Rules("step"), end=START + 100).happens(signalled(SIGUSR1))
    assert story.done(facts.TimeLeft) == [facts.TimeLeft(100.0, False)]


def test_what_is_stopped_by_hand_is_not_requeued_either() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGUSR1), JobRead(RUNNING))
    assert story.done(facts.TimeLeft) == [facts.TimeLeft(600.0, False)]


def test_an_end_that_has_passed_is_no_deadline() -> None:
    story = Story().happens(JobRead(RUNNING._replace(end=START + 100))).happens(signalled(SIGUSR1), at=101)
    assert story.policy.deadline == START + 701


def test_a_preemption_that_is_seen_in_the_end_does_not_change_the_reason() -> None:
    near = RUNNING._replace(end=START + 120)
    story = Story().happens(JobRead(near), signalled(SIGUSR1), JobRead(near), ChildExited(85, True))
    story.happens(JobRead(near._replace(preempted_at=START)))
    assert story.done(facts.ReasonFound) == [facts.ReasonFound("time_limit")]
    assert story.done(facts.RequeueAsked) == [facts.RequeueAsked("checkpointed after time_limit", "7")]


@pytest.mark.parametrize(
    "reading", [TIMED_OUT._replace(state="PENDING"), TIMED_OUT], ids=["waits", "never read before"]
)
def test_what_shows_that_a_requeue_took_effect(reading: Job) -> None:
    before = [JobRead(RUNNING)] if reading.state == "PENDING" else []
    story = Story().happens(*before, signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    story.happens(JobRead(TIMED_OUT), RequeueAnswered(True, False, ""), JobRead(reading))
    assert story.status == 0


def test_a_requeue_that_fails_when_time_is_up_is_not_tried_again() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT))
    story.happens(ChildExited(85, True), JobRead(TIMED_OUT), at=28)
    story.happens(RequeueAnswered(False, False, "busy"), at=29.5)
    (end,) = story.done(facts.Ended)
    assert end.because == "the requeue failed: busy"


def test_a_step_gives_no_hint_to_requeue() -> None:
    story = Story(Rules("step")).happens(signalled(SIGTERM), ChildExited(1, True))
    assert not story.done(facts.NotRequeued)
    assert story.done(facts.Decided) == [facts.Decided(False, "a step is not requeued, its job is", None)]


def test_an_accepted_requeue_after_which_nothing_has_changed_has_failed() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    story.happens(JobRead(TIMED_OUT), RequeueAnswered(True, False, ""), JobRead(TIMED_OUT))
    assert story.done(facts.RequeueFailed) and not story.done(Exit)


def ended(story: Story) -> tuple[bool, bool, list[facts.Decided]]:
    """Return whether the attempt was requeued, and as a retry, and how the decision was told."""
    (end,) = story.done(facts.Ended)
    return end.requeued, end.retried, story.done(facts.Decided)


def test_a_retry_is_told_as_one() -> None:
    story = Story(Rules("batch", retry_failures=1)).happens(JobRead(RUNNING), ChildExited(1, True), JobRead(RUNNING))
    story.happens(RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert ended(story) == (True, True, [facts.Decided(True, "requeued", 1)])


def test_a_requeue_after_a_checkpoint_is_no_retry() -> None:
    story = Story().happens(JobRead(RUNNING), signalled(SIGTERM), JobRead(TIMED_OUT), ChildExited(85, True))
    story.happens(JobRead(TIMED_OUT), RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert ended(story) == (True, False, [facts.Decided(True, "requeued", None)])


@pytest.mark.parametrize(
    ("place", "status", "decided"),
    [
        ("batch", 1, [facts.Decided(False, "it failed", 1)]),
        ("batch", 0, []),
        ("step", 1, []),
        ("outside", 1, []),
    ],
)
def test_without_a_notice_only_a_failed_job_is_told_of(place: Place, status: int, decided: list[facts.Decided]) -> None:
    story = Story(Rules(place)).happens(JobRead(RUNNING), ChildExited(status, True), JobRead(RUNNING))
    assert ended(story) == (False, False, decided)


def test_a_requeue_without_a_notice_is_told() -> None:
    story = Story().happens(JobRead(RUNNING), ChildExited(85, True), JobRead(RUNNING))
    story.happens(RequeueAnswered(True, False, ""), JobRead(REQUEUED))
    assert ended(story) == (True, False, [facts.Decided(True, "requeued", 85)])
