"""A run that is done is not run again, whatever Slurm makes of a preemption; and a person can still have it run again.

Slurm 24.05 and newer start a job again whose batch script ends within the grace of a preemption, with whatever status;
24.11 also one that was preempted in an earlier attempt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.slurm.runs import Run, kforge_run, training
from tests.slurm.sandbox import Sandbox

PREEMPTIBLE = ("--partition=preemptible", "--time=60", "--signal=B:USR1@30")
#: These tests say themselves when kforge-run is told.
UNTOLD = "--no-early-notice"
#: Steps of 0.2 s: as long as it takes to preempt it in its first seconds.
STEPS = 60
#: Long enough that nobody takes a person's requeue for Slurm's own (s).
LATER = 17


def notice_of_preemption(run: Run) -> None:
    """Wait until the grace has begun, and tell kforge-run, as its early notice would."""
    slurm = run.slurm
    slurm.preempt(run.job)
    slurm.wait_for("the preemption", lambda: run.record.get("PreemptTime", "None") != "None")
    run.signal("USR1")


def waits_for(run: Run) -> int:
    """Submit a job that starts when the run has succeeded."""
    return run.slurm.sbatch(f"--dependency=afterok:{run.job}", "--output=/dev/null", "--wrap=true")


def finishes(run: Run, *, restarts: int) -> None:
    run.ends("COMPLETED", restarts=restarts)
    time.sleep(3)  # nothing more happens
    run.ends("COMPLETED", restarts=restarts).lost_nothing(steps=STEPS)


def test_preempted_in_an_earlier_attempt(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS), UNTOLD), *PREEMPTIBLE).says("step 3 ")
    dependant = waits_for(run)
    notice_of_preemption(run)
    run.says("reason: preempted")
    finishes(run, restarts=1)
    assert run.skipped == (1 if slurm.version == (24, 11) else 0)
    slurm.wait_for_state(dependant, "COMPLETED")


def test_completes_within_the_grace(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS), UNTOLD), *PREEMPTIBLE).says("step 3 ")
    dependant = waits_for(run)
    slurm.preempt(run.job)
    run.says(f"finished at step {STEPS}")
    finishes(run, restarts=0)
    assert run.skipped == (1 if slurm.version >= (24, 5) else 0)
    slurm.wait_for_state(dependant, "COMPLETED")
    # A person who wants it again gets it: the example has nothing left to do, and says so.
    time.sleep(LATER)
    slurm.requeue(run.job)
    run.says(f"finished at step {STEPS}", count=2)


@pytest.fixture
def slurm_of_short_graces() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, grace=4) as sandbox:
        yield sandbox


@pytest.mark.timeout(400)
def test_six_preemptions_in_a_row_never_hold_it(slurm_of_short_graces: Sandbox) -> None:
    slurm = slurm_of_short_graces
    run = Run(slurm, kforge_run(training(STEPS * 4)), *PREEMPTIBLE)
    for attempt in range(1, 7):
        run.says(f"attempt {attempt} of job").says("step ", count=attempt * 3)
        notice_of_preemption(run)
        run.says("requeued", count=attempt)
    run.ends("COMPLETED", restarts=6, timeout=300).lost_nothing(steps=STEPS * 4)
