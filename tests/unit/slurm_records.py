"""Records as `scontrol show job -o` printed them on real Slurms, with the free text and the facts left open."""

from __future__ import annotations

from typing import NamedTuple

#: The parts of each version's record. `@` stands for the seal behind each time; TEXT names are free text.
_WHO = "{head} JobName={name} UserId={user}(1000) GroupId={group}(1000) MCS_label=N/A "
_QUEUED = "Priority=1 Nice=0 Account={account} QOS={qos} "
_CORE = (
    "JobState={state} Reason={reason} Dependency={dependency} Requeue={requeue} Restarts={restarts} BatchFlag=1 "
    "Reboot=0 ExitCode=0:0 RunTime=00:00:02 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=1700000000@ "
    "EligibleTime=1700000000@ AccrueTime={accrued} StartTime=1700000001@ EndTime={end} Deadline=N/A "
    "{preempted}SuspendTime={suspended} SecsPreSuspend=0 LastSchedEval=1700000001@ Scheduler=Backfill:* "
)
_WHERE = (
    "Partition=main AllocNode:Sid=localhost:4135 ReqNodeList=(null) ExcNodeList=(null) NodeList=n1 BatchHost=n1 "
    "NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* {resources} Socks/Node=* NtasksPerN:B:S:C=0:0:*:* "
    "CoreSpec=* MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0 Features={features} DelayBoot=00:00:00 "
)
_OLDER_END = (
    "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command={command} WorkDir={folder} "
    "AdminComment={admin_comment}  Comment={comment}  StdErr={log} StdIn=/dev/null StdOut={log} "
)
_NEWER_END = (
    "OverSubscribe=NO Exclusive=NO Contiguous=0 Licenses=(null) LicensesAlloc=(null) Network=(null) Command={command} "
    "SubmitLine=sbatch --job-name={name} --comment={comment} {command} WorkDir={folder} AdminComment={admin_comment} "
    "Comment={comment} StdErr= StdIn=/dev/null StdOut={log}"
)

FORMATS = {
    "22.05": _WHO + _QUEUED + "WCKey={wckey} " + _CORE + _WHERE + _OLDER_END + "Power= ",
    "24.11": _WHO + _QUEUED + "WCKey={wckey} " + _CORE + _WHERE + _OLDER_END,
    "26.05": _WHO + _QUEUED + "WCKey={wckey} " + _CORE + _WHERE + _NEWER_END,
}
_RESOURCES = {
    "22.05": "TRES=cpu=1,node=1,billing=1",
    "24.11": "ReqTRES=cpu=1,mem=64G,node=1,billing=1 AllocTRES=cpu=1,node=1,billing=1",
    "26.05": "ReqTRES=cpu=1,mem=64G,node=1,billing=1 AllocTRES=cpu=1,node=1,billing=1",
}
#: What a person, or a site, may have filled with anything.
TEXTS = (
    *("name", "user", "group", "account", "qos", "wckey"),
    *("features", "command", "folder", "comment", "admin_comment", "log"),
)


class Facts(NamedTuple):
    """What is to be read from a record."""

    head: str = "JobId=12"
    state: str = "RUNNING"
    reason: str = "None"
    restarts: int = 2
    requeue: int = 1
    end: str = "1700000600@"
    preempted: str = ""
    suspended: str = "None"
    accrued: str = "1700000000@"
    dependency: str = "(null)"


#: The plainest.
RUNNING = Facts()


def record(version: str = "22.05", facts: Facts = RUNNING, *, seal: str = "", **texts: str) -> str:
    """Return a record as a version of Slurm prints it, with its line end."""
    plain = {**dict.fromkeys(TEXTS, "x"), "user": "ann", "group": "ann", "account": "(null)", **texts}
    # The seal first: nobody's text has it.
    line = FORMATS[version].replace("@", seal)
    known = {name: str(value).replace("@", seal) for name, value in facts._asdict().items()}
    return line.format(**known, **plain, resources=_RESOURCES[version]) + "\n"
