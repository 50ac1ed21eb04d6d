"""`kforge-run true`, from exec to the end, beside what else a user would start."""

from __future__ import annotations

import os
import statistics
import time
from typing import NamedTuple

from . import rows
from .installation import Installation

ROUNDS = 60
QUICK_ROUNDS = 12
#: torchrun takes seconds, so only every so many rounds.
SLOW_EVERY = 12

IMPORT_CLICK_LIMIT = 1.35
SUBMITIT_LIMIT = 1 / 2
TORCHRUN_LIMIT = 1 / 25


class _Reference(NamedTuple):
    name: str
    #: None: not installed.
    command: list[str] | None
    #: What kforge-run may take of its time; None: for scale.
    limit: float | None = None
    slow: bool = False


def measure(installation: Installation, quick: bool, torchrun: str | None) -> list[rows.Row]:
    """Return the rows. All commands take turns, so that noise meets all of them."""
    python, find = installation.python, installation.find
    submitit = [python, "-c", "import submitit.core._submit"] if installation.has("submitit") else None
    torch = torchrun or find("torchrun", "--help")
    tini, dumb_init = find("tini", "-s", "true"), find("dumb-init", "true")
    references = [
        _Reference('python -c "import click"', [python, "-c", "import click"], IMPORT_CLICK_LIMIT),
        _Reference("submitit.core._submit", submitit, SUBMITIT_LIMIT),
        _Reference("torchrun", [torch, "--no-python", "true"] if torch else None, TORCHRUN_LIMIT, slow=True),
        # As a container's init runs: a subreaper (-s), with a process group for the child (-g).
        _Reference("tini", [tini, "-s", "-g", "true"] if tini else None),
        _Reference("dumb-init", [dumb_init, "true"] if dumb_init else None),
    ]
    commands = {"kforge-run": [installation.kforge_run, "true"]}
    commands.update((reference.name, reference.command) for reference in references if reference.command)
    slow = {reference.name for reference in references if reference.slow}

    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-1, QUICK_ROUNDS if quick else ROUNDS):
        for name, command in commands.items():
            if name in slow and number not in (-1, 0) and number % SLOW_EVERY:
                continue
            took = run(command, installation.environment)
            if number >= 0:  # the first only fills the page cache
                times[name].append(took)

    median = {name: statistics.median(column) * 1e3 for name, column in times.items()}
    return [
        rows.ratio(
            "kforge-run true", median["kforge-run"], median[reference.name], reference.name, "ms", reference.limit
        )
        if reference.command
        else rows.absent("kforge-run true", reference.name)
        for reference in references
    ]


def run(command: list[str], environment: dict[str, str]) -> float:
    """Return how long a command takes (s)."""
    # torchrun warns of its redirects, and what nobody reads may as well go nowhere.
    actions = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environment, file_actions=actions)
    _pid, status = os.waitpid(pid, 0)
    took = time.perf_counter() - started
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}: expected exit status 0, got {os.waitstatus_to_exitcode(status)}")
    return took
