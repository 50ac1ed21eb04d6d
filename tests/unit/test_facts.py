"""Facts: each can be told in the log, and read back from a journal, also from an old one."""

from __future__ import annotations

import json
import typing
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.policy import facts
from kempnerforge.launcher.telling.journal import encode
from kempnerforge.launcher.telling.wording import Line, line_of

JOURNALED = get_args(facts.Journaled)
#: A journal as the first version wrote it, with a value in each field.
OLD: dict[str, dict[str, Any]] = {
    "start": {
        "command": ["python", "train.py"],
        "version": "0.1.0",
        "place": "batch",
        "name": "pretrain",
        "array_task": "7_1",
        "node": "n1",
    },
    "armed": {"pid": 9, "program": "train.py"},
    "registered": {"pid": 9, "program": "train.py", "timeout": 600.0},
    "polled": {"pid": 9, "stop": False},
    "notice": {"signal": "SIGUSR1", "sender": "slurmstepd (pid 7)"},
    "reason": {"reason": "time_limit"},
    "stage": {"stage": "terminate"},
    "finished": {"pid": 9},
    "exit": {"status": -9},
    "requeue": {"because": "forced after time_limit", "job": "7_1"},
    "continued": {"stopped_for": 3.5},
    "status": {"pid": 9, "text": "epoch 3"},
    "end": {
        "outcome": "forced",
        "reason": "time_limit",
        "requeued": True,
        "because": "requeued",
        "status": 0,
        "restarts": 2,
        "progress": True,
        "retried": False,
        "shutdown": 1.5,
        "slack": 0.25,
    },
}


#: Values as kforge-run writes them: times to the millisecond.
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    type(None): st.none(),
    str: st.text(max_size=30),
    bool: st.booleans(),
    int: st.integers(-(10**6), 10**6),
    float: st.integers(-(10**9), 10**9).map(lambda thousandths: thousandths / 1000),
    list[str]: st.lists(st.text(max_size=5), max_size=3),
    list[int]: st.lists(st.integers(0, 10**6), max_size=3),
}


def drawn(kind: type[facts.Journaled]) -> st.SearchStrategy[facts.Journaled]:
    hints = typing.get_type_hints(kind)
    fields = {name: st.one_of(*map(VALUES.get, parts(hint))) for name, hint in hints.items()}  # type: ignore[arg-type]
    return st.builds(kind, **fields)


def parts(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one that it is."""
    return (hint,) if hint in VALUES else get_args(hint)


def test_every_journaled_fact_has_a_name_of_its_own() -> None:
    assert set(facts.EVENTS) == set(JOURNALED)
    assert len(set(facts.EVENTS.values())) == len(JOURNALED)


def test_names_that_journals_have_stay() -> None:
    assert set(OLD) <= set(facts.EVENTS.values())


@settings(deadline=None)
@given(st.one_of(*map(drawn, JOURNALED)))
def test_what_is_written_is_read(fact: facts.Journaled) -> None:
    line = json.loads(encode(fact, 1_795_600_000.0, {"job": "7", "attempt": "1-1"}))
    assert facts.read(line, strict=True) == fact


@pytest.mark.parametrize("event", OLD)
def test_an_old_journal_is_read(event: str) -> None:
    fact = facts.read({"event": event, **OLD[event]}, strict=True)
    assert fact is not None
    assert {name: getattr(fact, name) for name in OLD[event]} == OLD[event]


@pytest.mark.parametrize("event", OLD)
def test_a_field_that_cannot_be_read_counts_as_not_told(event: str) -> None:
    line: dict[str, Any] = {"event": event, **{key: {"no": "value"} for key in OLD[event]}}
    assert facts.read(line) == facts.read({"event": event})
    with pytest.raises(ValueError, match="cannot be read"):
        facts.read(line, strict=True)


@pytest.mark.parametrize("line", [{}, {"event": None}, {"event": ["end"]}, {"event": "of a newer version"}])
def test_what_is_no_fact_that_we_know(line: dict[str, Any]) -> None:
    assert facts.read(line, strict=True) is None


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        (facts.StageBegan("terminate"), Line("warning", "still running: stack dump and SIGTERM")),
        (facts.StageBegan("kill"), Line("warning", "still running: SIGKILL")),
        (facts.Polled(5, True, True, 1.04), Line("info", "first poll by pid 5, 1.0 s after the notice: saving")),
        (facts.Polled(5, True, True), Line("info", "first poll by pid 5: saving")),
        (facts.Polled(5, False), None),
        (facts.ChildEnded(-9, 3.0), Line("info", "the child died of SIGKILL, 3.0 s after the notice")),
        (facts.ChildEnded(7, 3.0), Line("info", "the child exited with 7, 3.0 s after the notice")),
        (facts.ChildEnded(7), None),
        (facts.ReasonFound("time_limit"), Line("info", "reason: time limit")),
        (facts.HandedOn("x", False), Line("info", "delivered to x")),
        (facts.HandedOn("x", True), Line("detail", "delivered to x")),
        (facts.MoreTimeAsked(5, 9.0, 9.0), Line("info", "pid 5 asks for 9 s to save: granted")),
        (facts.MoreTimeAsked(5, 9.0, 8.0), Line("info", "pid 5 asks for 9 s to save: 8 s are all there is")),
        (facts.TimeLeft(30.0, True), Line("info", "30 s left to save, end and requeue")),
        (facts.TimeLeft(30.0, False), Line("info", "30 s left to save and end")),
        (facts.Decided(True, "requeued", None), Line("info", "requeued")),
        (facts.Decided(False, "it failed", 7), Line("info", "the child exited with 7; not requeued: it failed")),
    ],
)
def test_sentences(fact: facts.Fact, line: Line | None) -> None:
    assert line_of(fact) == line
