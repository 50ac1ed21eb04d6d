"""The report as one page: no script, no network, nothing but what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from ... import __about__
from ...launcher.telling.output import one_line
from . import chart, text, wording
from .story import Extreme, Row, Shutdown, Story

#: Of more attempts than these the chart shows the last ones, and the whole run as a strip. What is legible: a guess.
MOST_BARS = 60
_LAST_BARS = 40
#: All are folded away, so many in one table; and so many a page has at most, the first and the last of them. Guesses.
_FOLD = 500
_FIRST_ROWS, _LAST_ROWS = 1000, 9000
#: Of a command, so many letters (a command line may have a megabyte): a guess.
_LONGEST_COMMAND = 2000

#: Nothing may be loaded and no script run, whatever a job calls itself.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(jobs: Sequence[Story], tasks: Mapping[int, Sequence[Story]], now: float) -> str:
    """Return the page.

    Args:
        jobs: what to show.
        tasks: the tasks of some of them, by their place in `jobs`.
        now: the time (s, epoch).
    """
    title = " · ".join(filter(None, ["kforge report", *(_title(story) for story in jobs[:1])]))
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = [chart.patterns(), "<main>"]
    if not jobs:
        body.append("<h1>No journals</h1>")
    if len(jobs) > 1:
        body += _contents(jobs)
    for index, story in enumerate(jobs):
        body += _job(story, index, tasks.get(index, ()))
    body += [f"<footer>{_footer(now)}</footer>", "</main>"]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{_text(title)}</title>",
            f"<style>\n{css}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(text: str) -> str:
    """Return a text for the page, without control characters."""
    return escape(one_line(text))


def _title(story: Story) -> str:
    label = story.label
    return f"{story.name} ({label})" if story.name else label


def _footer(now: float) -> str:
    made = f"Made {wording.moment(now)} by kforge {__about__.__version__}."
    return f"{_text(made)} Times are those of {wording.zone(now)} and of the nodes' clocks."


def _contents(jobs: Sequence[Story]) -> Iterator[str]:
    yield "<nav>"
    yield "<h1>The latest jobs</h1>"
    yield from _table(
        "jobs",
        ["job", "name", "attempts", "last heard of", "lost between attempts", "how it stands"],
        [
            [
                f'<a href="#job-{index}">{_text(story.label)}</a>',
                f"<bdi>{_text(story.name)}</bdi>",
                f"{len(story.rows):,}",
                wording.moment(story.last.attempt.last_time),
                wording.duration(story.totals.waited),
                _text(wording.in_short(story.last)),
            ]
            for index, story in enumerate(jobs)
        ],
        numbers={2, 4},
    )
    yield "</nav>"


# --- a job ---------------------------------------------------------------------------------------


def _job(story: Story, index: int, tasks: Sequence[Story]) -> Iterator[str]:
    ident = f"job-{index}"
    yield f'<article id="{ident}">'
    yield from _head(story)
    yield from _tiles(story)
    yield from _timeline(story, ident)
    yield from _shutdowns(story, ident)
    if tasks:
        yield "<section>"
        yield "<h2>Tasks</h2>"
        yield from _tasks(tasks)
        yield "</section>"
    yield "</article>"


def _head(story: Story) -> Iterator[str]:
    journal = story.journal
    where = [story.title]
    where += [f"cluster {journal.cluster}"] if journal.cluster else []
    span = f"{wording.moment(story.rows[0].attempt.started)} to {wording.moment(story.last.until)}"
    yield "<header>"
    yield f'<p class="eyebrow">{_text(" · ".join([*where, span]))}</p>'
    yield f"<h1><bdi>{_text(story.name or story.label)}</bdi></h1>"
    now = wording.standing(story) or wording.why(story.last)
    yield f'<p class="standing">{chart.swatch_of_mark(chart.shape(story.last))}<span>{_text(now)}</span></p>'
    if story.command:
        command = wording.command(story.command)
        command = command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}…"
        yield f'<pre class="command">{_text(command)}</pre>'
    for note in text.notes(story):
        yield f'<p class="note">{_text(note)}</p>'
    yield "</header>"


def _tiles(story: Story) -> Iterator[str]:
    totals = story.totals
    longest, least = totals.longest_shutdown, totals.least_slack
    lost = f"between attempts, {_share(totals.waited, totals.span)}" if len(story.rows) > 1 else ""
    if totals.unaccounted:
        lost += f"; {wording.duration(totals.unaccounted)} more not known"
    ran = "" if all(row.ran is None for row in story.rows) else _share(totals.ran, totals.span)
    tiles = [
        ("Attempts", f"{len(story.rows):,}", f"over {wording.duration(totals.span)}"),
        ("Time trained", wording.trained(story), ran or "its end is not known"),
        ("Time lost", wording.duration(totals.waited) if lost else "none", lost),
        ("Longest shutdown", _seconds(longest), _of(longest, "notice to exit")),
        ("Least slack", _seconds(least), _of(least, "left to the deadline")),
        ("Last attempt", *wording.headline(story.last)),
    ]
    yield '<dl class="tiles">'
    for name, figure, beside in tiles:
        said = f'<dd class="figure">{_text(figure)}</dd><dd class="beside">{_text(beside)}</dd>'
        yield f"<div><dt>{name}</dt>{said}</div>"
    yield "</dl>"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%} of the time" if whole > 0 else ""


def _seconds(extreme: Extreme | None) -> str:
    return "none" if extreme is None else f"{extreme.seconds:.1f} s"


def _of(extreme: Extreme | None, what: str) -> str:
    return "" if extreme is None else f"{what}, attempt {extreme.number:,}"


# --- the charts ----------------------------------------------------------------------------------


def _timeline(story: Story, ident: str) -> Iterator[str]:
    rows = story.rows
    yield "<section>"
    yield "<h2>Timeline</h2>"
    shown = rows
    if len(rows) > MOST_BARS:
        shown = rows[-_LAST_BARS:]
        yield f'<p class="lead">The whole run: how much of the time it trained, through {len(rows):,} attempts.</p>'
        yield from _legend(
            [(chart.swatch("train"), "training"), (chart.swatch("wait"), "waiting")]
            + ([(chart.swatch("unknown"), "not known")] if story.totals.unaccounted else [])
            + [(chart.swatch_of_mark("bad"), "failed, killed or no end recorded")]
        )
        yield f'<figure class="wide-plot">{chart.overview(rows, "Share of the time", f"{ident}-overview")}</figure>'
        yield f'<p class="lead">The last {_LAST_BARS} attempts.</p>'
    shapes = {chart.shape(row) for row in shown}
    bars = [("train", "training")]
    bars += [("save", "shutdown")] if any(row.shutdown for row in shown) else []
    bars += [("wait", "waiting for the next attempt")] if any(row.waited for row in shown) else []
    bars += [("unknown", "not known")] if any(row.unaccounted for row in shown) else []
    yield from _legend(
        [(chart.swatch(kind), name) for kind, name in bars]
        + [(chart.swatch_of_mark(kind), name) for kind, name in chart.SHAPES.items() if kind in shapes]
    )
    drawn = chart.timeline(shown, "Attempts over time", f"{ident}-timeline")
    yield from _plot([row.attempt.number for row in shown], drawn, [_row_in_short(row) for row in shown])
    yield from _tables(shown, rows, "attempts", _table_of_attempts)
    yield "</section>"


def _row_in_short(row: Row) -> str:
    ran = "" if row.ran is None else f"{wording.duration(row.ran)}: "
    return f"{ran}{wording.in_short(row)}"


def _shutdowns(story: Story, ident: str) -> Iterator[str]:
    rows = [row for row in story.rows if row.shutdown is not None]
    if not rows:
        return
    lead = "Seconds from the notice to the end of it all; slack is what was left until Slurm would have killed it."
    shown = rows
    if len(rows) > MOST_BARS:
        closest = sorted(range(len(rows)), key=lambda index: _tightness(rows[index]))[:_LAST_BARS]
        shown = [rows[index] for index in sorted(closest)]
        lead += f" These {_LAST_BARS} of {len(rows):,} were the closest to it."
    yield "<section>"
    yield "<h2>Shutdowns</h2>"
    yield f'<p class="lead">{lead}</p>'
    told = [row.shutdown for row in shown if row.shutdown is not None]
    kinds = {kind for shutdown in told for kind, _start, _end in chart.segments(shutdown)}
    entries = [(chart.swatch(kind), name) for kind, name in chart.SEGMENTS.items() if kind in kinds]
    if any(shutdown.deadline is not None for shutdown in told):
        entries += [(chart.swatch("slack"), "slack"), (chart.swatch_of_sign("deadline"), "deadline")]
    if any(shutdown.stages for shutdown in told):
        entries.append((chart.swatch_of_sign("stage"), "SIGTERM, SIGKILL"))
    yield from _legend(entries)
    drawn = chart.shutdowns(shown, "Shutdowns", f"{ident}-shutdowns")
    yield from _plot(
        [row.attempt.number for row in shown], drawn, [wording.shutdown_in_short(shutdown) for shutdown in told]
    )
    yield from _tables(shown, rows, "shutdowns", _table_of_shutdowns)
    yield "</section>"


def _tightness(row: Row) -> tuple[float, float]:
    assert row.shutdown is not None
    slack = row.shutdown.slack
    return (float("inf") if slack is None else slack, -row.shutdown.end)


def _plot(numbers: Sequence[int], drawn: str, words: Sequence[str]) -> Iterator[str]:
    yield '<figure class="plot">'
    # The table below says it all again, for who does not see the chart.
    yield '<ol class="numbers" aria-hidden="true">'
    yield from (f"<li>{number}</li>" for number in numbers)
    yield f"</ol><div>{drawn}</div>"
    yield '<ol class="words" aria-hidden="true">'
    yield from (f'<li title="{_text(told)}">{_text(told)}</li>' for told in words)
    yield "</ol></figure>"


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield '<ul class="legend">'
    yield from (f"<li>{drawn}{name}</li>" for drawn, name in entries)
    yield "</ul>"


# --- the tables ----------------------------------------------------------------------------------

_ATTEMPTS = ["attempt", "why it ended", "started", "ended", "ran", "waited", "progress", "node"]
_SHUTDOWNS = ["attempt", "notice", "first poll", "finish", "exit", "requeued", "slack", "forced"]

TableOf = Callable[[Sequence[Row], str], Iterator[str]]


def _tables(shown: Sequence[Row], rows: Sequence[Row], name: str, table_of: TableOf) -> Iterator[str]:
    """Yield what the chart shows as a table, and where that is not all, all of them, folded away."""
    yield from table_of(shown, name)
    if len(shown) == len(rows):
        return
    yield f"<details><summary>All {len(rows):,} {name}</summary>"
    if (left_out := len(rows) - _FIRST_ROWS - _LAST_ROWS) > 0:
        yield f'<p class="note">{left_out:,} are left out here: kforge report --json has all of them.</p>'
        rows = [*rows[:_FIRST_ROWS], *rows[-_LAST_ROWS:]]
    for begin in range(0, len(rows), _FOLD):
        some = rows[begin : begin + _FOLD]
        numbers = f"{some[0].attempt.number:,} to {some[-1].attempt.number:,}"
        yield f"<details><summary>{numbers}</summary>"
        yield from table_of(some, f"{name} {numbers}")
        yield "</details>"
    yield "</details>"


def _table_of_attempts(rows: Sequence[Row], name: str) -> Iterator[str]:
    yield from _table(name, _ATTEMPTS, [_attempt(row) for row in rows], numbers={4, 5})


def _attempt(row: Row) -> list[str]:
    attempt = row.attempt
    told = _text(wording.why(row))
    return [
        f"{attempt.number}",
        f'<span class="is-bad">{told}</span>' if chart.shape(row) == "bad" or row.standing == "lost" else told,
        wording.exact_moment(attempt.started),
        "-" if attempt.end_time is None else wording.exact_moment(attempt.end_time),
        "?" if row.ran is None else wording.duration(row.ran),
        wording.waited(row),
        wording.progress(row),
        _text(attempt.node),
    ]


def _table_of_shutdowns(rows: Sequence[Row], name: str) -> Iterator[str]:
    told = [_shutdown(row.attempt.number, row.shutdown) for row in rows if row.shutdown is not None]
    yield from _table(name, _SHUTDOWNS, told, numbers={2, 3, 4, 5, 6})


def _shutdown(number: int, shutdown: Shutdown) -> list[str]:
    moments = (shutdown.first_poll, shutdown.finish, shutdown.exit, shutdown.requeued, shutdown.slack)
    forced = wording.forced(shutdown)
    return [
        f"{number}",
        _text(shutdown.signal),
        *map(wording.seconds, moments),
        f'<span class="is-bad">{forced}</span>' if forced else "-",
    ]


def _tasks(tasks: Sequence[Story]) -> Iterator[str]:
    titles = ["task", "node", "attempts", "why it ended", "first poll", "finish", "exit"]
    rows = []
    for story in tasks:
        last = story.last
        moments = (last.shutdown.first_poll, last.shutdown.finish, last.shutdown.exit) if last.shutdown else [None] * 3
        told = [_text(story.journal.task), _text(last.attempt.node), f"{len(story.rows):,}"]
        rows.append([*told, _text(wording.why(last)), *map(wording.seconds, moments)])
    yield '<p class="lead">The last attempt of each; seconds after the notice.</p>'
    yield from _table("tasks", titles, rows, numbers={2, 4, 5, 6})


def _table(name: str, titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> Iterator[str]:
    """Yield a table that scrolls by itself where it is too wide; its first column names the row."""

    def attributes(column: int) -> str:
        if column in numbers:
            return ' class="number"'
        return ' class="prose"' if titles[column] == "why it ended" else ""

    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
    heads = "".join(f'<th scope="col"{attributes(column)}>{title}</th>' for column, title in enumerate(titles))
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for row in rows:
        first, *others = row
        cells = "".join(f"<td{attributes(column)}>{cell}</td>" for column, cell in enumerate(others, 1))
        yield f'<tr><th scope="row">{first}</th>{cells}</tr>'
    yield "</tbody></table></div>"
