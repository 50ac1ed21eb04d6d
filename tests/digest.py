"""Say once more, in a few lines each, which tests have failed and why (a plugin of pytest).

The log of CI is long, and may be seen cut: .ci/run prints the file that this writes at its very end.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

VARIABLE = "KFORGE_FAILED_TESTS"
#: Not for those whom a test starts, nor for pytest-xdist's workers: who has started them sees what they see.
_FILE = pytest.StashKey[str | None]()
#: How many lines tell of one test, and how many characters of each.
LINES, WIDTH = 8, 130
#: Who speaks in a job's output when something goes wrong.
_TELLING = re.compile(r"kforge-run |Error|slurmstepd:|srun:|sbatch:|times ")
#: Where the daemons' logs begin (tests/slurm/sandbox.py).
_LOGS = re.compile(r"^--- \S+\.log$", re.MULTILINE)


def digest(message: str) -> list[str]:
    """Return the first line of a failure's message, and the last ones of those that tell why."""
    said = _LOGS.split(message)[0].splitlines() or [""]
    telling = [line for line in said[1:] if _TELLING.search(line)]
    return [line[:WIDTH] for line in (said[0], *telling[1 - LINES :])]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FILE] = os.environ.pop(VARIABLE, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    file = config.stash[_FILE]
    if file is None:
        return
    reports = [report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, ())]
    with Path(file).open("a") as digests:
        for report in reports:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = report.longreprtext if crash is None else crash.message
            digests.write("\n  ".join([f"{report.nodeid} ({report.when})", *digest(message)]) + "\n")
