"""Where this kforge-run is: in which job, as what, and below which other kforge-run.

json is imported where it is needed: it takes 2 ms, and outside Slurm nothing here needs it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...bootstrap import contract
from ..policy.words import Place, Site
from . import slurm


class OuterFacts(NamedTuple):
    """What a kforge-run of the same job above this one knows, and hands down in the environment."""

    #: When the job ends (s, monotonic); None: unknown or unlimited.
    end: float | None
    site: Site
    kill_on_bad_exit: bool


class Whereabouts(NamedTuple):
    place: Place
    #: SLURM_JOB_ID; empty outside Slurm.
    job_id: str
    #: None: no other kforge-run is above this one.
    outer: OuterFacts | None
    #: Which of a step's tasks this is; empty where there is only one kforge-run.
    task: str
    #: Why it is not known better.
    trouble: str | None


def find(environment: Mapping[str, str]) -> Whereabouts:
    """Find out where this process is. A SLURM_JOB_ID that is not a number counts as none, and as trouble."""
    try:
        identity = slurm.identify(environment)
    except ValueError as error:
        return Whereabouts("outside", "", None, "", f"{error}: going on as outside Slurm")
    outer = _read_outer(environment.get(contract.JOB_FACTS_VARIABLE, ""), identity.job_id)
    # The outer one owns the job, whatever the process tree says.
    place: Place = "step" if outer is not None and identity.place == "batch" else identity.place
    task = environment.get("SLURM_PROCID", "0") if place == "step" else ""
    return Whereabouts(place, identity.job_id, outer, task, None)


def facts_to_hand_down(job_id: str, end: float | None, site: Site, kill_on_bad_exit: bool) -> str:
    """Return the job's facts for inner kforge-runs, which ask the controller nothing.

    Args:
        end: when the job ends (s, monotonic); None: unknown.
    """
    import json

    epoch_end = None if end is None else end - time.monotonic() + time.time()
    facts: dict[str, Any] = {"job": job_id, "end": epoch_end, "kill_on_bad_exit": kill_on_bad_exit}
    return json.dumps({**facts, "kill_wait": site.kill_wait, "grace_time": site.grace_time})


def _read_outer(text: str, job_id: str) -> OuterFacts | None:
    """Return the facts, None where they are missing, broken, or of another job: a submission inherits them."""
    if not text or not job_id:
        return None
    import json

    try:
        facts = json.loads(text)
        if facts["job"] != job_id:
            return None
        end, grace = (None if facts[name] is None else float(facts[name]) for name in ("end", "grace_time"))
        if end is not None:
            end += time.monotonic() - time.time()
        site = Site(float(facts["kill_wait"]), grace)
        return OuterFacts(end, site, facts["kill_on_bad_exit"] is True)
    except (ValueError, KeyError, TypeError):
        return None
