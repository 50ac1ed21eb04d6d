"""An early notice of a preemption: what kforge-run's own small step is there for, and what it must not do."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from kempnerforge.bootstrap import proc
from tests.slurm.runs import Run, kforge_run, script, training
from tests.slurm.sandbox import Sandbox

#: Longer than what any test does before its notice.
STEPS = 150
#: A save that takes longer than KillWait, 8 s, and not as long as the grace, 20 s.
SLOW = 10
PREEMPTIBLE = ("--partition=preemptible", "--time=10")


def listens(run: Run) -> int:
    """Wait until the step listens; return its shell's pid."""

    def probe() -> int | None:
        for pid, line in run.slurm.processes_of_job(run.job).items():
            if line.startswith("/bin/sh -c trap") and signal.SIGTERM in proc.signal_set(pid, "SigCgt"):
                return pid
        return None

    return run.slurm.wait_for("the step that listens", probe, job=run.job)


def launcher_of(run: Run) -> int:
    found = run.slurm.processes_of_job(run.job).items()
    (pid,) = [pid for pid, line in found if re.match(r"\S+ \S+/kforge-run ", line)]
    return pid


def steps_of(run: Run) -> list[str]:
    """The names of a job's steps, without those of Slurm's own."""
    told = run.slurm.run("squeue", "--steps", "--noheader", "--format=%.20j", f"--jobs={run.job}").stdout.split()
    return [name for name in told if name not in ("batch", "extern")]


@pytest.mark.parametrize("partition", ["preemptible", "preemptible-cancel"])
def test_a_save_that_takes_longer_than_killwait_survives_a_preemption(slurm: Sandbox, partition: str) -> None:
    run = Run(slurm, kforge_run(training(STEPS, save_seconds=SLOW)), f"--partition={partition}", "--time=10")
    listens(run.says("step 3 "))
    slurm.preempt(run.job)
    run.says("reason: preempted").says("→ requeued")
    # 24.11 keeps the mark of a preemption that cancels through our requeue.
    state = "PREEMPTED" if slurm.version == (24, 11) and partition == "preemptible-cancel" else "COMPLETED"
    run.ends(state, restarts=1).lost_nothing(steps=STEPS)
    assert "notice: SIGTERM from slurmstepd, to the job's steps" in run.output


def test_without_it_the_same_save_is_cut_short(slurm: Sandbox) -> None:
    # It trains until it is cancelled, however long a busy Slurm takes for the preemption.
    run = Run(slurm, kforge_run(training(10 * STEPS, save_seconds=SLOW), "--no-early-notice"), *PREEMPTIBLE)
    run.says("step 3 ")
    slurm.preempt(run.job)
    run.says("reason: requeued")
    assert steps_of(run) == []
    run.says("attempt 2 of job")
    assert "checkpoint saved" not in run.output
    run.cancel().ends("CANCELLED")


def test_a_signal_to_the_steps_by_hand_is_no_notice(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS * 2), "--verbose"), *PREEMPTIBLE).says("step 3 ")
    first = listens(run)
    slurm.scancel("-s", "TERM", run.job)
    run.says("a step of kforge-run's, was ended by hand: it is started once more")
    assert "notice:" not in run.output
    slurm.wait_for("the step to be another", lambda: listens(run) != first, job=run.job)
    slurm.preempt(run.job)
    run.says("reason: preempted").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS * 2)


@pytest.fixture
def slurm_that_counts_memory() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, extra_conf="SelectTypeParameters=CR_CPU_Memory") as sandbox:
        yield sandbox


def test_the_users_own_steps_start_beside_it_and_it_beside_them(slurm_that_counts_memory: Sandbox) -> None:
    slurm = slurm_that_counts_memory
    # All that the job has, or an error: nobody waits.
    everything = "srun --immediate=5 -n1 -c$SLURM_CPUS_ON_NODE --exact --mem=60G --gres=gpu:8"
    script_of_the_user = (
        "until [ -e listens-$SLURM_JOB_ID ]; do sleep 0.1; done;"
        f"{everything} sh -c 'echo alone; until [ -e again-$SLURM_JOB_ID ]; do sleep 0.1; done; echo all of it'"
    )
    (slurm.work / "steps.sh").write_text(script_of_the_user)
    # What the job's own variables ask of every srun is not meant for ours.
    batch = kforge_run("bash steps.sh", "--verbose").replace(
        "exec", "export SLURM_NTASKS=9 SRUN_CPUS_PER_TASK=64 SLURM_GPUS_PER_TASK=8\nexec"
    )
    run = Run(slurm, batch, *PREEMPTIBLE, "--gres=gpu:8", "--mem=60G")
    first = listens(run)
    (slurm.work / f"listens-{run.job}").touch()
    run.says("alone")
    slurm.scancel("-s", "TERM", f"{run.job}.0")
    slurm.wait_for("the step to be another", lambda: listens(run) != first, job=run.job)
    (slurm.work / f"again-{run.job}").touch()
    run.ends("COMPLETED", restarts=0)
    assert "all of it" in run.output and "warning: a preemption" not in run.output


def test_a_cancelled_job_leaves_nothing(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training()), *PREEMPTIBLE).says("step 3 ")
    listens(run)
    run.cancel().ends("CANCELLED", restarts=0).says("not requeued: its owner cancelled it").lost_nothing()
    assert "warning: a preemption" not in run.output


def test_it_ends_with_the_command(slurm: Sandbox) -> None:
    command = "sh -c 'until [ -e go-$SLURM_JOB_ID ]; do sleep 0.1; done; date +ended=%s.%N'"
    rest = "date +left=%s.%N\nuntil [ -e over-$SLURM_JOB_ID ]; do sleep 0.1; done"
    run = Run(slurm, script(f"kforge-run {command}\n{rest}").replace("exec kforge", "kforge"), *PREEMPTIBLE)
    listens(run)
    (slurm.work / f"go-{run.job}").touch()
    told = dict(re.findall(r"(ended|left)=([0-9.]+)", run.says("left=").output))
    assert steps_of(run) == []
    # kforge-run also asks Slurm once more.
    assert float(told["left"]) - float(told["ended"]) < 2
    (slurm.work / f"over-{run.job}").touch()
    run.ends("COMPLETED", restarts=0)


def test_it_ends_with_a_kforge_run_that_is_killed(slurm: Sandbox) -> None:
    batch = script("kforge-run sleep 600\nuntil [ -e over-$SLURM_JOB_ID ]; do sleep 0.1; done")
    run = Run(slurm, batch.replace("exec kforge", "kforge"), *PREEMPTIBLE)
    listens(run)
    os.kill(launcher_of(run), signal.SIGKILL)
    slurm.wait_for("the step to end", lambda: steps_of(run) == [], job=run.job)
    assert run.record["JobState"] == "RUNNING"
    left = slurm.processes_of_job(run.job).values()
    assert not [line for line in left if line.startswith(("srun", "/bin/sh -c trap"))]
    (slurm.work / f"over-{run.job}").touch()
    run.ends("COMPLETED", restarts=0)


def test_while_it_listens_nobody_wakes_up(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run("sleep 600"), *PREEMPTIBLE).says("nothing can be interrupted")
    idle = (listens(run), launcher_of(run))
    time.sleep(1)  # what begins is over by then
    before = [switches(pid) for pid in idle]
    time.sleep(5)
    assert [switches(pid) for pid in idle] == before
    run.cancel().ends("CANCELLED")


def switches(pid: int) -> int:
    """How often a process has gone to sleep."""
    with open(f"/proc/{pid}/status") as status:
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_where_it_cannot_start_the_run_goes_on(slurm: Sandbox) -> None:
    # Of Slurm's commands only scontrol is there.
    batch = kforge_run("sleep 2").replace(
        "exec", 'mkdir bin-$SLURM_JOB_ID; ln -s "$(command -v scontrol)" bin-$SLURM_JOB_ID/\nexec'
    )
    only = "env PATH=$PWD/bin-$SLURM_JOB_ID:/nowhere"
    batch = batch.replace("exec kforge-run sleep", f'exec {only} "$(command -v kforge-run)" /bin/sleep')
    run = Run(slurm, batch, *PREEMPTIBLE).ends("COMPLETED", restarts=0)
    assert run.output.count("a preemption is noticed only when its grace is over: no step can be started (srun: ") == 1


@pytest.mark.parametrize(
    ("command", "partition"), [("srun sleep 5", "preemptible"), ("sleep 5", "urgent")], ids=["srun", "never preempted"]
)
def test_where_it_would_not_help_there_is_none(slurm: Sandbox, command: str, partition: str) -> None:
    run = Run(slurm, kforge_run(command), f"--partition={partition}", "--time=10").says("attempt 1 of job")
    seen: set[str] = set()
    while run.record["JobState"] == "RUNNING":
        seen |= set(steps_of(run))
        time.sleep(0.2)
    assert "kforge-notice" not in seen
    run.ends("COMPLETED", restarts=0)
