"""Ranks that stop together, without any library: `ranks.py SIZE KIND [WORLD]`.

Each says `RANK begins PID`, and in the end `RANK saved STEP`, or `RANK completes`. Between two polls each waits for all
others (a barrier, as every collective is one), unless they are `free`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from typing import Any

from kempnerforge.resilience import ShutdownHandler

LONG = 100_000
#: After so many steps it is well under way.
BEGUN = 20
STEP = 0.004  # s


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def train(rank: int, kind: str, world: str, barrier: Any) -> None:
    handler = ShutdownHandler(timeout_sec=30, world=world)
    handler.register()
    if kind == "polls_in_a_fork" and rank == 0:
        handler.should_shutdown()
        poll_in_a_fork(handler)
    for step in range(1, LONG):
        time.sleep(random.random() * STEP)
        if kind in ("even", "late", "polls_in_a_fork"):
            barrier.wait()
        if step == BEGUN:
            say(rank, "begins", os.getpid())
        if kind == "late" and rank == 0 and step >= BEGUN:
            time.sleep(0.3)
        stop = handler.should_shutdown()
        if stop:
            if kind == "one_dies" and rank == 1:
                os.kill(os.getpid(), 9)
            say(rank, "saved", step)
            handler.finish()
            return
        if kind == "one_completes" and rank == 1 and step == 50 * BEGUN:
            say(rank, "completes")
            return


def poll_in_a_fork(handler: ShutdownHandler) -> None:
    pid = os.fork()
    if not pid:
        for _ in range(1000):
            handler.should_shutdown()
        os._exit(0)
    os.waitpid(pid, 0)


def main(size: str, kind: str, world: str = "test") -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(int(size))
    ranks = [context.Process(target=train, args=(rank, kind, world, barrier)) for rank in range(int(size))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
