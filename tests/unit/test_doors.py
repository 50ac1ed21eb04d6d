"""Which code is a program's own (`bootstrap/inject/doors.py`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kempnerforge.bootstrap.inject import doors

INJECT = Path(doors.__file__).parent


@pytest.mark.parametrize(
    "path",
    [
        doors.__file__,
        str(INJECT / "notice.py"),
        str(INJECT.parent / "site" / "sitecustomize.py"),
        json.__file__,
        "/venv/lib/python3.11/site-packages/torch/nn.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_it_is_not(path: str) -> None:
    """Least of all ours, which is interrupted when a word comes while a handler of it runs."""
    assert not doors.is_own(path)


@pytest.mark.parametrize("path", [__file__, "train.py", "/home/me/bootstrap/train.py"])
def test_it_is(path: str) -> None:
    assert doors.is_own(path)
