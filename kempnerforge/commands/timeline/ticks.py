"""Where an axis has its ticks, and what is written there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Between two ticks of a time axis: parts of a day (s), days, months, years.
_IN_A_DAY = (1, 2, 5, 10, 15, 30, *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)), *(_HOUR * n for n in (1, 2, 3, 6, 12)))
_DAYS = (1, 2, 7, 14)
_MONTHS = (1, 2, 3, 6)
_YEARS = tuple(digit * 10**power for power in range(4) for digit in (1, 2, 5))
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Tick(NamedTuple):
    """A place on an axis, what is written there, and what is written below that where it has changed."""

    at: float
    label: str
    below: str = ""


def of_time(start: float, end: float, most: int) -> list[Tick]:
    """Return ticks at round local times.

    Args:
        start: where the axis begins (s, epoch).
        end: where it ends.
        most: how many there may be, more or less.
    """
    widest = (end - start) / most
    for step in _IN_A_DAY:
        if step >= widest:
            layouts = ("%H:%M:%S" if step < _MINUTE else "%H:%M", "day")
            return _labelled(_in_days(start, end, step), start, end, *layouts)
    for days in _DAYS:
        if days * _DAY >= widest:
            return _labelled(_of_days(start, end, days), start, end, "day", "%Y")
    for months in (*_MONTHS, *(12 * years for years in _YEARS)):
        if months * 28 * _DAY >= widest or months == 12 * _YEARS[-1]:
            layouts = ("month", "%Y") if months < 12 else ("%Y", "")
            return _labelled(_of_months(start, end, months), start, end, *layouts)
    raise AssertionError("the last step is taken in any case")


def of_seconds(end: float, most: int) -> list[Tick]:
    """Return ticks at round numbers from 0 on.

    Args:
        end: where the axis ends (s).
        most: how many there may be, more or less.
    """
    step = nice(end / most)
    digits = max(0, -math.floor(math.log10(step)))
    return [Tick(step * n, f"{step * n:.{digits}f}") for n in range(math.floor(end / step + 1e-9) + 1)]


def nice(value: float) -> float:
    """Return the next round number that is not less: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * (1 - 1e-9))


# --- local times, without their zone: `timestamp` puts each where it is on the clock ---------------


def _in_days(start: float, end: float, step: int) -> Iterator[datetime]:
    midnight = datetime.fromtimestamp(start).replace(hour=0, minute=0, second=0, microsecond=0)
    first = math.floor((start - midnight.timestamp()) / step)
    for number in range(first, first + math.ceil((end - start) / step) + 2):
        yield midnight + timedelta(seconds=number * step)


def _of_days(start: float, end: float, days: int) -> Iterator[datetime]:
    first = datetime.fromtimestamp(start).toordinal()
    for ordinal in range(first - (first - 1) % days, datetime.fromtimestamp(end).toordinal() + 1, days):
        yield datetime.fromordinal(ordinal)  # with 7 it is a Monday: 1 was one


def _of_months(start: float, end: float, months: int) -> Iterator[datetime]:
    first, last = datetime.fromtimestamp(start), datetime.fromtimestamp(end)
    begin = first.year * 12 + first.month - 1
    for number in range(begin - begin % months, last.year * 12 + last.month, months):
        if number >= 12:
            yield datetime(number // 12, number % 12 + 1, 1)


def _labelled(moments: Iterator[datetime], start: float, end: float, layout: str, below: str) -> list[Tick]:
    ticks: list[Tick] = []
    told = ""
    for moment in moments:
        at = moment.timestamp()
        if not start <= at <= end or (ticks and at <= ticks[-1].at):
            continue
        context = _written(moment, below)
        ticks.append(Tick(at, _written(moment, layout), context if context != told else ""))
        told = context
    return ticks


def _written(moment: datetime, layout: str) -> str:
    if layout == "day":
        return f"{moment.day} {_NAMES[moment.month - 1]}"
    return _NAMES[moment.month - 1] if layout == "month" else moment.strftime(layout)
