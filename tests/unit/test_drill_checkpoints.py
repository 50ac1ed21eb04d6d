"""What was written between two looks at a checkpoint: real files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kempnerforge.commands.rehearsal import checkpoints


def change(path: Path, text: str = "new") -> None:
    """Write a file anew, as a save does that replaces it in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("being-made")
    partial.write_text(text)
    partial.replace(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "before", "after", "problem"),
    [
        ("run.pt", [], ["run.pt"], None),
        ("run.pt", ["run.pt"], ["run.pt"], None),
        ("run.pt", [], [], "there is nothing at run.pt"),
        ("run.pt", ["run.pt"], [], "nothing was written to run.pt after the notice"),
        ("run.pt", [], ["run.pt.partial"], "there is nothing at run.pt, only run.pt.partial"),
        ("run.pt", [], ["run.pt", "run.pt.tmp"], "run.pt.tmp was left half-written"),
        ("run.pt", [], ["run.pt", "run.pt.tmp.4711"], "run.pt.tmp.4711 was left half-written"),
        ("run.pt", ["run.pt", "run.pt.partial"], ["run.pt"], None),
        ("run.pt", [], ["run.pt", "run.pt.bak", "other.tmp"], None),
        ("*.pt", ["a.pt"], ["b.pt"], None),
        ("*.pt", ["a.pt"], ["b.pt", "b.pt.part"], "b.pt.part was left half-written"),
        ("*.pt", ["a.pt"], [], "nothing was written to *.pt after the notice"),
        ("runs/**/*.pt", [], ["runs/1/step-7/a.pt"], None),
        ("runs", ["runs/1/a.pt"], ["runs/2/a.pt"], None),
        ("runs", ["runs/1/a.pt"], ["runs/2/a.pt", "runs/tmp-3/a.pt"], "runs/tmp-3/a.pt was left half-written"),
        ("runs", ["runs/1/a.pt"], [], "nothing was written to runs after the notice"),
        ("[1].pt", ["1.pt"], ["[1].pt"], None),
        ("model-part-00001-of-2.bin", [], ["model-part-00001-of-2.bin"], None),
    ],
)
def test_what_was_written(place: Path, pattern: str, before: list[str], after: list[str], problem: str | None) -> None:
    for name in before:
        change(place / name, "old")
    first = checkpoints.look(pattern)
    for name in after:
        change(place / name)
    found = checkpoints.written(pattern, first, checkpoints.look(pattern))
    assert found.problem == problem


def test_an_empty_file_is_no_checkpoint_but_may_be_a_mark(place: Path) -> None:
    nothing = checkpoints.look("run.pt")
    change(place / "run.pt", "")
    assert checkpoints.written("run.pt", nothing, checkpoints.look("run.pt")).problem == "run.pt is empty"
    change(place / "run/weights")
    change(place / "run/complete", "")
    assert checkpoints.written("run", nothing, checkpoints.look("run")).problem is None
    change(place / "marks/complete", "")
    assert checkpoints.written("marks", nothing, checkpoints.look("marks")).problem == "marks/complete is empty"


def test_how_much_was_written_and_when(place: Path) -> None:
    first = checkpoints.look("run")
    for name, modified in (("a", 100), ("b", 200)):
        change(place / "run" / name, "12345")
        os.utime(place / "run" / name, (modified, modified))
    found = checkpoints.written("run", first, checkpoints.look("run"))
    assert (found.files, found.size, found.at) == (2, 10, 200.0)


def test_a_link_to_the_latest_checkpoint(place: Path) -> None:
    change(place / "step-1/weights")
    (place / "latest").symlink_to("step-1")
    first = checkpoints.look("latest")
    change(place / "step-2/weights", "other")
    (place / "latest").unlink()
    (place / "latest").symlink_to("step-2")
    assert checkpoints.written("latest", first, checkpoints.look("latest")).problem is None


def test_a_file_that_was_rewritten_in_place(place: Path) -> None:
    path = place / "run.pt"
    path.write_text("old")
    os.utime(path, (100, 100))
    first = checkpoints.look("run.pt")
    path.write_text("new")
    assert checkpoints.written("run.pt", first, checkpoints.look("run.pt")).problem is None
