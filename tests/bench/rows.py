"""What the table says: rows in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

HEADINGS = ("what", "measured", "reference", "ratio", "limit", "ok")


class Row(NamedTuple):
    """One line of the table; every cell but the last is text already."""

    what: str
    measured: str
    reference: str = ""
    #: Measured over reference, or by how much it is more.
    ratio: str = ""
    limit: str = ""
    #: None: for scale only, or there was nothing to compare with.
    ok: bool | None = None


def ratio(what: str, measured: float, reference: float, name: str, unit: str, limit: float | None = None) -> Row:
    """Return a row whose limit is a multiple of the reference; None: it is there for scale."""
    times = measured / reference
    return Row(
        what,
        quantity(measured, unit),
        f"{quantity(reference, unit)} {name}",
        f"{times:.3g}",
        "" if limit is None else f"{limit:.3g}",
        None if limit is None else times <= limit,
    )


def extra(what: str, measured: float, reference: float, name: str, unit: str, limit: float | None = None) -> Row:
    """Return a row whose limit is what it may take more than the reference; None: it is there for scale."""
    more = measured - reference
    return Row(
        what,
        quantity(measured, unit),
        f"{quantity(reference, unit)} {name}",
        f"{more:+.3g} {unit}",
        "" if limit is None else f"+{limit:g} {unit}",
        None if limit is None else more <= limit,
    )


def at_most(what: str, measured: float, unit: str, limit: float, reference: str = "") -> Row:
    """Return a row with a limit of its own; `reference` is there for scale."""
    return Row(what, quantity(measured, unit), reference, "", quantity(limit, unit), measured <= limit)


def absent(what: str, missing: str) -> Row:
    """Return a row for what could not be measured or compared here."""
    return Row(what, "", f"{missing}: not installed")


def quantity(number: float, unit: str) -> str:
    """Return a number that the eye can compare: three digits, and no more of them than are meant."""
    return f"{number:,.0f} {unit}" if number >= 100 or number == int(number) else f"{number:.3g} {unit}"


def render(rows: Sequence[Row]) -> str:
    """Return the table."""
    verdicts = {True: "yes", False: "NO", None: ""}
    lines = [HEADINGS, *((*row[:5], verdicts[row.ok]) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])
