"""What is said of times, durations and ends: the same words in the terminal and on the page."""

from __future__ import annotations

import shlex
import time
import unicodedata
from collections.abc import Sequence

from ...launcher.telling.output import one_line
from ...launcher.telling.wording import describe
from ..journals import Attempt
from .story import Row, Shutdown, Story

MINUTE, HOUR, DAY = 60, 3600, 86400

#: Why it was told to stop.
_CAUSES = {
    "time_limit": "time limit",
    "preempted": "preempted",
    "requeued": "requeued from outside",
    "cancelled": "cancelled",
    "interrupt": "Ctrl-C",
    "unknown": "told to stop, not known why",
}
#: After these no user expects a requeue, or needs to read why there was none.
_NO_REQUEUE_EXPECTED = frozenset({"requeued", "cancelled", "interrupt", "unknown"})

#: What each stage of the escalation sends.
STAGES = {"terminate": "SIGTERM", "kill": "SIGKILL"}

_STANDINGS = {
    "running": "running",
    "ending": "ending",
    "open": "still running, or killed without a trace (SIGKILL, node failure)",
    "lost": "no end recorded: killed without a trace (SIGKILL, node failure)",
}


# --- times ---------------------------------------------------------------------------------------


def moment(epoch: float) -> str:
    """Return a time as the clock on the wall shows it here."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch))


def exact_moment(epoch: float) -> str:
    """Return the same to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))


def zone(epoch: float) -> str:
    """Return which clock that is."""
    seconds = time.localtime(epoch).tm_gmtoff
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // MINUTE
    return f"UTC{sign}{minutes // 60:02d}:{minutes % 60:02d}" if minutes else "UTC"


def duration(seconds: float) -> str:
    """Return how long something took, in eight characters at most, with what matters at that size."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < MINUTE - 0.5:
        return f"{seconds:.0f}s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE}m {whole % MINUTE:02d}s"
    if whole < DAY:
        return f"{whole // HOUR}h {whole % HOUR // MINUTE:02d}m"
    if whole < 100 * DAY:
        return f"{whole // DAY}d {whole % DAY // HOUR:02d}h"
    return f"{whole // DAY}d"


def seconds(value: float | None) -> str:
    """Return seconds of a shutdown, to the tenth."""
    return "-" if value is None else f"{value:.1f}"


# --- what happened -------------------------------------------------------------------------------


def why(row: Row) -> str:
    """Return in a few words why an attempt ended: the cause, what the run did, and what became of the job."""
    attempt = row.attempt
    if attempt.end_time is None:
        return _STANDINGS[row.standing]
    did = _did(attempt)
    if (cause := _cause(attempt)) is not None:
        did = f"{cause}: {did}"
    suspended = f"; suspended for {duration(attempt.suspended)}" if attempt.suspended else ""
    return did + _then(attempt) + suspended


def headline(row: Row) -> tuple[str, str]:
    """Return the same in two parts, the first of which stands for itself."""
    attempt = row.attempt
    if attempt.end_time is None:
        return in_short(row), ""
    did, then = _did(attempt), _then(attempt)
    cause = _cause(attempt)
    return (did, then.removeprefix(", ")) if cause is None else (cause, did + then)


def _cause(attempt: Attempt) -> str | None:
    if attempt.reason == "manual":
        return f"{one_line(attempt.notice.signal)} by hand" if attempt.notice else "by hand"
    return None if attempt.reason is None else _CAUSES.get(attempt.reason, one_line(attempt.reason))


def _did(attempt: Attempt) -> str:
    ended = "ended" if attempt.exit_status is None else describe(attempt.exit_status)
    match attempt.outcome:
        case "completed":
            return "completed"
        case "checkpointed":
            # Nothing ran that has a ShutdownHandler: kforge-run assumes the best.
            return "saved" if attempt.registered or attempt.exit_status else ended
        case "forced":
            return "killed, it did not end in time"
        case "interrupted" if attempt.unsaved:
            return f"{ended}, its save not finished"
        case "interrupted" if not attempt.registered:
            return f"{ended}, not known whether it saved"
        case "failed" if attempt.not_started:
            return f"not started: {one_line(attempt.not_started)}"
        case "failed":
            return ended if attempt.exit_status is not None and attempt.exit_status < 0 else f"failed, {ended}"
        case _:
            return ended


def _then(attempt: Attempt) -> str:
    if attempt.requeued:
        return ", retried" if attempt.retried else ", requeued"
    if attempt.place != "batch" or attempt.outcome == "completed" or attempt.reason == "requeued":
        return ""
    by_hand = attempt.reason == "manual" and attempt.notice is not None and attempt.notice.signal == "SIGTERM"
    if attempt.reason in _NO_REQUEUE_EXPECTED or by_hand or attempt.because in ("", "it failed"):
        return ", not requeued"
    return f", not requeued: {one_line(attempt.because)}"


def waited(row: Row) -> str:
    """Return how long the run waited for an attempt."""
    if row.unaccounted is not None:
        return "?"
    return "-" if row.waited is None else duration(row.waited)


def progress(row: Row) -> str:
    """Return whether an attempt is known to have completed a step."""
    return {True: "yes", False: "no", None: "?"}[row.attempt.progress]


def standing(story: Story) -> str:
    """Return how the job stands now; empty: it is over, and its last attempt says how."""
    last = story.last
    heard = f"last heard of at {exact_moment(last.attempt.last_time)}"
    says = f" (Slurm: {one_line(story.slurm_state)})" if story.slurm_state else ""
    match last.standing:
        case "running":
            return f"running{says} for {duration(last.until - last.attempt.started)}, {heard}"
        case "ending":
            return f"ending{says}, {heard}"
        case "open" | "lost":
            return f"{_STANDINGS[last.standing]}{says}: {heard}"
        case "waiting":
            return f"waits to be started again{says}"
        case "requeued":
            return f"requeued, no later attempt is recorded{says}"
        case "over":
            return f"requeued, but not started again{says}" if last.attempt.runs_again else ""


def in_short(row: Row) -> str:
    """Return how an attempt stands, or how it ended, in a few words."""
    match row.standing:
        case "running" | "ending":
            return row.standing
        case "open":
            return "running, or killed"
        case "lost":
            return "no end recorded"
        case "waiting":
            return f"{_end_in_short(row.attempt)}, waiting"
        case "requeued" | "over":
            return _end_in_short(row.attempt)


def _end_in_short(attempt: Attempt) -> str:
    cause = _cause(attempt)
    if cause is None or attempt.outcome == "completed":
        told = _did(attempt)
    elif attempt.outcome == "forced":
        told = f"{cause}, killed"
    else:
        told = cause if attempt.outcome == "checkpointed" else f"{cause}, {_did(attempt)}"
    return f"{told}{', requeued' if attempt.requeued else ''}"


def shutdown_in_short(shutdown: Shutdown) -> str:
    """Return how long a shutdown took, and what was left."""
    killed = next((stage.time for stage in shutdown.stages if stage.stage == "kill"), None)
    parts = []
    if killed is not None:
        parts.append(f"SIGKILL +{killed:.1f} s")
    elif shutdown.exit is not None:
        parts.append(f"exit +{shutdown.exit:.1f} s")
    if shutdown.slack is not None:
        parts.append(f"{shutdown.slack:.1f} s to spare")
    return ", ".join(parts) or "its end is not known"


def forced(shutdown: Shutdown) -> str:
    """Return which stages of the escalation were needed, and when."""
    return ", ".join(f"{STAGES[stage.stage]} at {stage.time:.1f}" for stage in shutdown.stages)


def shutdown_in_full(shutdown: Shutdown) -> str:
    """Return all moments of a shutdown."""
    moments = (
        ("first poll", shutdown.first_poll),
        ("finish", shutdown.finish),
        *((STAGES[stage.stage], stage.time) for stage in shutdown.stages),
        ("exit", shutdown.exit),
        ("requeued", shutdown.requeued),
    )
    parts = [one_line(shutdown.signal), *(f"{name} +{at:.1f} s" for name, at in moments if at is not None)]
    parts += [] if shutdown.slack is None else [f"{shutdown.slack:.1f} s to spare"]
    return ", ".join(parts)


def trained(story: Story) -> str:
    """Return how long the run ran in all, as far as that is known."""
    return "?" if all(row.ran is None for row in story.rows) else duration(story.totals.ran)


def sum_up(story: Story) -> str:
    """Return the whole run in one sentence."""
    totals, count = story.totals, len(story.rows)
    parts = [f"{plural(count, 'attempt')} over {duration(totals.span)}: ran {trained(story)}"]
    if count > 1:
        parts.append(f"lost {duration(totals.waited)} between attempts")
    if totals.unaccounted:
        parts.append(f"{duration(totals.unaccounted)} not known")
    for what, extreme in (("longest shutdown", totals.longest_shutdown), ("least slack", totals.least_slack)):
        if extreme is not None:
            of = f" (attempt {extreme.number})" if count > 1 else ""
            parts.append(f"{what} {seconds(extreme.seconds)} s{of}")
    if totals.forced:
        parts.append(f"{totals.forced} killed")
    if totals.without_progress:
        parts.append(f"{totals.without_progress} without progress")
    return f"{', '.join(parts)}; last: {in_short(story.last)}"


# --- how it is written ---------------------------------------------------------------------------


def plural(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def command(words: Sequence[str]) -> str:
    """Return a command as a shell would take it, in one line."""
    return one_line(shlex.join(words))


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide letters take two, combining ones none."""
    return sum(_cells_of(letter) for letter in text)


def _cells_of(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return a text in one line of at most so many columns, with what is left out as `…`."""
    text = one_line(text[: 4 * width + 4])  # a command may have a megabyte
    if cells(text) <= width:
        return text
    kept = ""
    room = width - 1
    for letter in text:
        room -= _cells_of(letter)
        if room < 0:
            break
        kept += letter
    return f"{kept}…"


def fold(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many columns, broken between words where there is room."""
    lines = [""]
    room = width
    for word in text.split(" "):
        if lines[-1] and 1 + cells(word) <= room:
            lines[-1] += f" {word}"
            room -= 1 + cells(word)
            continue
        if lines[-1]:
            lines.append("")
            room = width
        for letter in word:
            if _cells_of(letter) > room:
                lines.append("")
                room = width
            lines[-1] += letter
            room -= _cells_of(letter)
    return lines
