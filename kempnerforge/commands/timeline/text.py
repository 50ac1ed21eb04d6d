"""The report in the terminal: aligned, and legible at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ...launcher.telling.output import one_line
from . import wording
from .story import Row, Shutdown, Story

#: Puts a text into a colour, or leaves it as it is.
Paint = Callable[[str, str], str]

#: Of more attempts than all these together only the first and the last are shown. Guesses.
_FIRST, _LAST = 5, 25
#: Between two columns, and what the last one has at least, and names and labels have at most (columns): guesses.
_GAP = "  "
_LEAST = 16
_LONGEST_NAME = 20
_LONGEST_LABEL = 24


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: above it.
        side: to which side its texts are moved; `fold`: it takes the rest of the width, in several lines if need be;
            `fit`: it takes the rest, and is cut.
    """

    title: str
    side: Literal["left", "right", "fold", "fit"] = "left"


_JOBS = (
    Column("job"),
    Column("name"),
    Column("attempts", "right"),
    Column("last heard of"),
    Column("lost", "right"),
    Column("how it stands", "fit"),
)
_ATTEMPTS = (
    Column("#", "right"),
    Column("started"),
    Column("ran", "right"),
    Column("waited", "right"),
    Column("progress"),
    Column("why it ended", "fold"),
)
_SHUTDOWNS = (
    Column("#", "right"),
    Column("notice"),
    Column("first poll", "right"),
    Column("finish", "right"),
    Column("exit", "right"),
    Column("requeued", "right"),
    Column("slack", "right"),
)
_TASKS = (
    Column("task"),
    Column("node"),
    Column("attempts", "right"),
    Column("first poll", "right"),
    Column("finish", "right"),
    Column("exit", "right"),
    Column("its last attempt", "fit"),
)


def jobs(stories: Sequence[Story], width: int, paint: Paint) -> Iterator[str]:
    """Yield one line for each job.

    Args:
        width: of the terminal, in columns.
        paint: for emphasis.
    """
    rows = [
        [
            wording.fit(story.label, _LONGEST_LABEL),
            wording.fit(story.name, _LONGEST_NAME) or "-",
            f"{len(story.rows)}",
            wording.moment(story.last.attempt.last_time),
            wording.duration(story.totals.waited) if len(story.rows) > 1 else "-",
            wording.in_short(story.last),
        ]
        for story in stories
    ]
    colours = [_colour(story.last) for story in stories]
    yield from _table(_JOBS, rows, width, paint, colours)


def job(story: Story, width: int, paint: Paint, *, everything: bool) -> Iterator[str]:
    """Yield all about one job.

    Args:
        width: of the terminal, in columns.
        paint: for emphasis.
        everything: all attempts, however many.
    """
    journal = story.journal
    title = [story.title, one_line(story.name)]
    title += [
        f"cluster {one_line(journal.cluster)}" if journal.cluster else "",
        f"times in {wording.zone(story.last.until)}",
    ]
    yield paint(wording.fit("  ".join(part for part in title if part), width), "bold")
    if story.command:
        yield wording.fit(wording.command(story.command), width)
    yield from (paint(line, "yellow") for note in notes(story) for line in wording.fold(note, width))
    shown, left_out = _shown(story.rows, everything)
    yield ""
    yield from _attempts(shown, left_out, width, paint)
    if any(row and row.shutdown for row in shown):
        yield ""
        yield "shutdowns, in seconds after the notice; slack is what was left to the deadline"
        yield from _shutdowns(shown, left_out, width, paint)
    yield ""
    if (standing := wording.standing(story)) != "":
        yield from wording.fold(f"now: {standing}", width)
    yield from wording.fold(wording.sum_up(story), width)


def tasks(stories: Sequence[Story], width: int, paint: Paint) -> Iterator[str]:
    """Yield one line for each task of a job's steps: its last attempt, with seconds after the notice."""
    yield "tasks of the job's steps, their last attempts, in seconds after the notice"
    rows = []
    for story in stories:
        last = story.last
        moments = (last.shutdown.first_poll, last.shutdown.finish, last.shutdown.exit) if last.shutdown else [None] * 3
        node = wording.fit(last.attempt.node, _LONGEST_NAME) or "-"
        figures = [wording.seconds(moment) for moment in moments]
        rows.append([story.journal.task, node, f"{len(story.rows)}", *figures, wording.in_short(story.last)])
    yield from _table(_TASKS, rows, width, paint, [_colour(story.last) for story in stories])


def notes(story: Story) -> Iterator[str]:
    """Yield what to know of the journal itself."""
    journal = story.journal
    if journal.unread:
        yield f"the journal is too long: its first {journal.unread / 1e6:,.1f} MB were not read"
    if journal.forgotten:
        yield f"{wording.plural(journal.forgotten, 'earlier attempt')} left out: there are too many"
    if journal.unreadable:
        yield f"{wording.plural(journal.unreadable, 'line')} of the journal cannot be read: passed over"
    if journal.newer:
        lines = wording.plural(journal.unknown, "line")
        yield f"a newer kforge-run wrote some of this journal: {lines} not understood (hint: update kforge-run)"
    if story.older:
        attempts = wording.plural(story.older, "attempt")
        yield f"{attempts} of an older job with the same number left out"


# --- the tables ----------------------------------------------------------------------------------


def _attempts(rows: Sequence[Row | None], left_out: str, width: int, paint: Paint) -> Iterator[str]:
    cells = [
        None
        if row is None
        else [
            f"{row.attempt.number}",
            wording.moment(row.attempt.started),
            "?" if row.ran is None else wording.duration(row.ran),
            wording.waited(row),
            wording.progress(row),
            wording.why(row),
        ]
        for row in rows
    ]
    yield from _table(_ATTEMPTS, cells, width, paint, [row and _colour(row) for row in rows], left_out)


def _shutdowns(rows: Sequence[Row | None], left_out: str, width: int, paint: Paint) -> Iterator[str]:
    shown = [row for row in rows if row is None or row.shutdown is not None]
    forced = any(row.shutdown.stages for row in shown if row and row.shutdown)
    cells = [row and row.shutdown and _figures(row.attempt.number, row.shutdown, forced=forced) for row in shown]
    columns = (*_SHUTDOWNS, Column("forced", "fold")) if forced else _SHUTDOWNS
    yield from _table(columns, cells, width, paint, [row and _colour(row) for row in shown], left_out)


def _figures(number: int, shutdown: Shutdown, *, forced: bool) -> list[str]:
    moments = (shutdown.first_poll, shutdown.finish, shutdown.exit, shutdown.requeued, shutdown.slack)
    stages = wording.forced(shutdown)
    figures = [f"{number}", wording.fit(shutdown.signal, 9), *map(wording.seconds, moments)]
    return [*figures, stages] if forced else figures


def _colour(row: Row) -> str:
    if row.forced or row.attempt.unsaved or row.standing == "lost" or row.attempt.outcome == "failed":
        return "red"
    return "green" if row.attempt.outcome in ("completed", "checkpointed") else "yellow"


def _table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str] | None],
    width: int,
    paint: Paint,
    colours: Sequence[str | None],
    left_out: str = "",
) -> Iterator[str]:
    """Yield the lines of a table; for a row that is None, `left_out`.

    Args:
        width: of the terminal, in columns.
        colours: for each row, of the text in its last column.
    """
    titles = [column.title for column in columns]
    widths = [max(wording.cells(row[index]) for row in (titles, *filter(None, rows))) for index in range(len(columns))]
    if columns[-1].side in ("fold", "fit"):
        widths[-1] = max(width - sum(widths[:-1]) - len(_GAP) * (len(columns) - 1), _LEAST)
    yield paint(_line(columns, titles, widths), "bright_black")
    for row, colour in zip(rows, colours, strict=True):
        if row is None:
            yield left_out
            continue
        *others, last = row
        lines = wording.fold(last, widths[-1]) if columns[-1].side == "fold" else [last]
        if columns[-1].side == "fit":
            lines = [wording.fit(last, widths[-1])]
        for number, text in enumerate(lines):
            texts = others if number == 0 else [""] * len(others)
            start = _line(columns[:-1], texts, widths[:-1], keep=True)
            end = _line(columns[-1:], [text], widths[-1:])
            painted = paint(end, colour) if end and colour and columns[-1].side != "right" else end
            yield f"{start}{_GAP}{painted}".rstrip()


def _line(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int], *, keep: bool = False) -> str:
    """Return one line of a table.

    Args:
        keep: keep the spaces at its end.
    """
    padded = []
    for column, text, cells in zip(columns, texts, widths, strict=True):
        space = " " * (cells - wording.cells(text))
        padded.append(space + text if column.side == "right" else text + space)
    line = _GAP.join(padded)
    return line if keep else line.rstrip()


# --- which attempts ------------------------------------------------------------------------------


def _shown(rows: Sequence[Row], everything: bool) -> tuple[list[Row | None], str]:
    """Return the rows to show, None where some are left out, and what to say there."""
    if everything or len(rows) <= _FIRST + _LAST + 1:
        return list(rows), ""
    left_out = len(rows) - _FIRST - _LAST
    return [*rows[:_FIRST], None, *rows[-_LAST:]], f"… {left_out:,} more attempts (--all shows them)"
