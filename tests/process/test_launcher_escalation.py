"""From the notice to the end of a child that does not end by itself, and a suspension in between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.process.launch import Launch, program, run_below, status_of, takes_at_least, wait_until

CHECKPOINTED = 85
#: Of a shutdown of 3 s: forced exit at 2.0 s, SIGTERM at 2.25 s, SIGKILL at 2.375 s.
IN_3_S = ("--timeout", "3", "--term-grace", "1")
#: Two thirds of that.
IN_2_S = ("--timeout", "2", "--term-grace", "1")


def in_order(text: str, *parts: str) -> None:
    """Check that all parts are in a text, one after the other."""
    at = 0
    for part in parts:
        assert part in text[at:], f"no {part!r}, or too early, in:\n{text}"
        at = text.index(part, at) + len(part)


def test_whoever_ignores_everything_is_killed_in_time(launch: Launch) -> None:
    run = launch(*program("listen"), options=IN_3_S)
    run.says("ready")
    with takes_at_least(2.37):
        with takes_at_least(2.25):
            run.send(signal.SIGUSR1)
            run.says("SIGUSR1")
            run.says("SIGTERM")
        run.ends(128 + signal.SIGKILL)
    in_order(run.log, "notice", "delivered", "SIGTERM\n", "SIGKILL\n", "the child died of SIGKILL", "forced: SIGUSR1")


def test_a_child_that_has_ended_is_not_waited_for(launch: Launch) -> None:
    run = launch("sh", "-c", "echo ready; exec sleep 60", options=("--timeout", "1000"))
    run.says("ready")
    run.send(signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)


def test_all_of_the_tree_is_asked_and_then_killed(launch: Launch) -> None:
    run = launch("bash", "-c", 'trap : USR1 TERM; "$@"; exit 3', "bash", *program("listen"), options=IN_2_S)
    run.says("ready")
    run.send(signal.SIGUSR1)
    # bash has a trap, but the notice is for what saves.
    assert run.rest() == ["SIGUSR1", "SIGTERM"]
    run.ends(128 + signal.SIGKILL)


def test_a_process_stuck_in_c_leaves_its_stacks_before_it_is_killed(launch: Launch) -> None:
    run = launch(*program("get_stuck"), options=IN_2_S)
    run.says("ready")
    (child,) = run_below(run.pid)
    futex_wait = "202 "  # x86-64
    wait_until(lambda: Path(f"/proc/{child}/syscall").read_text().startswith(futex_wait))
    run.send(signal.SIGTERM)
    run.ends(128 + signal.SIGKILL)
    in_order(run.log, "stack dump and SIGTERM", "(most recent call first)", "in get_stuck", "SIGKILL\n")


def test_the_childs_own_forced_exit_comes_first(launch: Launch) -> None:
    run = launch(*program("save_slowly", 60, 0), options=IN_2_S)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(1)
    in_order(run.log, "(most recent call first)", "in save_slowly", "the child exited with 1", "interrupted: SIGUSR1")
    assert "SIGTERM" not in run.log


def test_more_time_is_granted_while_there_is_some(launch: Launch) -> None:
    """Without asking it would have been over after 1.3 s."""
    run = launch(*program("save_slowly", 1.5, 1.6), options=IN_2_S)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saving")
    run.says("saved")
    run.ends(CHECKPOINTED)
    assert "asks for 2 s to save: granted" in run.log


def test_no_more_time_than_there_is(launch: Launch) -> None:
    run = launch(*program("save_slowly", 1000, 500), options=IN_2_S)
    run.says("ready")
    with takes_at_least(1.5):
        run.send(signal.SIGUSR1)
        run.says("saving")
        run.ends(1)
    assert "asks for 500 s to save: 2 s are all there is" in run.log


def test_a_stopped_child_is_continued_to_take_its_sigterm(launch: Launch) -> None:
    run = launch("sh", "-c", "echo ready; exec sleep 60", options=("--timeout", "1.5", "--term-grace", "5"))
    run.says("ready")
    (child,) = run_below(run.pid)
    os.kill(child, signal.SIGSTOP)
    wait_until(lambda: status_of(child)["State"].startswith("T"))
    run.send(signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)
    in_order(run.log, "stack dump and SIGTERM", "died of SIGTERM")


def test_what_the_child_leaves_after_a_notice_is_ended_too(launch: Launch) -> None:
    run = launch("sh", "-c", "sleep 1000 & echo ready; wait", options=("--timeout", "1000", "--term-grace", "500"))
    run.says("ready")
    run.send(signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)


@pytest.mark.parametrize(
    "asked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["SIGTSTP and SIGSTOP", "SIGSTOP"]
)
def test_time_in_which_nothing_could_run_does_not_count(launch: Launch, asked: bool) -> None:
    """As `scontrol suspend` and `resume` do it, to every process; a plain SIGSTOP leaves no trace of when it came."""
    run = launch(*program("listen"), options=("-v", "--timeout", "4", "--term-grace", "1"))
    run.says("ready")
    (child,) = run_below(run.pid)
    pause = 2 if asked else 4
    # SIGKILL comes at 3.17 s. Where nobody saw the stop come, there is time for Slurm to tell the new end, and to save.
    with takes_at_least(pause + (3.17 if asked else 2)):
        run.send(signal.SIGUSR1)
        run.says("SIGUSR1")
        run.logs("delivered")
        for signum in (signal.SIGTSTP, signal.SIGSTOP) if asked else (signal.SIGSTOP,):
            os.kill(run.pid, signum)
            os.kill(child, signum)
            if signum == signal.SIGTSTP:
                run.taken()  # Slurm gives it two seconds
        time.sleep(pause)  # the subject, not a synchronisation: the shutdown's time goes by
        for pid in (run.pid, child):
            os.kill(pid, signal.SIGCONT)
        assert [line for line in run.rest() if line != "SIGTSTP"] == ["SIGTERM"]
        run.ends(128 + signal.SIGKILL)
    assert "continued after" in run.log
