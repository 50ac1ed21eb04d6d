"""Names, comments and submit lines that look like a job's record: the job is requeued all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.namespaces import known_as
from tests.slurm.runs import kforge_run, training
from tests.slurm.sandbox import SHARED, JobId, Sandbox, can_unshare
from tests.slurm.tried import tried

STEPS = 60
#: What a person may have typed.
RECORD_OF_ANOTHER = (
    "JobId=99 JobName=b UserId=eve(0) GroupId=eve(0) JobState=COMPLETED Restarts=9 Requeue=0 SubmitTime=1700000000"
    " EndTime=1700000001 PreemptTime=1700000002 SuspendTime=None Partition=x"
)
TEXTS = {
    "a record": f"a {RECORD_OF_ANOTHER} ",
    "lines": f"a\n{RECORD_OF_ANOTHER}\n   JobState=CANCELLED Reason=TimeLimit\n",
    "signs": "süß ✓ = \\ ' \" ; $(false) %s %j (0)",
}


def comes_back(slurm: Sandbox, job: JobId, log: str) -> None:
    """Notify a job, and check that it goes on in a second attempt, whatever a look at its record would show."""
    output = slurm.work / log

    def state() -> str:
        return slurm.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").stdout.strip()

    def until(text: str) -> None:
        slurm.wait_for(repr(text), lambda: output.exists() and text in output.read_text())

    until("step 3 ")
    slurm.scancel("-b", "-s", "USR1", job)
    until("attempt 2 of job")
    until(f"finished at step {STEPS}")
    slurm.wait_for("its end", lambda: state() == "COMPLETED")
    text = output.read_text()
    assert "reason: manual" in text, text
    assert "cannot be read" not in text and "cannot read" not in text
    assert text.count("resumed at step") == 1


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_what_a_person_typed(slurm: Sandbox, text: str) -> None:
    texts = [f"--job-name={text}", f"--comment={text}", f"--account={text}", f"--wckey={text}"]
    log = f"free-text-{len(text)}.out"
    job = slurm.sbatch(*texts, f"--output={log}", "--time=60", script=kforge_run(training(STEPS)))
    comes_back(slurm, job, log)


def test_what_a_person_typed_of_an_array(slurm: Sandbox) -> None:
    # Its last task is asked for by the array's number, which all tasks answer to.
    options = ["--array=1-2", "--output=free-text-%a.out", "--time=60"]
    job = slurm.sbatch(f"--job-name={TEXTS['lines']}", *options, script=kforge_run(training(STEPS)))
    comes_back(slurm, f"{job}_2", "free-text-2.out")
    other = (slurm.work / "free-text-1.out").read_text()
    assert "notice" not in other


@pytest.fixture
def slurm_of_a_directory(tmp_path: Path) -> Iterator[Sandbox]:
    """One whose nodes know this user's group as a Windows domain does."""
    if not can_unshare():
        pytest.skip("needs root, to give the nodes other names of users and groups")
    # Slurm calls user 0 root whatever /etc/passwd says; tests/slurm/test_hidden_processes.py has another user.
    prepare = known_as(tmp_path, 0, "CORP\\ada", "domain users")
    with Sandbox(nodes=1, shared=(*SHARED, tmp_path), prepare=prepare) as sandbox:
        yield sandbox


@tried("users and groups of a Windows domain")
def test_a_primary_group_of_a_windows_domain(slurm_of_a_directory: Sandbox) -> None:
    slurm = slurm_of_a_directory
    script = kforge_run(training(STEPS)).replace("exec", "scontrol show job -o $SLURM_JOB_ID >record\nexec")
    comes_back(slurm, slurm.sbatch("--output=log", "--time=60", script=script), "log")
    record = (slurm.work / "record").read_text()
    assert "GroupId=domain users(0)" in record
