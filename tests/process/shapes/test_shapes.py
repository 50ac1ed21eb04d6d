"""Every launch shape of the table, below a real kforge-run: the notice reaches whoever holds the work."""

from __future__ import annotations

import os

import pytest

from tests import leaks
from tests.process.handling import PYTHON
from tests.process.launch import Launch, wait_until
from tests.process.pythons import VERSIONS, python_of_version
from tests.process.shapes.table import SHAPES, WRAPPED, Shape
from tests.process.shapes.trial import Trial, unsaved, why_not_here

#: They take minutes, and all of two processors.
pytestmark = pytest.mark.slow

#: In the environment when the table has been changed.
CHECK = "KFORGE_CHECK_SHAPES"
#: What depends on the Python below.
ON_EVERY_PYTHON = """
alone cooperative wrapper_run_checked process_join_spawn pool_worker_fork helper_evaluation_run door_sigterm
door_asyncio_sigterm door_sigterm_waited_for
"""

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def _skip_where_missing(shape: Shape) -> None:
    if why := why_not_here(shape):
        pytest.skip(why)


@every_shape
def test_who_holds_the_work_saves(launch: Launch, short_tmpdir: dict[str, str], shape: Shape) -> None:
    """With one notice."""
    _skip_where_missing(shape)
    _try(launch, short_tmpdir, shape, ["one notice"])


@every_shape
def test_who_holds_the_work_saves_though_slurm_signals_everybody(
    launch: Launch, short_tmpdir: dict[str, str], shape: Shape
) -> None:
    """With Slurm's own SIGTERM after the notice, to the child or to all; and with nothing but that one."""
    _skip_where_missing(shape)
    names = []
    if not shape.late and not shape.dies_of_sigterm:
        names += ["SIGTERM to all, too"]
        if shape.name in WRAPPED:
            names += ["SIGTERM to the child, too"]
    if shape.without_lead:
        names += ["SIGTERM to all, and no notice"]
    _try(launch, short_tmpdir, shape, names)


@pytest.mark.parametrize("version", [version for version in VERSIONS if tuple(map(int, version.split("."))) >= (3, 8)])
@pytest.mark.parametrize("name", ON_EVERY_PYTHON.split())
def test_on_every_python(launch: Launch, short_tmpdir: dict[str, str], name: str, version: str) -> None:
    python = python_of_version(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    (shape,) = (shape for shape in SHAPES if shape.name == name)
    _try(launch, short_tmpdir, shape, ["one notice", "SIGTERM to all, and no notice"], python)


def _try(launch: Launch, short_tmpdir: dict[str, str], shape: Shape, names: list[str], python: str = PYTHON) -> None:
    trials: dict[str, Trial] = {}
    try:
        for number, name in enumerate(names):
            trials[name] = Trial(launch, shape, str(number), short_tmpdir["TMPDIR"], python=python)
        for trial in trials.values():
            trial.begins()
        for name, trial in trials.items():
            if name == "SIGTERM to all, and no notice":
                trial.slurm_alone()
            else:
                trial.notice()
        waiting = {name: trial for name, trial in trials.items() if name.endswith("too")}
        while waiting:
            wait_until(lambda: any(trial.slurm_is_due for trial in waiting.values()))
            for name in [name for name, trial in waiting.items() if trial.slurm_is_due]:
                waiting.pop(name).slurm_follows(to_all="to all" in name)
        faults = [f"{name}: {fault}" for name, trial in trials.items() for fault in trial.faults()]
    finally:
        for trial in trials.values():
            trial.end()
    assert not faults, "\n".join(faults)


@pytest.mark.skipif(CHECK not in os.environ, reason=f"it tests the table, and not kforge-run: {CHECK}=1")
@every_shape
def test_the_shape_itself_saves_when_its_holders_are_told_by_hand(
    launch: Launch, short_tmpdir: dict[str, str], shape: Shape
) -> None:
    """Without kforge-run: what the test above finds lost is not the shape's own fault."""
    _skip_where_missing(shape)
    others = leaks.children()
    trial = Trial(launch, shape, "0", short_tmpdir["TMPDIR"], supervised=False)
    try:
        trial.begins()
        if trial.tell_holders() and not shape.late:
            wait_until(lambda: trial.is_over or not unsaved(shape, trial.said))
            assert not unsaved(shape, trial.said), (trial.said, trial.log)
    finally:
        trial.end()
        leaks.end_all(others)  # nobody sweeps
