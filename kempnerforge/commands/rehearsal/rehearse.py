"""A rehearsal: wait until the run is ready, send the notice, see what becomes of it."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..interrupts import Interrupts
from ..progress import Progress
from ..trouble import FAILED, Trouble
from . import checkpoints, run_log
from .checkpoints import Written
from .stage import Stage, look
from .verdict import Evidence, Seen, Verdict, judge, notice_due

#: How long kforge-run may take beyond the lead (s): it gives up on whoever outlives SIGKILL. A guess.
_OVERTIME = 60.0
#: A program that polls has usually registered by then (s): a guess.
_SETTLED = 1.0
#: How many lines of a run are kept: a guess.
_LAST_LINES = 15


class Plan(NamedTuple):
    """What is rehearsed, and how."""

    command: list[str]
    #: What Slurm would give (s).
    lead: float
    #: How long to wait for the first poll (s).
    patience: float
    #: How long it runs before the notice (s): see `verdict.notice_due`.
    after: float | None = None
    #: Where its checkpoints are.
    checkpoints: tuple[str, ...] = ()


class Result(NamedTuple):
    """What a rehearsal showed."""

    verdict: Verdict
    seen: Seen
    written: tuple[Written, ...]
    #: What those were doing that did not end in time, as faulthandler writes it.
    stacks: tuple[str, ...]
    #: What kforge-run warned of.
    warnings: tuple[str, ...]
    #: What the command wrote last.
    last_lines: tuple[str, ...]


def rehearse(stage: Stage, plan: Plan, interrupts: Interrupts, progress: Progress) -> Result:
    """Rehearse a run that is on its way; whatever is left of it then, the caller has to end.

    Raises:
        Interrupted: the user does not want to wait for it.
        Trouble: the command was not started, or does not end.
    """
    seen, ended = _wait_until_ready(stage, plan, interrupts, progress)
    if seen.started_at is None:
        raise stage.why_not_started()
    before = [checkpoints.look(pattern) for pattern in plan.checkpoints]
    log_before = stage.log.size
    given_up = not ended and seen.noticed is None and notice_due(seen, plan.after) is None
    if given_up:
        progress.say("it did not poll: ending it")
    elif not ended:
        if seen.noticed is None:
            stage.send_notice()
        seen = _wait_for_end(stage, plan, interrupts, progress)
    stage.log.follow()
    progress.clear()
    after = [checkpoints.look(pattern) for pattern in plan.checkpoints]
    written = tuple(map(checkpoints.written, plan.checkpoints, before, after))
    evidence = Evidence(next((one.problem for one in written if one.problem), None)) if written else None
    return Result(
        judge(seen, plan.lead, evidence, ended=not given_up),
        seen,
        written if seen.noticed is not None else (),
        tuple(run_log.stacks_of(stage.log.text(log_before))),
        seen.warnings,
        tuple(run_log.last_lines(stage.log.text(), _LAST_LINES)),
    )


def _wait_until_ready(stage: Stage, plan: Plan, interrupts: Interrupts, progress: Progress) -> tuple[Seen, bool]:
    """Wait until the notice is due, or it is clear that it never will be, or all is over (True)."""
    started = time.monotonic()
    while True:
        # In this order: what is read after the end is all there is.
        ended, seen, now = stage.has_ended(), look(stage.folder), time.monotonic()
        if ended:
            return seen, True
        if seen.noticed is not None:
            return seen, False  # another notice was faster: Slurm's, at a time limit that is too short
        if seen.started_at is None:
            started = now
            progress.show(stage.waits_for())
        else:
            due = notice_due(seen, plan.after)
            limit = plan.patience if due is None else due
            if now - started >= limit:
                return seen, False
            if seen.cooperative or now - started > _SETTLED:
                progress.show(_before_notice(seen), limit)
        stage.log.follow()
        interrupts.pause(stage.tick)


def _before_notice(seen: Seen) -> str:
    if not seen.cooperative:
        return "nothing polls yet: the notice comes all the same"
    return "waiting for the first poll" if seen.ready is None else "it polls: the notice comes later"


def _wait_for_end(stage: Stage, plan: Plan, interrupts: Interrupts, progress: Progress) -> Seen:
    sent = time.monotonic()
    until = sent + plan.lead + _OVERTIME
    while True:
        ended, seen = stage.has_ended(), look(stage.folder)
        if ended:
            return seen
        if time.monotonic() > until:
            raise Trouble(
                f"kforge-run did not end within {plan.lead + _OVERTIME:.0f} s after the notice", status=FAILED
            )
        progress.show(_after_notice(seen), plan.lead)
        stage.log.follow()
        interrupts.pause(stage.tick)


def _after_notice(seen: Seen) -> str:
    if seen.saved is not None or not seen.cooperative:
        return "the notice is sent: waiting for its end"
    return "the notice is sent: saving" if seen.first_poll is not None else "the notice is sent: waiting for its poll"
