"""What a shell is offered: bash puts it into the line unquoted, and runs what is in it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.hostile.kforge import BIN, environment

#: What click's own script asks, for the shell's words and the one that is completed.
COMPLETE = """\
eval "$(kforge completion bash)"
compopt() { :; }  # only known while bash itself completes
read -ra COMP_WORDS <<<"$1"
case $1 in *' ') COMP_WORDS+=('') ;; esac
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
"$(complete -p "${COMP_WORDS[0]}" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')" "${COMP_WORDS[0]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(line: str, path: str, journals: Path) -> list[str]:
    answer = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", line],
        env=environment(path, KFORGE_JOURNAL=str(journals)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stderr == ""
    return answer.stdout.splitlines()


HOSTILE = (
    "c-6.$(touch X).0.jsonl",
    "c-6.`id`.0.jsonl",
    "c-7.0.0;id.jsonl",
    "c-8.a b.0.jsonl",
    "c-9.x\nplain,$(id).0.jsonl",
    "c-9.\x1b[31m.0.jsonl",
    "local-$(id).jsonl",
    "c-٣.jsonl",
)


def test_only_what_has_the_form_of_a_job_id_is_offered(tmp_path: Path) -> None:
    for name in (
        *HOSTILE,
        "c-5.jsonl",
        "c-6.2.11.jsonl",
        "c-7.2+1.0.jsonl",
        "$(id)-8.jsonl",
        "local-1795600000-9.jsonl",
    ):
        (tmp_path / name).write_text("")
    found = offered("kforge report ", f"{BIN}:{os.environ['PATH']}", tmp_path)
    assert sorted(found) == ["5", "6.2.11", "7.2+1.0", "8", "local-1795600000-9"]


@pytest.mark.parametrize("line", ["kforge-run x", "kforge drill -- x"])
def test_a_program_with_a_shells_letters_in_its_name_is_not_offered(tmp_path: Path, line: str) -> None:
    bad = ("x$(touch X)", "x;id", "x`id`", "x y", "x\nplain,x$(id)", "x'", "x\x1b[1m", "x*", "x&", "x>y", "x\\")
    for name in (*bad, "x86_64-linux-gnu-g++", "x-1.2"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    ours = [
        found for found in offered(line, f"{tmp_path}:{BIN}:{os.environ['PATH']}", tmp_path) if found.startswith("x")
    ]
    assert {"x86_64-linux-gnu-g++", "x-1.2"} <= set(ours)
    assert not any(set(found) & set(" $`;'\"\\*&<>()\x1b") for found in ours)
    assert shlex.join(ours) == " ".join(ours)


def test_a_folder_that_cannot_be_read_says_nothing_into_the_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert offered("kforge report ", f"{BIN}:{os.environ['PATH']}", tmp_path / "file") == [""]
