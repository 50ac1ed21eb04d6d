"""A process below kforge-run that does too much of anything costs nobody else their notice."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.process.launch import ROOT, Launch, status_of

CHECKPOINTED = 85
FLOOD = Path(__file__).parent / "programs/flood.py"
#: What all of it may cost at most (kB). A kforge-run has some 16,000.
MOST_MEMORY = 25_000
#: kforge-run's own descriptors, besides one or two for each connection.
MOST_DESCRIPTORS = 4096 * 2 + 64


def activity(pid: int) -> int:
    status = status_of(pid)
    return int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])


@pytest.mark.parametrize("way", ["messages", "connections", "descriptors", "news"])
def test_a_flood(launch: Launch, way: str) -> None:
    run = launch(sys.executable, str(FLOOD), way, variables={"PYTHONPATH": str(ROOT)})
    run.says("flooded")
    run.says("ready")
    before = activity(run.pid)
    while before != (now := activity(run.pid)):  # what it was sent is worked off
        before = now
        time.sleep(0.2)
    assert int(status_of(run.pid)["VmRSS"].split()[0]) < MOST_MEMORY
    assert len(os.listdir(f"/proc/{run.pid}/fd")) < MOST_DESCRIPTORS
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    assert all(line.isprintable() for line in run.own_lines)


def test_a_flood_of_signals(launch: Launch) -> None:
    """100,000 a second, before the one that counts."""
    code = (
        "import os, signal, sys\n"
        "for _ in range(100_000): os.kill(os.getppid(), signal.SIGURG)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    children = ROOT / "tests/process/children.py"
    run = launch(sys.executable, "-c", code, str(children), "cooperate", variables={"PYTHONPATH": str(ROOT)})
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
