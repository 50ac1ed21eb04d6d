"""What every template has: `kforge template` builds on it, and a run would be lost without some of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TEMPLATES = sorted((Path(__file__).parents[2] / "slurm_templates").glob("*.sbatch"))
#: What kforge-run needs of Slurm, and the rest of what each names, with a value like this.
DIRECTIVES = {
    "signal": r"B:USR1@\d+",
    "requeue": "",
    "open-mode": "append",
    "job-name": "train",
    "output": "%x-%j.log",
    "time": r"\d\d:\d\d:\d\d",
    "nodes": r"\d+",
    "cpus-per-task": r"\d+",
}
#: The longest description that `kforge template --list` has room for.
DESCRIPTION = 75

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)


def code(path: Path) -> list[str]:
    """The lines that bash runs: no comments, and those that go on are one."""
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def directives(path: Path) -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", path.read_text(), re.MULTILINE)
    assert len(lines) == path.read_text().count("#SBATCH")
    return dict(lines)


def test_there_is_one_for_each_shape() -> None:
    assert {path.stem for path in TEMPLATES} == {
        "array",
        "container-apptainer",
        "preemptible",
        "single-process",
        "srun-one-task-per-gpu",
        "torchrun-one-node",
        "torchrun-several-nodes",
    }


@each_template
def test_it_says_first_what_it_is_for_and_how_to_submit_it(path: Path) -> None:
    shebang, description, empty, usage, *_ = path.read_text().splitlines()
    assert shebang == "#!/bin/bash"
    assert re.fullmatch(rf"# [A-Z].{{10,{DESCRIPTION - 2}}}\.", description)
    assert empty == "#"
    assert usage == f"#     sbatch {path.name} python train.py"


@each_template
def test_its_directives_come_first_and_lose_no_run(path: Path) -> None:
    found = directives(path)
    expected = {**DIRECTIVES, "output": "%x-%A_%a.log"} if "array" in found else DIRECTIVES
    for name, value in expected.items():
        assert name in found
        assert re.fullmatch(value, found[name]), name
    text = path.read_text()
    assert text.rindex("#SBATCH") < text.index(code(path)[0])


@each_template
def test_every_directive_and_every_command_has_its_reason_above(path: Path) -> None:
    lines = path.read_text().splitlines()
    explained = False
    for line in lines[1:]:
        is_comment = line.startswith("#") and not line.startswith("#SBATCH")
        assert is_comment or not line or explained, line
        explained = is_comment or (explained and bool(line))


@each_template
def test_its_command_is_all_its_arguments(path: Path) -> None:
    *before, last = code(path)
    assert re.match(r"exec kforge-run .*\"\$@\"$", last)
    assert path.read_text().count('"$@"') == 1
    assert not any("kforge-run" in line for line in before)
    assert "# Load modules and activate environments here" in path.read_text()


@each_template
def test_it_is_a_script_that_bash_can_read(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("name", ["torchrun-one-node", "torchrun-several-nodes"])
def test_torchrun_waits_longer_than_a_save_may_take(name: str) -> None:
    (path,) = [path for path in TEMPLATES if path.stem == name]
    lead = int(directives(path)["signal"].partition("@")[2])
    (timeout,) = re.findall(r"^export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)$", path.read_text(), re.MULTILINE)
    assert int(timeout) >= lead + 60  # as kforge-run's own warning advises
