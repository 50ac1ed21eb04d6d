"""What a poll costs on the quiet path, beside the cheapest thing it could be: an empty method."""

from __future__ import annotations

import statistics
import timeit

from kempnerforge.resilience import ShutdownHandler

CALLS = 100_000
ROUNDS = 25


class _Empty:
    def method(self) -> bool:
        return False


def measure() -> list[tuple[str, float, str]]:
    """Return rows of (what, median, unit). The two are measured in turns, so that noise meets both."""
    handler, empty = ShutdownHandler(), _Empty()
    with handler:
        rounds = [
            (timeit.timeit(empty.method, number=CALLS), timeit.timeit(handler.should_shutdown, number=CALLS))
            for _ in range(ROUNDS)
        ]
    empty_s, poll_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    return [("empty method", empty_s / CALLS * 1e9, "ns"), ("should_shutdown()", poll_s / CALLS * 1e9, "ns")]


if __name__ == "__main__":
    for what, median, unit in measure():
        print(f"{what:20} {median:6.1f} {unit}")
