"""What a cluster's settings mean for a job. tests/slurm/test_doctor.py reads those of a real one."""

from __future__ import annotations

import pytest

from kempnerforge.commands.diagnosis import cluster
from kempnerforge.commands.diagnosis.cluster import Cluster, Event

#: The lines of scontrol's that count, as 22.05 prints them.
CONFIG = """Configuration data as of 2026-01-01T00:00:00
AuthInfo                = {auth}
ClusterName             = alpha
JobFileAppend           = 0
JobRequeue              = 1
KillOnBadExit           = 0
KillWait                = 30 sec
PowerPlugin             = {empty}
PreemptMode             = REQUEUE
PreemptType             = preempt/{preemption}
RequeueExit             = {exits}
RequeueExitHold         = (null)
SchedulerParameters     = {parameters}
SlurmctldParameters     = {slurmctld}
SLURM_VERSION           = 22.05.8
"""
PARTITION = (
    "PartitionName=gpu Default=YES GraceTime={grace} MaxTime=2-00:00:00 DefaultTime=NONE State=UP PreemptMode={mode}"
)


def parse(grace: int = 0, mode: str = "REQUEUE", **settings: str) -> Cluster:
    usual = {"preemption": "partition_prio", "empty": "", "exits": "(null)", "auth": "(null)"}
    usual |= {"parameters": "(null)", "slurmctld": "(null)"}
    return cluster.parse(CONFIG.format(**{**usual, **settings}), PARTITION.format(grace=grace, mode=mode))


def preemption(here: Cluster) -> list[Event]:
    return cluster.preemption_in(here, here.partitions[0])


def test_the_settings_that_count() -> None:
    here = parse()
    assert (here.name, here.version, here.kill_wait, here.requeue_wait) == ("alpha", "22.05.8", 30, 120)
    assert (here.requeues, here.appends, here.kills_on_bad_exit) == (True, False, False)
    (partition,) = here.partitions
    assert (partition.name, partition.is_default, partition.is_up) == ("gpu", True, True)
    assert (partition.longest, partition.usual) == ("2-00:00:00", "NONE")


@pytest.mark.parametrize(
    ("auth", "parameters", "wait"),
    [("(null)", "(null)", 120), ("socket=/x,cred_expire=5", "(null)", 5), ("(null)", "a=1,requeue_delay=40", 40)],
)
def test_how_long_a_requeued_job_waits(auth: str, parameters: str, wait: float) -> None:
    assert parse(auth=auth, parameters=parameters).requeue_wait == wait


def test_how_often_slurm_requeues_by_itself() -> None:
    assert parse().most_requeues == 5  # 22.05 does not print it
    assert cluster.parse("MaxBatchRequeue         = 9\n", "").most_requeues == 9


def test_a_status_of_ours_after_which_the_site_requeues() -> None:
    assert (parse().checkpointed_status, parse(exits="85").checkpointed_status) == (85, 75)


def test_kforge_run_kills_in_time_to_requeue() -> None:
    assert cluster.events_everywhere(parse(), 120)[0].seconds == 115


def test_who_requeues_after_each_event() -> None:
    by = {event.event: event.requeued_by for event in cluster.events_everywhere(parse(), 120)}
    assert by["scancel JOB"] == by["scancel -s USR1 JOB (no -b)"] == ""
    assert by["scontrol requeue JOB"] == by["a node fails"] == "Slurm"
    assert by["time limit, no --signal"] == by["scancel -b -s USR1 JOB"] == "kforge-run"


def test_a_preemption_with_a_grace() -> None:
    batch, tasks = preemption(parse(grace=60))
    assert batch == Event("preempted", "SIGTERM at once", 60, "kforge-run")
    assert (tasks.notice, tasks.seconds) == ("SIGTERM at once", 90)


def test_a_preemption_with_a_grace_that_is_no_longer_than_the_batch_process_has_anyway() -> None:
    assert preemption(parse(grace=30))[0] == Event("preempted", "SIGTERM, after 30 s", 30, "Slurm")


def test_a_preemption_without_a_grace() -> None:
    assert preemption(parse(mode="CANCEL")) == [Event("preempted", "SIGTERM", 30, "kforge-run")]


@pytest.mark.parametrize("parameter", ["preempt_send_user_signal", "a=b,send_user_signal"])
def test_a_preemption_that_sends_the_user_signal(parameter: str) -> None:
    batch = preemption(parse(grace=60, slurmctld=parameter))[0]
    assert (batch.notice, batch.seconds) == ("SIGUSR1 at once", 90)


def test_a_grace_without_end() -> None:
    (event,) = preemption(parse(grace=4294967295))
    assert event.seconds is None


def test_a_preemption_that_only_suspends() -> None:
    (event,) = preemption(parse(mode="GANG,SUSPEND"))
    assert event.requeued_by == "goes on later" and event.seconds is None


@pytest.mark.parametrize(("mode", "kind"), [("OFF", "partition_prio"), ("REQUEUE", "none")])
def test_no_preemption(mode: str, kind: str) -> None:
    assert preemption(parse(mode=mode, preemption=kind)) == []
    assert preemption(parse(mode=mode, preemption=kind, grace=4294967295)) == []


def test_a_preemption_by_qos_is_up_to_the_qos() -> None:
    for grace in (0, 60):
        here = parse(mode="OFF", preemption="qos", grace=grace)
        (event,) = preemption(here)
        assert event == Event("preempted, as its QOS says", "SIGTERM, after a grace", 30, "kforge-run")
        assert not cluster.is_told_early(here, here.partitions[0])
    (event,) = preemption(parse(preemption="qos", slurmctld="preempt_send_user_signal"))
    assert event.notice == "SIGUSR1 at once"


def test_answers_of_an_unknown_slurm_give_its_defaults() -> None:
    here = cluster.parse("", "PartitionName=x\nnonsense")
    assert here.kill_wait == 30 and here.preemption == "none"
    assert [partition.name for partition in here.partitions] == ["x"]
