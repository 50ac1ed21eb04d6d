"""Scripts that are made to keep the doctor busy: it ends in time, and says where it could not follow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kempnerforge.commands.diagnosis import findings
from kempnerforge.commands.diagnosis.findings import Subject
from tests.hostile.kforge import assert_bounded, kforge

SIZE = 1_000_000
HEAD = "#!/bin/bash\n#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n"
BARE = "#!/bin/bash\n#SBATCH "


def full(text: str) -> str:
    return text * (SIZE // len(text))


#: What is repeated behind the head of a script, by what it is about.
REPEATED = {
    "here documents": "a <<b\nb\n",
    "here documents without end": "<<a ",
    "subshells": "(a;",
    "groups": "{ a;",
    "parentheses": "(",
    "functions": "f() { a; f | f; ",
    "quotes": "'a' ",
    "opened expansions": '"$(',
    "expansions": "$(a)",
    "backquotes": "`",
    "arithmetic": "((a ",
    "arrays": "a=(",
    "redirections": ">a ",
    "digits": "1",
    "backslashes": "\\",
    "line ends": "\n",
    "scripts in scripts": "eval 'a;b;c'\n",
    "launches": "kforge-run a\n",
    "launches with a wrong option": "kforge-run --timeoutt a\n",
    "traps": "trap x USR1\n",
    "steps": "srun a\n",
    "loops": "case ",
}
OTHERS: dict[str, Callable[[], str]] = {
    "a long variable, often": lambda: f"{HEAD}x={'a' * 800_000}\n" + "$x\n" * 40_000,
    "a variable of many words": lambda: f"{HEAD}x='{'a ' * 400_000}'\n" + "$x\n" * 40_000,
    "many variables": lambda: HEAD + "".join(f"export A{i}=1\n" for i in range(30_000)) + "kforge-run x\n" * 30_000,
    "a long line": lambda: f"{HEAD}exec kforge-run {'a' * 900_000}",
    "many Pythons": lambda: f"{HEAD}exec kforge-run {'python ' * 130_000}",
    "many containers": lambda: f"{HEAD}exec kforge-run {'apptainer - ' * 80_000}",
    "here documents in an expansion": lambda: f"{HEAD}x=$({full('<<a ')}",
    "and their ends": lambda: f"{HEAD}x=$(" + "".join(f"<<a{i}\na{i}\n" for i in range(60_000)),
    "deep quotes": lambda: HEAD + '"$( ' * 300 + "a" * 900_000,
    "pipelines around pipelines": lambda: HEAD + "{ " * 200_000 + "a;" + " } | b;" * 60_000,
    "a long function, often": lambda: f"{HEAD}f() {{\n" + "a\n" * 200_000 + "}\n" + "f | f\n" * 80_000,
    "options on a line": lambda: BARE + full("-H "),
    "letters on a line": lambda: f"{BARE}-{full('H')}",
    "words on a line": lambda: BARE + full("a "),
    "unknown options": lambda: BARE + full("--a b "),
    "lines of options": lambda: "#!/bin/bash\n" + full("#SBATCH --time=1\n"),
    "lines that stop sbatch": lambda: "#!/bin/bash\n" + full("#SBATCH x\n"),
    "lines that come too late": lambda: f"{HEAD}a\n" + full("#SBATCH\n"),
    "a name in a log's name": lambda: f"{BARE}--output={'%x' * 200_000}\n#SBATCH --job-name={'a' * 400_000}",
    "the same in pieces": lambda: f"{BARE}--output={'%x' * 7000}\n#SBATCH --job-name={'a' * 15_000}",
    "five thousand digits": lambda: (
        f"{BARE}--time={'1' * 5000} --signal=B:USR1@{'1' * 5000}\n"
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={'9' * 5000}\n"
        f"exec kforge-run --timeout {'9' * 5000} srun --wait={'9' * 5000} torchrun x\n"
    ),
    "four thousand digits": lambda: f"{BARE}--time={'1' * 4000}-0 --signal=B:USR1@120\nexec kforge-run x\n",
}


@pytest.mark.parametrize("about", [*REPEATED, *OTHERS])
def test_a_megabyte_is_looked_at_in_time(about: str, tmp_path: Path) -> None:
    text = HEAD + full(REPEATED[about]) if about in REPEATED else OTHERS[about]()
    (tmp_path / "job.sbatch").write_text(text[:SIZE])
    answer = kforge("doctor", tmp_path / "job.sbatch")
    assert_bounded(answer)
    assert len(answer.output) < 300_000


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (HEAD + "a\n" * 5000 + "exec kforge-run python train.py\n", 4004),
        (HEAD + "a " * 50_000 + "\nexec kforge-run python train.py\n", 4),
        (HEAD + "\n\necho " + "$(" * 5000, 6),
    ],
    ids=["commands", "words", "nesting"],
)
def test_where_it_cannot_follow_it_says_so_and_is_not_content(script: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(script)
    answer = kforge("doctor", "--json", tmp_path / "job.sbatch")
    told = [one for one in json.loads(answer.output)["findings"] if "cannot tell what happens" in one["what"]]
    assert [(one["line"], one["is_unclear"]) for one in told] == [(line, True)]
    assert answer.status == 3


def test_options_without_number_are_not_all_read() -> None:
    found = findings.find(Subject(("#!/bin/bash\n" + "#SBATCH -H\n" * 10_000).encode()))
    assert any("cannot tell what sbatch reads from here on" in one.what and one.line > 2000 for one in found)


def test_a_finding_can_be_read_whatever_it_quotes() -> None:
    found = findings.find(Subject(f"{HEAD}kforge-run {'x' * 100_000}\n".encode()))
    assert max(len(one.what) + len(one.cure) for one in found) < 1100


def test_what_a_person_wrote_is_within_the_budget() -> None:
    body = "".join(f"if [ -e {n} ]; then\n  cp -r data/{n} $(dirname $TMPDIR)/x # copy\nfi\n" for n in range(900))
    subject = Subject(f"{HEAD}{body}exec kforge-run python train.py\n".encode())
    begin = time.process_time()
    assert [one for one in findings.find(subject) if one.loses or one.is_unclear] == []
    assert time.process_time() - begin < 5


def test_a_fifo_or_a_device_in_place_of_a_script_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", tmp_path, "/dev/zero", "/proc/kmsg"):
        assert_bounded(kforge("doctor", place))
