"""What CI prints at its very end about the tests that failed (tests/digest.py)."""

from __future__ import annotations

import pytest

from tests import digest

TEST = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no room")

def test_of_slurm():
    steps = "".join(f"step {n}\\n" for n in range(300))
    raise RuntimeError(
        "waited 90 s for the end\\n" + steps + "kforge-run 01:02:03 the child died of SIGTERM\\n" + "--- slurmd.log\\n"
        + "kforge-run of a log\\n" * 100
    )

def test_passes():
    pass

def test_cannot_begin(broken):
    pass
"""


def test_each_test_that_failed_has_a_few_lines(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pytester.path / "failed"
    monkeypatch.setenv(digest.VARIABLE, str(file))
    pytester.makepyfile(TEST)
    pytester.runpytest_inprocess("-p", "tests.digest", "-p", "no:cacheprovider")
    assert file.read_text().splitlines() == [
        "test_each_test_that_failed_has_a_few_lines.py::test_of_slurm (call)",
        "  RuntimeError: waited 90 s for the end",
        "  kforge-run 01:02:03 the child died of SIGTERM",
        "test_each_test_that_failed_has_a_few_lines.py::test_cannot_begin (setup)",
        "  OSError: no room",
    ]
