"""`should_shutdown()` as a row, and what it leaves allocated."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from itertools import repeat

from kempnerforge.resilience import ShutdownHandler

from . import rows, should_shutdown

CALLS = 100_000
LIMIT = 100.0  # ns, from Python 3.11 on


def measure() -> list[rows.Row]:
    """Return the rows."""
    (_, empty, unit), (what, poll, _) = should_shutdown.measure()
    with ShutdownHandler() as handler:
        blocks, traced = _left_allocated(handler.should_shutdown)
    return [
        rows.at_most(what, poll, unit, LIMIT, f"{empty:.3g} {unit} empty method"),
        rows.at_most(f"{what} x {CALLS:,}: blocks left", blocks, "", 0),
        rows.at_most(f"{what} x {CALLS:,}: traced memory left", traced, "B", 0),
    ]


def _left_allocated(call: Callable[[], object]) -> tuple[int, int]:
    """Return how many blocks, and bytes by tracemalloc, are left after many calls."""
    gc.collect()
    gc.disable()
    try:
        _growth(call, CALLS, sys.getallocatedblocks)  # what the interpreter keeps of the loop itself
        # What is left after one call is what looking takes.
        blocks = _growth(call, CALLS, sys.getallocatedblocks) - _growth(call, 1, sys.getallocatedblocks)
        tracemalloc.start()
        call()  # the count that stands is seen from here on
        traced = _growth(call, CALLS, _traced) - _growth(call, 1, _traced)
        tracemalloc.stop()
    finally:
        gc.enable()
    return blocks, traced


def _growth(call: Callable[[], object], times: int, level: Callable[[], int]) -> int:
    before = level()
    for _ in repeat(None, times):
        call()
    return level() - before


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]
