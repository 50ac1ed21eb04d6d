"""The job of a rehearsal: its batch script, its time limit, and what of sbatch does not go with it."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands import slurm_commands
from kempnerforge.commands.batch.sbatch_options import Option
from kempnerforge.commands.rehearsal import as_job
from kempnerforge.commands.rehearsal.here import kforge_run
from kempnerforge.commands.rehearsal.rehearse import Plan
from kempnerforge.commands.rehearsal.verdict import notice_due, seen_of
from kempnerforge.commands.trouble import Trouble

COMMAND = ["python", "my train.py", "--name", "a 'b' \"c\" $HOME `id` \\", "*", "", "two\nlines", "ünï", "-x"]
PLAN = Plan(COMMAND, lead=90.0, patience=600.0)


@pytest.mark.parametrize("reason", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_a_job_that_slurm_could_not_start_is_known_by_its_reason(reason: str) -> None:
    assert slurm_commands.could_not_be_launched(reason)
    assert not slurm_commands.could_not_be_launched("JobHeldUser")


def test_the_command_arrives_unchanged() -> None:
    script = as_job.script(PLAN, Path("/a folder"))
    assert script.startswith("#!/bin/bash\n#SBATCH --signal=B:USR1@90\n")
    shown = script.replace("\nexec ", '\nprintf "%s\\0" "$KFORGE_JOURNAL" "$KFORGE_REQUEUE" "$KFORGE_TIMEOUT" ')
    environment = {"KFORGE_RETRY_FAILURES": "3", "LC_ALL": "C.UTF-8"}
    arrived = subprocess.run(["bash", "-euc", shown], env=environment, capture_output=True, check=True).stdout.decode()
    assert arrived.split("\0")[:-1] == ["/a folder", "0", "90", *kforge_run(), *COMMAND]


def test_no_option_of_kforge_run_is_inherited() -> None:
    shown = as_job.script(PLAN, Path("/folder")).partition("\nexec ")[0] + "\nenv"
    environment = {"KFORGE_RETRY_FAILURES": "3", "PATH": "/usr/bin:/bin"}
    seen = subprocess.run(["bash", "-euc", shown], env=environment, capture_output=True, text=True, check=True).stdout
    names = sorted(line.partition("=")[0] for line in seen.splitlines() if line.startswith("KFORGE_"))
    assert names == ["KFORGE_JOURNAL", "KFORGE_REQUEUE", "KFORGE_TIMEOUT"]


@given(st.floats(0.1, 600), st.floats(0, 1e5), st.none() | st.floats(0, 1e5))
def test_slurms_own_notice_comes_after_the_drills(lead: float, patience: float, after: float | None) -> None:
    plan = Plan(["true"], lead, patience, after)
    earliest = as_job.time_limit(plan) * 60 - math.ceil(lead) - 60  # Slurm may be up to a minute early
    latest_ready = max(patience + (after or 0), notice_due(seen_of(None)._replace(started_at=0.0), after) or 0)
    assert earliest >= latest_ready + 60, "a minute for Python to start"


@pytest.mark.parametrize(
    "name", ["array", "output", "error", "open-mode", "requeue", "no-requeue", "wrap", "test-only"]
)
def test_what_does_not_go_with_a_rehearsal(name: str) -> None:
    with pytest.raises(Trouble, match=f"--{name} does not go with a rehearsal"):
        as_job.check_options([Option("partition", "gpu"), Option(name)])
    as_job.check_options([Option("partition", "gpu"), Option("time", "5")])
