"""The example keeps what its docstring promises, as a program that is really stopped and really killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]


@contextmanager
def training(checkpoint: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kempnerforge.examples.train", "--checkpoint", str(checkpoint), *options]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def train(checkpoint: Path, *options: str) -> list[str]:
    """Train to the end, and return the lines printed."""
    with training(checkpoint, *options) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    return output.splitlines()


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    pytest.fail(f"the training ended before it printed {beginning!r}")


def load(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(checkpoint.read_text())
    return state


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path: Path, signum: signal.Signals) -> None:
    uninterrupted, resumed = tmp_path / "uninterrupted.json", tmp_path / "resumed.json"
    train(uninterrupted, "--steps", "40", "--step-seconds", "0")

    for stop_at in ("step 5 ", "resumed at step ", "step 20 "):
        with training(resumed, "--steps", "40", "--step-seconds", "0.05") as process:
            read_until(process, stop_at)
            process.send_signal(signum)
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        assert f"checkpoint saved at step {load(resumed)['step']}" in output
        assert load(resumed)["step"] < 40

    lines = train(resumed, "--steps", "40", "--step-seconds", "0")
    assert lines[-1] == "finished at step 40"
    assert resumed.read_bytes() == uninterrupted.read_bytes()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.json"
    train(checkpoint, "--steps", "3", "--step-seconds", "0")
    before = checkpoint.read_bytes()
    assert train(checkpoint, "--steps", "3") == [
        "resumed at step 4",
        "checkpoint saved at step 3",
        "finished at step 3",
    ]
    assert checkpoint.read_bytes() == before


def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.json"
    moments = random.Random(2)
    saved = 0
    for _ in range(8):
        with training(
            checkpoint, "--steps", "10000", "--step-seconds", "0", "--save-every", "1", "--save-seconds", "0.01"
        ) as process:
            announced = int(read_until(process, "checkpoint saved").rpartition(" ")[2])
            time.sleep(moments.uniform(0, 0.03))  # somewhere within the next saves: the moment is what we try out
            process.kill()
        state = load(checkpoint)
        assert state["step"] >= announced > saved, "a save that was reported is gone"
        saved = state["step"]
    assert {file.name for file in tmp_path.iterdir()} <= {"run.json", "run.json.partial"}


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
