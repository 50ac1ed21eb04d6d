"""Another user of the cluster, who may make what he likes where everybody may: above all in the other nodes' /tmp."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.users import ATTACKER, become, why_not
from tests.slurm.runs import Run, kforge_run
from tests.slurm.sandbox import PRIVATE, Sandbox

#: Each task says what a program below kforge-run is given, waits, and then starts Pythons: bare, and under another one.
TASK = """
import os, subprocess, sys, time
print("names", os.environ["PYTHONPATH"], os.environ["KFORGE_CONTROL"], "end of names", flush=True)
while not os.path.exists(f"go-{os.environ['SLURM_JOB_ID']}"): time.sleep(0.1)
subprocess.run([sys.executable, "-c", "1"], check=True)
subprocess.run(["kforge-run", sys.executable, "-c", "2"], check=True)
print("task over", flush=True)
"""


def plant(slurm: Sandbox, node: str, folder: Path, payload: str) -> None:
    """As the attacker, on this node: make a folder, and in it and in its `site` what every Python imports."""
    for private in PRIVATE:
        if private in folder.parents:
            folder = slurm.node_folder(node, private) / folder.relative_to(private)
    make = 'mkdir -p "$0/site" && for d in "$0" "$0/site"; do printf "%s\\n" "$1" >"$d/sitecustomize.py"; done'
    slurm.run(*become(ATTACKER), "sh", "-c", f"{make}; true", str(folder), payload)


def test_no_code_of_anothers_runs_on_another_node(slurm: Sandbox) -> None:
    if (why := why_not()) is not None or not slurm.private:
        pytest.skip(why or "needs root, so that each node has a /tmp of its own")
    task = slurm.work / "task.py"
    task.write_text(TASK)
    run = Run(slurm, kforge_run(f"srun --ntasks=2 --label python {task}"), "--nodes=2", "--ntasks-per-node=1")
    output = run.says("end of names", count=2).output
    mark = slurm.work / f"run-as-victim-{run.job}"
    named = output.partition("names ")[2].partition(" end of names")[0].split()
    folders = {Path(path) for path in named[0].split(":")} | {Path(named[1].rpartition(":")[2])}
    for node in slurm.nodes:
        for folder in folders:
            plant(slurm, node, folder, f"open({str(mark)!r}, 'w').close()")
    (slurm.work / f"go-{run.job}").touch()
    run.says("task over", count=2).ends("COMPLETED")
    assert not mark.exists()
