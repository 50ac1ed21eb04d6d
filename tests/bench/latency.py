"""From `kill` to the child being signalled: through kforge-run, and straight."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from typing import NamedTuple

from . import rows
from .installation import Installation
from .subject import Receiver

PAIRS = 1000
QUICK_PAIRS = 100
#: A notice comes once in a run, so each takes a new kforge-run.
NOTICES = 50
QUICK_NOTICES = 8
TOGETHER = 10

MEDIAN_LIMIT = 1.0  # ms
PERCENTILE_LIMIT = 5.0  # ms, at the 99th percentile
CHECKPOINTED = 85

#: Longer than all that kforge-run does when its child has started (s).
_SETTLED = 0.4


class _Latencies(NamedTuple):
    straight: list[float]
    handed_on: list[float]


def measure(installation: Installation, quick: bool) -> list[rows.Row]:
    """Return the rows."""
    found = []
    pairs, notices = (QUICK_PAIRS, QUICK_NOTICES) if quick else (PAIRS, NOTICES)
    for kind in ("plain", "cooperative"):
        found += _rows(f"SIGUSR2 to {kind} child", _forwarded(installation, kind, pairs))
        found += _rows(f"notice to {kind} child", _notices(installation, kind, notices))
    return found


def _rows(what: str, latencies: _Latencies) -> list[rows.Row]:
    straight = statistics.median(latencies.straight)
    handed_on = latencies.handed_on
    name = "straight kill"
    high = statistics.quantiles(handed_on, n=100, method="inclusive")[98]
    return [
        rows.extra(f"{what}, median", statistics.median(handed_on), straight, name, "ms", MEDIAN_LIMIT),
        rows.extra(f"{what}, p99 of {len(handed_on):,}", high, straight, name, "ms", PERCENTILE_LIMIT),
    ]


def _forwarded(installation: Installation, kind: str, pairs: int) -> _Latencies:
    """Send SIGUSR2, which is passed on as it is, to the child and to kforge-run in turns."""
    latencies = _Latencies([], [])
    subject = Receiver(installation, kind)
    time.sleep(_SETTLED)
    for _ in range(pairs):
        # Both are asleep again, and neither is met at a fixed beat.
        time.sleep(random.uniform(0.001, 0.004))
        latencies.straight.append(_latency(subject, subject.child, signal.SIGUSR2))
        time.sleep(random.uniform(0.001, 0.004))
        latencies.handed_on.append(_latency(subject, subject.pid, signal.SIGUSR2))
    subject.stop()
    return latencies


def _notices(installation: Installation, kind: str, count: int) -> _Latencies:
    """Give each of many kforge-runs its one notice; a signal straight to the same child goes before it."""
    latencies = _Latencies([], [])
    while len(latencies.handed_on) < count:
        started = [Receiver(installation, kind) for _ in range(min(TOGETHER, count - len(latencies.handed_on)))]
        time.sleep(_SETTLED)
        for subject in started:
            latencies.straight.append(_latency(subject, subject.child, signal.SIGUSR2))
            latencies.handed_on.append(_latency(subject, subject.pid, signal.SIGUSR1))
            status = subject.wait()
            subject.close()
            if status != CHECKPOINTED:
                raise RuntimeError(f"after a notice: expected exit status {CHECKPOINTED}, got {status}")
    return latencies


def _latency(subject: Receiver, pid: int, signum: int) -> float:
    """Signal a process and return how long it was until the child had the signal (ms)."""
    sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.kill(pid, signum)
    received, at = subject.line()
    if int(received) != signum:
        raise RuntimeError(f"expected signal {signum} to arrive, got {received}")
    return (int(at) - sent) / 1e6
