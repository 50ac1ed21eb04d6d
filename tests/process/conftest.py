"""Fixtures of the process tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.handling import run
from tests.process.launch import Launch

__all__ = ["run"]  # a fixture, as those below


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: only with -m slow"))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start kforge-run, as often as wanted; after the test nothing may be left where it keeps what is temporary."""
    launch = Launch(tmp_path)
    yield launch
    launch.close()
    assert not list(launch.tmp.iterdir())


@pytest.fixture
def short_tmpdir() -> Iterator[dict[str, str]]:
    """A TMPDIR that may be left in disorder, as variables: multiprocessing's fork server has a socket in it.

    The address of a socket is limited to 107 bytes (unix(7)), which pytest's own folders leave too little of.
    """
    with tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True) as folder:
        yield {"TMPDIR": folder}
