"""What holds in every story of the World, whatever the child, Slurm and people do."""

from __future__ import annotations

import itertools
import random
import re
from signal import SIGUSR1

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.policy import facts, ledger, machine, tables
from kempnerforge.launcher.policy.words import (
    CHECKPOINTED_STATUS,
    Deliver,
    DumpStacks,
    Exit,
    Forward,
    Kill,
    Rules,
    Tell,
    Terminate,
)
from tests.unit.world import START, WITH_HANDLER, WORKER, Child, Cluster, World, draw

#: Moments that belong together may be so far apart (s).
SLACK = 1e-6


def is_simple(world: World) -> bool:
    """Return whether nothing is wrong with the cluster: what is lost then is lost by us."""
    cluster = world.cluster
    return (
        world.rules.place == "batch"
        and cluster.outage is None
        and cluster.answers_after <= 0.05
        and cluster.suspended is None
        and not world.child.undying
    )


def is_told_to_go_on(world: World) -> bool:
    """Return whether nobody but Slurm's limits, or a request to requeue, has stopped the run."""
    persons = world.cluster.occasion in ("cancel", "term", "int")
    return world.noticed_at is not None and not persons and not world.by_itself


def check(world: World) -> None:
    _ends(world)
    _requeues_what_should_go_on(world)
    _escalates_in_order(world)
    _deadlines_come_nearer(world)
    _tells_once(world)
    _tells_in_turn(world)
    if world.exit is not None:
        _says_what_was(world)


def _ends(world: World) -> None:
    if is_simple(world) and world.cluster.requeue != "refused twice":
        # One who is refused may try until the time is up.
        assert not world.killed_by_slurm
    if world.exit is not None:
        assert len(world.times(Exit)) == 1 and world.policy.due is None
        gave_up = world.child.undying and world.times(Kill)
        assert world.ended is not None or gave_up, "kforge-run has left its child behind"


def _requeues_what_should_go_on(world: World) -> None:
    rules, cluster = world.rules, world.cluster
    assert world.accepted <= 1
    if rules.place != "batch" or not rules.requeue or rules.max_requeues == 0 or not cluster.requeueable:
        assert world.accepted == 0
    if world.cancelled_at is not None and world.ended_at is not None and world.cancelled_at < world.ended_at:
        assert world.accepted == 0, "a cancelled run came back"
    if world.noticed_at is None and world.ended == 0 and not world.times(Deliver):
        assert world.accepted == 0, "a completed run came back"
    possible = rules.requeue and rules.max_requeues is None and cluster.requeueable
    willing = cluster.requeue in ("accepted", "answer lost", "unconfirmed")
    if is_simple(world) and possible and willing and is_told_to_go_on(world):
        assert world.goes_on, "a run that should go on is lost"


def _escalates_in_order(world: World) -> None:
    kills, terminates, delivers = world.times(Kill), world.times(Terminate), world.times(Deliver)
    end = world.gone_at if world.gone_at is not None else float("inf")
    early = [at for at in [*kills, *terminates] if at < end - SLACK]
    if early:
        told = bool(delivers or world.times(Forward)) or world.ended is not None
        assert told, "killed before it was told"
        assert terminates and (not kills or terminates[0] <= kills[0])
    dumps = world.times(DumpStacks)
    assert all(at in terminates for at in dumps)
    if world.gone_at is not None and world.child.kind != "upload":
        # What is left is swept, without a word of a shutdown; an upload has its part of the window.
        assert all(at <= world.gone_at for at in dumps)
        # That the last one has gone may be seen a moment later.
        assert all(at <= world.gone_at + ledger.LOOK_SOON for at in world.times(facts.Waiting))
    # A SIGTERM by hand behind a notice: until Slurm has answered, KillWait is taken to run, and a stage may be due.
    simple = is_simple(world) and world.rules.timeout is None and world.cluster.occasion not in ("int", "term")
    # What cannot hear does not keep a person waiting.
    simple = simple and (bool(world.tellings) or world.child.kind in ("cooperative", "shell"))
    stages = [record.stage for record in world.told(facts.StageBegan)]
    assert stages in ([], ["terminate"], ["terminate", "kill"], ["kill"])
    if simple and dumps and dumps[0] < end and world.policy.deadline is not None and world.told_at is not None:
        # Two thirds of what there was belong to the save.
        window = world.policy.deadline - world.told_at
        assert dumps[0] - world.told_at >= window * (1 - tables.ESCALATION_SHARE) - SLACK
    requeue = world.told(facts.RequeueAsked)
    assert not requeue or world.ended is not None or world.child.undying


def _deadlines_come_nearer(world: World) -> None:
    """A deadline that Slurm has told recedes only by a suspension; while a SIGTERM is not understood it is a guess."""
    comes_later = world.cluster.occasion in ("preempt", "preempt for good", "term")
    if not is_simple(world) or world.noticed_at is None or comes_later:
        return
    last = float("inf")
    for at, action in world.seen:
        if isinstance(action, Tell) and action.deadline is not None and action.reason not in (None, "unknown"):
            assert action.deadline <= last + SLACK
            assert action.forced_exit is not None and action.forced_exit <= action.deadline
            if world.rules.timeout is not None and action.reason is not None:
                assert action.deadline <= world.noticed_at + world.rules.timeout + SLACK
            last = action.deadline
            assert at <= action.deadline + world.cluster.kill_wait + SLACK


def _tells_once(world: World) -> None:
    told = [action for _, action in world.seen if isinstance(action, Tell)]
    if world.cluster.suspended is None:
        # A suspension moves the deadline, and Slurm may move it back.
        assert all(before != after for before, after in itertools.pairwise(told)), "told what was told already"
    first = [action for _, action in world.seen if isinstance(action, Deliver) and not action.again]
    assert len(first) <= 1
    if world.rules.place == "batch" and world.noticed_at is not None and world.cluster.occasion != "int":
        alive = world.ended_at is None or world.ended_at > world.noticed_at
        if alive:
            assert len(first) == 1
            assert len(world.told(facts.NoticeCame)) == 1


def _tells_in_turn(world: World) -> None:
    """Nobody who waits for another one is told before that has gone, and who is told, and has the time, saves."""
    assert not world.told_too_early
    terminates, kills = world.times(Terminate), world.times(Kill)
    final = min(terminates, default=float("inf"))
    for times in world.tellings.values():
        before = [at for at in times if at < final]
        assert len(before) <= 2
        assert not before[1:] or before[1] - before[0] >= ledger.SECOND_AFTER
    if world.child.kind not in WITH_HANDLER or world.cluster.occasion == "int" or world.cluster.suspended is not None:
        return
    end = world.gone_at if world.gone_at is not None else float("inf")
    if kills and kills[0] < end:
        assert WORKER in world.tellings or terminates, "killed before it was told"
    words = world.words[1:] if world.child.kind == "stubborn" else world.words
    if words and not world.by_itself and not world.killed_by_slurm:
        saves_until = words[0] + world.child.saves + SLACK
        assert world.saved_at is not None or min(kills, default=float("inf")) <= saves_until, "told, and yet lost"


def _says_what_was(world: World) -> None:
    end, rules = world.end, world.rules
    assert world.exit is not None
    assert end.status == world.exit.status
    if world.accepted and world.cluster.requeue != "answer lost":
        assert end.requeued is True
    if end.requeued:
        assert world.exit.status == 0 and world.goes_on
    elif end.outcome == "checkpointed":
        assert world.exit.status == CHECKPOINTED_STATUS
    elif world.ended is not None:
        assert world.exit.status == (world.ended if world.ended >= 0 else 128 - world.ended)
    killed = "kill" in [record.stage for record in world.told(facts.StageBegan)]
    if world.ended == -9 and killed and world.saved_at is None:
        assert end.outcome == "forced"
        assert end.shutdown is None
    if world.told_at is None and world.job.preempted_at is None and world.by_itself:
        assert end.outcome == ("completed" if world.child.status == 0 else "failed")
    cooperated = world.child.kind in ("cooperative", "shell") and world.saved_at is not None
    interrupted = world.cluster.occasion == "int"
    if (
        cooperated
        and not interrupted
        and world.noticed_at is not None
        and end.reason is not None
        and end.outcome != "forced"
    ):
        assert end.outcome == "checkpointed"
    if world.noticed_at is not None and world.rules.place == "batch" and not world.cluster.outage:
        assert (
            end.reason is not None
            or world.cluster.occasion == "int"
            or world.ended_at is None
            or (world.ended_at <= world.noticed_at)
        )
    asked = is_simple(world) and rules.requeue
    if asked and world.cluster.occasion == "cancel" and world.noticed_at == START + world.cluster.at:
        assert end.reason == "cancelled" or world.noticed_at >= (world.ended_at or 0)
    if end.shutdown is not None and world.cluster.suspended is None:
        assert world.ended_at is not None and world.told_at is not None
        assert end.shutdown == pytest.approx(world.ended_at - world.told_at)
    if is_simple(world) and end.restarts is not None:
        assert end.restarts == 0
    summaries = world.told(facts.ShutDown)
    assert len(summaries) == (world.told_at is not None)
    for summary in summaries:
        assert ("requeued" in dict(summary.moments)) == end.requeued
        by_status = end.outcome == "checkpointed" and world.ended == 0
        assert summary.assumed == (by_status and world.child.kind not in ("cooperative", "shell"))
        assert (summary.outcome, summary.to_spare) == (end.outcome, end.slack)
    decided, left = world.told(facts.Decided), world.told(facts.NotRequeued)
    if world.told_at is not None or end.requeued:
        assert len(decided) + len(left) == 1
    assert all((one.requeued, one.because) == (end.requeued, end.because) for one in decided)
    asked_for_it = bool(world.told(facts.RequeueAsked))
    if not end.requeued and asked_for_it:
        assert left
    assert not left or asked_for_it or end.reason == "unknown", "nobody needs to do anything"
    assert all(one == facts.NotRequeued(end.because, "7") and not end.requeued for one in left)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**48))
def test_in_every_story(seed: int) -> None:
    world = World(*draw(random.Random(seed))).play()
    event(f"place {world.rules.place}, child {world.child.kind}, {'requeued' if world.accepted else 'not requeued'}")
    check(world)


@pytest.mark.parametrize("seed", range(600))
def test_in_a_story(seed: int) -> None:
    """The same stories each time, so that what one of them found stays found."""
    check(World(*draw(random.Random(seed))).play())


def test_every_step_between_phases_is_in_the_docstring_and_no_other() -> None:
    documented = set()
    for before, after in re.findall(r"^ +(\w+) +──▶ (.+)$", machine.__doc__ or "", re.MULTILINE):
        documented |= {(before, phase) for phase in after.split(", ")}
    # Rare: what outlives its shell outlives SIGKILL, too.
    undying = World(Child("shell", saves=200.0, undying=True), Cluster(limit=60.0), Rules("batch", job_id="7"))
    seen = undying.play().policy.steps
    for seed in range(1500):
        seen |= World(*draw(random.Random(seed))).play().policy.steps
    assert seen == documented


def test_a_save_within_the_lead_is_requeued_with_time_to_spare() -> None:
    world = World(Child(works=4000, saves=10), Cluster(limit=600, lead=120), Rules("batch", job_id="7")).play()
    assert world.accepted == 1 and world.end.outcome == "checkpointed"
    assert [record.because for record in world.told(facts.RequeueAsked)] == ["checkpointed after time_limit"]
    assert world.times(Deliver) == [START + 480]
    assert [action.signum for _, action in world.seen if isinstance(action, Deliver)] == [SIGUSR1]
    assert not world.times(Kill)
