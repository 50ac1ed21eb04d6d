"""One sandbox for all tests of a run, and one more that tracks processes by cgroups, as nearly every site does.

With pytest-xdist the first worker that needs one starts it, the others join, and the last to leave ends it.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.slurm import roots
from tests.slurm.sandbox import PRIVATE, Sandbox, Tracking, installed_version, missing, no_cgroups
from tests.slurm.tried import Version, only_on, tried, why_not_on

#: Enough for a run with `-n 12`: a test of preemption has a node or two to itself.
NODES = 8
#: What is tried with cgroups too, on the oldest and the newest Slurm, and on one that is not known.
WITH_CGROUPS = ("test_survival.py", "test_bootstrap.py", "test_drill.py", "test_srun.py", "test_shapes.py")


def _is_in_between(version: Version) -> bool:
    known = sorted(map(roots.numbers, roots.RELEASES))
    return version in known[1:-1]


TRACKED = [
    pytest.param("linuxproc", marks=tried("`ProctrackType=proctrack/linuxproc`")),
    pytest.param(
        "cgroup",
        marks=[
            tried("`ProctrackType=proctrack/cgroup`"),
            only_on(
                lambda version: not _is_in_between(version), "with cgroups the oldest and the newest Slurm will do"
            ),
        ],
    ),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "slurm" in metafunc.fixturenames and metafunc.definition.path.name in WITH_CGROUPS:
        metafunc.parametrize("slurm", TRACKED, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("only_on") and not missing() and (why := why_not_on(installed_version(), item)):
        pytest.skip(why)


@pytest.fixture(scope="session")
def shared_slurm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    yield from shared(request, tmp_path_factory, "linuxproc")


@pytest.fixture(scope="session")
def shared_slurm_with_cgroups(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sandbox]:
    yield from shared(request, tmp_path_factory, "cgroup")


def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tracking: Tracking
) -> Iterator[Sandbox]:
    """Start or join the run's sandbox of this kind."""
    if absent := missing():
        pytest.skip(f"no Slurm on this machine: {', '.join(absent)} not found (hint: bin/test --slurm installs it)")
    if tracking == "cgroup" and (why := no_cgroups()):
        pytest.skip(why)
    # Each worker has a folder of its own in the run's; without pytest-xdist there is only the run's.
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    with join_or_start(folder / f"sandbox-{tracking}", tracking) as sandbox:
        yield sandbox


def join_or_start(note: Path, tracking: Tracking = "linuxproc") -> Sandbox:
    """The sandbox whose folder ``note`` names, or a new one if it has ended."""
    with note.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            return Sandbox.join(Path(file.read()))
        except OSError:
            pass  # nobody has started one, or its last user has left
        sandbox = Sandbox(nodes=NODES, process_tracking=tracking)
        sandbox.open()
        file.truncate(0)
        file.write(str(sandbox.root))
        return sandbox


@pytest.fixture
def slurm(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The sandbox that all tests share. A test's jobs end with the test; a test that stops daemons starts its own."""
    cgroups = getattr(request, "param", "linuxproc") == "cgroup"
    sandbox: Sandbox = request.getfixturevalue("shared_slurm_with_cgroups" if cgroups else "shared_slurm")
    sandbox.submitted.clear()
    yield sandbox
    if sandbox.submitted:
        sandbox.scancel(*sandbox.submitted)


@pytest.fixture(scope="session")
def everywhere() -> Iterator[Path]:
    """An installation that every node has: none is where each node has a folder of its own, as this checkout may be."""
    folder = Path(tempfile.mkdtemp(prefix=".kforge-test-", dir=Path.home()))
    if any(private in folder.parents for private in PRIVATE):
        folder.rmdir()
        pytest.skip(f"{Path.home()} is below a folder that each node has of its own")
    (folder / "bin").mkdir()
    for package in ("click", "psutil"):
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, folder / package)
    shutil.copytree(roots.CHECKOUT / "kempnerforge", folder / "kempnerforge")
    text = (roots.CHECKOUT / "bin" / "kforge-run").read_text()
    script = folder / "bin" / "kforge-run"
    script.write_text(text.replace("#!/usr/bin/env python3", f"#!{Path(sys.executable).resolve()}", 1))
    script.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
