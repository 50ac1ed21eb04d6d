"""Launch shapes as jobs: a sample of the table of the process tests, with Slurm's own signals to every process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.process.shapes.table import SHAPES, Shape
from tests.process.shapes.trial import PROGRAMS, is_under_way, unsaved, why_not_here
from tests.slurm.runs import BIN, Run
from tests.slurm.sandbox import Sandbox
from tests.slurm.tried import tried

#: So many tests, each with as many jobs as two processors can start while each still has its time.
PARTS = 4
#: Slurm's SIGTERM comes to every process of the job at once, and nothing before it.
SIGNALLED = """
alone cooperative names_us shell_exec tool_stdbuf foreign_bash foreign_perl
wrapper_run_checked wrapper_lines wrapper_new_session wrapper_coroutine wrapper_restarts
launcher_forwards launcher_torchrun process_join_spawn process_ranks_fork world_fork world_programs
pool_worker_fork pool_executor_spawn pool_nested_fork
helper_evaluation_run helper_tracker helper_tracker_in_a_session helper_dataloader_fork
door_sigterm door_sigusr1 door_handler_in_c door_hook_of_a_tracker door_asyncio_sigterm door_saves_at_exit
"""


class Shaped:
    """A job that is a launch shape, in a folder of its own. Slurm starts it again, and then it is done."""

    def __init__(self, slurm: Sandbox, shape: Shape) -> None:
        self.shape = shape
        self.folder = slurm.work / f"shape-{shape.name}"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(PROGRAMS, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        temporary = self.folder / "tmp"
        temporary.mkdir()
        script = (
            "#!/bin/bash\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
            f"export PATH={BIN}:$PATH TMPDIR={temporary} XDG_STATE_HOME={self.folder / 'state'}\n"
            'test "${SLURM_RESTART_COUNT:-0}" = 0 || { echo again; exit; }\n'
            f"{shape.before}\nexec kforge-run -v {shape.command}\n"
        )
        self._output = self.folder / "output"
        self.run = Run(slurm, script, f"--chdir={self.folder}", f"--output={self._output}", "--time=10")

    @property
    def said(self) -> list[str]:
        file = self.folder / "said"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def log(self) -> str:
        files: list[Path] = [self._output, self.folder / "log"]
        return "".join(file.read_text(errors="backslashreplace") for file in files if file.exists())

    def faults(self) -> list[str]:
        """Return what has gone wrong, with all that tells why."""
        found = unsaved(self.shape, self.said)
        record = self.run.record
        if (record["JobState"], int(record["Restarts"])) != ("COMPLETED", 1):
            found.append(f"{record['JobState']} after {record['Restarts']} restarts")
        # torch takes some six seconds to end on a loaded machine, and KillWait is eight.
        if "still running: SIGKILL" in self.log and "import torch" not in self.shape.needs:
            found.append("it had to be killed")
        return [f"{self.shape.name}: {fault}" for fault in (*found, self.said, self.log)] if found else []


@pytest.mark.slow
@tried("launch shapes, with Slurm's SIGTERM to every process ([docs/shapes.md](docs/shapes.md))")
@pytest.mark.parametrize("part", range(PARTS))
def test_who_holds_the_work_saves_when_slurm_signals_every_process(slurm: Sandbox, part: int) -> None:
    by_name = {shape.name: shape for shape in SHAPES}
    shapes = [shape for shape in map(by_name.__getitem__, SIGNALLED.split()) if why_not_here(shape) is None]
    jobs = [Shaped(slurm, shape) for shape in shapes[part::PARTS]]
    waiting = list(jobs)

    def all_were_told() -> bool:
        for job in [job for job in waiting if is_under_way(job.shape, job.said)]:
            slurm.requeue(job.run.job)
            waiting.remove(job)
        return not waiting

    slurm.wait_for("all under way", all_were_told, timeout=250)
    for job in jobs:
        slurm.wait_for_state(job.run.job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", timeout=250)
    faults = [line for job in jobs for line in job.faults()]
    assert not faults, "\n".join(faults)
