"""Kinds of training loops with real ranks (gloo), each of which comes to one step at a notice: a few trials of each.

`python -m tests.process.ranks.trials` makes fifty of each.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.process.launch import ROOT

pytestmark = [
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed (hint: bin/test --frameworks)"),
    pytest.mark.timeout(600),
]
PROGRAMS = [
    "even",
    "flag_all_reduced",
    "accumulation",
    "one_polls_for_all",
    "one_evaluates",
    "one_polled_once_more",
    "one_is_busy_before_its_poll",
    "one_is_late_and_has_polled_more",
    "one_is_out_of_data",
    "own_count_at_uneven_polls",
    "nested_loops",
    "saves_in_the_background",
    "pipeline",
    "one_has_no_handler",
    "two_more_threads_poll",
    "a_second_group",
]
#: To import torch takes longer than a trial, and so several are made by one process.
BATCHES = 4


def trials(*arguments: str) -> tuple[str, str]:
    command = [sys.executable, "-m", "tests.process.ranks.trials", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_ranks_stop_at_one_step_in_every_kind_of_loop(batch: int) -> None:
    programs = PROGRAMS[batch::BATCHES]
    said, errors = trials("--trials", "2", *programs)
    kept = dict(re.findall(r"^(\w+) +kept (\d+) of 2 ", said, re.MULTILINE))
    assert kept == dict.fromkeys(programs, "2"), said + errors
