"""What Slurm says now of jobs whose journals have no end, as far as it answers in time."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..launcher.asking.job_record import Record
from . import slurm_commands
from .diagnosis import cluster
from .journals import Journal
from .trouble import Trouble

#: For all questions together (s): the report is worth reading without an answer. A guess.
_PATIENCE = 5.0
#: What is said of a job that Slurm could not start, and holds.
LAUNCH_FAILED = "launch failed, held: scontrol release JOB"


def states(journals: Iterable[Journal]) -> dict[str, str]:
    """Return the states of jobs, by number, as far as Slurm knows them: `RUNNING`, `PENDING`, ….

    A cluster that a journal is not from is not asked: there the number is another job's.
    """
    wanted = [journal for journal in journals if journal.job and journal.cluster]
    if not wanted or not slurm_commands.have("scontrol"):
        return {}
    until = time.monotonic() + _PATIENCE
    found: dict[str, str] = {}
    try:
        config = slurm_commands.run(["scontrol", "show", "config"], patience=_left(until)).output
        name = cluster.parse(config, "").name
        for journal in wanted:
            if journal.cluster.lower() == name.lower():
                _answer, records = slurm_commands.job_records(journal.job, patience=_left(until))
                found.update((one.job_id, _state(one)) for one in records if one.job_id == journal.job)
    except Trouble:
        pass  # no answer: what was found so far is true all the same
    return found


def _state(record: Record) -> str:
    """Return a job's state; one that Slurm cannot start and holds does not wait for its turn."""
    held = slurm_commands.could_not_be_launched(record.fields.get("Reason", ""))
    return LAUNCH_FAILED if held else record.fields["JobState"]


def without_journal(job: str) -> tuple[str, str] | None:
    """Return what Slurm says of a job that has no journal: its state with the reason, and its log; None: nothing."""
    if not job.replace("_", "").isdecimal() or not slurm_commands.have("scontrol"):
        return None
    try:
        answer, records = slurm_commands.job_records(job, patience=_PATIENCE)
    except Trouble:
        return None
    if not records:
        return None
    state, reason = records[0].fields["JobState"], records[0].fields.get("Reason", "")
    return state + ("" if reason in ("", "None", "(null)") else f" ({reason})"), slurm_commands.log_in(answer)


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.1)
