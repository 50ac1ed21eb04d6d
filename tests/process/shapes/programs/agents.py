"""Starts things and hands signals on, each in its own way. `agents.py KIND [COMMAND...]`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time


def two_ranks(**how: bool) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [sys.executable, "train.py", f"rank{rank}"],
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **how,  # type: ignore[call-overload]
        )
        for rank in range(2)
    ]


def deadline(**how: bool) -> None:
    """An elastic agent that nobody has on a list: at SIGTERM or Ctrl-C its ranks get 0.1 s, less than they need."""
    ranks = two_ranks(**how)

    def told(signum: int, _: object) -> None:
        raise RuntimeError(f"told by signal {signum}")

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    try:
        while any(rank.poll() is None for rank in ranks):
            time.sleep(0.05)
    finally:
        for rank in ranks:
            rank.terminate()
        time.sleep(0.1)
        for rank in ranks:
            rank.kill()


def deadline_sessions() -> None:
    """The same, with a session for each rank, as torchrun has it."""
    deadline(start_new_session=True)


def one_fails_all_fail() -> None:
    """An agent without a handler, which kills all ranks as soon as one has ended with an error."""
    ranks = two_ranks()
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            for rank in ranks:
                rank.kill()
            sys.exit(1)
        time.sleep(0.05)


def forward(*command: str) -> None:
    """What `conda run` and its like do: start, hand signals on, wait, and end alike."""
    child = subprocess.Popen(command)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: child.send_signal(signum))
    sys.exit(child.wait())


def ignore(*command: str) -> None:
    """Ignore Ctrl-C, which a terminal gives to the child as well, and wait."""
    child = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(child.wait())


def ranked() -> None:
    """Be one of torchrun's ranks."""
    from train import train

    train(f"rank{os.environ['RANK']}")


def becomes(*command: str) -> None:
    """What `poetry run` does."""
    os.execvp(command[0], command)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
