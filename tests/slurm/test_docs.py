"""The examples in the README and in docs/ that need a Slurm, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import pages
from tests.slurm.runs import BIN, Run
from tests.slurm.sandbox import Sandbox

COMMANDS = pages.DOCS / "commands.md"
NOTICE = pages.DOCS / "notice.md"


class Reader:
    """Somebody who types what a page shows, in a folder that all nodes see.

    Args:
        name: of the folder.
    """

    def __init__(self, slurm: Sandbox, name: str) -> None:
        self.slurm = slurm
        self.home = slurm.work / name
        self.home.mkdir()
        #: Where the commands are.
        self.path = str(BIN)
        (self.home / "train.py").write_text(pages.TRAIN)
        (self.home / "slurm_templates").symlink_to(pages.ROOT / "slurm_templates")
        self.run: Run | None = None

    def types(self, command: str) -> str:
        """Run a command, and return what it prints, as if the reader were ada and had submitted job 1."""
        if self.run is not None:
            command = re.sub(r"(?<= )1\b(?=\s*(?:#|$))", str(self.run.job), command)
        environment = {
            **self.slurm.environment,
            "PATH": f"{self.path}:{self.slurm.environment['PATH']}",
            "XDG_STATE_HOME": str(self.home / "state"),
        }
        answer = subprocess.run(
            ["bash", "-c", command], env=environment, cwd=self.home, capture_output=True, text=True, check=False
        )
        said = answer.stdout or answer.stderr
        if found := re.search(r"^Submitted batch job (\d+)|^job (\d+) submitted", said, re.MULTILINE):
            job = int(found[1] or found[2])
            self.slurm.submitted.append(job)
            self.run = Run.of(self.slurm, job)
        return said.replace(str(self.home), "/home/ada")

    def sees(self, example: pages.Example) -> None:
        """Type a command, and check that it prints what is shown."""
        said = self.types(example.command)
        assert pages.shows(example.output, said), f"$ {example.command}\n{said}"

    def submits(self, command: str, *options: str) -> Run:
        """Submit a script of the README's lines that ends with a command."""
        (self.home / "job.sbatch").write_text(pages.with_command(command))
        said = self.types(f"sbatch --output=job-%j.log {' '.join(options)} job.sbatch")
        assert self.run is not None, said
        return self.run


@pytest.fixture
def reader(slurm: Sandbox, request: pytest.FixtureRequest) -> Reader:
    return Reader(slurm, f"reader-{os.getpid()}-{request.node.name}")


def test_one_minute_on_a_cluster_and_its_report(reader: Reader) -> None:
    (reader.home / "train.sbatch").write_text(pages.block_with("--output=train.log", pages.README).text)
    doctor, sbatch, scancel, log = pages.examples(pages.block_with("cat train.log", pages.README))
    reader.sees(doctor)
    reader.sees(sbatch)
    assert reader.run is not None
    run = reader.run.says("step 3 ")
    reader.sees(scancel)
    run.says("resumed at step")
    assert pages.lines_that_are_not_in(log.output, reader.types(log.command)) == set()

    # docs/commands.md shows the report of this run, given one more notice and then cancelled.
    for attempt in (1, 2):
        run.says("resumed at step", count=attempt)
        (*_, first_step) = re.findall(r"resumed at step (\d+)", run.output)
        run.says(f"\nstep {first_step} ")
        run.signal("USR1") if attempt == 1 else run.cancel()
    run.ends("CANCELLED")
    for example in pages.examples(pages.block_with("$ kforge report", COMMANDS)):
        reader.sees(example)


def test_ways_to_submit_a_script(reader: Reader) -> None:
    (reader.home / "my-script.sbatch").write_text(pages.block_with("#!/bin/bash\n#SBATCH --signal=B", COMMANDS).text)
    for example in pages.examples(pages.block_with("$ sbatch my-script.sbatch", COMMANDS)):
        before, reader.run = reader.run, None
        said = reader.types(example.command)
        assert reader.run is not None and reader.run is not before, said
        reader.run.says("step 1 ")


def test_a_script_from_a_template(reader: Reader) -> None:
    for example in pages.examples(pages.block_with("$ kforge submit single-process --time", COMMANDS)):
        reader.sees(example)


def test_what_the_doctor_finds_in_a_script(reader: Reader) -> None:
    shown, doctor = pages.examples(pages.block_with("$ kforge doctor my-job.sbatch", COMMANDS))
    (reader.home / "my-job.sbatch").write_text(shown.output)
    reader.sees(doctor)


def test_what_the_doctor_says_of_a_cluster(reader: Reader) -> None:
    (doctor,) = pages.examples(pages.block_with("$ kforge doctor\n", COMMANDS))
    reader.sees(doctor)


def test_the_log_of_a_time_limit(reader: Reader) -> None:
    run = reader.submits("exec kforge-run python train.py", "--time=1", "--signal=B:USR1@50").says("requeued +")
    assert pages.lines_that_are_not_in(pages.block_with("reason: time limit", NOTICE).text, run.output) == set()


def test_the_log_of_several_nodes(reader: Reader, everywhere: Path) -> None:
    reader.path = f"{everywhere}/bin:{reader.path}"
    (command,) = (block for block in pages.blocks("bash", page=NOTICE) if "srun" in block.text)
    run = reader.submits(command.text, "--nodes=2", "--ntasks=2").says("step 3 ", count=2).signal("USR1")
    run.says("requeued +")
    assert pages.lines_that_are_not_in(pages.block_with("kforge-run[task 1]", NOTICE).text, run.output) == set()


def test_shown_logs_are_all_looked_at() -> None:
    """A block with lines of kforge-run's is one of those above."""
    shown = [block for block in pages.blocks() if re.search(r"^kforge-run(?:\[[^]]*\])? \d", block.text, re.MULTILINE)]
    assert sorted({block.page.name for block in shown}) == ["README.md", "notice.md"] and len(shown) == 3
