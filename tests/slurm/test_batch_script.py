"""kforge-run as the batch script itself, from an installation and from a checkout."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.slurm.runs import BIN, Run, kforge_run, training
from tests.slurm.sandbox import Sandbox

CHECKOUT = Path(__file__).parents[2]
STEPS = 60


def submit(slurm: Sandbox, script: Path) -> Run:
    """Submit a script with a training command as its arguments, and wait until it trains."""
    command = [word if word != "python" else sys.executable for word in shlex.split(training(STEPS))]
    checkpoint = slurm.work / f"checkpoint{str(script).replace('/', '-')}.json"
    command[-1] = str(checkpoint)
    path = f"PATH={BIN}:{os.environ['PATH']},XDG_STATE_HOME={slurm.work}/state"
    run = Run.of(slurm, slurm.sbatch("--time=10", f"--export=ALL,{path}", str(script), *command))
    return run.says("step 3 ")


@pytest.mark.parametrize("script", [BIN / "kforge-run", CHECKOUT / "bin" / "kforge-run"], ids=["installed", "checkout"])
def test_a_run_survives_as_its_own_batch_script(slurm: Sandbox, script: Path) -> None:
    run = submit(slurm, script)
    assert run.record["Requeue"] == "1"
    # The log of the first attempt is still there: --open-mode=append.
    run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_the_leader_of_a_heterogeneous_job_is_requeued(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10", "--ntasks=1", ":", "--ntasks=1")
    run.says("step 3 ").signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
