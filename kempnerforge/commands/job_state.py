"""What Slurm says now of jobs whose journals have no end, as far as it answers in time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from ..launcher import slurm
from . import slurm_commands
from .diagnosis import cluster
from .journals import Journal
from .trouble import Trouble

#: For all questions together (s): the report is worth reading without an answer.
_PATIENCE = 5.0


def states(journals: Iterable[Journal]) -> dict[str, str]:
    """Return the states of jobs, by number, as far as Slurm knows them: `RUNNING`, `PENDING`, ….

    A cluster that a journal is not from is not asked: there the number is another job's.
    """
    wanted = [journal for journal in journals if journal.job and journal.cluster]
    if not wanted or not slurm_commands.have("scontrol"):
        return {}
    until = time.monotonic() + _PATIENCE
    found = {}
    try:
        name = cluster.parse(_ask(until, "show", "config"), "").name
        for journal in wanted:
            if journal.cluster.lower() == name.lower():
                answer = _ask(until, "show", "job", "-o", journal.job)
                if (job := slurm.parse_job(answer, journal.job, 0.0)) is not None:
                    found[journal.job] = job.state
    except Trouble:
        pass  # no answer: what was found so far is true all the same
    return found


def without_journal(job: str) -> tuple[str, str] | None:
    """Return what Slurm says of a job that has no journal: its state with the reason, and its log; None: nothing."""
    if not job.replace("_", "").isdecimal() or not slurm_commands.have("scontrol"):
        return None
    try:
        answer = _ask(time.monotonic() + _PATIENCE, "show", "job", job)
    except Trouble:
        return None
    state = re.search(r" JobState=(\w+) Reason=(\S+)", answer)
    if state is None:
        return None
    reason = "" if state[2] in ("None", "(null)") else f" ({state[2]})"
    return state[1] + reason, slurm_commands.log_in(answer)


def _ask(until: float, *arguments: str) -> str:
    return slurm_commands.run(["scontrol", *arguments], patience=max(until - time.monotonic(), 0.1)).output
