"""A training script that knows nothing of kforge-run: it saves when it is interrupted. `train.py [TAG]`.

Whoever holds work says `start TAG PID SIGNAL` when it is well under way (the signal is what it saves at without
kforge-run; `-`: there is none), `told TAG` when it hears of the end, and `SAVED TAG` in the end. A helper says
`up NAME`, and whoever notices that it was hurt before the save says `hurt NAME`. All is said on standard output, and in
the file `said` beside this one: some launchers keep the output to themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

SAID = os.path.join(os.path.dirname(os.path.abspath(__file__)), "said")
#: Without a notice the training comes to its end (s).
LONG = 60.0


def say(*words: object) -> None:
    line = (" ".join(map(str, words)) + "\n").encode()
    said = os.open(SAID, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(said, line)
    os.close(said)
    with contextlib.suppress(BrokenPipeError):  # Slurm's SIGTERM ends a `tee`
        os.write(1, line)


def step() -> None:
    """Train a little, as a program does that waits for its GPU for most of the time."""
    enough = time.thread_time() + 0.004
    while time.thread_time() < enough:
        pass
    time.sleep(0.006)


def begin(tag: str, saves_at: str = "INT") -> None:
    """Train for a moment, so that it shows who works, and say that it is under way."""
    enough = time.thread_time() + 0.1
    while time.thread_time() < enough:
        step()
    if saves_at == "INT" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        saves_at = "-"
    say("start", tag, os.getpid(), saves_at)


def work() -> None:
    """Train to the end."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        step()
    say("ENDED")


def save(tag: str) -> None:
    say("told", tag)
    time.sleep(0.3)
    say("SAVED", tag)


def train(tag: str = "run") -> None:
    try:
        begin(tag)
        work()
    except KeyboardInterrupt:
        save(tag)


if __name__ == "__main__":
    train(*sys.argv[1:])
