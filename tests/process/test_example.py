"""The example keeps what its docstring promises, as a program that is really stopped and really killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.process.launch import Launch, Launched

CHECKOUT = Path(__file__).parents[2]


def start(launch: Launch, checkpoint: Path, *options: str) -> Launched:
    command = [sys.executable, "-m", "kempnerforge.examples.train", "--checkpoint", str(checkpoint), *options]
    return launch.start(command)


def train(launch: Launch, checkpoint: Path, *options: str) -> list[str]:
    """Train to the end, and return the lines printed."""
    run = start(launch, checkpoint, *options)
    lines = run.rest()
    run.ends()
    return lines


def read_until(run: Launched, beginning: str) -> str:
    while not (line := run.line()).startswith(beginning):
        assert line, f"the training ended before it printed {beginning!r}"
    return line


def load(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(checkpoint.read_text())
    return state


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    launch: Launch, tmp_path: Path, signum: signal.Signals
) -> None:
    uninterrupted, resumed = tmp_path / "uninterrupted.json", tmp_path / "resumed.json"
    train(launch, uninterrupted, "--steps", "40", "--step-seconds", "0")

    for stop_at in ("step 5 ", "resumed at step ", "step 20 "):
        run = start(launch, resumed, "--steps", "40", "--step-seconds", "0.05")
        read_until(run, stop_at)
        run.send(signum)
        lines = run.rest()
        run.ends()
        assert f"checkpoint saved at step {load(resumed)['step']}" in lines
        assert load(resumed)["step"] < 40

    lines = train(launch, resumed, "--steps", "40", "--step-seconds", "0")
    assert lines[-1] == "finished at step 40"
    assert resumed.read_bytes() == uninterrupted.read_bytes()


def test_a_finished_run_has_nothing_left_to_do(launch: Launch, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.json"
    train(launch, checkpoint, "--steps", "3", "--step-seconds", "0")
    before = checkpoint.read_bytes()
    assert train(launch, checkpoint, "--steps", "3") == [
        "resumed at step 4",
        "checkpoint saved at step 3",
        "finished at step 3",
    ]
    assert checkpoint.read_bytes() == before


def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(launch: Launch, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "run.json"
    checkpoint.parent.mkdir()
    moments = random.Random(2)
    saved = 0
    for _ in range(8):
        often = ("--steps", "10000", "--step-seconds", "0", "--save-every", "1", "--save-seconds", "0.01")
        run = start(launch, checkpoint, *often)
        announced = int(read_until(run, "checkpoint saved").rpartition(" ")[2])
        time.sleep(moments.uniform(0, 0.03))  # somewhere within the next saves: the moment is what we try out
        run.send(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        state = load(checkpoint)
        assert state["step"] >= announced > saved, "a save that was reported is gone"
        saved = state["step"]
    assert {file.name for file in checkpoint.parent.iterdir()} <= {"run.json", "run.json.partial"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--steps", "-1"], "--steps is -1"),
        (["--step-seconds", "inf"], "--step-seconds is inf"),
        (["--save-seconds", "nan"], "--save-seconds is nan"),
        (["--checkpoint", "/nowhere/run.json"], "cannot write to folder /nowhere (hint: "),
    ],
)
def test_what_would_lose_the_run_is_refused_at_the_start(tmp_path: Path, options: list[str], complaint: str) -> None:
    command = [sys.executable, "-m", "kempnerforge.examples.train", "--checkpoint", str(tmp_path / "run.json")]
    answer = subprocess.run([*command, *options], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert complaint in answer.stderr.splitlines()[-1]
    assert answer.stdout == ""
