"""The templates, each submitted as it stands, and run through a notice to the finished second attempt."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.slurm.runs import BIN, PROGRAMS, Run
from tests.slurm.sandbox import Sandbox, SandboxError
from tests.slurm.tried import tried

TEMPLATES = Path(__file__).parents[2] / "slurm_templates"
#: Longer than what any test does before its notice, short enough to finish soon after the resume.
STEPS = 60
SAVE_WHEN_INTERRUPTED = ("python", str(PROGRAMS / "save_when_interrupted.py"), str(STEPS))
DISTRIBUTED = str(PROGRAMS / "distributed.py")

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed (hint: bin/test --frameworks)"
)


def submit(slurm: Sandbox, template: str, *command: str, options: tuple[str, ...] = (), **variables: object) -> Run:
    """Submit a template with a command as its arguments.

    Args:
        options: of sbatch, as the template says.
        variables: in the environment of sbatch, and so of the job.
    """
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_STATE_HOME": slurm.work / "state", **variables}
    export = ",".join(["--export=ALL", *(f"{name}={value}" for name, value in environment.items())])
    return Run.of(slurm, slurm.sbatch(export, *options, str(TEMPLATES / f"{template}.sbatch"), *command))


def example(slurm: Sandbox, checkpoint: str, python: str = "python", steps: int = STEPS) -> list[str]:
    """The example as a command, word by word."""
    options = ["--steps", str(steps), "--step-seconds", "0.2", "--checkpoint", str(slurm.work / f"{checkpoint}.json")]
    return [python, "-m", "kempnerforge.examples.train", *options]


def test_single_process(slurm: Sandbox) -> None:
    run = submit(slurm, "single-process", *example(slurm, "single-process")).says("step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert Path(run.record["StdOut"]).name == f"train-{run.job}.log"


def test_array(slurm: Sandbox) -> None:
    array = submit(slurm, "array", *SAVE_WHEN_INTERRUPTED)
    tasks = [Run.of(slurm, f"{array.job}_{number}") for number in range(3)]
    for number, task in enumerate(tasks):
        task.says("step 3 ")
        assert Path(task.record["StdOut"]).name == f"train-{array.job}_{number}.log"
    # The last one, which has the array's own number.
    tasks[2].signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    for task in tasks[:2]:
        task.ends("COMPLETED", restarts=0).lost_nothing(steps=STEPS)


def test_preemptible(slurm: Sandbox) -> None:
    run = submit(slurm, "preemptible", *example(slurm, "preemptible", steps=STEPS * 3)).says("step 3 ")
    slurm.preempt(run.job)
    # Told when the grace begins: at its end, Slurm would be requeueing it already.
    run.says("reason: preempted").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS * 3)


# --- many ranks ----------------------------------------------------------------------------------


def is_trained_by(run: Run, ranks: int, *, nodes: int = 1) -> None:
    """Check that so many ranks have found each other; then give them a notice, and check that none lost anything."""
    for rank in range(ranks):
        run.says(f"{rank}: step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1)
    assert "Traceback" not in run.output
    for rank in range(ranks):
        run.lost_nothing(steps=STEPS, task=str(rank))
    met = re.findall(r"^(\d+): of (\d+), local (\d+) on (\w+), met at (.+)$", run.output, re.MULTILINE)
    for attempt in met[:ranks], met[ranks:]:
        assert sorted(int(rank) for rank, *_ in attempt) == list(range(ranks))
        assert {size for _, size, *_ in attempt} == {str(ranks)}
        # Each node has all local ranks.
        places = {(node, int(local)) for *_, local, node, _ in attempt}
        assert places == {(node, local) for node, _ in places for local in range(ranks // nodes)}
        assert len({node for node, _ in places}) == nodes
        assert {master for *_, master in attempt} <= {socket.gethostname(), socket.getfqdn()}


def test_srun_with_one_task_for_each_gpu(slurm: Sandbox) -> None:
    is_trained_by(submit(slurm, "srun-one-task-per-gpu", "python", DISTRIBUTED, str(STEPS)), 8, nodes=2)


def test_what_the_templates_say_of_a_cluster_without_gpus() -> None:
    command = ("srun-one-task-per-gpu", "python", DISTRIBUTED, str(STEPS))
    with Sandbox(gpus=0) as slurm:
        with pytest.raises(SandboxError, match="Invalid generic resource"):
            submit(slurm, *command)
        is_trained_by(submit(slurm, *command, options=("--gpus-per-node=0",)), 8, nodes=2)


@needs_torch
@pytest.mark.parametrize(
    "command",
    [("python", DISTRIBUTED), (DISTRIBUTED,), ("-m", "tests.slurm.programs.distributed")],
    ids=["python script", "script", "module"],
)
def test_torchrun_on_one_node(slurm: Sandbox, command: tuple[str, ...]) -> None:
    is_trained_by(submit(slurm, "torchrun-one-node", *command, str(STEPS)), 4)


@needs_torch
def test_torchrun_on_several_nodes(slurm: Sandbox) -> None:
    is_trained_by(submit(slurm, "torchrun-several-nodes", "python", DISTRIBUTED, str(STEPS)), 8, nodes=2)


# --- a container ---------------------------------------------------------------------------------


@pytest.fixture
def folder_outside() -> Iterator[Path]:
    """A folder that no container shows by default, neither as /tmp nor as the home folder."""
    folder = Path(tempfile.mkdtemp(prefix="kforge-test-", dir="/run"))
    yield folder
    folder.rmdir()  # fails if kforge-run has left something


@tried("a container (a stand-in for Apptainer)")
def test_container(slurm: Sandbox, request: pytest.FixtureRequest) -> None:
    """Apptainer is in no package index here: what stands in for it says in its first lines what that cannot show."""
    if not slurm.private:
        pytest.skip("a mount namespace of its own needs root")
    temporary = request.getfixturevalue("folder_outside")
    programs, image = slurm.work / "container-bin", slurm.work / "image.sif"
    programs.mkdir(exist_ok=True)
    shutil.copy(PROGRAMS / "apptainer", programs)
    # This environment's own packages are not in it: `kempnerforge` is the one that kforge-run brings along.
    image.write_text("".join(f"{folder}\n" for folder in ("/usr", "/bin", "/lib", "/lib64", "/etc", sys.base_prefix)))
    command = ["sh", "-c", 'test ! -e /var/lib && exec "$@"', "sh", *example(slurm, "container", python="python3")]
    path = f"{programs}:{BIN}:{os.environ['PATH']}"
    run = submit(slurm, "container-apptainer", *command, IMAGE=image, TMPDIR=temporary, PATH=path).says("step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "first poll by pid" in run.output
