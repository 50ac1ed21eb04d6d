"""Launch shapes as jobs: a sample of the table of the process tests, with Slurm's own signals to every process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.shapes.table import SHAPES, Shape
from tests.process.shapes.trial import PROGRAMS, unsaved, why_not_here
from tests.slurm.runs import BIN, Run
from tests.slurm.sandbox import Sandbox
from tests.slurm.tried import tried

#: As many jobs as two processors can start while each still has its time.
AT_A_TIME = 8
BY_NAME = {shape.name: shape for shape in SHAPES}
#: Slurm's SIGTERM comes to every process of the job at once, and nothing before it.
SIGNALLED = """
alone cooperative names_us shell_exec tool_stdbuf foreign_bash foreign_perl
wrapper_run_checked wrapper_lines wrapper_new_session wrapper_coroutine wrapper_restarts
launcher_forwards launcher_torchrun process_join_spawn process_ranks_fork world_fork world_programs
pool_worker_fork pool_executor_spawn pool_nested_fork
helper_evaluation_run helper_tracker helper_tracker_in_a_session helper_dataloader_fork
door_sigterm door_sigusr1 door_handler_in_c door_hook_of_a_tracker door_asyncio_sigterm door_saves_at_exit
"""
#: Slurm's notice comes to kforge-run alone, as `--signal=B:USR1@N` asks for it.
NOTICED = """
shell shell_trap shell_trap_empty shell_pythonpath shell_tmpdir shell_two shell_log shell_upload
tool_timeout tool_time tool_xargs_ranks tool_make alone_isolated wrapper_system wrapper_popen wrapper_of_wrappers
process_torch helper_sink helper_loader
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

    @property
    def is_under_way(self) -> bool:
        wanted = {f"start {holder}" for holder in self.shape.holders if holder != "upload"}
        wanted |= {f"up {helper}" for helper in self.shape.helpers}
        return wanted <= {" ".join(line.split()[:2]) for line in self.said}

    def faults(self) -> list[str]:
        """Return what has gone wrong, with all that tells why."""
        found = unsaved(self.shape, self.said)
        record = self.run.record
        if (record["JobState"], int(record["Restarts"])) != ("COMPLETED", 1):
            found.append(f"{record['JobState']} after {record['Restarts']} restarts")
        if "still running: SIGKILL" in self.log:
            found.append("it had to be killed")
        return [f"{self.shape.name}: {fault}" for fault in (*found, self.said, self.log)] if found else []


def all_save(slurm: Sandbox, names: str, tell: Callable[[Run], object]) -> None:
    """Start all that can be tried here, some at a time, tell each when it is under way, and see what becomes of it."""
    shapes = [shape for shape in map(BY_NAME.__getitem__, names.split()) if why_not_here(shape) is None]
    faults = [
        line for first in range(0, len(shapes), AT_A_TIME) for line in _try(slurm, shapes[first:][:AT_A_TIME], tell)
    ]
    assert not faults, "\n".join(faults)


def _try(slurm: Sandbox, shapes: list[Shape], tell: Callable[[Run], object]) -> list[str]:
    jobs = [Shaped(slurm, shape) for shape in shapes]
    waiting = list(jobs)

    def probe() -> bool:
        for job in [job for job in waiting if job.is_under_way]:
            tell(job.run)
            waiting.remove(job)
        return not waiting

    slurm.wait_for("all under way", probe, timeout=250)
    for job in jobs:
        slurm.wait_for_state(job.run.job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", timeout=250)
    return [line for job in jobs for line in job.faults()]


@pytest.mark.slow
@tried("launch shapes, with Slurm's SIGTERM to every process ([docs/shapes.md](docs/shapes.md))")
def test_who_holds_the_work_saves_when_slurm_signals_every_process(slurm: Sandbox) -> None:
    all_save(slurm, SIGNALLED, lambda run: slurm.requeue(run.job))


@pytest.mark.slow
@tried("launch shapes, with a notice ([docs/shapes.md](docs/shapes.md))")
def test_who_holds_the_work_saves_at_a_notice(slurm: Sandbox) -> None:
    all_save(slurm, NOTICED, lambda run: run.signal("USR1"))
