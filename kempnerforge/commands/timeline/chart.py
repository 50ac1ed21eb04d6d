"""The charts of the page, as SVG without scripts.

Widths are percentages, so that a chart takes what room there is and its texts stay as large as they are; heights are
pixels. What a colour says, a pattern or a shape says as well. The colours are in page.css.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ...launcher.telling.output import one_line
from . import ticks, wording
from .story import Row, Shutdown, Standing

#: Of each row, and of the axis above them (px): what looks well. What is beside a chart is made as high.
PITCH, HEAD = 28, 40
#: Of the strip that shows the whole of a long run (px), and into how many parts it is divided.
STRIP, _PARTS = 72, 400
_BAR, _THIN = 14, 6
_TICKS = 8

Segment = tuple[str, float, float]

#: The shapes at the end of an attempt, around 0 0.
_SHAPES = {
    "saved": '<circle r="5"/>',
    "done": '<path d="M-5-5H5V5H-5Z"/>',
    "bad": '<path d="M-5-5L5 5M5-5L-5 5"/>',
    "stopped": '<path d="M0-6.5L6.5 0L0 6.5L-6.5 0Z"/>',
    "running": '<path d="M-3-6L7 0L-3 6Z"/>',
    "unknown": '<circle r="4.5"/>',
}
SHAPES = {
    "saved": "runs again",
    "done": "completed",
    "stopped": "stopped for good",
    "bad": "failed, killed, or its save not finished",
    "unknown": "no end recorded",
    "running": "running",
}
#: The signs of a shutdown, around 0 0: a stage of the escalation, the deadline, and one that is too far to the right.
_SIGNS = {
    "stage": '<path d="M-4-11H4L0-5Z"/><path d="M0-6V7"/>',
    "deadline": '<path d="M0-10V10"/>',
    "beyond": '<path d="M-6-5L0 0L-6 5"/>',
}
SEGMENTS = {
    "poll": "until the first poll",
    "save": "saving",
    "stop": "stopping, unseen",
    "exit": "ending",
    "requeue": "clearing up, requeueing",
}


class Scale:
    """Turns a value on an axis into a place in the chart."""

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.end = max(end, start + 1e-3)

    def at(self, value: float) -> float:
        """Return the place, in percent of the width."""
        return min(max((value - self.start) / (self.end - self.start), 0.0), 1.0) * 100

    def span(self, start: float, end: float) -> str:
        """Return the attributes `x` and `width`."""
        return f'x="{self.at(start):.3f}%" width="{max(self.at(end) - self.at(start), 0):.3f}%"'


# --- the attempts on the clock -------------------------------------------------------------------


def shape(row: Row) -> str:
    """Return what is drawn where an attempt ends."""
    by_standing: dict[Standing, str] = {"running": "running", "ending": "running", "open": "unknown", "lost": "unknown"}
    if row.standing in by_standing:
        return by_standing[row.standing]
    if row.forced or row.attempt.unsaved or row.attempt.outcome == "failed":
        return "bad"
    if row.attempt.outcome == "completed":
        return "done"
    return "saved" if row.attempt.runs_again else "stopped"


def timeline(rows: Sequence[Row], title: str, ident: str) -> str:
    """Return one bar for each attempt, on a common axis of time."""
    scale = _scale(rows)
    parts = [*_axis(ticks.of_time(scale.start, scale.end, _TICKS), scale, len(rows))]
    places = [(row, HEAD + (index + 0.5) * PITCH) for index, row in enumerate(rows)]
    # First what must not lie on the marks.
    for row, y in places[1:]:
        parts += _gap(row, scale, y)
    for row, y in places:
        parts += [f"<g><title>{escape(_attempt_title(row))}</title>", *_attempt(row, scale, y), "</g>"]
    described = f"One bar for each attempt, from {wording.moment(scale.start)} to {wording.moment(scale.end)}."
    return _svg(parts, HEAD + len(rows) * PITCH, title, described, ident)


def _gap(row: Row, scale: Scale, y: float) -> Iterator[str]:
    """Yield the time before an attempt in which none ran, and a line down to it."""
    known = row.unaccounted is None
    if not (gap := row.waited if known else row.unaccounted):
        return
    begin = row.attempt.started - gap
    told = "waited for" if known else "not known, up to the start of"
    yield f"<g><title>{wording.duration(gap)} {told} attempt {row.attempt.number}</title>"
    x = f"{scale.at(begin):.3f}%"
    yield f'<line class="thread" x1="{x}" x2="{x}" y1="{y - PITCH:g}" y2="{y:g}"/>'
    yield _bar("wait" if known else "unknown", scale.span(begin, row.attempt.started), y, _THIN)
    yield "</g>"


def _attempt(row: Row, scale: Scale, y: float) -> Iterator[str]:
    start, notice = row.attempt.started, row.attempt.notice
    stop = row.until if notice is None else min(max(notice.time, start), row.until)
    yield _bar("train" if row.ran is not None else "train faint", scale.span(start, stop), y, _BAR)
    if notice is not None:
        yield _bar("save", scale.span(stop, row.until), y, _BAR)
    yield _mark(shape(row), scale.at(row.until), y)


def _attempt_title(row: Row) -> str:
    start, end = wording.exact_moment(row.attempt.started), wording.exact_moment(row.until)
    return one_line(f"attempt {row.attempt.number}: {start} to {end}: {wording.why(row)}")


def _scale(rows: Sequence[Row]) -> Scale:
    return Scale(min(row.attempt.started for row in rows), max(row.until for row in rows))


# --- a long run at a glance ----------------------------------------------------------------------


def overview(rows: Sequence[Row], title: str, ident: str) -> str:
    """Return which part of the time the run trained, from its first to its last attempt."""
    scale = _scale(rows)
    length = (scale.end - scale.start) / _PARTS
    shares = {"train": [0.0] * _PARTS, "unknown": [0.0] * _PARTS}
    for row in rows:
        if row.ran is not None:
            _spread(shares["train"], (row.attempt.started - scale.start) / length, (row.until - scale.start) / length)
        if row.unaccounted:
            begin = row.attempt.started - row.unaccounted - scale.start
            _spread(shares["unknown"], begin / length, (row.attempt.started - scale.start) / length)
    bad = sorted({int(scale.at(row.until) / 100 * (_PARTS - 1)) for row in rows if shape(row) in ("bad", "unknown")})
    top = HEAD + STRIP
    trained, known = [], []
    for train, unknown in zip(shares["train"], shares["unknown"], strict=True):
        trained.append(min(train, 1.0))
        known.append(min(train + unknown, 1.0))
    parts = [
        *_axis(ticks.of_time(scale.start, scale.end, _TICKS), scale, 0, STRIP),
        f'<rect class="wait" x="0" y="{HEAD}" width="100%" height="{STRIP}"/>',
        f'<svg y="{HEAD}" height="{STRIP}" viewBox="0 0 {_PARTS} 1" preserveAspectRatio="none">',
        f'<path class="unknown" d="{_area(known)}"/>',
        f'<path class="paper" d="{_area(trained)}"/>',
        f'<path class="train" d="{_area(trained)}"/>',
        "</svg>",
        *(_mark("bad", (part + 0.5) / _PARTS * 100, top + 10, "small ") for part in bad),
    ]
    share = sum(trained) / _PARTS
    described = f"It ran {share:.0%} of the time. Crosses below mark attempts that failed, were killed or have no end."
    return _svg(parts, top + 18, title, described, ident)


def _spread(shares: list[float], start: float, end: float) -> None:
    """Add the time from start to end, in parts, to the parts that it touches."""
    for part in range(max(int(start), 0), min(int(end), len(shares) - 1) + 1):
        shares[part] += max(min(end, part + 1) - max(start, part), 0.0)


def _area(heights: Sequence[float]) -> str:
    steps = "".join(f"V{1 - height:.3f}h1" for height in heights)
    return f"M0 1{steps}V1Z"


# --- the shutdowns -------------------------------------------------------------------------------


def segments(shutdown: Shutdown) -> list[Segment]:
    """Return the parts of a shutdown: what it was doing, from when to when (s after the notice)."""
    seen = shutdown.first_poll is not None or shutdown.finish is not None
    moments = (
        ("poll", shutdown.first_poll),
        ("save", shutdown.finish),
        ("exit" if seen else "stop", shutdown.exit),
        ("requeue" if shutdown.exit is not None else "stop", shutdown.end),
    )
    parts: list[Segment] = []
    at = 0.0
    for kind, moment in moments:
        if moment is not None:
            # Two ranks' words may have crossed.
            parts.append((kind, at, max(moment, at)))
            at = max(moment, at)
    return parts


def shutdowns(rows: Sequence[Row], title: str, ident: str) -> str:
    """Return one bar for each shutdown, on a common axis of seconds after the notice."""
    shown = [(row, row.shutdown) for row in rows if row.shutdown is not None]
    scale = Scale(0.0, _end_of_axis([shutdown for _row, shutdown in shown]))
    parts = [*_axis(ticks.of_seconds(scale.end, _TICKS), scale, len(shown), unit=" s")]
    for index, (row, shutdown) in enumerate(shown):
        y = HEAD + index * PITCH + PITCH / 2
        parts.append(f"<g><title>{escape(_shutdown_title(row, shutdown))}</title>")
        parts += _shutdown(shutdown, scale, y)
        parts.append("</g>")
    described = f"One bar for each attempt that got a notice, from 0 to {scale.end:g} seconds after it."
    return _svg(parts, HEAD + len(shown) * PITCH, title, described, ident)


def _end_of_axis(shown: Sequence[Shutdown]) -> float:
    """Return a length that shows the deadlines, unless the shutdowns would be too small to be seen then (s)."""
    longest = max((shutdown.end for shutdown in shown), default=0.0)
    deadline = max((shutdown.deadline for shutdown in shown if shutdown.deadline is not None), default=longest)
    return max(deadline if deadline <= longest * 2.5 else ticks.nice(max(longest, 0.05) * 1.2), longest, 0.1)


def _shutdown(shutdown: Shutdown, scale: Scale, y: float) -> Iterator[str]:
    deadline = shutdown.deadline
    if deadline is not None and deadline > shutdown.end:
        yield _bar("slack", scale.span(shutdown.end, deadline), y, _THIN)
    for kind, start, end in segments(shutdown):
        yield _bar(kind, scale.span(start, end), y, _BAR)
    for stage in shutdown.stages:
        yield _place("stage", scale.at(stage.time), y, _SIGNS["stage"])
    if deadline is not None:
        kind = "beyond" if deadline > scale.end * (1 + 1e-9) else "deadline"
        yield _place(kind, scale.at(deadline), y, _SIGNS[kind])


def _shutdown_title(row: Row, shutdown: Shutdown) -> str:
    return f"attempt {row.attempt.number}: {wording.shutdown_in_full(shutdown)}"


# --- what they have in common --------------------------------------------------------------------


def swatch(kind: str) -> str:
    """Return a piece of a bar, for the legend."""
    height = _THIN if kind in ("wait", "unknown", "slack") else 12
    return (
        '<svg class="swatch" width="22" height="14" aria-hidden="true">'
        f'<rect class="{kind}" x="1" y="{7 - height / 2:g}" width="20" height="{height}" rx="2"/></svg>'
    )


def swatch_of_mark(kind: str) -> str:
    """Return the shape at an attempt's end, for the legend."""
    return f'<svg class="swatch" width="16" height="14" aria-hidden="true">{_mark(kind, 50, 7)}</svg>'


def swatch_of_sign(kind: str) -> str:
    """Return the sign of a moment in a shutdown, for the legend."""
    return f'<svg class="swatch" width="16" height="18" aria-hidden="true">{_place(kind, 50, 9, _SIGNS[kind])}</svg>'


def patterns() -> str:
    """Return the patterns, once for all charts of a page."""
    return """\
<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>
<pattern id="hatch-wait" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="base" width="5" height="5"/><rect class="stroke" width="2" height="5"/></pattern>
<pattern id="hatch-poll" width="5" height="5" patternUnits="userSpaceOnUse">
<rect class="base" width="5" height="5"/><circle class="stroke" cx="2.5" cy="2.5" r="1.2"/></pattern>
<pattern id="hatch-stop" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
<rect class="base" width="5" height="5"/><rect class="stroke" width="1.6" height="5"/></pattern>
<pattern id="hatch-exit" width="4" height="4" patternUnits="userSpaceOnUse">
<rect class="base" width="4" height="4"/><rect class="stroke" width="1.5" height="4"/></pattern>
<pattern id="hatch-slack" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="stroke" width="1.2" height="6"/></pattern>
</defs></svg>"""


def _svg(parts: Sequence[str], height: float, title: str, described: str, ident: str) -> str:
    head = f'<svg class="chart" height="{height:g}" role="img" aria-labelledby="{ident}-title {ident}-desc">'
    names = f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-desc">{escape(described)}</desc>'
    return "\n".join([head, names, *parts, "</svg>"])


def _axis(axis: Sequence[ticks.Tick], scale: Scale, rows: int, height: float = 0, unit: str = "") -> Iterator[str]:
    bottom = HEAD + rows * PITCH + height
    y = HEAD - 24 if any(tick.below for tick in axis) else HEAD - 11
    for index in range(0, rows, 2):
        yield f'<rect class="stripe" x="0" y="{HEAD + index * PITCH}" width="100%" height="{PITCH}"/>'
    for index, tick in enumerate(axis):
        at = scale.at(tick.at)
        anchor = "start" if at < 3 else "end" if at > 97 else "middle"
        # On a narrow page every other label has to go.
        minor = ' class="minor"' if index % 2 else ""
        yield f'<line class="grid" x1="{at:.3f}%" x2="{at:.3f}%" y1="{HEAD - 6}" y2="{bottom:g}"/>'
        label = tick.label + (unit if index == 0 else "")
        yield f'<text{minor} x="{at:.3f}%" y="{y}" text-anchor="{anchor}">{label}</text>'
        if tick.below:
            yield f'<text class="below" x="{at:.3f}%" y="{HEAD - 11}" text-anchor="{anchor}">{tick.below}</text>'


def _bar(kind: str, span: str, y: float, height: float) -> str:
    return f'<rect class="{kind}" {span} y="{y - height / 2:g}" height="{height}" rx="2"/>'


def _mark(kind: str, at: float, y: float, more: str = "") -> str:
    return _place(f"mark {more}{kind}", at, y, _SHAPES[kind])


def _place(kind: str, at: float, y: float, drawn: str) -> str:
    # A nested svg has its place in percent, and what is in it in pixels.
    return f'<svg class="{kind}" x="{at:.3f}%" y="{y:g}">{drawn}</svg>'
