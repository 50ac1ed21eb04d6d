"""Where a kforge-run is that cannot see its slurmstepd."""

from __future__ import annotations

import pytest

from kempnerforge.launcher.asking.slurm import place_unseen

BASH = ["/bin/bash", "/var/spool/slurmd/job00012/slurm_script"]
US = {40: ["/usr/bin/kforge-run", "python", "train.py"]}
V1 = "7:cpuset:/\n5:freezer:/slurm_n1/uid_1000/job_12/step_{step}/task_0\n0::/\n"
V2 = "0::/system.slice/n1_slurmstepd.scope/job_12/step_{step}/user/task_0\n"


@pytest.mark.parametrize("cgroups", [V1, V2])
@pytest.mark.parametrize(
    ("step", "place"), [("batch", "batch"), ("extern", "outside"), ("0", "step"), ("interactive", "step")]
)
def test_a_cgroup_counts_more_than_what_was_handed_down(cgroups: str, step: str, place: str) -> None:
    handed_down = {"SLURM_STEP_ID": "-5" if step == "0" else "3", "SLURM_TASK_PID": "7"}
    assert place_unseen(handed_down, cgroups.format(step=step), US, False) == place


@pytest.mark.parametrize(
    ("environment", "lineage", "renumbered", "place"),
    [
        # exec kforge-run in a batch script: of 22.05, which sets no SLURM_STEP_ID for it, and of newer ones.
        ({"SLURM_TASK_PID": "40"}, US, False, "batch"),
        ({"SLURM_TASK_PID": "40", "SLURM_STEP_ID": "-5"}, US, False, "batch"),
        # A shell in between.
        ({"SLURM_TASK_PID": "39"}, {**US, 39: BASH}, False, "batch"),
        ({"SLURM_TASK_PID": "39"}, {**US, 39: ["/bin/bash"]}, False, "batch"),
        # Submitted from inside an srun, whose variables are handed down.
        ({"SLURM_TASK_PID": "39", "SLURM_STEP_ID": "0"}, {**US, 39: BASH}, False, "batch"),
        # kforge-run itself was submitted.
        ({"SLURM_TASK_PID": "40", "SLURM_STEP_ID": "0"}, {40: [BASH[1], "true"]}, False, "batch"),
        # A task of a step.
        ({"SLURM_TASK_PID": "40", "SLURM_STEP_ID": "0"}, US, False, "step"),
        # salloc, as it is, and typed inside another job.
        ({}, US, False, "outside"),
        ({"SLURM_TASK_PID": "7"}, US, False, "outside"),
        # In a container with process numbers of its own.
        ({"SLURM_TASK_PID": "7"}, {2: ["kforge-run"], 1: ["apptainer"]}, True, "batch"),
        ({"SLURM_TASK_PID": "7", "SLURM_STEP_ID": "0"}, {2: ["kforge-run"]}, True, "step"),
        ({}, {2: ["kforge-run"]}, True, "outside"),
        # A script that happens to be called so.
        ({}, {40: ["kforge-run", "cat", "/a/job1/slurm_script"]}, False, "outside"),
    ],
)
def test_what_else_tells(
    environment: dict[str, str], lineage: dict[int, list[str]], renumbered: bool, place: str
) -> None:
    assert place_unseen(environment, "0::/\n", lineage, renumbered) == place
