"""The report as JSON: for scripts, so the keys stay, and times are epoch seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import wording
from .story import Extreme, Row, Shutdown, Story

Json = dict[str, Any]


def answer(stories: Sequence[Story], tasks: Mapping[int, Sequence[Story]]) -> Json:
    """Return all that the report tells, as one object. What is not known is null; durations are in seconds.

    Args:
        stories: one for each job.
        tasks: of some of them, by their place in `stories`.
    """
    jobs = [_job(story) for story in stories]
    for index, told in tasks.items():
        jobs[index]["tasks"] = [_job(story) for story in told]
    return {"jobs": jobs}


def _job(story: Story) -> Json:
    journal, totals = story.journal, story.totals
    return {
        "job": journal.job or None,
        "task": journal.task or None,
        "array_task": story.last.attempt.array_task or None,
        "cluster": journal.cluster or None,
        "name": story.name or None,
        "command": story.command,
        "journal": str(journal.path),
        "standing": story.last.standing,
        "slurm_state": story.slurm_state,
        "totals": {
            "attempts": len(story.rows),
            "span": totals.span,
            "ran": totals.ran,
            "waited": totals.waited,
            "unaccounted": totals.unaccounted,
            "longest_shutdown": _extreme(totals.longest_shutdown),
            "least_slack": _extreme(totals.least_slack),
            "forced": totals.forced,
            "without_progress": totals.without_progress,
        },
        "attempts": [_attempt(row) for row in story.rows],
        "older_attempts": story.older,
        "unreadable_lines": journal.unreadable,
        "unknown_lines": journal.unknown,
        "unread_bytes": journal.unread,
        "forgotten_attempts": journal.forgotten,
    }


def _extreme(extreme: Extreme | None) -> Json | None:
    return None if extreme is None else {"seconds": extreme.seconds, "attempt": extreme.number}


def _attempt(row: Row) -> Json:
    attempt = row.attempt
    return {
        "number": attempt.number,
        "key": attempt.key,
        "node": attempt.node or None,
        "command": attempt.command,
        "version": attempt.version or None,
        "place": attempt.place or None,
        "standing": row.standing,
        "started": attempt.started,
        "ended": attempt.end_time,
        "last_heard_of": attempt.last_time,
        "ran": row.ran,
        "waited": row.waited,
        "unaccounted": row.unaccounted,
        "suspended": attempt.suspended,
        "why": wording.why(row),
        "reason": attempt.reason,
        "outcome": attempt.outcome,
        "requeued": attempt.requeued,
        "because": attempt.because or None,
        "not_started": attempt.not_started or None,
        "exit_status": attempt.exit_status,
        "status": attempt.status,
        "restarts": attempt.restarts,
        "progress": attempt.progress,
        "armed": attempt.armed,
        "registered": attempt.registered,
        "first_ready_poll": attempt.first_ready_poll,
        "notice": None if attempt.notice is None else attempt.notice._asdict(),
        "shutdown": None if row.shutdown is None else _shutdown(row.shutdown),
        "statuses": [status._asdict() for status in attempt.statuses],
    }


def _shutdown(shutdown: Shutdown) -> Json:
    """Return the moments in seconds after the notice."""
    stages = {stage.stage: stage.time for stage in shutdown.stages}
    return {
        "first_poll": shutdown.first_poll,
        "finish": shutdown.finish,
        "exit": shutdown.exit,
        "requeued": shutdown.requeued,
        "deadline": shutdown.deadline,
        "slack": shutdown.slack,
        "terminate": stages.get("terminate"),
        "kill": stages.get("kill"),
    }
