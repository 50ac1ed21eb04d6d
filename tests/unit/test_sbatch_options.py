"""sbatch's options as kforge reads them. tests/slurm/test_template.py shows that sbatch reads them in the same way."""

from __future__ import annotations

import math

import pytest

from kempnerforge.commands.batch import sbatch_options
from kempnerforge.commands.batch.sbatch_options import Lead, Option
from kempnerforge.commands.trouble import Trouble


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--time=5"], [Option("time", "5")]),
        (["--time", "5"], [Option("time", "5")]),
        (["-t", "5"], [Option("time", "5")]),
        (["-t5"], [Option("time", "5")]),
        (["-Ht5"], [Option("hold"), Option("time", "5")]),
        (["-k"], [Option("no-kill")]),
        (["--exclusive"], [Option("exclusive")]),
        (["--exclusive=user"], [Option("exclusive", "user")]),
        (["--partit=gpu"], [Option("partition", "gpu")]),
        (["--tasks-per-node=4"], [Option("ntasks-per-node", "4")]),
        (["--comment="], [Option("comment", "")]),
        (["--of-a-newer-slurm=1"], [Option("of-a-newer-slurm", "1")]),
        (["--time"], [Option("time")]),
    ],
)
def test_options_are_read_as_sbatch_reads_them(words: list[str], expected: list[Option]) -> None:
    assert sbatch_options.parse(words) == (expected, [])


def test_an_ambiguous_beginning_is_left_to_sbatch() -> None:
    assert sbatch_options.parse(["--tim=8"]) == ([Option("tim", "8")], [])


@pytest.mark.parametrize("word", ["train.py", "-", "-j"])
def test_what_is_no_option_is_told_apart(word: str) -> None:
    assert sbatch_options.parse(["--requeue", word]) == ([Option("requeue")], [word])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("1:2:3", 3723),
        ("1-0", 86400),
        ("1-2:3", 93780),
        ("2-0:0:1", 172801),
        ("90:00", 5400),
        ("0", math.inf),
        ("-1", math.inf),
        ("UNLIMITED", math.inf),
        ("inf", math.inf),
    ],
)
def test_a_time_limit(value: str, seconds: float) -> None:
    assert sbatch_options.minutes_and_more(value) == seconds


@pytest.mark.parametrize("value", ["", "soon", "1:2:3:4", "1h", "1-", "1.5"])
def test_what_is_no_time_limit_is_refused(value: str) -> None:
    with pytest.raises(Trouble, match="is not a time limit"):
        sbatch_options.minutes_and_more(value)


@pytest.mark.parametrize(
    ("value", "lead"),
    [
        ("B:USR1@120", Lead(True, "USR1", 120)),
        ("b:sigusr1@120", Lead(True, "USR1", 120)),
        ("RB:10@60", Lead(True, "10", 60)),
        ("USR1", Lead(False, "USR1", 60)),
        ("R:TERM@9", Lead(False, "TERM", 9)),
    ],
)
def test_a_lead(value: str, lead: Lead) -> None:
    assert sbatch_options.lead(value) == lead


def test_which_signals_kforge_run_requeues_after() -> None:
    assert [sbatch_options.lead(f"B:{name}").is_notice for name in ("USR1", "10", "TERM", "INT", "USR2")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("value", ["B@60", "B:USR1@1:00", "B:USR1@70000", "", "B:USR1@"])
def test_what_is_no_lead_is_refused(value: str) -> None:
    with pytest.raises(Trouble, match="--signal="):
        sbatch_options.lead(value)
