"""What a cluster does to a job: its settings that decide over a run, and what each event means with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from ...launcher.asking import slurm
from ...launcher.policy.tables import MANUAL_WINDOW, REQUEUE_GAP, checkpointed_status
from .. import slurm_commands

#: After a requeue a job waits for its old credential to expire: AuthInfo=cred_expire, 120 s unless set (s).
_CREDENTIAL_EXPIRES = 120.0
#: MaxBatchRequeue unless it is set (slurm-facts, "A finished run that starts again").
_MOST_REQUEUES = 5


class Partition(NamedTuple):
    """What `scontrol show partition` tells of one.

    Attributes:
        name: its name.
        is_default: jobs that name none run in it.
        preempted_by: what a preemption does here: REQUEUE, CANCEL, SUSPEND; empty: there is none.
        grace: seconds that a preempted job is given; without end also where that is up to its QOS.
        longest: the longest time limit, as Slurm writes it.
        usual: the time limit of a job that names none, as Slurm writes it.
        is_up: it takes jobs.
    """

    name: str
    is_default: bool
    preempted_by: str
    grace: float
    longest: str
    usual: str
    is_up: bool


class Cluster(NamedTuple):
    """What `scontrol show config` tells, and all partitions.

    Attributes:
        name: its name.
        version: of Slurm.
        kill_wait: seconds from SIGTERM to SIGKILL.
        requeues: a job may be requeued unless it says otherwise (JobRequeue).
        appends: a log is appended to unless the job says otherwise (JobFileAppend).
        kills_on_bad_exit: srun kills all tasks when one ends with an error (KillOnBadExit).
        sends_user_signal: a preemption sends the signal of `--signal` at once.
        preemption: what decides who is preempted: partition_prio, qos or none.
        requeue_wait: seconds that a requeued job waits at least.
        requeue_exits: exit statuses after which Slurm requeues by itself (RequeueExit, RequeueExitHold).
        checkpointed_status: how kforge-run ends that has checkpointed and does not requeue.
        most_requeues: how often Slurm requeues by itself before it holds the job (MaxBatchRequeue).
        partitions: all of them.
    """

    name: str
    version: str
    kill_wait: float
    requeues: bool
    appends: bool
    kills_on_bad_exit: bool
    sends_user_signal: bool
    preemption: str
    requeue_wait: float
    requeue_exits: str
    checkpointed_status: int
    most_requeues: int
    partitions: tuple[Partition, ...]


class Event(NamedTuple):
    """What an event means for a job.

    Attributes:
        event: what happens.
        notice: what kforge-run gets, and when.
        seconds: from there until kforge-run or Slurm kills what has not ended; None: neither does.
        requeued_by: who brings the job back; empty: nobody.
    """

    event: str
    notice: str
    seconds: float | None
    requeued_by: str


def read() -> Cluster:
    """Ask Slurm.

    Raises:
        Trouble: there is none here, or it does not answer.
    """
    return parse(slurm_commands.ask("show", "config"), slurm_commands.ask("show", "partition", "--oneliner", "--all"))


def parse(config: str, partitions: str) -> Cluster:
    """Return what scontrol's answers say, and Slurm's defaults where they say nothing.

    Args:
        config: of `show config`.
        partitions: of `show partition --oneliner`.
    """
    lines = (line.partition("=") for line in config.splitlines() if "=" in line)
    settings = {name.strip(): value.strip() for name, _, value in lines}
    facts = slurm.parse_site(config, "")
    # A parameter of slurmctld's on 22.05 (seen; among the scheduler's it does nothing), later of the preemption's.
    parameters = ",".join(settings.get(f"{kind}Parameters", "") for kind in ("Preempt", "Slurmctld"))
    preemption = settings.get("PreemptType", "none").removeprefix("preempt/").replace("(null)", "none")
    expires = re.search(r"cred_expire=([0-9]{1,9})", settings.get("AuthInfo", ""))
    delay = re.search(r"requeue_delay=([0-9]{1,9})", settings.get("SchedulerParameters", ""))
    wait = delay or expires
    most = re.fullmatch(r"[0-9]{1,9}", settings.get("MaxBatchRequeue", ""))
    exits = [f"{key} {settings[key]}" for key in ("RequeueExit", "RequeueExitHold") if _is_set(settings, key)]
    return Cluster(
        name=settings.get("ClusterName", ""),
        version=settings.get("SLURM_VERSION", ""),
        kill_wait=facts.site.kill_wait,
        requeues=settings.get("JobRequeue", "1") != "0",
        appends=settings.get("JobFileAppend", "0") == "1",
        kills_on_bad_exit=facts.kill_on_bad_exit,
        sends_user_signal=bool(re.search(r"\b(preempt_)?send_user_signal\b", parameters)),
        preemption=preemption,
        requeue_wait=float(wait[1]) if wait else _CREDENTIAL_EXPIRES,
        requeue_exits=", ".join(exits),
        checkpointed_status=checkpointed_status(facts.site.requeue_exits),
        most_requeues=int(most[0]) if most else _MOST_REQUEUES,
        partitions=tuple(
            _partition(line, settings.get("PreemptMode", "OFF"), preemption)
            for line in partitions.splitlines()
            if line.startswith("PartitionName=")
        ),
    )


def _is_set(settings: Mapping[str, str], key: str) -> bool:
    return settings.get(key, "(null)") not in ("(null)", "")


def _partition(line: str, cluster_mode: str, preemption: str) -> Partition:
    words = (word.partition("=") for word in line.split())
    fields = {name: value for name, _, value in words}
    mode = fields.get("PreemptMode", cluster_mode).upper()
    # By QOS every partition's jobs can be preempted, as the QOS of a job says.
    mode = cluster_mode if preemption == "qos" else mode
    grace = fields.get("GraceTime", "0").replace(str(slurm.UNLIMITED), "UNLIMITED")
    return Partition(
        name=fields["PartitionName"],
        is_default=fields.get("Default") == "YES",
        preempted_by="" if preemption == "none" else slurm.preempted_by(mode),
        grace=float(grace) if grace.isdecimal() and preemption != "qos" else math.inf,
        longest=fields.get("MaxTime", "UNLIMITED"),
        usual=fields.get("DefaultTime", "NONE"),
        is_up=fields.get("State", "UP") == "UP",
    )


# --- what happens ----------------------------------------------------------------------------------


def events_everywhere(cluster: Cluster, lead: int) -> list[Event]:
    """Return what each event means in every partition, for a job under kforge-run with `--requeue`.

    Args:
        cluster: which one.
        lead: of `--signal=B:USR1@…` (s).
    """
    kill_wait = cluster.kill_wait
    return [
        Event(f"time limit, --signal=B:USR1@{lead}", f"SIGUSR1, {lead} s before", lead - REQUEUE_GAP, "kforge-run"),
        Event("time limit, no --signal", "SIGTERM", kill_wait, "kforge-run"),
        Event("scancel -b -s USR1 JOB", "SIGUSR1", MANUAL_WINDOW, "kforge-run"),
        Event("scancel -s USR1 JOB (no -b)", "none: job steps only", None, ""),
        Event("scontrol requeue JOB", "SIGTERM", kill_wait, "Slurm"),
        Event("scancel JOB", "SIGTERM", kill_wait, ""),
        Event("a node fails", "none", 0.0, "Slurm"),
    ]


def is_told_early(cluster: Cluster, partition: Partition) -> bool:
    """Return whether kforge-run has a step of its own listen for a preemption in a partition."""
    return cluster.preemption == "partition_prio" and slurm.early_notice_helps(
        partition.preempted_by, partition.grace, cluster.kill_wait
    )


def preemption_in(cluster: Cluster, partition: Partition) -> list[Event]:
    """Return what a preemption means in a partition; nothing: there is none (slurm-facts, "Who receives what")."""
    grace, kill_wait = partition.grace, cluster.kill_wait
    back = {"REQUEUE": "Slurm", "CANCEL": "kforge-run"}
    if partition.preempted_by == "SUSPEND":
        return [Event("preempted", "none: stopped", None, "goes on later")]
    if partition.preempted_by not in back:
        return []
    if cluster.preemption == "qos":
        # The grace is in Slurm's database, and whether Slurm requeues the job: where it does not, kforge-run will.
        notice = "SIGUSR1 at once" if cluster.sends_user_signal else "SIGTERM, after a grace"
        return [Event("preempted, as its QOS says", notice, kill_wait, "kforge-run")]
    if math.isinf(grace):
        return [Event("preempted", "none: as long as it likes", None, "")]
    requeued_by = back[partition.preempted_by]
    batch = Event("preempted", f"SIGTERM, after {grace:.0f} s" if grace else "SIGTERM", kill_wait, requeued_by)
    if is_told_early(cluster, partition):
        # Within the grace it ends, and has to requeue itself.
        batch = Event("preempted", "SIGTERM at once", grace, "kforge-run")
    if cluster.sends_user_signal:
        batch = Event("preempted, with --signal=B:USR1", "SIGUSR1 at once", grace + kill_wait, requeued_by)
    tasks = Event("  the tasks of an srun", "SIGTERM at once", grace + kill_wait, requeued_by)
    return [batch, tasks] if grace else [batch]
