"""What a test leaves behind fails it, and not the next one (tests/leaks.py)."""

from __future__ import annotations

import re

import pytest

from tests.process.launch import ROOT
from tests.process.programs import leaky


def test_each_leak_fails_the_test_that_leaves_it(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ("-p", "tests.leaks", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(ROOT), "-rE")
    result = pytester.runpytest_subprocess(*options, leaky.__file__)
    left = [(name, test.__doc__) for name, test in vars(leaky).items() if name.startswith("test_") and test.__doc__]
    assert len(left) >= 10
    result.assert_outcomes(passed=len(left) + 1, errors=len(left))
    found = re.findall(r"^E +AssertionError: \['(.*)'\]$", result.stdout.str(), re.MULTILINE)
    for (name, expected), seen in zip(left, found, strict=True):
        assert re.match(expected, seen), (name, seen)
