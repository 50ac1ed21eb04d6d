"""`kforge doctor` on a real cluster: it says what Slurm then does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.slurm.runs import BIN, Run, kforge_run, training
from tests.slurm.sandbox import Sandbox


def doctor(slurm: Sandbox, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "kforge", "doctor", *arguments],
        env=slurm.environment,
        cwd=slurm.work,
        capture_output=True,
        text=True,
        check=False,
    )


def joined(text: str) -> str:
    """The text without its line ends."""
    return " ".join(text.split())


def test_what_each_event_means_on_this_cluster(slurm: Sandbox) -> None:
    answer = doctor(slurm)
    assert answer.returncode == 0, answer.stderr
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "time limit, no --signal SIGTERM +8 s kforge-run" in lines
    assert "scancel JOB SIGTERM +8 s nobody" in lines
    at = lines.index("in partition preemptible no time limit, 01:00:00 if none is asked")
    assert lines[at + 1 : at + 3] == [
        "preempted SIGTERM at once +20 s kforge-run",
        "the tasks of an srun SIGTERM at once +28 s Slurm",
    ]
    assert lines[lines.index("in partition urgent no time limit, 01:00:00 if none is asked") + 1] == "never preempted"
    assert any("A requeued job waits 5 s" in line for line in lines)
    assert "After 5 requeues of its own (MaxBatchRequeue) Slurm holds a job" in joined(answer.stdout)


def test_the_partitions_that_are_asked_for(slurm: Sandbox) -> None:
    told = doctor(slurm, "-p", "preemptible,urgent").stdout
    shown = [line.split()[2] for line in told.splitlines() if line.startswith("in partition")]
    assert shown == ["preemptible", "urgent"]
    unknown = doctor(slurm, "-p", "nowhere")
    assert unknown.returncode == 2 and "there are main, preemptible" in unknown.stderr


def test_the_cluster_as_json(slurm: Sandbox) -> None:
    told = json.loads(doctor(slurm, "--json").stdout)
    assert (told["name"], told["kill_wait"], told["preemption"]) == ("sandbox", 8.0, "partition_prio")
    cancel = next(partition for partition in told["partitions"] if partition["name"] == "preemptible-cancel")
    assert [event["requeued_by"] for event in cancel["events"]] == ["kforge-run", "kforge-run"]


@pytest.mark.parametrize("symbol", ["r", "S"])
def test_a_log_for_each_attempt(slurm: Sandbox, symbol: str) -> None:
    """Whether a log's name changes with each attempt depends on the version, and so does what the doctor says."""
    again = "if [ ! -e again-$SLURM_JOB_ID ]; then touch again-$SLURM_JOB_ID; scontrol requeue $SLURM_JOB_ID; fi\n"
    script = f"#!/bin/sh\n#SBATCH --requeue\n#SBATCH --output=by-{symbol}-%{symbol}.log\necho attempt\n{again}"
    (slurm.work / f"by-{symbol}.sh").write_text(script)
    Run(slurm, script).ends("COMPLETED", restarts=1)
    logs = list(slurm.work.glob(f"by-{symbol}-*.log"))
    said = doctor(slurm, f"by-{symbol}.sh").stdout
    for log in logs:
        log.unlink()
    assert ("each attempt empties the log" in said) == (len(logs) == 1), said


def test_a_lead_that_the_last_job_has_shown_to_be_too_short(slurm: Sandbox, tmp_path: Path) -> None:
    name = f"slow-{tmp_path.name}"
    script = tmp_path / "job.sbatch"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --signal=B:USR1@20 --requeue --open-mode=append\n#SBATCH --job-name={name}\n"
        + kforge_run(training(steps=60, save_seconds=5), "--no-requeue").partition("--open-mode=append\n")[2]
    )
    before = doctor(slurm, "--journal", slurm.work / "state" / "kforge", script)
    assert "20 s are too short: 13 s of it are left" in joined(before.stdout)
    run = Run.of(slurm, slurm.sbatch("--time=10", str(script))).says("step 3 ").signal("USR1").ends("FAILED")
    after = doctor(slurm, "--journal", slurm.work / "state" / "kforge", script)
    assert after.returncode == 1
    assert f"{script}:2: would lose a run: 20 s are too short: job {run.job} took 5 s to stop" in joined(after.stdout)


def test_settings_that_this_slurm_no_longer_has() -> None:
    """FastSchedule is passed over by all of them; of CacheGroups no command can make sense."""
    with Sandbox(nodes=1, extra_conf="FastSchedule=1") as slurm:
        assert doctor(slurm).returncode == 0
        conf = slurm.root / "slurm.conf"
        conf.write_text(conf.read_text() + "CacheGroups=0\n")
        told = doctor(slurm)
        assert told.returncode == 125 and "unrecognized key: CacheGroups" in told.stderr


def test_a_controller_that_does_not_answer_keeps_nobody_from_looking_at_a_script(tmp_path: Path) -> None:
    with Sandbox(nodes=1) as slurm:
        slurm.stop_controller()
        script = tmp_path / "job.sbatch"
        script.write_text(kforge_run("python train.py"))
        answer = doctor(slurm, script)
        assert "no --signal" in joined(answer.stdout) and answer.returncode == 1
        assert "looked at without the cluster's settings" in answer.stderr
        alone = doctor(slurm)
        assert (alone.returncode, alone.stdout) == (125, "") and alone.stderr.startswith("kforge: error: scontrol")
