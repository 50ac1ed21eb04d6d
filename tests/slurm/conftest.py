"""One sandbox for all tests of a run.

With pytest-xdist the first worker that needs it starts it, the others join, and the last to leave ends it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.sandbox import Sandbox, missing

#: Enough for a run with `-n 12`: a test of preemption has a node or two to itself.
NODES = 8


@pytest.fixture(scope="session")
def shared_slurm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    if absent := missing():
        pytest.skip(f"no Slurm on this machine: {', '.join(absent)} not found (hint: bin/test --slurm installs it)")
    # Each worker has a folder of its own in the run's; without pytest-xdist there is only the run's.
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    with join_or_start(folder / "sandbox") as sandbox:
        yield sandbox


def join_or_start(note: Path) -> Sandbox:
    """The sandbox whose folder ``note`` names, or a new one if it has ended."""
    with note.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            return Sandbox.join(Path(file.read()))
        except OSError:
            pass  # nobody has started one, or its last user has left
        sandbox = Sandbox(nodes=NODES)
        sandbox.open()
        file.truncate(0)
        file.write(str(sandbox.root))
        return sandbox


@pytest.fixture
def slurm(shared_slurm: Sandbox) -> Iterator[Sandbox]:
    """The sandbox that all tests share. A test's jobs end with the test; a test that stops daemons starts its own."""
    shared_slurm.submitted.clear()
    yield shared_slurm
    if shared_slurm.submitted:
        shared_slurm.scancel(*shared_slurm.submitted)
