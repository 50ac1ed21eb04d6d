"""`kforge drill --slurm`: the rehearsal as a job on a real Slurm."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import children
from tests.slurm.runs import BIN, program
from tests.slurm.sandbox import Sandbox

KFORGE = (sys.executable, "-m", "kempnerforge.commands")
OTHER_PROGRAMS = Path(children.__file__).parent / "programs"
ENDLESS = ("--steps", "100000", "--step-seconds", "0.05")


@pytest.fixture
def folder(slurm: Sandbox) -> Iterator[Path]:
    """A folder of the test's own that every node sees; nothing of a drill may be left in it."""
    with tempfile.TemporaryDirectory(dir=slurm.work) as path:
        yield Path(path)
        assert not list(Path(path).glob("kforge-drill-*"))


@contextlib.contextmanager
def started(slurm: Sandbox, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A drill that has submitted its job."""
    environment = {**slurm.environment, "PATH": f"{BIN}:{slurm.environment['PATH']}"}
    with subprocess.Popen(
        [*KFORGE, "drill", "--slurm", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            submitted = re.fullmatch(r"job (\d+) submitted\n", process.stderr.readline())
            assert submitted
            slurm.submitted.append(int(submitted[1]))
            yield process
        finally:
            process.kill()


def drill(slurm: Sandbox, folder: Path, status: int, *arguments: str) -> str:
    """Rehearse, keep the log in the test's folder, check the exit status, and return the report."""
    with started(slurm, folder, "--log", "log", *arguments) as process:
        report, progress = process.communicate(timeout=200)
    assert process.returncode == status, report + progress
    assert slurm.processes_of_job(slurm.submitted[-1]) == {}
    return report or progress


def training(checkpoint: str, *options: str) -> list[str]:
    return ["python", "-m", "kempnerforge.examples.train", "--checkpoint", checkpoint, *ENDLESS, *options]


def test_a_job_that_saves_passes_and_does_not_come_back(slurm: Sandbox, folder: Path) -> None:
    arguments = ("--lead", "20", "--checkpoint", "run.json", "--json", "--partition=main", "-J", "rehearsal")
    found = json.loads(drill(slurm, folder, 0, *arguments, "--", *training("run.json", "--save-seconds", "1")))
    assert found["verdict"] == "PASS"
    # The save takes 1 s; the program may have the notice from Slurm itself a moment before kforge-run has read its own.
    assert 0.9 < found["shutdown"]["saved"] <= found["shutdown"]["exit"] < 20
    assert found["checkpoints"][0]["problem"] is None
    record = slurm.job(slurm.submitted[-1])
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "85:0", "0")
    assert (record["JobName"], record["Requeue"]) == ("rehearsal", "0")
    # Had it been forgotten, it would have come to its end.
    assert record["TimeLimit"] == "00:14:00"
    assert "warning" not in (folder / "log").read_text()


def test_it_resumes_too(slurm: Sandbox, folder: Path) -> None:
    with started(slurm, folder, "--lead", "20", "--resume", "--", *training("run.json")) as process:
        report, progress = process.communicate(timeout=200)
    slurm.submitted += map(int, re.findall(r"job (\d+) submitted", progress))
    assert process.returncode == 0, report + progress
    assert "  restarted    first poll " in report


def test_a_job_that_ignores_everything_fails(slurm: Sandbox, folder: Path) -> None:
    command = program("ignore_everything.py").split()
    report = drill(slurm, folder, 1, "--after", "6", "--lead", "2", "--", *command)
    assert "FAIL         it did not end at the notice, and had to be killed" in report
    assert "  it said\n    ignoring" in report


def test_each_task_counts(slurm: Sandbox, folder: Path) -> None:
    task = ["sh", "-c", 'exec "$@" --checkpoint "run-$SLURM_PROCID.json" --save-seconds "$SLURM_PROCID"', "sh"]
    train = ["python", "-m", "kempnerforge.examples.train", *ENDLESS]
    # On a loaded machine the first polls before the second is there.
    arguments = ("--lead", "30", "--after", "8", "--nodes=2", "--ntasks", "2", "--checkpoint", "run-*.json")
    report = drill(slurm, folder, 0, *arguments, "--", "srun", "kforge-run", *task, *train)
    assert re.search(r"  ready +first poll [\d.]+ s after the start \(the last of 2 tasks\)\n", report)
    saved = re.search(r"  saved +\+([\d.]+) s .* \(the last of 2 tasks\)\n", report)
    assert saved and float(saved[1]) >= 1.0
    assert "  exit         +" in report and "  with 85\n" in report
    assert "checkpoint   run-*.json: 2 files, " in report


def test_a_task_that_fails_counts_too(slurm: Sandbox, folder: Path) -> None:
    """srun ends with the highest of its tasks' statuses: 85 hides the 3."""
    task = ["sh", "-c", f'exec python {OTHER_PROGRAMS}/save_at_ctrl_c.py "" $((85 - 82 * SLURM_PROCID))']
    # Neither polls: on a loaded machine it takes seconds until both are there.
    arguments = ("--lead", "30", "--ntasks=2", "--after", "12")
    report = drill(slurm, folder, 1, *arguments, "--", "srun", "kforge-run", *task)
    assert re.search(r"FAIL +task 0\.1 exited with 3", report)


def test_a_job_that_never_polls_is_cancelled(slurm: Sandbox, folder: Path) -> None:
    report = drill(slurm, folder, 1, "--patience", "2", "--", "python", children.__file__, "get_stuck")
    assert "FAIL         it has a ShutdownHandler, but did not call should_shutdown()" in report
    assert slurm.job(slurm.submitted[-1])["JobState"] == "CANCELLED"


def test_interrupted_it_cancels_the_job(slurm: Sandbox, folder: Path) -> None:
    with started(slurm, folder, "--after", "600", "--", *training("run.json")) as process:
        assert process.stderr is not None
        while "it polls: the notice comes later" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        report, progress = process.communicate(timeout=100)
    assert (process.returncode, report) == (130, "")
    assert progress == "ending what was started (once more: at once)\n"
    assert slurm.job(slurm.submitted[-1])["JobState"] == "CANCELLED"
    assert slurm.processes_of_job(slurm.submitted[-1]) == {}


def test_interrupted_while_it_waits_for_a_node_it_cancels_the_job(slurm: Sandbox, folder: Path) -> None:
    with started(slurm, folder, "--begin=now+1hour", "--", "true") as process:
        assert process.stderr is not None
        while "is pending (BeginTime)" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    assert process.returncode == 143
    assert slurm.job(slurm.submitted[-1])["JobState"] == "CANCELLED"


def test_a_command_that_is_not_there(slurm: Sandbox, folder: Path) -> None:
    said = drill(slurm, folder, 127, "--", "no-such-command")
    assert "kforge: error: no-such-command: No such file or directory (hint: is it in PATH" in said


def test_a_folder_that_the_node_does_not_see(slurm: Sandbox) -> None:
    if not slurm.private:
        pytest.skip("all nodes of this sandbox see /tmp: it takes root to give each its own")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        said = drill(slurm, Path(path), 125, "--", "true")
        if slurm.version < (24, 11):  # newer ones make the folder on their node, and the job runs unseen
            assert time.monotonic() - began < 45, "Slurm says at once that it could not launch it"
        assert [entry.name for entry in Path(path).iterdir()] == ["log"]
    assert re.search(r"kforge: error: nothing that job \d+ has written on n\d+ can be seen in /var/tmp/", said)
    assert "(hint: start the drill in a folder that the nodes share with this machine)" in said


def test_what_sbatch_does_not_take(slurm: Sandbox, folder: Path) -> None:
    answer = subprocess.run(
        [*KFORGE, "drill", "--slurm", "--partition=nowhere", "--", "true"],
        cwd=folder,
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("kforge: error: not submitted: invalid partition specified: nowhere")
