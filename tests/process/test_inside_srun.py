"""What a kforge-run is told that another one has put into an srun. Real sruns: tests/slurm/test_srun.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process.launch import Launch

SETTINGS = {"timeout": 3.0, "term_grace": 1.0, "inject": True, "command_in_journal": True, "verbosity": "verbose"}
VARIABLES = {"KFORGE_CONTROL": "", "KFORGE_JOB_FACTS": ""}


def test_its_argument_counts_and_no_variable(launch: Launch) -> None:
    given = json.dumps({"settings": {**SETTINGS, "journal": None}, "variables": VARIABLES})
    run = launch("--inner", given, "sh", "-c", 'echo "$# $1"; exit 7', "sh", "a  b", variables={"KFORGE_QUIET": "1"})
    run.says("1 a  b")
    run.ends(7)
    assert any("started sh (pid " in line for line in run.own_lines)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "{",
        "7",
        "[]",
        "{}",
        json.dumps({"settings": SETTINGS}),
        json.dumps({"settings": {**SETTINGS, "colour": 1}, "variables": VARIABLES}),
        json.dumps({"settings": 3, "variables": VARIABLES}),
    ],
)
def test_an_argument_that_is_none_of_ours(launch: Launch, given: Any) -> None:
    run = launch("--inner", given, "echo", "it runs")
    run.ends(125)
    assert "--inner is for kforge-run itself" in run.log
    assert "Traceback" not in run.log
