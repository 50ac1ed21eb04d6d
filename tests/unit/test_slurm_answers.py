"""What scontrol prints, understood; and the lines of a batch script that say how much time there is."""

from __future__ import annotations

import pytest

from kempnerforge.launcher import surroundings
from kempnerforge.launcher.policy.words import Job, Site
from kempnerforge.launcher.slurm import kills_on_bad_exit, parse_job, parse_site, requeue_id_by_environment

OFFSET = 1_700_000_000.0


def record(head: str = "JobId=12", name: str = "train", **fields: str) -> str:
    values = {
        "JobState": "RUNNING",
        "Reason": "None",
        "Requeue": "1",
        "Restarts": "2",
        "EndTime": "1700000600",
        "SuspendTime": "None",
        **fields,
    }
    tail = " ".join(f"{key}={value}" for key, value in values.items())
    return f"{head} JobName={name} UserId=ann(1000) GroupId=ann(1000) {tail} Command=/a/run.sh b=c WorkDir=/a"


def test_a_running_job() -> None:
    assert parse_job(record(), "12", OFFSET) == Job("RUNNING", 2, 600.0, None, False, False, True, "12")


def test_preempted_suspended_and_out_of_time() -> None:
    job = parse_job(
        record(PreemptTime="1700000100", SuspendTime="1700000050", Reason="TimeLimit", Requeue="0", EndTime="Unknown"),
        "12",
        OFFSET,
    )
    assert job == Job("RUNNING", 2, None, 100.0, True, True, False, "12")


def test_local_times_of_a_slurm_that_does_not_know_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        job = parse_job(record(EndTime="2023-11-15T07:23:20"), "12", OFFSET)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert job is not None and job.end == 600.0


@pytest.mark.parametrize(
    "name",
    [
        *("a JobState=CANCELLED Restarts=9", "x Restarts=7", "JobId=99", "süß ✓", "", "two\nlines", "a\n\nb=c\n"),
        *("x UserId=0 JobState=CANCELLED", "x JobName=y"),
    ],
)
def test_a_jobs_name_may_hold_anything(name: str) -> None:
    job = parse_job(record(name=name), "12", OFFSET)
    assert job is not None and (job.state, job.restarts, job.requeue_id) == ("RUNNING", 2, "12")


def test_of_an_array_the_task_that_is_ours() -> None:
    answer = "\n".join(
        [
            record("JobId=12 ArrayJobId=12 ArrayTaskId=3", JobState="COMPLETING"),
            record("JobId=13 ArrayJobId=12 ArrayTaskId=1"),
            record("JobId=14 ArrayJobId=12 ArrayTaskId=4-9%2", JobState="PENDING"),
        ]
    )
    last, first, rest = (parse_job(answer, number, OFFSET) for number in ("12", "13", "14"))
    assert last is not None and (last.state, last.requeue_id) == ("COMPLETING", "12_3")
    assert first is not None and first.requeue_id == "12_1"
    assert rest is not None and rest.requeue_id == "14"


def test_of_a_heterogeneous_job_the_leader_is_requeued() -> None:
    answer = "\n".join(record(f"JobId={12 + n} HetJobId=12 HetJobOffset={n}") for n in (0, 1))
    leader, other = parse_job(answer, "12", OFFSET), parse_job(answer, "13", OFFSET)
    assert leader is not None and leader.requeue_id == "12"
    assert other is not None and other.requeue_id == "12"


@pytest.mark.parametrize(
    "answer",
    ["", "rubbish", "JobId=12", "JobId=13 JobName=x UserId=u(1) JobState=RUNNING", record(Restarts="many"), "\0" * 99],
)
def test_rubbish_is_no_job(answer: str) -> None:
    assert parse_job(answer, "12", OFFSET) is None


def test_site() -> None:
    config = "KillOnBadExit           = 1\nKillWait                = 45 sec\n"
    facts = parse_site(config, "PartitionName=p GraceTime=120 Hidden=NO")
    assert (facts.site, facts.kill_on_bad_exit) == (Site(45, 120), True)
    assert parse_site("", "").site == Site()
    assert not parse_site("KillOnBadExit = 0\n", "").kill_on_bad_exit


@pytest.mark.parametrize(
    ("command", "variable", "configured", "kills"),
    [
        ("srun python", "", False, False),
        ("srun python", "", True, True),
        ("srun -K python", "", False, True),
        ("srun --kill-on-bad-exit=0 -n2 python", "1", True, False),
        ("srun -K1 python", "0", False, True),
        ("srun python", "1", False, True),
        ("srun python", "0", True, False),
        ("srun -n 2 -K python", "", False, True),
        ("srun -lK python", "", False, True),
        ("srun -lK0 python", "", True, False),
        ("srun --kill-on-bad python", "", False, True),
        ("srun --kill=0 python", "", True, False),
        ("srun --label python -K", "", False, True),
        ("srun -n 2 sh python -K", "", False, False),
        ("srun python -K", "", False, False),
    ],
)
def test_an_srun_that_kills_on_a_bad_exit(command: str, variable: str, configured: bool, kills: bool) -> None:
    environment = {"SLURM_KILL_BAD_EXIT": variable} if variable else {}
    assert kills_on_bad_exit(command.split(), environment, configured) is kills


def test_the_hint_names_the_task_of_an_array() -> None:
    assert requeue_id_by_environment({"SLURM_JOB_ID": "12"}) == "12"
    array = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert requeue_id_by_environment(array) == "12_3"


@pytest.mark.parametrize(
    ("lines", "time_to_stop", "warned"),
    [
        ("#SBATCH --signal=B:USR1@120", 100, False),
        ("#SBATCH --signal=B:USR1@120", 121, True),
        ("#SBATCH --signal B:USR1@120", 100, False),
        ("#SBATCH --signal=RB:10@90", 89, False),
        ("#SBATCH --signal=B:USR1", 61, True),
        ("#SBATCH --signal=B:USR1", 59, False),
        ("", 31, True),
        ("", 29, False),
    ],
)
def test_a_lead_that_is_too_short(lines: str, time_to_stop: float, warned: bool) -> None:
    warning = surroundings.lead_warning(time_to_stop, 30, f"#!/bin/sh\n{lines}\nexec kforge-run true\n")
    assert (warning is not None) is warned
