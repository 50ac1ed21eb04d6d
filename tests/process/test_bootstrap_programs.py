"""Which processes are told: whoever holds the work, once, and nobody else."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from kempnerforge.bootstrap import contract, programs
from tests.process.launch import Launch, Launched, run_below, status_of, wait_until

CHECKPOINTED = 85
OPTIONS = ("--timeout", "20", "--verbose")
#: Waits for Ctrl-C and says so.
TRAIN = """
import os, sys, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
try:
    say("ready", *sys.argv[1:])
    time.sleep(60)
except KeyboardInterrupt:
    say("saved", *sys.argv[1:])
"""


@pytest.fixture
def _train(launch: Launch) -> None:
    (launch.folder / "train.py").write_text(TRAIN)
    package = launch.folder / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(TRAIN)


def interrupted(run: Launched, count: int = 1) -> None:
    """Send a notice when so many programs are ready; each must save, and exactly so many be told."""
    assert {run.line() for _ in range(count)} == {f"ready {rank}".strip() for rank in names(count)}
    run.send(signal.SIGUSR1)
    assert sorted(run.rest()) == sorted(f"saved {rank}".strip() for rank in names(count))
    run.ends(CHECKPOINTED)
    assert told(run) == count


def told(run: Launched) -> int:
    """Return how many programs got kforge-run's word."""
    return sum(line.count("(pid ") for line in run.own_lines if line.startswith("kforge-run delivered to"))


def names(count: int) -> list[str]:
    return [""] if count == 1 else [str(rank) for rank in range(count)]


@pytest.mark.usefixtures("_train")
@pytest.mark.parametrize(
    "chain",
    [
        "{python} train.py",
        "{python} -m pkg",
        "{python} -u -W ignore -X dev train.py",
        "{python} - < train.py",
        "{python} < train.py",
        "env A=b nice {python} train.py",
        "bash run.sh",
        "bash -c 'true; exec {python} train.py'",
        "setsid -w {python} train.py",
        "{python} starter.py {python} train.py",
        "{python} -m kempnerforge.launcher --timeout 15 {python} train.py",
        "{python} -c 'import os, sys; os.execv(sys.executable, [sys.executable, \"train.py\"])'",
    ],
)
def test_one_program_is_told_in_every_chain(launch: Launch, chain: str) -> None:
    python = sys.executable
    (launch.folder / "run.sh").write_text(f"echo >&2 starting\n{python} train.py\nexit $?\n")
    (launch.folder / "starter.py").write_text("import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n")
    run = launch("sh", "-c", "exec " + chain.format(python=python), options=OPTIONS)
    if "execv" in chain:
        # The same process is armed again, as a new program.
        run.says("ready")
        run.send(signal.SIGUSR1)
        run.says("saved")
        run.ends(CHECKPOINTED)
        return
    if "kempnerforge.launcher" in chain:
        # The inner one owns what is below it.
        run.says("ready")
        run.send(signal.SIGUSR1)
        run.says("saved")
        run.ends(CHECKPOINTED)
        assert ") can be interrupted" not in run.log
        return
    interrupted(run)


@pytest.mark.usefixtures("_train")
def test_each_rank_that_a_program_starts_is_told(launch: Launch) -> None:
    starter = launch.folder / "starter.py"
    starter.write_text(
        "import os, subprocess, sys\n"
        "start = lambda rank: subprocess.Popen([sys.executable, 'train.py', rank], env={**os.environ, 'RANK': rank})\n"
        "ranks = [start(rank) for rank in '012']\n"
        "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "for rank in ranks: rank.wait()\n"
    )
    run = launch(sys.executable, str(starter), options=OPTIONS)
    assert {run.line() for _ in range(3)} == {"ready 0", "ready 1", "ready 2"}
    run.send(signal.SIGUSR1)
    assert sorted(run.rest()) == ["saved 0", "saved 1", "saved 2"]
    run.ends(CHECKPOINTED)


@pytest.mark.usefixtures("_train")
def test_two_programs_side_by_side_are_both_told(launch: Launch) -> None:
    run = launch("sh", "-c", f"{sys.executable} train.py 0 & {sys.executable} train.py 1; wait", options=OPTIONS)
    interrupted(run, 2)


@pytest.mark.usefixtures("_train")
def test_a_helper_of_a_rank_is_not_told(launch: Launch) -> None:
    (launch.folder / "main.py").write_text(
        "import os, subprocess, sys, time\n"
        "helpers = [subprocess.Popen([sys.executable, *what], stdin=subprocess.PIPE) for what in\n"
        "           (['-c', 'input()'], ['helper.py'], ['-m', 'helper'])]\n"
        "try:\n"
        "    os.write(1, b'ready\\n')\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('helpers live:', [helper.poll() for helper in helpers])\n"
        "    for helper in helpers: helper.kill(); helper.wait()\n"
    )
    (launch.folder / "helper.py").write_text("import sys; sys.stdin.read()")
    run = launch(sys.executable, "main.py", options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest()[-1] == "helpers live: [None, None, None]"
    run.ends(CHECKPOINTED)
    assert told(run) == 1


@pytest.mark.usefixtures("_train")
def test_who_has_started_it_may_be_dead(launch: Launch) -> None:
    (launch.folder / "starter.py").write_text(
        "import os, subprocess, sys\nsubprocess.Popen([sys.executable, 'late.py', str(os.getpid())])\n"
    )
    (launch.folder / "late.py").write_text(
        "import os, sys, time\n"
        "while os.path.exists('/proc/' + sys.argv[1]): time.sleep(0.001)\n"
        "os.execv(sys.executable, [sys.executable, 'train.py'])\n"
    )
    run = launch("sh", "-c", f"{sys.executable} starter.py; while :; do sleep 0.01; done", options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.wait()


def test_a_rank_that_is_killed_before_it_registers_is_started_again(launch: Launch) -> None:
    (launch.folder / "rank.py").write_text(
        "import os, time\n"
        "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0': os.kill(os.getpid(), 9)\n"
        "from kempnerforge.resilience import shutdown_handler\n"
        "os.write(1, b'ready\\n')\n"
        "while not shutdown_handler.should_shutdown(): time.sleep(0.001)\n"
        "shutdown_handler.finish()\n"
        "os.write(1, b'saved\\n')\n"
    )
    code = (
        "for count in 0 1; do TORCHELASTIC_RESTART_COUNT=$count " + f"{sys.executable} rank.py; done; exit 0"
    )  # as torchrun counts
    run = launch("bash", "-c", code, options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


@pytest.mark.usefixtures("_train")
def test_news_of_somebody_elses_or_of_nobody_arm_nobody(launch: Launch) -> None:
    code = (
        'for news in "armed $PPID.1" "armed $$.1" \'armed x.y\' armed rubbish; do echo "$news"; done'
        f' >"${{KFORGE_CONTROL##*:}}/{contract.NEWS_FIFO}" && {sys.executable} train.py; exit $?'
    )
    interrupted(launch("bash", "-c", code, options=OPTIONS))


def test_a_program_that_daemonises(launch: Launch) -> None:
    (launch.folder / "daemon.py").write_text(
        "import os, signal\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.write(1, b'ready\\n')\n"
        "while True: signal.pause()\n"
    )
    run = launch(sys.executable, "daemon.py", options=("--term-grace", "1000"))
    run.says("ready")
    # What is left behind is asked to end, and does: it has not inherited any handler.
    run.ends(0)


@pytest.mark.parametrize("ended_by", ["exit", "kill"])
def test_a_shell_that_dies_of_the_notice_leaves_what_it_ran_to_save(launch: Launch, ended_by: str) -> None:
    """Slurm signals every process of a job, the shell in between too."""
    (launch.folder / "train.py").write_text(TRAIN.replace('say("saved"', 'time.sleep(2); say("saved"'))
    run = launch("bash", "-c", f"{sys.executable} train.py; exit $?", options=("--term-grace", "1", "--verbose"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.logs("delivered to")
    (child,) = [pid for pid in children_of(run.pid) if status_of(pid)["Name"] == "bash"]
    if ended_by == "kill":
        os.kill(child, signal.SIGTERM)
    assert run.rest() == ["saved"]
    run.wait()
    assert ("what it ran still saves" in run.log) == (ended_by == "kill")
    assert "SIGKILL" not in run.log


def children_of(pid: int) -> list[int]:
    return [child for child in run_below(pid) if status_of(child).get("PPid") == str(pid)]


def test_many_processes_that_come_and_go_are_forgotten(launch: Launch) -> None:
    code = f"for i in $(seq 30); do {sys.executable} -c ''; done; echo ready; read line"
    run = launch("bash", "-c", code, options=OPTIONS, stdin=-1)
    run.says("ready")
    wait_until(lambda: len(list(Path(f"/proc/{run.pid}/fd").iterdir())) < 15)
    run.end_input()
    run.wait()


# --- how a command line is read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("train.py --lr 1", ("", "train.py")),
        ("-u train.py -c x", ("", "train.py")),
        ("-m pkg.train -c x", ("-m", "pkg.train")),
        ("-um pkg", ("-m", "pkg")),
        ("-mpkg", ("-m", "pkg")),
        ("-cpass x", ("-c", "pass")),
        ("-Bsc pass", ("-c", "pass")),
        ("-W ignore -X dev train.py", ("", "train.py")),
        ("-Wignore -Xdev train.py", ("", "train.py")),
        ("-uW ignore train.py", ("", "train.py")),
        ("--check-hash-based-pycs always train.py", ("", "train.py")),
        ("-- -odd.py", ("", "-odd.py")),
        ("-", ("", "-")),
        ("", ("", "")),
        ("-m", ("-m", "")),
        ("-i -q", ("", "")),
    ],
)
def test_the_program_is_found_on_the_command_line(arguments: str, expected: tuple[str, str]) -> None:
    assert programs.program_of(["python", *arguments.split()]) == expected


@pytest.mark.parametrize(
    ("arguments", "wraps"),
    [
        ("/venv/bin/torchrun --nproc 2 train.py", True),
        ("-m torch.distributed.run train.py", True),
        ("/x/torch/distributed/run.py train.py", True),
        ("-m torch.distributed.launch train.py", True),
        ("/venv/bin/accelerate launch train.py", True),
        ("-m accelerate.commands.launch train.py", True),
        ("/x/accelerate/commands/launch.py train.py", True),
        ("/venv/bin/deepspeed train.py", True),
        ("-u -m deepspeed.launcher.launch train.py", True),
        ("/venv/bin/horovodrun -np 2 python train.py", True),
        ("-m horovod.runner -np 2 python train.py", True),
        ("/venv/bin/composer train.py", True),
        ("/venv/bin/fabric run train.py", True),
        ("/venv/bin/ray start --block", True),
        ("/venv/bin/conda run python train.py", True),
        ("-m pip install x", True),
        ("-m pipeline", False),
        ("-m torch.distributed.runner", False),
        ("train.py torchrun", False),
        ("/home/me/run.py", False),
        ("/home/me/pip/train.py", False),
        ("-c torchrun", False),
    ],
)
def test_wrappers_are_known(arguments: str, wraps: bool) -> None:
    words = ["python", *arguments.split()]
    assert (programs.role_of(words, *programs.program_of(words)) == "wrapper") is wraps


@pytest.mark.parametrize(
    ("arguments", "is_agent", "is_torchs"),
    [
        ("torchrun train.py", True, True),
        ("/venv/bin/python -u /venv/bin/torchrun train.py", True, True),
        ("/bin/sh -e ./torchrun train.py", True, True),
        ("python3.11 -m torch.distributed.run train.py", True, True),
        ("/venv/bin/python /venv/bin/fabric run train.py", True, True),
        ("accelerate-launch train.py", True, True),
        ("deepspeed train.py", True, False),
        ("ds train.py", True, False),
        ("python -m deepspeed.launcher.runner train.py", True, False),
        ("horovodrun -np 2 python train.py", True, False),
        ("composer train.py", True, False),
        ("ray start --block", False, False),
        ("uv run torchrun", False, False),
        ("./train ds", False, False),
        ("sh -c torchrun", False, False),
        ("python train.py torchrun", False, False),
        ("", False, False),
    ],
)
def test_rank_agents_are_known(arguments: str, is_agent: bool, is_torchs: bool) -> None:
    assert programs.runs_one_of(arguments.split(), programs.RANK_AGENTS) is is_agent
    assert programs.runs_one_of(arguments.split(), programs.TORCH_AGENTS) is is_torchs


# --- a rank agent ----------------------------------------------------------------------------------------


def test_a_rank_agent_is_spared_while_its_ranks_save(launch: Launch) -> None:
    """One that forwards nothing and dies of any signal, like accelerate, gets what Slurm sends to every process."""
    (launch.folder / "train.py").write_text(TRAIN.replace('say("saved"', 'time.sleep(1); say("saved"'))
    accelerate = launch.folder / "accelerate"
    accelerate.write_text("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, 'train.py']))\n")
    run = launch(sys.executable, str(accelerate), "launch", options=OPTIONS)
    run.says("ready")
    (agent,) = children_of(run.pid)
    os.kill(agent, signal.SIGUSR1)
    os.kill(agent, signal.SIGTERM)
    run.send(signal.SIGUSR1)
    os.kill(agent, signal.SIGTERM)
    run.says("saved")
    run.ends(CHECKPOINTED)
    assert re.search(r"delivered to train.py \(pid \d+\)\n", run.log)


@pytest.mark.parametrize("name", ["torchrun", "deepspeed", "train.sh"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("timeout", ["300", "20"])
def test_an_agent_that_gives_ranks_too_little_time_is_warned_about(
    launch: Launch, name: str, given: bool, timeout: str
) -> None:
    (launch.folder / "train.py").write_text(TRAIN)
    agent = launch.folder / name
    agent.write_text(f"#!/bin/sh\n{sys.executable} train.py\n")
    agent.chmod(0o755)
    variables = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"} if given else {}
    run = launch(str(agent), options=("--timeout", timeout, "--verbose"), variables=variables)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)
    warned = re.search(r"warning: stopping may take 300 s, but torchrun .* TORCH_ELASTIC_SHUTDOWN_TIMEOUT=360", run.log)
    assert (warned is not None) == (name == "torchrun" and not given and timeout == "300")


@pytest.mark.usefixtures("_train")
def test_a_rank_agent_ends_when_it_is_meant(launch: Launch) -> None:
    accelerate = launch.folder / "accelerate"
    accelerate.write_text("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, 'train.py']))\n")
    run = launch(sys.executable, str(accelerate), options=("--term-grace", "2", "--verbose"))
    run.says("ready")
    (agent,) = children_of(run.pid)
    os.kill(agent, signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)
