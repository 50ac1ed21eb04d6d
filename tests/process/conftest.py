"""Fixtures of the process tests, and what holds after each of them."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.launch import Launch, become_subreaper, descendants, status_of


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: only with -m slow"))


def _open_files() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


#: Names of test files, as they begin.
_OF_RUNNING_PROGRAMS = (
    "test_docs",
    "test_drill",
    "test_launcher_",
    "test_embed_claim",
    "test_embed_fork",
    "test_embed_notice",
)


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test of a running kforge-run leaves no process and no descriptor behind."""
    if not request.path.name.startswith(_OF_RUNNING_PROGRAMS):
        yield
        return
    others, files = set(descendants(os.getpid())), _open_files()
    become_subreaper(True)
    yield
    left = [pid for pid in descendants(os.getpid()) if pid not in others]
    names = [f"{status_of(pid).get('Name')} ({pid}, {status_of(pid).get('State')})" for pid in left]
    _end_all(others)
    become_subreaper(False)
    assert not names
    assert _open_files() == files


def _end_all(others: set[int]) -> None:
    while left := [pid for pid in descendants(os.getpid()) if pid not in others]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@pytest.fixture
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


@pytest.fixture
def launch(_default_signals: None, tmp_path: Path) -> Iterator[Launch]:
    """Start kforge-run, as often as wanted; after the test none of its folders may be left."""
    launch = Launch(tmp_path)
    yield launch
    launch.close()
    assert not list(launch.leftover_folders())


@pytest.fixture
def short_tmpdir() -> Iterator[dict[str, str]]:
    """A TMPDIR that may be left in disorder, as variables: multiprocessing's fork server has a socket in it.

    The address of a socket is limited to 107 bytes (unix(7)), which pytest's own folders leave too little of.
    """
    with tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True) as folder:
        yield {"TMPDIR": folder}
