"""A batch script: its #SBATCH lines read, set and added, its command put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.batch.batch_script import (
    BatchScript,
    Directive,
    directive_line,
    keeps_blank_behind_backslash,
    split_directive,
)
from kempnerforge.commands.batch.sbatch_options import Option

#: Lines behind #SBATCH, and the words that sbatch makes of them (seen on 22.05; None: it stops).
SPLIT = [
    (' --job-name="my job" --time=5 # why', ["--job-name=my job", "--time=5"]),
    (' --comment="a\\"b"', ['--comment=a"b']),
    (" --comment='a\\\"b'", ['--comment=a"b']),
    (' --comment="a\'b"', ["--comment=a'b"]),
    (" --comment=a\\b", ["--comment=ab"]),
    (" --comment='a\\b'", ["--comment=ab"]),
    (' --comment="a\\\\b"', ["--comment=a\\b"]),
    (" --comment=a#b --time=3", ["--comment=a"]),
    (' --comment=a"b c"d', ["--comment=ab cd"]),
    (" --comment=a\\ b", ["--comment=a", "b"]),
    ('\t--comment\t"" -t5', ["--comment"]),
    (" '' --comment=x", []),
    ("-t5", ["-t5"]),
    ("", []),
    (' --comment="abc', None),
]


@pytest.mark.parametrize(("line", "words"), SPLIT)
def test_a_directive_is_split_as_sbatch_splits_it(line: str, words: list[str] | None) -> None:
    assert split_directive(line) == words


#: The same on 24.11 and 26.05, where it differs.
SPLIT_BY_NEWER = [
    (" --comment=a\\ b", ["--comment=a b"]),
    (" --comment=a\\ --hold", ["--comment=a --hold"]),
    (" --comment=a\\\\ b", ["--comment=a\\", "b"]),
]


@pytest.mark.parametrize(("line", "words"), SPLIT_BY_NEWER)
@pytest.mark.parametrize("version", ["24.11.5", "26.05.5"])
def test_a_newer_sbatch_keeps_a_blank_behind_a_backslash(version: str, line: str, words: list[str]) -> None:
    assert split_directive(line, keeps_blanks=keeps_blank_behind_backslash(version)) == words


@pytest.mark.parametrize("version", ["", "22.05.8", "nonsense"])
def test_an_older_sbatch_does_not(version: str) -> None:
    assert not keeps_blank_behind_backslash(version)


#: What a value may hold: anything but line ends, and NUL, which no argument holds.
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(
    lambda v: len(v.splitlines()) < 2
)


@given(VALUES)
def test_a_value_survives_its_directive(value: str) -> None:
    line = directive_line([Option("comment", value)])
    assert split_directive(line.removeprefix("#SBATCH")) == [f"--comment={value}"]


SCRIPT = """#!/bin/bash
# What it is for.
#SBATCH --time=60 --nodes=1
#SBATCH -J train

  # indented
#SBATCH --requeue
echo
#SBATCH --time=1
exec kforge-run "$@"
"""


def test_directives_end_with_the_first_command() -> None:
    found, bad = BatchScript(SCRIPT).directives()
    assert found == [
        Directive(3, Option("time", "60")),
        Directive(3, Option("nodes", "1")),
        Directive(4, Option("job-name", "train")),
        Directive(7, Option("requeue")),
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("option", "line", "expected"),
    [
        (Option("time", "5"), 2, "#SBATCH --nodes=1 --time=5"),
        (Option("job-name", "a b"), 3, '#SBATCH "--job-name=a b"'),
        (Option("no-requeue"), 6, "#SBATCH --no-requeue"),
        (Option("partition", "gpu"), 7, "#SBATCH --partition=gpu"),
        (Option("exclusive"), 7, "#SBATCH --exclusive"),
    ],
)
def test_an_option_is_set_where_it_is_or_added_behind_the_others(option: Option, line: int, expected: str) -> None:
    script = BatchScript(SCRIPT)
    script.set(option)
    assert script.lines[line] == expected
    rest = [number for number, text in enumerate(script.lines) if text != expected]
    assert [script.lines[number] for number in rest] == [
        text for number, text in enumerate(SCRIPT.split("\n")) if number != line or line == 7
    ]


def test_the_last_of_several_values_replaces_them_all() -> None:
    script = BatchScript("#!/bin/bash\n#SBATCH --time=1\n#SBATCH --time=2\n#SBATCH -t3 -n4\n")
    script.set(Option("time", "9"))
    assert script.text == "#!/bin/bash\n#SBATCH --time=9\n#SBATCH --ntasks=4\n"


def test_the_command_is_put_where_the_arguments_were() -> None:
    script = BatchScript('#!/bin/bash\n# "$@" in a comment\nexec kforge-run "$@" >&2\n')
    script.put_command(["python", "a b", '"$@"'])
    assert script.text == "#!/bin/bash\n# \"$@\" in a comment\nexec kforge-run python 'a b' $'\"$@\"' >&2\n"


@pytest.mark.parametrize(
    ("first", "interpreter"),
    [
        ("#!/bin/bash -l", "bash"),
        ("#!/usr/bin/env python3", "python3"),
        ("#!/usr/bin/env -S FOO=1 tcsh", "tcsh"),
        ("echo", ""),
        ("#!", ""),
    ],
)
def test_the_interpreter(first: str, interpreter: str) -> None:
    assert BatchScript(f"{first}\n").interpreter == interpreter
