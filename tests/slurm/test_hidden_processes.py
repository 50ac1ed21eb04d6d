"""A batch process that cannot see its slurmstepd: an ordinary user's where /proc hides, or in another PID namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.namespaces import NOBODY, hiding_processes, known_as, opened
from tests.slurm.runs import Run, kforge_run, program, script, training
from tests.slurm.sandbox import SHARED, Sandbox, can_unshare
from tests.slurm.tried import tried

STEPS = 60
#: As a user of a Windows domain, whose primary group has a blank in its name.
AS_ANOTHER = (f"--uid={NOBODY}", f"--gid={NOBODY}", "--time=60")


@pytest.fixture
def slurm_that_hides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    """One that hides processes on the level that the test gives."""
    if not can_unshare():
        pytest.skip("needs root, to mount /proc with hidepid and to run a job as another user")
    prepare = [
        *known_as(tmp_path, NOBODY, "CORP\\ada=x", "domain users"),
        *opened(SHARED),
        *hiding_processes(request.param),
    ]
    with Sandbox(nodes=1, shared=(*SHARED, tmp_path), prepare=prepare) as sandbox:
        sandbox.work.chmod(0o777)
        yield sandbox


#: A batch script's look at what is hidden, and at what Slurm says of it.
LOOK = "ls -d /proc/$PPID/fd /proc/1/fd && echo visible; scontrol show job -o $SLURM_JOB_ID >record-$SLURM_JOB_ID\n"


@tried("/proc with `hidepid=1` and `2`; a PID namespace for the job")
@pytest.mark.parametrize(
    ("slurm_that_hides", "start"), [(1, "exec "), (2, "exec "), (2, "")], indirect=["slurm_that_hides"]
)
def test_an_ordinary_user_where_proc_hides(slurm_that_hides: Sandbox, start: str) -> None:
    slurm = slurm_that_hides
    batch_script = kforge_run(training(STEPS), "--verbose").replace("exec ", LOOK + start)
    run = Run(slurm, batch_script, *AS_ANOTHER).says("step 3 ")
    assert "visible" not in run.output and ", batch" in run.output
    record = (slurm.work / f"record-{run.job}").read_text()
    assert "GroupId=domain users" in record and "UserId=CORP\\ada=x" in record
    pid = next(pid for pid, words in slurm.processes_of_job(run.job).items() if "/kforge-run " in words)
    slurm.run("kill", "-USR1", str(pid))
    run.says("reason: manual").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "notice: SIGUSR1 from another user's process" in run.output or "has ended" in run.output
    assert "Traceback" not in run.output
    assert ("dies of SIGUSR1, and the job ends: start with `exec kforge-run" in run.output) == (not start)


@tried("/proc with `hidepid=1` and `2`; a PID namespace for the job")
@pytest.mark.parametrize("slurm_that_hides", [1, 2], indirect=True)
def test_an_ordinary_users_daemons_are_swept(slurm_that_hides: Sandbox) -> None:
    command = kforge_run(program("leave_daemons.py"), "--verbose", "--term-grace", "1")
    run = Run(slurm_that_hides, command, *AS_ANOTHER).ends("COMPLETED", restarts=0)
    assert "still running: SIGKILL" in run.output
    assert "Traceback" not in run.output and "could not be killed" not in run.output


@tried("/proc with `hidepid=1` and `2`; a PID namespace for the job")
def test_in_a_pid_namespace(slurm: Sandbox) -> None:
    if not can_unshare():
        pytest.skip("needs root, to make a PID namespace")
    namespace = "unshare --pid --fork --mount-proc --kill-child"
    batch_script = script(f"{namespace} kforge-run --verbose sh -c 'echo attempt; exit 85'")
    batch_script = batch_script.replace("exec", "[ ! -e done ] || { echo finished; exit 0; }; touch done; exec")
    run = Run(slurm, batch_script, "--time=60").says("finished").ends("COMPLETED", restarts=1)
    assert ", batch" in run.output and run.output.count("attempt\n") == 1
