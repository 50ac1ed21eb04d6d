"""The examples in the README and in docs/ that need no Slurm, run as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pages
from tests.process.launch import Launch

BIN = Path(sys.prefix) / "bin"
#: What only Slurm can answer (tests/slurm/test_docs.py runs it), and what other tests run.
ELSEWHERE = re.compile(
    r"(?:sbatch|scancel|kforge submit|kforge report|bin/\w+|\.ci/run)\b|kforge doctor$", re.MULTILINE
)
HERE = [
    block
    for block in pages.blocks("console")
    if not any(ELSEWHERE.match(example.command) for example in pages.examples(block)) and "JobRequeue" not in block.text
]
SCRIPTS = [block for block in pages.blocks("bash") if pages.script(block) is not None]
LAST_LINES = sorted({span for page in pages.PAGES for span in pages.spans(page) if span.startswith("exec kforge-run")})
#: What the README leaves to its reader.
READERS_OWN = """
import time

first_step, max_steps = 1, 1000

def train_step():
    print("step", flush=True)
    time.sleep(0.05)

def save_checkpoint():
    print("saved", flush=True)
"""


def run(folder: Path, *command: str, path: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, where there is no Slurm."""
    taken = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "KFORGE"))}
    return subprocess.run(
        command,
        env={**taken, "PATH": f"{BIN}:{path}", "XDG_STATE_HOME": str(folder / "state")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def doctor(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "job.sbatch").write_text(script)
    return run(folder, str(BIN / "kforge"), "doctor", "job.sbatch")


def test_there_are_examples_to_run() -> None:
    assert len(HERE) >= 2 and len(SCRIPTS) >= 3 and len(LAST_LINES) >= 3


@pytest.mark.parametrize("block", HERE, ids=str)
def test_commands_print_what_is_shown(block: pages.Block, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(pages.TRAIN)
    for example in pages.examples(block):
        answer = run(tmp_path, "/bin/bash", "-c", example.command, path="/usr/bin:/bin")
        # What a command says on the way to a result that it prints goes to standard error, and is not shown.
        said = (answer.stdout or answer.stderr).replace(str(tmp_path), "/home/ada")
        assert pages.shows(example.output, said), f"$ {example.command}\n{said}{answer.stderr}"


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_scripts_would_lose_nothing(block: pages.Block, tmp_path: Path) -> None:
    answer = doctor(tmp_path, pages.script(block) or "")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("command", LAST_LINES)
def test_last_lines_of_a_script_would_lose_nothing(command: str, tmp_path: Path) -> None:
    answer = doctor(tmp_path, pages.with_command(command.replace("…", "train.py")))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("block", pages.blocks("diff"), ids=str)
def test_a_script_that_would_lose_a_run_becomes_one_that_would_not(block: pages.Block, tmp_path: Path) -> None:
    before, after = pages.before_and_after(block)
    assert doctor(tmp_path, before).returncode == 1
    answer = doctor(tmp_path, after)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_lines_of_ours_are_enough(launch: Launch, tmp_path: Path) -> None:
    (block,) = pages.blocks("python", page=pages.README)
    program = tmp_path / "train.py"
    program.write_text(READERS_OWN + block.text)
    run = launch(sys.executable, str(program))
    run.says("step")
    run.send(signal.SIGUSR1)
    lines = run.rest()
    run.ends(85)
    assert lines[-1] == "saved" and "finished" in run.log


@pytest.mark.parametrize("block", pages.blocks("python", page=pages.DOCS / "notice.md"), ids=str)
def test_python_runs(block: pages.Block, launch: Launch) -> None:
    launch(sys.executable, "-c", block.text).ends(0)
