"""The examples of several ranks keep what their docstrings promise: as real ranks, really stopped and really killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.process.launch import KFORGE_RUN, Launch, Launched, descendants, reap_orphans, tidy_after

pytestmark = [
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed (hint: bin/test --frameworks)"),
    # Each run imports torch in each of its processes, which is 5 s of work.
    pytest.mark.timeout(600),
]

COMPARE = Path(__file__).parent / "programs" / "compare_checkpoints.py"
CHECKPOINTED = 85
ENDLESS = ("--steps", 10**6, "--step-seconds", 0.05)

each_example = pytest.mark.parametrize("name", ["train_ddp", "train_fsdp"])


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for each line: four processes import torch at once, and on a loaded machine that takes a minute."""
    monkeypatch.setattr("tests.process.launch.PATIENCE", 300.0)


def start(launch: Launch, ranks: int, name: str, checkpoint: Path, *options: object) -> Launched:
    """Start an example below kforge-run, and below torchrun if it has several ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    # Without --log-dir it leaves a folder behind in TMPDIR.
    starter = [*KFORGE_RUN, *([*torchrun, "--log-dir=logs"] if ranks > 1 else [sys.executable])]
    script = ["-m", f"kempnerforge.examples.{name}", "--checkpoint", str(checkpoint), *map(str, options)]
    # Else PyTorch leaves a folder behind there, too.
    variables = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(launch.folder / "inductor")}
    return launch.start([*starter, *script], variables=variables)


def train(launch: Launch, ranks: int, name: str, checkpoint: Path, steps: int) -> list[str]:
    """Train to the end, and return the lines printed, but for those of the steps."""
    run = start(launch, ranks, name, checkpoint, "--steps", steps, "--step-seconds", 0)
    lines = [line for line in run.rest() if not line.startswith("step ")]
    run.ends()
    assert lines[-2:] == [f"checkpoint saved at step {steps}", f"finished at step {steps}"]
    return lines


def read_until(run: Launched, beginning: str) -> str:
    while not (line := run.line()).startswith(beginning):
        assert line, f"the training ended before it printed {beginning!r}:\n{run.log}"
    return line


def compared(launch: Launch, *checkpoints: Path) -> list[str]:
    """Return what of the first checkpoint is different in each other one."""
    # Of an FSDP run, the folder that is in use.
    files = [path / (path / "latest").read_text() if path.is_dir() else path for path in checkpoints]
    run = launch.start([sys.executable, str(COMPARE), *map(str, files)])
    lines = run.rest()
    run.ends()
    return lines


@pytest.mark.parametrize("name", ["train_ddp", pytest.param("train_fsdp", marks=pytest.mark.slow)])
def test_two_ranks_stop_at_one_step_and_end_with_the_bits_of_a_run_that_was_not_stopped(
    launch: Launch, tmp_path: Path, name: str
) -> None:
    uninterrupted, resumed, earlier = (tmp_path / one for one in ("uninterrupted", "resumed", "earlier"))
    run = start(launch, 2, name, resumed, *ENDLESS)
    read_until(run, "step 5 ")
    run.send(signal.SIGUSR1)
    saved = int(read_until(run, "checkpoint saved at step ").rpartition(" ")[2])
    run.rest()
    run.ends(CHECKPOINTED)
    run.logs("2 ranks stop at poll ")
    (shutil.copytree if resumed.is_dir() else shutil.copy)(resumed, earlier)

    assert train(launch, 2, name, resumed, steps=saved + 10)[0] == f"resumed at step {saved + 1}"
    train(launch, 2, name, uninterrupted, steps=saved + 10)
    same, different = compared(launch, uninterrupted, resumed, earlier)
    assert same == "same"
    assert {"weight", "exp_avg", "step"} <= {part.rpartition(".")[2].rpartition("/")[2] for part in different.split()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_ddp"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(launch: Launch, tmp_path: Path, name: str) -> None:
    resumed = tmp_path / "resumed"
    run = start(launch, 2, name, resumed, *ENDLESS, "--save-every", 1)
    announced = read_until(run, "checkpoint saved at step 10")
    for pid in (run.pid, *descendants(run.pid)):
        os.kill(pid, signal.SIGKILL)
    announced = [announced, *(line for line in run.rest() if line.startswith("checkpoint saved"))][-1]
    assert run.wait() == -signal.SIGKILL
    reap_orphans()
    tidy_after(run.pid)

    look = start(launch, 2, name, resumed, "--steps", 0)
    saved = int(read_until(look, "resumed at step ").rpartition(" ")[2]) - 1
    look.rest()
    look.ends()
    reported = int(announced.rpartition(" ")[2])
    assert saved in (reported, reported + 1), "a save that was reported is gone"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_ddp"])
def test_another_number_of_ranks_is_refused_and_changes_nothing(launch: Launch, tmp_path: Path, name: str) -> None:
    checkpoint = tmp_path / "run"
    train(launch, 2, name, checkpoint, steps=3)
    run = start(launch, 1, name, checkpoint, "--steps", 5)
    assert run.rest() == []
    run.ends(1)
    run.logs("cannot go on from this checkpoint exactly: it is of 2 ranks, and these are 1")
    assert train(launch, 2, name, checkpoint, steps=4)[0] == "resumed at step 4"


@each_example
def test_a_folder_that_cannot_be_written_is_refused_at_the_start(launch: Launch, name: str) -> None:
    run = start(launch, 1, name, Path("/proc/nowhere/run"))
    assert run.rest() == []
    run.ends(2)
    run.logs(r"folder /proc/nowhere\S*( |: .*)\(hint: ")
