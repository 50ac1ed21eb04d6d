"""What the bootstrap costs a Python program, beside one without it, and how soon a polling loop has the notice."""

from __future__ import annotations

import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from kempnerforge.bootstrap import contract
from kempnerforge.bootstrap.site import sitecustomize
from kempnerforge.launcher.meeting import inject
from kempnerforge.launcher.meeting.private_folder import PrivateFolder

from . import rows
from .installation import Installation
from .startup import run
from .subject import PROGRAMS, Subject

STARTS, QUICK_STARTS = 300, 40
START_LIMITS = {"not for it": 0.3, "armed": 0.5}  # ms
FORKS, FORK_ROUNDS, QUICK_FORK_ROUNDS = 200, 15, 4
FORK_LIMIT = 1.35
IMPORTS, QUICK_IMPORTS = 9, 3
CALLS_LIMIT = 20
NOTICES, QUICK_NOTICES = 30, 6
CHECKS = 10_000
CHECKS_LIMIT = 30.0  # µs
POLL_LIMIT = 2.0  # ms, one rank, the median
RANKS = 8
RANKS_LIMIT = 10.0  # ms, the last of them, the median
CHECKPOINTED = 85

#: Longer than all that kforge-run and its ranks do at the start (s).
_SETTLED = 0.5


def measure(installation: Installation, quick: bool) -> list[rows.Row]:
    """Return the rows. This process stands for kforge-run: the folder is its own, and it lives."""
    folder = PrivateFolder("/dev/shm", select.poll(), set())
    try:
        inject.install_bootstrap(folder)
        environments = _environments(installation, folder)
        found = [_checks(folder)]
        found += _starts(installation.python, environments, QUICK_STARTS if quick else STARTS)
        found += _imports(environments, QUICK_IMPORTS if quick else IMPORTS)
        found += _forks(installation.python, environments, QUICK_FORK_ROUNDS if quick else FORK_ROUNDS)
    finally:
        folder.remove()
    notices = QUICK_NOTICES if quick else NOTICES
    found.append(_polls(installation, 1, notices, POLL_LIMIT))
    found.append(_polls(installation, RANKS, max(notices // 3, 3), RANKS_LIMIT))
    return found


def _environments(installation: Installation, folder: PrivateFolder) -> dict[str, dict[str, str]]:
    """Return the environments of a Python without the bootstrap, and of each kind that finds it."""
    bare = installation.environment
    not_for_it = {**bare, "PYTHONPATH": inject.find_site(os.environ)}
    armed = {**not_for_it, contract.CONTROL_VARIABLE: contract.control_address(folder.path)}
    return {"bare": bare, "not for it": not_for_it, "armed": armed}


def _checks(folder: PrivateFolder) -> rows.Row:
    """Return what an armed Python pays for asking whose the private folder is."""
    open_folder: Any = sitecustomize.open_folder  # its syntax is Python 2.7's, which has no types
    started = time.perf_counter()
    for _ in range(CHECKS):
        os.close(open_folder(folder.path))
    took = (time.perf_counter() - started) / CHECKS * 1e6
    return rows.at_most("whose the private folder is, asked once", took, "us", CHECKS_LIMIT)


def _starts(python: str, environments: dict[str, dict[str, str]], count: int) -> list[rows.Row]:
    times: dict[str, list[float]] = {kind: [] for kind in environments}
    for number in range(-2, count):  # the first fill the page cache
        for kind, environment in environments.items():
            took = run([python, "-c", ""], environment)
            if number >= 0:
                times[kind].append(took)
    median = {kind: statistics.median(column) * 1e3 for kind, column in times.items()}
    return [
        rows.extra(f"Python start, {kind}", median[kind], median["bare"], "bare start", "ms", limit)
        for kind, limit in START_LIMITS.items()
    ]


def _imports(environments: dict[str, dict[str, str]], count: int) -> list[rows.Row]:
    if find_spec("torch") is None:
        return [rows.absent("import torch", "torch")]
    command = [sys.executable, "-c", "import torch"]
    times: dict[str, list[float]] = {"bare": [], "armed": []}
    for number in range(-1, count):
        for kind, column in times.items():
            took = run(command, environments[kind])
            if number >= 0:
                column.append(took)
    median = {kind: statistics.median(column) * 1e3 for kind, column in times.items()}
    found = [rows.ratio("import torch, armed", median["armed"], median["bare"], "bare", "ms")]
    if not shutil.which("strace"):
        return [*found, rows.absent("import torch, armed: system calls", "strace")]
    start = [sys.executable, "-c", ""]
    calls = {
        kind: min(_calls(command, environments[kind]) - _calls(start, environments[kind]) for _ in range(3))
        for kind in times
    }
    what = "import torch, armed: system calls of the main thread"
    return [*found, rows.extra(what, calls["armed"], calls["bare"], "bare", "", CALLS_LIMIT)]


def _calls(command: list[str], environment: dict[str, str]) -> int:
    """Return how many system calls the main thread makes."""
    traced = subprocess.run(
        ["strace", "-q", "-o", "/dev/stdout", *command], env=environment, capture_output=True, check=True
    )
    return traced.stdout.count(b"\n")


def _forks(python: str, environments: dict[str, dict[str, str]], rounds: int) -> list[rows.Row]:
    times: dict[str, list[float]] = {"bare": [], "armed": []}
    command = [python, str(PROGRAMS / "forks.py")]
    pipe = subprocess.PIPE
    running = {
        kind: subprocess.Popen(command, env=environments[kind], stdin=pipe, stdout=pipe, text=True) for kind in times
    }
    for number in range(-1, rounds):
        for kind, process in running.items():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{FORKS}\n")
            process.stdin.flush()
            took = float(process.stdout.readline()) / 1e3
            if number >= 0:
                times[kind].append(took)
    for process in running.values():
        process.communicate()
    median = {kind: statistics.median(column) for kind, column in times.items()}
    return [rows.ratio("fork and wait, armed", median["armed"], median["bare"], "bare", "us", FORK_LIMIT)]


def _polls(installation: Installation, ranks: int, count: int, limit: float) -> rows.Row:
    """Return how long it takes from the notice until `should_shutdown()` is True in the last of some ranks."""
    latencies = []
    start = f"for i in $(seq {ranks}); do {installation.python} {PROGRAMS / 'poller.py'} & done; wait"
    for _ in range(count):
        subject = Subject(installation, "bash", "-c", start)
        for _rank in range(ranks):
            subject.line()
        time.sleep(_SETTLED)
        sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        os.kill(subject.pid, signal.SIGUSR1)
        latencies.append(max(int(subject.line()[1]) - sent for _rank in range(ranks)) / 1e6)
        if (status := subject.wait()) != CHECKPOINTED:
            raise RuntimeError(f"after a notice: expected exit status {CHECKPOINTED}, got {status}")
        subject.close()
    who = "should_shutdown()" if ranks == 1 else f"the last of {ranks} should_shutdown()"
    return rows.at_most(f"notice to {who}, median of {count}", statistics.median(latencies), "ms", limit)
