"""What scontrol prints of a site, understood; and the lines of a batch script that say how much time there is."""

from __future__ import annotations

import pytest

from kempnerforge.launcher import surroundings
from kempnerforge.launcher.asking.early_notice import srun_environment
from kempnerforge.launcher.asking.slurm import (
    end_by_environment,
    keeps_notices_back,
    kills_on_bad_exit,
    parse_site,
    requeue_id_by_environment,
)
from kempnerforge.launcher.policy.words import Site


def test_site() -> None:
    config = "KillOnBadExit           = 1\nKillWait                = 45 sec\n"
    facts = parse_site(config, "PartitionName=p GraceTime=120 Hidden=NO")
    assert (facts.site, facts.kill_on_bad_exit) == (Site(45, 120), True)
    assert parse_site("", "").site == Site()
    assert not parse_site("KillOnBadExit = 0\n", "").kill_on_bad_exit


@pytest.mark.parametrize(
    ("preemption", "partition", "helps"),
    [
        ("partition_prio", "GraceTime=120 PreemptMode=REQUEUE", True),
        ("partition_prio", "GraceTime=120 PreemptMode=CANCEL", True),
        ("partition_prio", "GraceTime=120", True),  # as the cluster's
        ("partition_prio", "GraceTime=120 PreemptMode=GANG,SUSPEND", False),
        ("partition_prio", "GraceTime=120 PreemptMode=OFF", False),
        ("partition_prio", "GraceTime=30 PreemptMode=REQUEUE", False),
        ("partition_prio", "GraceTime=4294967295 PreemptMode=REQUEUE", False),
        ("partition_prio", "", False),
        ("qos", "GraceTime=120 PreemptMode=REQUEUE", False),
        ("none", "GraceTime=120 PreemptMode=REQUEUE", False),
    ],
)
def test_where_an_early_notice_helps(preemption: str, partition: str, helps: bool) -> None:
    config = f"KillWait = 30 sec\nPreemptMode             = REQUEUE\nPreemptType             = preempt/{preemption}\n"
    assert parse_site(config, f"PartitionName=p {partition}").early_notice_helps is helps


def test_a_partition_does_not_say_what_grace_a_qos_gives() -> None:
    config = "PreemptType             = preempt/{}\n"
    assert parse_site(config.format("qos"), "PartitionName=p GraceTime=120").site.grace_time is None
    assert parse_site(config.format("partition_prio"), "PartitionName=p GraceTime=120").site.grace_time == 120


def test_the_step_that_listens_is_asked_for_by_nobody_else() -> None:
    theirs = {"SLURM_NTASKS": "8", "SRUN_CPUS_PER_TASK": "4", "SLURM_GPUS": "2", "SLURM_SPANK__OPTION": "x"}
    ours = {"PATH": "/bin", "LD_LIBRARY_PATH": "/opt", "SLURM_CONF": "/etc/slurm.conf"}
    assert srun_environment({**theirs, **ours}) == ours


@pytest.mark.parametrize(
    ("lines", "exits"),
    [
        ("RequeueExit             = 85\nRequeueExitHold         = (null)\n", {85}),
        ("RequeueExit             = 1-3,18\nRequeueExitHold         = 85\n", {1, 2, 3, 18, 85}),
        ("RequeueExit             = \nRequeueExitHold         = x,85\n", set()),
    ],
)
def test_exit_statuses_after_which_the_site_requeues(lines: str, exits: set[int]) -> None:
    assert parse_site(lines, "").site.requeue_exits == exits


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


@pytest.mark.parametrize(
    ("command", "deaf"),
    [
        ("srun python", False),
        ("srun --ignore-signals=USR1 python", True),
        ("srun -n 2 --ignore-signals INT,SigUsr1 python", True),
        ("srun --ig=10 python", True),
        ("srun --ignore-signals=TERM,USR2 python", False),
        ("srun --ignore-signals=USR1 --ignore-signals=INT python", False),  # the last one counts
        ("srun python --ignore-signals=USR1", False),
        ("srun --immediate=10 python", False),
        ("", False),
    ],
)
def test_an_srun_that_hands_no_notice_on(command: str, deaf: bool) -> None:
    assert keeps_notices_back(command.split()) is deaf


@pytest.mark.parametrize(
    ("text", "end"), [("1600", 600), ("1400", None), ("", None), ("soon", None), ("-1600", None), ("9" * 13, None)]
)
def test_the_end_that_the_environment_tells(text: str, end: float | None) -> None:
    assert end_by_environment({"SLURM_JOB_END_TIME": text} if text else {}, 1000.0, 500.0) == end


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
        ("#SBATCH --signal=B:USR1@9\n#SBATCH -n 1 --signal='B:USR1@120'", 100, False),
        ("#SBATCH --signal=B:TERM@120", 121, True),
        ("", 31, True),
        ("", 29, False),
    ],
)
def test_a_lead_that_is_too_short(lines: str, time_to_stop: float, warned: bool) -> None:
    asked = surroundings.asked_signal(f"#!/bin/sh\n{lines}\nexec kforge-run true\n")
    assert (surroundings.lead_warning(time_to_stop, 30, asked) is not None) is warned


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--signal=B:USR1@120", None),
        ("--signal=BR:SIGUSR1", None),
        ("--signal b:10@9", None),
        ("--mem=1G", None),
        ("--signal=B:TERM@120", "--signal=B:TERM is taken for the time limit if it comes when it is due"),
        ("--signal=B:15@120", "--signal=B:15 is taken for the time limit"),
        ("--signal=B:USR2@120", "--signal=B:USR2 is no notice"),
        ("--signal=B:INT@120", "--signal=B:INT is no notice"),
        ("--signal=USR1@120", "--signal=USR1 has no B:, and does not get here"),
        ("--signal=R:TERM@120", "--signal=TERM has no B:"),
    ],
)
def test_another_signal_than_the_notices(option: str, said: str | None) -> None:
    asked = surroundings.asked_signal(f"#!/bin/sh\n#SBATCH {option}\nexec kforge-run true\n")
    warning = surroundings.signal_warning(asked)
    assert (warning is None) if said is None else (said in (warning or ""))
    assert warning is None or warning.endswith("ask for `#SBATCH --signal=B:USR1@120`")
