"""What is tried on which Slurm. The marks of the tests say it, and the table in the README is made of them:

python -m tests.slurm.tried    # writes it
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm import roots

README = roots.CHECKOUT / "README.md"
#: In the README, around the table.
_PLACE = re.compile(r"(?<=<!-- python -m tests\.slurm\.tried -->\n).*?(?=<!-- until here -->\n)", re.DOTALL)
Version = tuple[int, int]


def tried(what: str) -> pytest.MarkDecorator:
    """A mark: a row of the table."""
    return pytest.mark.tried(what)


def only_on(fits: Callable[[Version], bool], why: str) -> pytest.MarkDecorator:
    """A mark: on other Slurms the test is skipped, and there is nothing in the table.

    Args:
        fits: whether a version can be asked this.
        why: the others cannot.
    """
    return pytest.mark.only_on(fits, why)


def why_not_on(version: Version, item: pytest.Item) -> str | None:
    """Why a test says nothing of a Slurm; None: it does."""
    for mark in item.iter_markers("only_on"):
        fits, why = mark.args
        if not fits(version):
            return str(why)
    return None


class _Collected:
    """A plugin that keeps what pytest has found."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def table() -> str:
    """The table, of the tests as they are."""
    collected = _Collected()
    listing = ["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={roots.CHECKOUT}"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([*listing, str(Path(__file__).parent)], plugins=[collected])
    assert status == pytest.ExitCode.OK, said.getvalue()
    rows: dict[str, list[pytest.Item]] = {}
    for item in collected.items:
        for mark in item.iter_markers("tried"):
            rows.setdefault(mark.args[0], []).append(item)
    versions = sorted(roots.RELEASES, key=roots.numbers)
    lines = [["tried on Slurm", *versions], ["---"] * (1 + len(versions))]
    for what, items in rows.items():
        is_on = (any(why_not_on(roots.numbers(version), item) is None for item in items) for version in versions)
        lines.append([what, *("yes" if yes else "-" for yes in is_on)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(readme: str) -> str:
    """A README's text, with the table in its place."""
    assert _PLACE.search(readme), "the README has no place for the table"
    return _PLACE.sub(table().replace("\\", r"\\"), readme)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
