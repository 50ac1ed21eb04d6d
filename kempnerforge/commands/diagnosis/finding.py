"""What a diagnosis is made of: findings, and what earlier attempts have shown."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What is wrong.

    Attributes:
        line: where, from 1; 0: nowhere in particular.
        loses: it would lose a run; otherwise it is only worth knowing.
        what: in one sentence.
        cure: what to do, or to write instead.
        is_unclear: whether it would lose a run is not known: `what` begins with "cannot tell".
    """

    line: int
    loses: bool
    what: str
    cure: str
    is_unclear: bool = False


class Past(NamedTuple):
    """What earlier attempts of the job have shown.

    Attributes:
        job: which one needed the longest.
        stop: how long that was, from the notice to the end (s).
        was_killed: it did not come to its end by itself.
        same_command: it ran what the script runs, and not only had the same name.
    """

    job: str
    stop: float
    was_killed: bool
    same_command: bool = True
