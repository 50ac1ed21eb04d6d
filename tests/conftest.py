"""What holds for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The first is for the test of the second.
pytest_plugins = ("pytester", "tests.leaks", "tests.digest")

SLURM_TESTS = Path(__file__).parent / "slurm"
#: Slurm's shortest time limit is one minute, and a job that was requeued runs twice.
SLURM_TIMEOUT = 300  # s


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLURM_TESTS in item.path.parents:
            item.add_marker("slurm")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SLURM_TIMEOUT))


@pytest.fixture(autouse=True)
def _default_signals() -> Iterator[None]:
    """Have children start with default dispositions, also where pytest runs under nohup or in the background."""
    ignored = [
        signum
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
        if signal.getsignal(signum) is signal.SIG_IGN
    ]
    for signum in ignored:
        signal.signal(signum, signal.SIG_DFL)
    yield
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
