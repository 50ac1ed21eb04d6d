"""Who is told, and how other signals are passed on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kempnerforge.bootstrap import programs
from tests.process import children
from tests.process.children import LAST
from tests.process.launch import Launch, Launched, descendants, program, run_below, wait_until

CHECKPOINTED = 85


def script(folder: Path, name: str, *arguments: str) -> str:
    """Make a program of that name that is a child program: both its comm and its argv[1] are the name's."""
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport runpy, sys\n"
        f"sys.argv[1:] = {list(arguments)!r}\nrunpy.run_path({children.__file__!r}, run_name='__main__')\n"
    )
    path.chmod(0o755)
    return str(path)


def ends_after(run: Launched, *signums: int, status: int = 9) -> list[str]:
    """Send signals and then the last one; return what the child says of them."""
    run.send(*signums)
    run.taken()
    run.send(LAST)
    said = run.rest()
    run.ends(status)
    return said


# --- a plain child -------------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("more", [signal.SIGUSR1, signal.SIGTERM])
def test_a_notice_is_delivered_once_however_often_it_comes(launch: Launch, notice: signal.Signals, more: int) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    run.send(notice)
    run.says(notice.name)
    for _ in range(2):
        run.send(more)
        run.taken()
    assert ends_after(run, more) == []


@pytest.mark.parametrize(
    "name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGRTMIN", "SIGRTMAX"]
)
def test_other_signals_are_passed_on_each_time(launch: Launch, name: str) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    for _ in range(2):
        run.send(signal.Signals[name])
        run.says(name)
    assert ends_after(run) == []


def test_real_time_signals_are_passed_on_one_by_one(launch: Launch) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    assert ends_after(run, *[signal.SIGRTMIN + 5] * 500) == ["SIGRTMIN+5"] * 500


def test_signals_during_a_shutdown_are_passed_on(launch: Launch) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("SIGUSR1")
    run.send(signal.SIGUSR2)
    run.says("SIGUSR2")
    assert ends_after(run) == []


def test_who_sent_it_is_told(launch: Launch) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    run.send(signal.SIGTERM)
    run.says("SIGTERM")
    assert ends_after(run) == []
    name = Path("/proc/self/comm").read_text().strip()
    assert run.own_lines[0] == f"kforge-run notice: SIGTERM from {name} (pid {os.getpid()})"


# --- cooperative processes -------------------------------------------------------------------------------


def beneath_bash(*commands: Sequence[str], end: str = "exit 3") -> list[str]:
    """Return the command of a bash that runs some others, all at a time, and says when they have ended."""
    arguments = [argument for command in commands for argument in command]
    start, at = "", 1
    for command in commands:
        start += " ".join(f'"${{{number}}}"' for number in range(at, at + len(command))) + " & "
        at += len(command)
    return ["bash", "-c", f"{start} {'wait -n; ' * len(commands)} echo the end; {end}", "bash", *arguments]


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
def test_bash_above_a_cooperative_process_is_left_alone(launch: Launch, notice: signal.Signals) -> None:
    run = launch(*beneath_bash(program("cooperate")))
    run.says("ready")
    run.send(notice)
    run.says("stop", notice.name)
    run.says("the end")
    run.ends(3)


def test_all_ranks_are_told(launch: Launch) -> None:
    run = launch(*beneath_bash(program("cooperate"), program("cooperate"), end="exit 0"))
    run.says("ready")
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["stop SIGUSR1", "stop SIGUSR1", "the end"]
    run.ends(CHECKPOINTED)
    assert len(run.logs(r"delivered to .*\(pid \d+\), .*\(pid \d+\)")[0].split(", ")) == 2


def test_a_plain_process_above_a_rank_is_left_alone(launch: Launch) -> None:
    run = launch(*program("listen_above_a_rank"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    assert ends_after(run) == []


def test_a_handler_that_registers_after_the_notice_is_told_at_once(launch: Launch) -> None:
    run = launch("bash", "-c", 'echo ready; until [ -e got ]; do :; done; "$@"', "bash", *program("cooperate"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.logs("notice: SIGUSR1")
    (launch.folder / "got").touch()
    run.says("ready")
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)


def test_the_next_program_of_a_script_is_told_after_the_first_has_saved(launch: Launch) -> None:
    """One line of a batch script after the other; each of them should save."""
    run = launch("bash", "-c", '"$@" && "$@"', "bash", *program("cooperate"))
    run.says("ready")
    run.send(signal.SIGTERM)
    for line in ("stop SIGTERM", "ready", "stop SIGTERM"):
        run.says(line)
    run.ends(CHECKPOINTED)


def test_a_process_that_finished_in_time_is_not_killed_by_the_notice(launch: Launch) -> None:
    """The message and the signal reach it one after the other, and it needs no time at all to save."""
    for _ in range(5):
        run = launch(*program("cooperate"))
        run.says("ready")
        run.send(signal.SIGTERM)
        run.ends(CHECKPOINTED)


# --- rank agents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*programs.RANK_AGENTS[0].split(), "ray"])
def test_who_only_runs_other_programs_is_told_last(launch: Launch, name: str) -> None:
    """It waits for its ranks, and may start others; or, as `ray job submit` does, for what runs elsewhere."""
    run = launch(script(launch.folder, name, "listen"), options=("--timeout", "3"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("SIGTERM")
    run.logs("SIGTERM")
    assert ends_after(run) == []


def test_torch_distributed_run_as_a_module_is_told_last(launch: Launch) -> None:
    package = launch.folder / "torch" / "distributed"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()  # or a real torch would come before it
    Path(script(package, "run.py", "listen"))
    path = f"{launch.folder}:{launch.environment['PYTHONPATH']}"
    run = launch(
        sys.executable, "-m", "torch.distributed.run", variables={"PYTHONPATH": path}, options=("--timeout", "3")
    )
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("SIGTERM")
    assert ends_after(run) == []


# --- srun ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_srun_gets_sigusr1_whatever_came(launch: Launch, notice: int) -> None:
    """If a task is known to cooperate."""
    run = launch(script(launch.folder, "srun", "listen_above_a_rank"))
    run.says("ready")
    run.send(notice)
    assert "SIGUSR1" in (run.line(), run.line())
    ends_after(run)


def test_srun_gets_nothing_while_its_tasks_would_die_of_it(launch: Launch) -> None:
    run = launch(script(launch.folder, "srun", "listen"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.logs("reason: manual")
    assert ends_after(run) == []


def test_an_srun_that_hands_no_notice_on_is_warned_about(launch: Launch) -> None:
    run = launch(script(launch.folder, "srun", "listen"), "--ignore-signals=USR1")
    run.says("ready")
    assert ends_after(run) == []
    assert any("hand the notice on" in line for line in run.own_lines)


def test_srun_below_bash_gets_sigusr1_and_bash_nothing(launch: Launch) -> None:
    run = launch(*beneath_bash([script(launch.folder, "srun", "listen_above_a_rank", "6")], end="exit 4"))
    run.says("ready")
    run.send(signal.SIGTERM)
    assert {run.line(), run.line()} == {"SIGUSR1", "stop SIGTERM"}
    (bash,) = [pid for pid in run_below(run.pid) if Path(f"/proc/{pid}/comm").read_text() == "bash\n"]
    os.kill(descendants(bash)[0], LAST)
    run.says("the end")
    run.ends(4)


def test_srun_never_gets_what_makes_it_abort(launch: Launch) -> None:
    run = launch(script(launch.folder, "srun", "listen"))
    run.says("ready")
    assert ends_after(run, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2) == ["SIGUSR2"]
    assert sum("srun would kill its tasks" in line for line in run.own_lines) == 2


def test_a_young_srun_is_left_alone_once_a_task_has_registered(launch: Launch) -> None:
    run = launch(script(launch.folder, "srun", "listen_above_a_rank"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert {run.line(), run.line()} == {"stop SIGUSR1", "SIGUSR1"}
    wait_until(lambda: "finished" in run.log)
    signal.sigtimedwait([], 1.5)  # nothing comes in this time
    assert ends_after(run) == []
