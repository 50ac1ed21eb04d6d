"""Trains in a process of multiprocessing's, and waits for it. `process.py WAY METHOD`."""

from __future__ import annotations

import multiprocessing
import sys

import train


def join() -> None:
    process = multiprocessing.Process(target=train.train)
    process.start()
    process.join()
    sys.exit(process.exitcode)


def joins_with_timeout() -> None:
    """It looks again and again, as torch's spawn does."""
    process = multiprocessing.Process(target=train.train)
    process.start()
    while process.exitcode is None:
        process.join(0.1)
    sys.exit(process.exitcode)


def reads_results() -> None:
    """It waits for a result in a queue."""
    results: multiprocessing.SimpleQueue[str] = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=trains_for, args=(results,))
    process.start()
    assert results.get() == "result"
    process.join()
    sys.exit(process.exitcode)


def trains_for(results: multiprocessing.SimpleQueue[str]) -> None:
    train.train()
    results.put("result")


def nested() -> None:
    process = multiprocessing.Process(target=join)
    process.start()
    process.join()
    sys.exit(process.exitcode)


def ranks() -> None:
    """Two ranks; the parent only waits."""
    processes = [multiprocessing.Process(target=train.train, args=(f"rank{rank}",)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    globals()[sys.argv[1]]()
