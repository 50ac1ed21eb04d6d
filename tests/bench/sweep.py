"""What a child leaves behind: how long after its end kforge-run is gone, and all of that with it."""

from __future__ import annotations

import statistics
import subprocess
import time

from . import rows
from .installation import Installation
from .subject import PROGRAMS, Subject

PROCESSES = 2000
ROUNDS = 5
QUICK_ROUNDS = 1
LIMIT = 1.0  # s
#: Given to those that ignore SIGTERM (s).
GRACE = 1.0


def measure(installation: Installation, quick: bool) -> list[rows.Row]:
    """Return the rows. The three take turns, so that noise meets all of them."""
    ending, ignoring, straight = [], [], []
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        ending.append(_sweep(installation))
        ignoring.append(_sweep(installation, "ignoring") - GRACE)
        straight.append(_straight(installation))
    scale = f"{statistics.median(straight):.3g} s kill and wait for each"
    what = f"sweep of {PROCESSES:,}"
    return [
        rows.at_most(f"{what} that end on SIGTERM", statistics.median(ending), "s", LIMIT, scale),
        rows.at_most(f"{what} that ignore it, less the grace", statistics.median(ignoring), "s", LIMIT, scale),
    ]


def _sweep(installation: Installation, *words: str) -> float:
    """Return the time from the child's end to kforge-run's (s)."""
    child = (installation.python, str(PROGRAMS / "leftovers.py"), str(PROCESSES), *words)
    subject = Subject(installation, *child, options=("--term-grace", str(GRACE)))
    _left, at = subject.line()
    subject.wait()
    took = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(at)
    if not subject.everybody_left():
        raise RuntimeError("expected nobody to be left when kforge-run has ended, but somebody is")
    subject.close()
    return took / 1e9


def _straight(installation: Installation) -> float:
    """Return what it costs the kernel: SIGKILL to each of them and wait (s)."""
    command = [installation.python, str(PROGRAMS / "leftovers.py"), str(PROCESSES), "straight"]
    answer = subprocess.run(command, env=installation.environment, capture_output=True, text=True, check=True)
    _took, nanoseconds = answer.stdout.split()
    return int(nanoseconds) / 1e9
