"""A world of three ranks, rank 0 in the parent, that save together. `worlds.py WAY METHOD`."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

import train

RANKS = 3
#: Longer than a rank waits for the others (s).
PATIENCE = 12.0


def rank(number: int) -> None:
    try:
        train.begin(f"rank{number}")
        train.work()
    except KeyboardInterrupt:
        train.say(f"told rank{number}")
        meet(number)
        time.sleep(0.3)
        train.say(f"SAVED rank{number}")


def meet(number: int) -> None:
    """Wait for all others, as a save does that gathers what the ranks have."""
    open(f"here.{number}", "w").close()
    end = time.monotonic() + PATIENCE
    while not all(os.path.exists(f"here.{other}") for other in range(RANKS)):
        if time.monotonic() > end:
            sys.exit(f"rank {number} waits for the others in vain")
        time.sleep(0.005)


def processes() -> None:
    others = [multiprocessing.Process(target=rank, args=(number,)) for number in range(1, RANKS)]
    for other in others:
        other.start()
    rank(0)
    for other in others:
        other.join()


def programs() -> None:
    """As Lightning does without torchrun: the script starts itself once more for each rank."""
    others = []
    if "LOCAL_RANK" not in os.environ:
        for number in range(1, RANKS):
            variables = {**os.environ, "LOCAL_RANK": str(number), "RANK": str(number)}
            others.append(subprocess.Popen([sys.executable, *sys.argv], env=variables))
        os.environ.update(LOCAL_RANK="0", RANK="0")
    rank(int(os.environ["LOCAL_RANK"]))
    for other in others:
        other.wait()


if __name__ == "__main__":
    if sys.argv[2:]:
        multiprocessing.set_start_method(sys.argv[2])
    globals()[sys.argv[1]]()
