"""What sites set otherwise than the shared sandbox, each with what it could break."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.runs import BIN, PROGRAMS, LaunchesFail, Run, bash_around, kforge_run, training
from tests.slurm.sandbox import SHARED, Sandbox, Tracking, can_unshare, installed_version, no_cgroups
from tests.slurm.tried import only_on, tried

STEPS = 60
#: As most sites have it, where this machine can.
TRACKING: Tracking = "linuxproc" if no_cgroups() else "cgroup"
INTERRUPTED = f"python {PROGRAMS / 'save_when_interrupted.py'} {STEPS}"


@pytest.fixture
def contain() -> Iterator[Sandbox]:
    """Every job has an extern step, and its cgroup, from the start."""
    with Sandbox(nodes=2, process_tracking=TRACKING, extra_conf="PrologFlags=Contain") as sandbox:
        yield sandbox


@tried("`PrologFlags=Contain`")
def test_a_job_with_an_extern_step(contain: Sandbox) -> None:
    ranks = f"srun --label kforge-run sh -c 'exec {training(STEPS, ranked=True)}'"
    run = Run(contain, kforge_run(ranks), "--nodes=2", "--ntasks=2", "--time=10")
    run.says("0: step 3 ").says("1: step 3 ").signal("USR1").ends("COMPLETED", restarts=1)
    for task in "01":
        run.lost_nothing(steps=STEPS, task=task)


@pytest.fixture
def private_tmp() -> Iterator[Sandbox]:
    """Each job has a /tmp and a /dev/shm of its own."""
    if not can_unshare():
        pytest.skip("only root may mount")
    settings = "AutoBasePath=true\nBasePath=/mnt/jobs\n"
    if any(Path("/tmp") in path.parents for path in SHARED):
        # No job would see them. Newer Slurms can leave /tmp alone.
        if installed_version() < (23, 2):
            pytest.skip("the checkout, or its Python, is in /tmp, which this Slurm hides from jobs")
        settings += "Dirs=/dev/shm,/var/tmp\n"
    plugin = (
        "NamespaceType=namespace/tmpfs" if installed_version() >= (25, 11) else "JobContainerType=job_container/tmpfs"
    )
    with Sandbox(
        nodes=1,
        process_tracking=TRACKING,
        extra_conf=f"PrologFlags=Contain\n{plugin}",
        conf_files={"job_container.conf": settings},
        prepare=[["mount", "-t", "tmpfs", "tmpfs", "/mnt"]],
        below=Path("/srv"),
    ) as sandbox:
        try:
            first = Run(sandbox, "#!/bin/sh\nexec true\n")
            first.though_launches_fail("a first job", lambda: first.record["JobState"] == "COMPLETED")
        except LaunchesFail as failure:
            pytest.skip(f"this Slurm could not launch a job in a namespace of its own ({failure})")
        yield sandbox


@tried("`job_container/tmpfs`, newer `namespace/tmpfs`: a /tmp per job")
def test_a_job_with_a_tmp_of_its_own(private_tmp: Sandbox) -> None:
    """The private folder and the bootstrap are in what the batch process and the step see, and nobody else."""
    look = "sh -c 'ls -A /dev/shm; exec \"$@\"' sh"
    run = Run(private_tmp, kforge_run(f"{look} srun --label kforge-run {INTERRUPTED}", "-v"), "--time=10")
    try:
        run.though_launches_fail("it to train", lambda: "0: step 3 " in run.output).signal("USR1")
        run.though_launches_fail("it to be over", lambda: run.record["JobState"] == "COMPLETED")
    except LaunchesFail as failure:
        pytest.skip(f"this Slurm could not launch a job in a namespace of its own ({failure})")
    saved = re.findall(r"^0: checkpoint saved at step (\d+)", run.output, re.MULTILINE)
    assert len(saved) == 2, run.output
    for says in (f"0: resumed at step {int(saved[0]) + 1}\n", f"0: finished at step {STEPS}\n"):
        assert run.output.count(says) == 1, run.output
    assert re.search(r"^\.kforge-", run.output, re.MULTILINE)
    assert not list(private_tmp.node_folder(private_tmp.nodes[0], "/dev/shm").glob(".kforge-*"))


@pytest.fixture
def failing_prolog() -> Iterator[Sandbox]:
    """No job can be launched."""
    with Sandbox(nodes=1, process_tracking=TRACKING, extra_conf="Prolog=/bin/false") as sandbox:
        yield sandbox


def kforge(slurm: Sandbox, *arguments: str | int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "kforge"), *map(str, arguments)],
        env={**slurm.environment, "XDG_STATE_HOME": str(slurm.work / "state")},
        cwd=slurm.work,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def test_a_job_that_cannot_be_launched_is_known_at_once(failing_prolog: Sandbox) -> None:
    slurm = failing_prolog
    run = Run(slurm, kforge_run("true"))
    slurm.wait_for("it to be held", lambda: run.record["Reason"] == "launch_failed_requeued_held", job=run.job)
    said = kforge(slurm, "report", run.job).stderr
    assert "launch_failed_requeued_held" in said and f"scontrol release {run.job})" in said
    slurm.run("scontrol", "update", f"NodeName={slurm.nodes[0]}", "State=RESUME")
    drill = kforge(slurm, "drill", "--slurm", "--", "true")
    assert drill.returncode == 125, drill
    assert "slurmd's log there tells why" in drill.stderr


@pytest.fixture
def failing_later(tmp_path: Path) -> Iterator[Sandbox]:
    """No job can be launched as soon as the sandbox's own folder has a file `broken`."""
    prolog = tmp_path / "prolog"
    prolog.write_text('#!/bin/sh\n[ ! -e "${SLURM_CONF%/*}/work/broken" ]\n')
    prolog.chmod(0o755)
    conf = f"Prolog={prolog}"
    with Sandbox(nodes=1, process_tracking=TRACKING, extra_conf=conf, shared=(*SHARED, tmp_path)) as sandbox:
        yield sandbox


def test_a_run_that_cannot_be_launched_again_is_reported(failing_later: Sandbox) -> None:
    slurm = failing_later
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10").says("step 3 ")
    (slurm.work / "broken").touch()
    run.signal("USR1")
    slurm.wait_for("it to be held", lambda: run.record["Reason"] == "launch_failed_requeued_held", job=run.job)
    said = kforge(slurm, "report", run.job).stdout
    assert "not started again (Slurm: launch failed, held: scontrol release JOB)" in " ".join(said.split()), said
    (slurm.work / "broken").unlink()
    slurm.run("scontrol", "update", f"NodeName={slurm.nodes[0]}", "State=RESUME")
    slurm.run("scontrol", "release", str(run.job))
    run.ends("COMPLETED")
    assert run.output.count(f"finished at step {STEPS}") == 1


@pytest.fixture
def signals_children() -> Iterator[Sandbox]:
    """With cgroups Slurm signals every process of a job, too, as linuxproc does."""
    if why := no_cgroups():
        pytest.skip(why)
    files = {"cgroup.conf": "SignalChildrenProcesses=yes\n"}
    with Sandbox(nodes=1, process_tracking="cgroup", conf_files=files) as sandbox:
        yield sandbox


@tried("`SignalChildrenProcesses=yes`")
@only_on(lambda version: version >= (23, 11), "this Slurm has no SignalChildrenProcesses")
def test_a_shell_in_between_where_slurm_signals_everybody(signals_children: Sandbox) -> None:
    run = Run(signals_children, kforge_run(bash_around(signals_children, INTERRUPTED)), "--time=10").says("step 3 ")
    signals_children.requeue(run.job)
    run.says("reason: requeued").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


@pytest.fixture
def strict() -> Iterator[Sandbox]:
    """A failed task takes its peers with it, and no job is requeued unless it asks for that."""
    with Sandbox(nodes=1, process_tracking=TRACKING, extra_conf="KillOnBadExit=1\nJobRequeue=0") as sandbox:
        yield sandbox


@tried("`KillOnBadExit=1`, `JobRequeue=0`")
def test_tasks_that_save_for_different_times_where_a_bad_exit_kills(strict: Sandbox) -> None:
    task = f"sh -c 'exec {training(STEPS, ranked=True)} --save-seconds $SLURM_PROCID'"
    run = Run(strict, kforge_run(f"srun --label kforge-run {task}"), "--ntasks=3", "--time=10")
    for number in range(3):
        run.says(f"{number}: step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1)
    for number in range(3):
        run.lost_nothing(steps=STEPS, task=str(number))


@tried("`KillOnBadExit=1`, `JobRequeue=0`")
def test_a_peers_sigterm_after_a_rank_has_failed_is_no_notice(strict: Sandbox) -> None:
    """The others save, and that makes no checkpoint of a failure: it would come back and fail for ever."""
    fails = "until grep -q 0:.step.3 slurm-$SLURM_JOB_ID.out; do sleep 0.2; done; exit 3"
    task = f"sh -c 'if [ $SLURM_PROCID = 1 ]; then {fails}; fi; exec {training(STEPS * 4, ranked=True)}'"
    run = Run(strict, kforge_run(f"srun --label kforge-run {task}"), "--ntasks=2", "--time=10", "--requeue")
    run.ends("FAILED", restarts=0)
    assert "checkpoint saved" in run.output and "it failed" in run.output


@tried("`KillOnBadExit=1`, `JobRequeue=0`")
def test_a_job_that_did_not_ask_for_a_requeue_is_warned(strict: Sandbox) -> None:
    batch_script = kforge_run(training(STEPS)).replace("#SBATCH --requeue\n", "")
    run = Run(strict, batch_script, "--time=10").says("step 3 ")
    run.says("warning: this job may not be requeued: add `#SBATCH --requeue`").signal("USR1")
    run.ends("FAILED", restarts=0).lost_nothing()
    assert "not requeued: the job may not be requeued: submit it with --requeue" in run.output
    assert run.record["ExitCode"] == "85:0"


@pytest.fixture
def requeues_85() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, process_tracking=TRACKING, extra_conf="RequeueExit=85") as sandbox:
        yield sandbox


@tried("`RequeueExit=85`")
def test_a_checkpoint_that_shall_not_come_back_where_85_is_requeued(requeues_85: Sandbox) -> None:
    run = Run(requeues_85, kforge_run(training(STEPS), "--no-requeue"), "--time=10").says("step 3 ").signal("USR1")
    run.ends("FAILED", restarts=0).lost_nothing()
    assert run.record["ExitCode"] == "75:0"
    # Requeued once by kforge-run, and not by Slurm besides.
    again = Run(requeues_85, kforge_run(training(STEPS)), "--time=10").says("step 3 ").signal("USR1")
    again.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


@pytest.fixture
def gang() -> Iterator[Sandbox]:
    """Who makes way for others is stopped, and goes on when they have ended."""
    partitions = {"low": "PriorityTier=1 PreemptMode=SUSPEND", "high": "PriorityTier=10 PreemptMode=OFF"}
    lines = [f"PartitionName={name} Nodes=ALL OverSubscribe=FORCE:1 {how}" for name, how in partitions.items()]
    conf = "\n".join(["PreemptMode=SUSPEND,GANG", "SchedulerTimeSlice=5", *lines])
    with Sandbox(nodes=1, cpus=2, process_tracking=TRACKING, extra_conf=conf) as sandbox:
        yield sandbox


@tried("`PreemptMode=SUSPEND,GANG`")
def test_a_preemption_that_suspends_is_no_notice(gang: Sandbox) -> None:
    run = Run(gang, kforge_run(training(STEPS), "-v"), "--partition=low", "-c2", "--time=10").says("step 3 ")
    gang.sbatch("--partition=high", "-c2", "--output=/dev/null", "--wrap=sleep 5")
    gang.wait_for_state(run.job, "SUSPENDED")
    gang.wait_for_state(run.job, "RUNNING")
    run.says("step 12 ")
    assert "notice" not in run.output
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


@pytest.fixture
def preempts_by_qos() -> Iterator[Sandbox]:
    """No partition's grace counts. (A QOS needs a database, which the sandbox has not: nobody is preempted.)"""
    with Sandbox(nodes=1, process_tracking=TRACKING, extra_conf="PreemptType=preempt/qos") as sandbox:
        yield sandbox


@tried("`PreemptType=preempt/qos`, as far as that goes without a database")
def test_the_grace_of_a_qos_is_not_guessed(preempts_by_qos: Sandbox) -> None:
    run = Run(preempts_by_qos, kforge_run(training(STEPS)), "--partition=preemptible", "--time=10").says("step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert f"[{run.job}.batch]" in (log := preempts_by_qos.logs(10_000)) and f"[{run.job}.0]" not in log  # no step
    told = kforge(preempts_by_qos, "doctor", "--partition=preemptible").stdout
    assert re.search(r"preempted, as its QOS says +SIGTERM, after a grace +\+8 s +kforge-run$", told, re.MULTILINE), (
        told
    )


@tried("`srun --ignore-signals`")
@only_on(lambda version: version >= (26, 5), "this srun has no --ignore-signals")
def test_an_srun_that_ignores_signals(slurm: Sandbox) -> None:
    ranks = f"srun --label --ignore-signals=INT,TERM sh -c 'exec {training(STEPS, ranked=True)}'"
    run = Run(slurm, kforge_run(ranks), "--nodes=2", "--ntasks=2", "--time=10")
    run.says("0: step 3 ").says("1: step 3 ").signal("USR1").ends("COMPLETED", restarts=1)
    for task in "01":
        run.lost_nothing(steps=STEPS, task=task)
    deaf = Run(slurm, kforge_run("srun --ignore-signals=USR1 true")).ends("COMPLETED", restarts=0)
    assert "srun does not hand the notice on" in deaf.output
