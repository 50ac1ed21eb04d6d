"""Jobs that run kforge-run, and what must be true of every one of them."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.slurm.sandbox import JobId, Sandbox

PROGRAMS = Path(__file__).parent / "programs"
#: Where this environment's kforge-run and python are.
BIN = Path(sys.prefix) / "bin"


def training(
    steps: int | str = 350, *, step_seconds: float = 0.2, save_seconds: float = 0, ranked: bool = False
) -> str:
    """The command line of the example, with one checkpoint for each job, and for each task if `ranked`."""
    which = "$SLURM_JOB_ID-$SLURM_PROCID" if ranked else "$SLURM_JOB_ID"
    return (
        f"python -m kempnerforge.examples.train --steps {steps} --step-seconds {step_seconds}"
        f" --save-seconds {save_seconds} --checkpoint checkpoint-{which}.json"
    )


def program(name: str) -> str:
    return f"python {PROGRAMS / name}"


def script(command: str) -> str:
    """A batch script of the three lines, with this environment activated."""
    return (
        "#!/bin/bash\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
        f"export PATH={BIN}:$PATH XDG_STATE_HOME=$SLURM_SUBMIT_DIR/state\n"
        f"exec {command}\n"
    )


def kforge_run(command: str, *options: str) -> str:
    return script(shlex.join(["kforge-run", *options]) + f" {command}")


def bash_around(slurm: Sandbox, command: str) -> str:
    """The command line of a bash that runs a command and says how it has ended, by a script of its own.

    bash reads a script bit by bit, so no other test may write to it meanwhile.
    """
    descriptor, path = tempfile.mkstemp(".sh", "around-", slurm.work)
    with open(descriptor, "w") as script:
        script.write(f"{command}\necho python ended with $?\n")
    return f"bash {path}"


#: More steps than the shortest time limit has time for, at five a second: Slurm ends a job up to half a minute late. On
#: a loaded machine, where a step takes longer, they take several attempts.
BEYOND_A_MINUTE = 480
#: Where the last of them ends just when its time is up, Slurm says so, though nothing is left to run.
ENDED_IN_TIME = ("COMPLETED", "TIMEOUT")


class LaunchesFail(Exception):
    """Slurm cannot launch a job."""


class Run:
    """One job, through all its attempts."""

    def __init__(self, slurm: Sandbox, batch_script: str, *options: str) -> None:
        self.slurm = slurm
        self.job: JobId = slurm.sbatch(*options, script=batch_script)

    @classmethod
    def of(cls, slurm: Sandbox, job: JobId) -> Run:
        """The run that is a job submitted otherwise, or a task of an array."""
        run = cls.__new__(cls)
        run.slurm, run.job = slurm, job
        return run

    @property
    def output(self) -> str:
        return self.slurm.output(self.job)

    @property
    def record(self) -> dict[str, str]:
        return self.slurm.job(self.job)

    def says(self, text: str, *, count: int = 1, timeout: float = 200) -> Run:
        """Wait until the job's output has `text`."""
        self.slurm.wait_for_output(self.job, text, count=count, timeout=timeout)
        return self

    def signal(self, name: str) -> Run:
        """Signal the batch process alone."""
        self.slurm.scancel("-b", "-s", name, self.job)
        return self

    def cancel(self) -> Run:
        self.slurm.scancel(self.job)
        return self

    def ends(self, *states: str, restarts: int | None = None, at_least: int = 0, timeout: float = 250) -> Run:
        """Wait until the job is over, and check how: its state, the restarts that ran, and that nothing is left.

        Args:
            states: in which of these it may be.
            restarts: how many; None: `at_least` so many.
        """
        record = self.slurm.wait_for_state(
            self.job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", timeout=timeout
        )
        assert record["JobState"] in states, f"{record['JobState']}, {record['ExitCode']}:\n{self.output}"
        ran = int(record["Restarts"]) - self.skipped
        assert ran >= at_least if restarts is None else ran == restarts, self.output
        assert self.slurm.processes_of_job(self.job) == {}
        return self

    def though_launches_fail(self, what: str, holds: Callable[[], bool], *, tries: int = 5) -> Run:
        """Wait until something holds, and have the job start again where Slurm could not launch it: held, or failed.

        Slurm starts the batch script of a job in a namespace of its own at times before the namespace is there, most
        often when another one's has just gone.

        Args:
            what: What is waited for, in words, for the message.
            holds: Called again and again.
            tries: how often a launch may fail.

        Raises:
            LaunchesFail: more launches have failed than that.
        """
        failed = 0

        def probe() -> bool:
            nonlocal failed
            record = self.record
            has_failed = record["JobState"] == "FAILED" and "_g_join failed" in self.output
            if "held" in record["Reason"] or has_failed:
                failed += 1
                if failed > tries:
                    raise LaunchesFail(record["Reason"])
                self.slurm.run("scontrol", "requeue" if has_failed else "release", str(self.job))
            return holds()

        self.slurm.wait_for(what, probe, job=self.job, timeout=250)
        return self

    @property
    def skipped(self) -> int:
        """How many attempts ran nothing.

        Slurm 24.05 and newer start a job once more when a run completes that was preempted with a grace. How far back
        the preemption may be depends on the version.
        """
        count = self.output.count("the run has completed, and Slurm has started it once more")
        assert count <= (self.slurm.version >= (24, 5)), self.output
        return count

    def lost_nothing(self, *, steps: int | None = None, task: str = "") -> Run:
        """Check that each attempt saved its last step, and the next went on from there to the end.

        Args:
            steps: where the last one finished; None: it did not.
            task: which of srun's labelled tasks to look at.
        """
        prefix = f"{task}: " if task else ""
        lines = [line[len(prefix) :] for line in self.output.splitlines() if line.startswith(prefix)]
        done = 0
        saves = resumes = 0
        for line in lines:
            if found := re.match(r"step (\d+) ", line):
                assert int(found[1]) == done + 1, f"step {found[1]} follows step {done}:\n{self.output}"
                done = int(found[1])
            elif found := re.match(r"checkpoint saved at step (\d+)", line):
                assert int(found[1]) == done
                saves += 1
            elif found := re.match(r"resumed at step (\d+)", line):
                assert int(found[1]) == done + 1
                resumes += 1
        restarts = int(self.record["Restarts"]) - self.skipped
        assert (saves, resumes) == (restarts + 1, restarts), self.output
        if steps is not None:
            assert lines.count(f"finished at step {steps}") == 1, self.output
        return self
