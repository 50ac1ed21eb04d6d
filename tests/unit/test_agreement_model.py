"""The ranks' agreement holds in every interleaving of agreement_model.py, and the model finds what would break it.

`python -m tests.unit.agreement_model` tries more ranks and steps, for some minutes.
"""

from __future__ import annotations

import pytest

from tests.unit.agreement_model import Setting, explore, story, title

SMALL = [
    *(Setting(offsets, 2) for offsets in ((0, 0), (1, 0), (0, 2))),
    Setting((0, 0), 3, patience_ends=False),
    Setting((0, 0), 1, polls=2, patience_ends=False),
    *(Setting(offsets, 1, delay=2) for offsets in ((0, 0), (2, 0))),
    Setting((0, 0), 2, delay=2, patience_ends=False),
    Setting((0, 0), 1, delay=1, late_reports=True, patience_ends=False),
    Setting((0, 0), 1, buffers=False, take_over="at once"),
]
#: The smallest settings that find them.
MUTANTS = [
    Setting((0, 0), 1, mutant="no ticket"),
    Setting((0, 0), 1, patience_ends=False, mutant="any word heard"),
    Setting((0, 0), 1, patience_ends=False, mutant="no heard"),
    Setting((0, 0), 1, polls=2, patience_ends=False, mutant="HEARD last"),
    Setting((0, 0), 1, patience_ends=False, mutant="at once"),
    # Holding everybody would hide it: S is never reached.
    Setting((0, 0), 1, patience_ends=False, mutant="past above"),
    Setting((0, 0), 1, delay=1, mutant="LET of the page"),
    Setting((0, 0), 1, patience_ends=False, buffers=False, take_over="at once", mutant="own word"),
]


def check(setting: Setting) -> None:
    found = explore(setting)
    assert not found.wrong, story(found.wrong)


@pytest.mark.parametrize("setting", SMALL, ids=title)
def test_all_stop_at_one_step_or_none_does(setting: Setting) -> None:
    check(setting)


@pytest.mark.parametrize("setting", MUTANTS, ids=title)
def test_a_protocol_that_lacks_something_is_found(setting: Setting) -> None:
    assert explore(setting).wrong
    check(setting._replace(mutant=None))


#: That all counts are the same; that the pause is enough for what is in a store buffer.
RELIED_ON = [
    Setting((1, 0), 1, buffers=False, take_over="at once"),
    Setting((0, 0), 1, patience_ends=False, take_over="at once"),
]


@pytest.mark.parametrize("setting", RELIED_ON, ids=title)
def test_to_begin_anew_relies_on_less_than_to_take_over_at_once(setting: Setting) -> None:
    assert explore(setting).disagreement
    check(setting._replace(take_over="anew"))
