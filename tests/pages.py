"""The README and the pages in docs/, and the examples in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
#: What the pages call `train.py`: the example, which saves for a while, with a checkpoint for each task.
TRAIN = """
import os, sys
from kempnerforge.examples.train import main

which = "-".join(os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_PROCID") if name in os.environ)
main(sys.argv[1:] or ["--steps", "2000", "--save-seconds", "1.5", "--checkpoint", f"run{which}.json"])
"""
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBERS = re.compile(r"(?:(?<![A-Za-z\d])[+-]?\d[\d.:-]*(?: ?(?:ms|s|min|m|h|d|kB))?(?![A-Za-z\d])\s*)+")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


class Example(NamedTuple):
    """A command as it is typed, and what it prints."""

    command: str
    output: str


def blocks(*languages: str, page: Path | None = None) -> list[Block]:
    """Return the blocks in these languages, of all pages or of one."""
    found = []
    for one in PAGES if page is None else [page]:
        text = one.read_text()
        for match in _FENCED.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(one, line, match[1], match[2]))
    return [block for block in found if block.language in languages or not languages]


def examples(block: Block) -> Iterator[Example]:
    """Yield the commands of a console block."""
    assert block.text.startswith("$ "), f"{block} begins with no command"
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Example(command, output)


def block_with(text: str, page: Path) -> Block:
    """Return the one block of a page that has a text."""
    (found,) = (block for block in blocks(page=page) if text in block.text)
    return found


def shape(text: str) -> str:
    """Return a text without what differs from run to run: its numbers, and where its lines are broken."""
    return " ".join(_NUMBERS.sub("0 ", text).split())


def shows(shown: str, said: str) -> bool:
    """Tell whether what a page shows is what was said. A line with … stands for any number of lines."""
    rest = shape(said)
    parts = re.split(r"^…$", shown, flags=re.MULTILINE)
    if len(parts) == 1:
        return shape(shown) == rest
    for part in map(shape, parts):
        at = rest.find(part)
        if at < 0:
            return False
        rest = rest[at + len(part) :]
    return True


def lines_that_are_not_in(shown: str, said: str) -> set[str]:
    """Return which lines that a page shows were not said, in any order: two processes write into one log."""
    lines = {re.sub(r"step 0 loss 0|at step 0", "step", shape(line)) for line in shown.splitlines() if line != "…"}
    return lines - {re.sub(r"step 0 loss 0|at step 0", "step", shape(line)) for line in said.splitlines()}


def script(block: Block) -> str | None:
    """Return the batch script that a block in bash is, or that its last line ends; None: it is something else."""
    if block.text.startswith("#!"):
        return block.text
    return with_command(block.text) if block.text.startswith("exec kforge-run") else None


def with_command(command: str) -> str:
    """Return a batch script that ends with a command."""
    return (
        "#!/bin/bash\n#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=180\n{command.rstrip()}\n"
    )


def before_and_after(block: Block) -> tuple[str, str]:
    """Return both sides of a diff."""
    lines = block.text.splitlines()
    assert all(line[:1] in (" ", "+", "-") for line in lines), f"{block}: each line begins with a blank, + or -"
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
    return before, "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)


def anchor(heading: str) -> str:
    """Return what a link to a heading says, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def spans(page: Path) -> list[str]:
    """Return all that a page's text has as code."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _FENCED.sub("", page.read_text()))]
