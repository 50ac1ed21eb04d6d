"""`kforge report` of real jobs: what it says is what happened, and what Slurm says now."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.runs import Run, kforge_run, program, training
from tests.slurm.sandbox import JobId, Sandbox, SandboxError

KFORGE = (sys.executable, "-m", "kempnerforge.commands")
STEPS = 60
#: All that is known of an attempt that has just begun.
START = '{"time": 1795600000.0, "event": "start", "job": "1", "attempt": "1-1"}\n'


class Report:
    """`kforge report` of one job."""

    def __init__(self, slurm: Sandbox, job: JobId) -> None:
        self.slurm = slurm
        self.job = job

    def text(self, *options: str) -> str:
        folder = self.slurm.work / "state/kforge"
        return self.slurm.run(*KFORGE, "report", str(self.job), "--journal", str(folder), *options).stdout

    def json(self, *options: str) -> dict[str, Any]:
        (job,) = json.loads(self.text("--json", *options))["jobs"]
        assert (job["unreadable_lines"], job["unknown_lines"]) == (0, 0)
        return dict(job)


def test_a_run_through_a_notice_to_its_second_attempt(slurm: Sandbox, tmp_path: Path) -> None:
    name = "fine <tuning> 模型"
    run = Run(slurm, kforge_run(training(4 * STEPS)), "--time=60", f"--job-name={name}").says("step 3 ")
    report = Report(slurm, run.job)
    shown = report.text()
    assert shown.startswith(f"job {run.job}  {name}  cluster sandbox  times in ")
    assert re.search(r"^now: running \(Slurm: RUNNING\) for .*, last heard of at ", shown, re.MULTILINE)

    # A job of another cluster has the same number.
    other = tmp_path / f"other-{run.job}.jsonl"
    other.write_text(START)
    assert "running, or killed" in slurm.run(*KFORGE, "report", str(other)).stdout

    run.signal("USR1").says("to spare")
    slurm.wait_for_state(run.job, "PENDING")
    slurm.run("scontrol", "hold", str(run.job))
    assert "now: waits to be started again (Slurm: PENDING)" in report.text()
    slurm.run("scontrol", "release", str(run.job))
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=4 * STEPS)

    shown = report.text()
    first, second = re.findall(r"^[12]  \d{4}-\d\d-\d\d \d\d:\d\d  .*$", shown, re.MULTILINE)
    assert first.endswith("yes       SIGUSR1 by hand: saved, requeued") and second.endswith("yes       completed")
    assert shown.splitlines()[-1].endswith("last: completed") and "now: " not in shown
    check_against_the_log(report.json(), run.output)
    page = tmp_path / "report.html"
    report.text("--html", str(page))
    content = page.read_text(encoding="utf-8")
    assert f"<bdi>{name.replace('<', '&lt;').replace('>', '&gt;')}</bdi>" in content
    assert "SIGUSR1 by hand: saved, requeued" in content and '<td class="prose">completed</td>' in content


def check_against_the_log(job: dict[str, Any], log: str) -> None:
    """Compare with the line that sums up the shutdown, which the policy measured by its own clock."""
    moments = (
        r"first poll \+([\d.]+) s → finish \+([\d.]+) s → exit \+([\d.]+) s → requeued \+([\d.]+) s, ([\d.]+) s to"
    )
    line = re.search(moments, log)
    assert line, log
    first, second = job["attempts"]
    shutdown = first["shutdown"]
    told = [shutdown[part] for part in ("first_poll", "finish", "exit", "requeued", "slack")]
    assert told == pytest.approx([float(figure) for figure in line.groups()], abs=0.3)
    assert (first["restarts"], second["restarts"], second["outcome"]) == (0, 1, "completed")
    assert second["waited"] == pytest.approx(second["started"] - first["ended"])
    # A requeued job waits for its credential to expire: 5 s in the sandbox.
    assert 1 < second["waited"] < 120
    assert first["node"] and first["place"] == "batch" and first["progress"] is True
    assert first["command"][:3] == ["python", "-m", "kempnerforge.examples.train"]
    assert abs(second["ended"] - time.time()) < 120


def test_a_launcher_that_was_killed(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=60").says("step 3 ").signal("KILL")
    slurm.wait_for_state(run.job, "FAILED")
    # The training process learns of it, saves and ends by itself.
    slurm.wait_for("its processes to end", lambda: slurm.processes_of_job(run.job) == {})
    report = Report(slurm, run.job)
    assert "now: no end recorded: killed without a trace (SIGKILL, node failure) (Slurm:" in report.text()
    job = report.json()
    assert (job["standing"], job["slurm_state"], job["attempts"][0]["ran"]) == ("lost", "FAILED", None)


def test_a_run_that_had_to_be_killed(slurm: Sandbox) -> None:
    command = kforge_run(program("ignore_everything.py"), "--timeout", "6", "--term-grace", "1", "--no-requeue")
    run = Run(slurm, command, "--time=60").says("ignoring").signal("USR1").ends("FAILED", restarts=0)
    report = Report(slurm, run.job)
    shown = report.text()
    assert re.search(r"SIGUSR1 by hand: killed, it did not\s+end in time, not requeued:\s+--no-requeue", shown)
    shutdown = report.json()["attempts"][0]["shutdown"]
    assert 0 < shutdown["terminate"] < shutdown["kill"] < shutdown["exit"] < 7


def test_a_job_that_has_no_journal_yet(slurm: Sandbox) -> None:
    job = slurm.sbatch("--hold", "--time=5", script=kforge_run("true"))
    with pytest.raises(SandboxError, match=r"ended with 2: .*Slurm says PENDING .*\(hint: it has not started yet\)"):
        Report(slurm, job).text()


def test_a_cancelled_run(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=60").says("step 3 ").cancel().ends("CANCELLED", restarts=0)
    assert re.search(r"yes +cancelled: saved, not requeued$", Report(slurm, run.job).text(), re.MULTILINE)


def test_the_task_of_an_array(slurm: Sandbox) -> None:
    array = Run(slurm, kforge_run(training(STEPS)), "--time=60", "--array=1-2", "--output=array-%A_%a.out")
    task = Run.of(slurm, f"{array.job}_1").says("step 3 ").signal("USR1")
    task.ends("COMPLETED", restarts=1)
    own = task.record["JobId"]
    assert own != str(array.job)
    assert Report(slurm, task.job).text() == Report(slurm, own).text()
    Run.of(slurm, f"{array.job}_2").ends("COMPLETED", restarts=0)
    both = Report(slurm, array.job).text()
    assert both.index(f"job {array.job}_1 ") < both.index(f"job {array.job}_2 ")


def test_the_tasks_of_a_step(slurm: Sandbox) -> None:
    ranks = f"bash -c '{training(STEPS, ranked=True)}'"
    command = kforge_run(f"srun --label kforge-run {ranks}")
    run = Run(slurm, command, "--time=60", "--nodes=2", "--ntasks=2").says("step 3 ", count=2).signal("USR1")
    run.ends("COMPLETED", restarts=1)
    report = Report(slurm, run.job)
    assert "2 tasks of its steps wrote journals, too (--tasks shows them)" in report.text()
    tasks = report.json("--tasks")["tasks"]
    assert [task["task"] for task in tasks] == ["0.0", "0.1"]
    for task in tasks:
        first, second = task["attempts"]
        assert (first["place"], first["outcome"], second["outcome"]) == ("step", "checkpointed", "completed")
        assert first["shutdown"]["first_poll"] is not None
    assert report.text("--tasks").splitlines()[-2].split()[0] == "0.0"


@pytest.fixture
def silent_controller(slurm: Sandbox, tmp_path: Path) -> Iterator[str]:
    """A slurm.conf that names somebody who takes every question and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        conf = (slurm.root / "slurm.conf").read_text()
        path = tmp_path / "slurm.conf"
        path.write_text(re.sub(r"^SlurmctldPort=.*$", f"SlurmctldPort={port}", conf, flags=re.MULTILINE))
        (tmp_path / "cgroup.conf").touch()
        yield str(path)


def test_a_controller_that_does_not_answer_is_not_waited_for(
    slurm: Sandbox, silent_controller: str, tmp_path: Path
) -> None:
    for job in (1, 2, 3):
        (tmp_path / f"sandbox-{job}.jsonl").write_text(START)
    command = [*KFORGE, "report", "--journal", str(tmp_path)]
    environment = {**slurm.environment, "SLURM_CONF": silent_controller}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    # scontrol itself would try for ten seconds, for each of them.
    assert 4 < time.monotonic() - started < 29
    assert done.stdout.count("running, or killed") == 3
    assert done.stderr == ""
