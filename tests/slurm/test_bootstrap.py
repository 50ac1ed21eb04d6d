"""The bootstrap in real jobs, each through to the resumed and finished last attempt."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.slurm.runs import BEYOND_A_MINUTE, ENDED_IN_TIME, PROGRAMS, Run, bash_around, kforge_run
from tests.slurm.sandbox import Sandbox

pytestmark = pytest.mark.slurm
#: Longer than what any test does before its notice, short enough to finish soon after the resume.
STEPS = 60


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where a package is missing. It is not imported here."""
    return pytest.mark.skipif(
        find_spec(package) is None, reason=f"{package} is not installed (hint: bin/test --frameworks)"
    )


def python(name: str, steps: int = STEPS) -> str:
    return f"python {PROGRAMS / name} {steps}"


def test_a_script_that_saves_each_step_and_knows_nothing_of_signals(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(python("save_each_step.py"), "-v"), "--time=60").says("step 3 ").signal("USR1")
    run.says("reason: manual").ends("COMPLETED", restarts=1)
    assert ") can be interrupted" in run.output
    assert "KeyboardInterrupt" in run.output
    done = [int(step) for step in re.findall(r"^step (\d+) done$", run.output, re.MULTILINE)]
    # A step that was saved may not have been said any more.
    assert set(range(1, STEPS + 1)) - set(done) <= {int(re.findall(r"resumed at step (\d+)", run.output)[0]) - 1}
    assert len(done) == len(set(done))
    assert run.output.count("finished at step") == 1


def test_a_script_that_saves_when_it_is_interrupted(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(python("save_when_interrupted.py")), "--time=60").says("step 3 ").signal("USR1")
    run.says("reason: manual").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_a_script_that_saves_when_it_is_interrupted_at_the_time_limit(slurm: Sandbox) -> None:
    """Slurm signals every process of the job itself, and kforge-run the armed one, too."""
    run = Run(slurm, kforge_run(python("save_when_interrupted.py", BEYOND_A_MINUTE)), "--time=1")
    run.says("reason: time limit").ends(*ENDED_IN_TIME, at_least=1, timeout=300).lost_nothing(steps=BEYOND_A_MINUTE)


def test_a_bash_script_in_between(slurm: Sandbox) -> None:
    batch = kforge_run(bash_around(slurm, python("save_when_interrupted.py")))
    run = Run(slurm, batch, "--time=60").says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert run.output.count("python ended with 0") == 2


def test_a_bash_script_in_between_when_slurm_requeues(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(bash_around(slurm, python("save_when_interrupted.py"))), "--time=60").says("step 3 ")
    slurm.requeue(run.job)
    run.says("reason: requeued").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_srun_in_between(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(f"srun {python('save_when_interrupted.py')}"), "--time=60").says("step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    # By the kforge-run inside: it is on this node.
    assert run.output.count("delivered to kforge-run (pid ") == 1 and "as SIGUSR1" not in run.output


@needs("torch")
def test_torchrun_with_two_ranks(slurm: Sandbox) -> None:
    torchrun = f"torchrun --standalone --nproc-per-node=2 {PROGRAMS / 'rank_of_torchrun.py'} {STEPS}"
    run = Run(slurm, kforge_run(torchrun, "-v"), "--time=60").says("0: step 3 ").says("1: step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1)
    for rank in "01":
        run.lost_nothing(steps=STEPS, task=rank)
    assert len(re.findall(r"rank_of_torchrun.py .* can be interrupted", run.output)) == 4
    assert run.output.count(") can be interrupted") == 4


@needs("torch")
def test_torchrun_with_two_ranks_when_slurm_requeues(slurm: Sandbox) -> None:
    """Slurm signals torchrun and the ranks itself."""
    torchrun = f"torchrun --standalone --nproc-per-node=2 {PROGRAMS / 'rank_of_torchrun.py'} {STEPS}"
    run = Run(slurm, kforge_run(torchrun, "-v"), "--time=60").says("0: step 3 ").says("1: step 3 ")
    slurm.requeue(run.job)
    run.ends("COMPLETED", restarts=1)
    for rank in "01":
        run.lost_nothing(steps=STEPS, task=rank)


@needs("torch")
def test_a_dataloader_with_workers_at_the_time_limit(slurm: Sandbox) -> None:
    """Without --signal: Slurm signals every process of the job."""
    run = Run(slurm, kforge_run(python("dataloader.py", BEYOND_A_MINUTE)), "--time=1").says("reason: time limit")
    run.ends(*ENDED_IN_TIME, at_least=1, timeout=300).lost_nothing(steps=BEYOND_A_MINUTE)


@needs("torch")
def test_a_dataloader_with_workers_under_preemption(slurm: Sandbox) -> None:
    # Without an early notice: when the grace is over Slurm signals every process of the job.
    batch = kforge_run(python("dataloader.py", STEPS * 4), "--no-early-notice")
    run = Run(slurm, batch, "--partition=preemptible", "--time=10")
    slurm.preempt(run.says("step 3 ").job)
    run.says("reason: requeued").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS * 4)


@needs("pytorch_lightning")
def test_lightning_requeues_the_job_and_kforge_run_does_not_do_it_again(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(python("lightning_requeue.py"), "-v"), "--time=60", "--ntasks=1").says("step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1)
    assert "SLURM auto-requeueing enabled" in run.output
    # It trains on until it is killed, and so nearly to the end of KillWait that our last word may come too late.
    assert "reason: requeued" in run.output, run.output
