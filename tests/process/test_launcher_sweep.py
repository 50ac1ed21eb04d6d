"""Whatever is left below kforge-run at the end is gone when it has ended: asked, killed, reaped."""

from __future__ import annotations

import signal

import pytest

from tests.process.launch import Launch, program, run_below, wait_until


@pytest.mark.parametrize("kind", ["plain", "session", "orphan", "stopped", "deaf"])
@pytest.mark.parametrize("status", [0, 7])
def test_what_a_child_leaves_behind_by_itself(launch: Launch, kind: str, status: int) -> None:
    grace = "0.2" if kind == "deaf" else "10"
    run = launch(*program("leave", 3, status, kind), options=("-v", "--term-grace", grace))
    run.says("ready")
    run.ends(status)
    assert "sweeping what is left behind" in run.log and "could not be killed" not in run.log
    assert ("SIGKILL" in run.log) == (kind == "deaf")


def test_who_ends_when_asked_is_not_waited_for(launch: Launch) -> None:
    run = launch(*program("leave", 3, 7, "session", "stopped", "orphan"), options=("--term-grace", "1000"))
    run.says("ready")
    run.ends(7)


def test_a_process_that_forks_on_and_on(launch: Launch) -> None:
    """Each lives for a millisecond, ignores SIGTERM, and leaves another one."""
    run = launch(*program("leave", 2, 7, "chain"), options=("--term-grace", "0.1"))
    run.says("ready")
    run.ends(7)
    assert "could not be killed" not in run.log


def test_the_childs_status_is_its_own_while_orphans_end_all_around(launch: Launch) -> None:
    """A thousand of them become our children and are reaped before, with and after it."""
    code = "i=0; while [ $i -lt 500 ]; do (true & true &) ; i=$((i+1)); done; exit 7"
    for _ in range(2):
        launch("sh", "-c", code, options=("-q",)).ends(7)


def test_zombies_of_others_do_not_pile_up(launch: Launch) -> None:
    run = launch("sh", "-c", "for i in 1 2 3; do (sleep 0 &); done; echo ready; exec sleep 60")
    run.says("ready")
    wait_until(lambda: len(run_below(run.pid)) == 1)
    run.send(signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)


def sweep_many(launch: Launch, count: int) -> None:
    kinds = ("plain", "stopped", "plain", "session", "plain", "orphan", "plain", "plain", "plain", "plain")
    run = launch(*program("leave", count, 7, *kinds), options=("-v", "--term-grace", "1000"))
    run.says("ready")
    run.ends(7)
    assert "sweeping what is left behind" in run.log and "SIGKILL" not in run.log


def test_hundreds_of_processes(launch: Launch) -> None:
    sweep_many(launch, 300)


@pytest.mark.slow
def test_thousands_of_processes(launch: Launch) -> None:
    sweep_many(launch, 2000)
