"""A job's record as `scontrol show job` prints it, read whatever is in it.

Slurm quotes nothing. Names of users and groups, the job's own name, its account, comment and submit line are free text:
they may hold blanks, line ends, and a whole record of another job. So nothing is found by where free text seems to end.

But SLURM_TIME_FORMAT is ours to choose. A word made up for this one question, the seal, goes into the format: a time
with the seal behind it was printed by Slurm itself, for whoever typed the text could not know the word. The fields that
matter stand around one such time, with no free text between them, in all versions from 22.05 to 26.05:

    JobId=… JobName=(text) UserId=(text) … Account=(text) …
    JobState=… Reason=… Requeue=… Restarts=… … SubmitTime=(sealed) … EndTime=… PreemptTime=… SuspendTime=…
    Partition=… … Command=(text) SubmitLine=(text) WorkDir=(text) Comment=(text) …
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from ..policy.words import Job

#: Where a record begins. Only numbers stand before the job's name.
_HEAD = re.compile(r"^JobId=(\d+)((?: [A-Za-z]+=\S*)*?) JobName=", re.MULTILINE)
#: Where the fields that matter begin: the last of these before the submission's time, for free text comes earlier.
_CORE = re.compile(r".*\s(?=JobState=)", re.DOTALL)
#: Where they end.
_BEHIND = re.compile(r"\sPartition=")


class Unreadable(ValueError):
    """Slurm has answered, but not with a record that can be understood."""


class Ambiguous(Unreadable):
    """There are several records, and what is in them makes it unclear where each begins."""


class Record(NamedTuple):
    """The part of a record that Slurm alone has written."""

    job_id: str
    #: What stands before the job's name: ArrayJobId, ArrayTaskId, HetJobId.
    identity: dict[str, str]
    #: From JobState to SuspendTime, with the seal still in its times.
    fields: dict[str, str]


def new_seal() -> str:
    """Return a word that no record holds. Slurm has room for 31 bytes of a time."""
    return f"@{os.urandom(4).hex()}"


def time_format(seal: str) -> str:
    """Return the SLURM_TIME_FORMAT with which to ask: seconds since the epoch, so that no time zone comes in."""
    return f"%s{seal}"


def records(answer: str, seal: str) -> list[Record]:
    """Return all records of an answer, with and without scontrol's `-o`. Text before the first one is skipped.

    Args:
        answer: what scontrol printed.
        seal: with which it was asked. An answer without it is of an scontrol that gets its environment from something
            else, a site's script maybe: one record can be read then unless its text has a submission's time, too.

    Raises:
        Ambiguous: several records, of which one cannot tell where they begin. A question for one only has an answer.
        Unreadable: there is none.
    """
    submitted = re.compile(rf"\sSubmitTime=\d+{re.escape(seal)}\s" if seal in answer else r"\sSubmitTime=\S+\s")
    times = [match.start() for match in submitted.finditer(answer)]
    heads = list(_HEAD.finditer(answer))
    if not times or not heads:
        raise Unreadable(f"{'no time of submission' if heads else 'no JobId'} in scontrol's answer")
    if len(times) == 1:
        # Whatever looks like another head stands in this one's text.
        del heads[1:]
    elif seal not in answer or len([head for head in heads if head.start() < times[-1]]) != len(times):
        raise Ambiguous("free text in scontrol's answer looks like the beginning of a job")
    found = []
    for head, submission, after, end in zip(heads, times, [0, *times], [*times[1:], len(answer)], strict=False):
        core = _CORE.match(answer, head.end(), submission)
        if head.start() < after or core is None:
            raise Unreadable("no JobState where it should be in scontrol's answer")
        behind = _BEHIND.search(answer, submission, end)
        fields = _fields(answer[core.end() : behind.start() if behind else end])
        found.append(Record(head[1], _fields(head[2]), fields))
    return found


def parse(answer: str, job_id: str, seal: str, epoch_offset: float) -> Job:
    """Return one job of an answer.

    For an array's last task scontrol prints every task, for a heterogeneous job every component
    (slurm-facts, "What a SIGTERM means").

    Args:
        answer: what scontrol printed.
        job_id: the number that the record's `JobId=` must have.
        seal: see `records`.
        epoch_offset: epoch time minus monotonic time (s).

    Raises:
        Ambiguous: see `records`.
        Unreadable: it is not there, or not whole.
    """
    record = next((record for record in records(answer, seal) if record.job_id == job_id), None)
    if record is None:
        raise Unreadable(f"no JobId={job_id} in scontrol's answer")
    fields = {name: value.removesuffix(seal) for name, value in record.fields.items()}
    try:
        end, preempted = _time(fields["EndTime"]), _time(fields.get("PreemptTime", "None"))
        submitted = _time(fields["SubmitTime"])
        return Job(
            state=fields["JobState"],
            restarts=int(fields["Restarts"]),
            end=None if end is None else end - epoch_offset,
            preempted_at=None if preempted is None else preempted - epoch_offset,
            timed_out=fields.get("Reason") == "TimeLimit",
            suspended=_time(fields.get("SuspendTime", "None")) is not None,
            requeueable=fields.get("Requeue", "0") != "0",
            requeue_id=_requeue_id(record.identity, job_id),
            submitted=None if submitted is None else submitted - epoch_offset,
        )
    except KeyError as error:
        raise Unreadable(f"no {error.args[0]} in scontrol's answer") from None
    except ValueError as error:
        raise Unreadable(f"scontrol's answer: {error}") from None


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", text):
        found.setdefault(name, value)
    return found


def _requeue_id(identity: Mapping[str, str], job_id: str) -> str:
    """Return the id that requeues just this job: the plain number of an array's last task means the whole array."""
    if "ArrayJobId" in identity and re.fullmatch("[0-9]+", identity.get("ArrayTaskId", "")):
        return f"{identity['ArrayJobId']}_{identity['ArrayTaskId']}"
    return identity.get("HetJobId", job_id)


def _time(value: str) -> float | None:
    """Return an epoch time (s), None for one that is not set.

    Raises:
        ValueError: it is no time at all.
    """
    if value in ("Unknown", "None", "N/A", "NONE", "INVALID", "0", ""):
        return None
    if value.isdigit():
        return float(value)
    # A Slurm that does not know SLURM_TIME_FORMAT=%s prints its local time.
    return time.mktime(time.strptime(value, "%Y-%m-%dT%H:%M:%S"))
