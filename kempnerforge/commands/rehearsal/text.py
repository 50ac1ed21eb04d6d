"""A rehearsal's result in words for a person, at 80 columns, and in JSON for a machine."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ...launcher.policy import tables
from ...launcher.policy.ledger import listed
from ...launcher.telling.output import one_line
from ...launcher.telling.wording import describe, hears
from .checkpoints import Written
from .rehearse import Plan, Result
from .verdict import SLOWER_DAY, Lead, Seen

_WIDTH = 80  # columns, as a terminal has at first
_LABEL = 13  # columns, with the space behind it
#: Lines of stacks that are shown, a guess; all are in the log.
_MOST_STACK_LINES = 30
#: Receivers of the notice that are named, a guess: ranks are all alike.
_MOST_RECEIVERS = 4


def report(plan: Plan, results: Sequence[Result], log: str | None) -> str:
    """Return the report.

    Args:
        results: of the rehearsal, and of one that resumed.
        log: where all the output is; None: it is gone.
    """
    lines = _filled(f"drill of: {shlex.join(plan.command)}", "          ")
    lines += _timeline(plan, results[0])
    for again in results[1:]:
        lines += _resumed(again)
    last = results[-1]
    verdict = last.verdict
    lines += _wrapped("PASS" if verdict.passed else "FAIL", verdict.reason)
    for note in dict.fromkeys(note for one in results for note in one.verdict.notes):
        lines += _wrapped("", note)
    for warning in last.warnings:
        lines += _wrapped("warning", warning)
    if not verdict.passed:
        lines += _why(last)
    if log is not None:
        lines.append(_row("log", log))
    return "\n".join(lines)


def _timeline(plan: Plan, result: Result) -> Iterator[str]:
    seen = result.seen
    tasks = f" (the last of {seen.tasks} tasks)" if seen.tasks > 1 else ""
    if seen.ready is not None:
        yield _row("ready", f"first poll {seen.ready:.1f} s after the start{tasks}")
    if seen.noticed is None:
        return
    unasked = "" if seen.cooperative or plan.after is not None else ": it does not poll, and --after says when"
    yield _row("notice", f"{seen.signal}, {seen.noticed:.1f} s after the start{unasked}")
    if seen.told:
        yield from _wrapped("told", listed(seen.told, _MOST_RECEIVERS, "; "))
    if seen.heard:
        different = tuple(dict.fromkeys(f"{one.program} {hears(one.door)}" for one in seen.heard))
        yield from _wrapped("heard", listed(different, _MOST_RECEIVERS, "; "))
    if seen.first_poll is not None:
        yield _row("first poll", f"{_after(seen.first_poll)}{tasks}")
    if seen.saved is not None:
        yield _row("saved", _after(seen.saved) + _taking(seen.first_poll, seen.saved, "to save") + tasks)
    if seen.exit is not None and seen.status is not None:
        how = f"with {seen.status}" if seen.status >= 0 else describe(seen.status)
        yield _row("exit", f"{_after(seen.exit)}   {how}")
    if result.verdict.lead is not None:
        gives = f"of the {plan.lead:g} s that --signal=B:USR1@{plan.lead:g} gives"
        yield _row("slack", f"{plan.lead - seen.took:.1f} s {gives}")
    for one in result.written:
        yield from _wrapped("checkpoint", _checkpoint(one, seen))
    if result.verdict.lead is not None:
        yield from _use(result.verdict.lead)


def _after(seconds: float) -> str:
    return f"+{seconds:.1f} s"


def _taking(begin: float | None, end: float, what: str) -> str:
    return "" if begin is None else f"   ({max(end - begin, 0.0):.1f} s {what})"


def _checkpoint(one: Written, seen: Seen) -> str:
    if one.at is None or seen.started_at is None or seen.noticed is None:
        return one.problem or one.pattern
    files = "" if one.files == 1 else f"{one.files} files, "
    return f"{one.pattern}: {files}{_size(one.size)}, {one.at - seen.started_at - seen.noticed:+.1f} s"


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _use(lead: Lead) -> Iterator[str]:
    yield _row("use", f"--signal=B:USR1@{lead.seconds}")
    reserve = f"{tables.LEAD_RESERVE:g} s (kforge-run's own)"
    slower = f"{lead.measured:.1f} s × {SLOWER_DAY:g} (a slower day)"  # noqa: RUF001 - the sign is meant
    yield _row("", f"{slower} + {reserve} = {lead.needed:.1f} s")


def _resumed(again: Result) -> Iterator[str]:
    seen = again.seen
    came = "" if seen.ready is None else f"first poll {seen.ready:.1f} s after the second start"
    ended = "" if seen.exit is None or seen.status is None else f"exit {_after(seen.exit)}, it {describe(seen.status)}"
    yield from _wrapped("restarted", "; ".join(filter(None, (came, ended))) or "it did not come that far again")
    yield from _wrapped("", "whether it went on from its checkpoint, its own output tells")


def _why(result: Result) -> Iterator[str]:
    if result.stacks:
        yield _row("it was in", "")
        yield from (f"  {one_line(line)}" for line in result.stacks[:_MOST_STACK_LINES])
    if result.last_lines:
        yield _row("it said", "")
        yield from (f"    {one_line(line)}" for line in result.last_lines)


def _row(label: str, value: str) -> str:
    return one_line(f"  {label:<{_LABEL}}{value}".rstrip())


def _wrapped(label: str, value: str) -> list[str]:
    """Return a row whose value may need several lines."""
    return _filled(f"  {label:<{_LABEL}}{value}", " " * (2 + _LABEL))


def _filled(value: str, indent: str) -> list[str]:
    """Return a text in lines, all but the first with an indent; where it had more than one space it keeps them."""
    wrapper = textwrap.TextWrapper(
        _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return wrapper.wrap(one_line(value)) or [""]


def data(plan: Plan, results: Sequence[Result], log: str | None) -> dict[str, Any]:
    """Return the same for JSON. Times are seconds: from the start, and in `shutdown` from the notice."""
    first, *again = map(_data, results)
    passed = all(one.verdict.passed for one in results)
    about = {"command": plan.command, "passed": passed, "lead": plan.lead, "log": log}
    return {**about, **first, "restarted": again[0] if again else None}


def _data(result: Result) -> dict[str, Any]:
    seen, verdict, lead = result.seen, result.verdict, result.verdict.lead
    use = None if lead is None else {"seconds": lead.seconds, "needed": _round(lead.needed)}
    return {
        "verdict": "PASS" if verdict.passed else "FAIL",
        "reason": verdict.reason,
        "notes": verdict.notes,
        "cooperative": seen.cooperative,
        "tasks": seen.tasks,
        "first_poll": _round(seen.ready),
        "notice": _round(seen.noticed),
        "told": seen.told,
        "heard": [{"pid": one.pid, "program": one.program, "how": hears(one.door)} for one in seen.heard],
        "shutdown": {name: _round(getattr(seen, name)) for name in ("first_poll", "saved", "exit")},
        "status": seen.status,
        "outcome": seen.outcome,
        "stages": seen.stages,
        "checkpoints": [one._asdict() for one in result.written],
        "use": use,
        "warnings": result.warnings,
        "stacks": result.stacks,
        "last_lines": result.last_lines,
    }


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
