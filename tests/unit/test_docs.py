"""What the README and docs/ say of themselves and of the code: links, headings, options, tables, scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kempnerforge.bootstrap import contract
from kempnerforge.commands.batch import sbatch_options
from kempnerforge.commands.cli import kforge
from kempnerforge.launcher import cli, options
from kempnerforge.launcher.policy import tables
from tests import pages
from tests.process.shapes import page as shapes_page

#: A page's name and one of its headings, as code and pages cite them.
CITED = re.compile(r'\b(slurm-facts|[\w-]+(?=\.md))(?:\.md)?\)?, "([^"]+)"')
COMMANDS = [
    *(example.command for block in pages.blocks("console") for example in pages.examples(block)),
    *(line.removeprefix("exec ") for block in pages.blocks("bash") for line in block.text.splitlines()),
    *(span.removeprefix("exec ") for page in pages.PAGES for span in pages.spans(page)),
]
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}")


def test_the_readme_is_what_the_first_ten_minutes_need() -> None:
    assert len(pages.README.read_text().splitlines()) <= 180


def test_it_leads_to_every_page() -> None:
    assert {page.name for page in pages.DOCS.iterdir()} <= {Path(target).name for target in links(pages.README)}


def test_the_page_of_launch_shapes_is_what_their_table_says() -> None:
    assert shapes_page.FILE.read_text() == shapes_page.text(), "hint: python -m tests.process.shapes"


# --- links and headings --------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)]+)\)", page.read_text())
    return [target for target in found if not target.startswith("https://")]


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, fragment = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not fragment or fragment in map(pages.anchor, pages.headings(there)), target


@pytest.mark.parametrize("folder", ["kempnerforge", "bin", "tests", "docs"])
def test_what_is_cited_is_there(folder: str) -> None:
    cited = 0
    for file in sorted((pages.ROOT / folder).rglob("*")):
        if file.suffix in (".py", ".md") or file.parent.name == "bin":
            for page, heading in CITED.findall(" ".join(file.read_text(errors="replace").split())):
                cited += 1
                known = pages.headings(pages.DOCS / f"{page}.md")
                assert any(one.startswith(heading) for one in known), f"{file}: {page}.md has no {heading!r}"
    assert cited or folder not in ("kempnerforge", "docs")


# --- scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [*pages.blocks("bash"), *pages.blocks("diff")], ids=str)
@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck here (hint: .ci/run installs it)")
def test_shellcheck_finds_nothing(block: pages.Block) -> None:
    text = pages.before_and_after(block)[1] if block.language == "diff" else block.text
    # SC1090, SC1091: what a script sources is the reader's own.
    command = [SHELLCHECK or "", "--shell=bash", "--exclude=SC1090,SC1091", "-"]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_python_is_python(block: pages.Block) -> None:
    compile(block.text, str(block), "exec")


# --- options and tables --------------------------------------------------------------------------


def options_of(command: click.Command) -> set[str]:
    names = {"--help", "--version"}
    for parameter in command.params:
        names.update(parameter.opts, parameter.secondary_opts)
    return names


def given(words: list[str]) -> set[str]:
    """Return the options of a command line up to where the options of another program begin."""
    end = next((index for index, word in enumerate(words) if word == "--"), len(words))
    return {word.partition("=")[0] for word in words[:end] if word.startswith("--")}


def of_program(name: str) -> Iterator[list[str]]:
    """Yield the words behind a program's name, of all command lines in the pages."""
    for command in COMMANDS:
        words = command.partition("#")[0].split()
        if words[:1] == [name]:
            yield words[1:]


def test_commands_of_kforge_have_the_options_that_are_shown() -> None:
    seen = set()
    for words in of_program("kforge"):
        if not words or not words[0].isalpha():
            continue
        command = kforge.commands.get(words[0])
        assert command is not None, f"kforge has no {words[0]}"
        known = options_of(command)
        if command.name not in ("report", "completion"):
            known |= {f"--{name}" for name in sbatch_options.KNOWN}
        assert given(words) <= known, words
        seen.add(command.name)
    assert seen == set(kforge.commands)


def test_kforge_run_has_the_options_that_are_shown() -> None:
    known, seen = options_of(options.kforge_run), 0
    for words in of_program("kforge-run"):
        own = [word for index, word in enumerate(words) if all(one.startswith("-") for one in words[: index + 1])]
        assert given(own) <= known, words
        seen += 1
    assert seen


@pytest.mark.parametrize(
    "name", ["bin/demo", "bin/test", "bin/bench", "bin/slurm-sandbox", "bin/slurm-root", ".ci/run"]
)
def test_programs_of_the_checkout_are_there_with_the_options_that_are_shown(name: str) -> None:
    lines = list(of_program(name))
    assert lines, f"no page shows {name}"
    text = (pages.ROOT / name).read_text()
    assert os.access(pages.ROOT / name, os.X_OK)
    for words in lines:
        assert all(option in text for option in given(words)), words


def rows(page: Path, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, without its head."""
    text = page.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_options_of_kforge_run_are_all_told() -> None:
    told = {
        word
        for row in rows(pages.DOCS / "commands.md", "Options of kforge-run")
        for word in re.findall(r"--?[\w-]+", row[0])
    }
    assert told <= options_of(options.kforge_run)
    for parameter in options.kforge_run.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("version", "help"):
            assert told & {*parameter.opts, *parameter.secondary_opts}, parameter.name


def test_ranks_are_started_by_a_last_line() -> None:
    """What tests/process/test_docs.py has the doctor look at begins with exec."""
    lines = [row[1].strip("`") for row in rows(pages.README, "Several ranks")]
    assert lines and all(line.startswith("exec kforge-run ") for line in lines)


def test_the_exit_statuses_are_those_of_the_code() -> None:
    assert [tuple(row) for row in rows(pages.DOCS / "commands.md", "Exit status")] == list(tables.EXIT_STATUSES)


def test_the_commands_of_kforge_are_all_told() -> None:
    told = {row[0].strip("`").split()[1] for row in rows(pages.DOCS / "commands.md", "Before and after the run")}
    assert told == set(kforge.commands)


def test_variables_are_read_by_somebody() -> None:
    known = cli.VARIABLES | {value for name, value in vars(contract).items() if name.endswith("_VARIABLE")}
    for page in pages.PAGES:
        assert set(re.findall(r"\bKFORGE_\w+", page.read_text())) <= known, page.name


def test_why_a_job_is_not_requeued_is_said_in_these_words() -> None:
    source = "".join(path.read_text() for path in (pages.ROOT / "kempnerforge/launcher/policy").glob("*.py"))
    told = [
        words for row in rows(pages.DOCS / "notice.md", "Not requeued") for words in re.findall(r"`([^`]+)`", row[0])
    ]
    assert [words for words in told if words not in source] == []
    # And none is left out.
    reasons = re.findall(r'Decision\(False, f?"([^"]+)"\)', source)
    literals = [max(re.split(r"\{[^}]*\}", because), key=len).strip() for because in reasons]
    assert len(literals) > 5 and min(map(len, literals)) > 5
    assert [one for one in literals if not any(one in words or words in one for words in told)] == []
