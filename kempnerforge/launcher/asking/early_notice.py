"""An early notice of a preemption, for the batch process.

When the grace of a preemption begins, Slurm sends SIGTERM to the tasks of a job's steps, and to the batch process only
when it is over (slurm-facts, "Who receives what"). So a tiny step of our own listens: a shell that waits for one of two
things, that SIGTERM and the end of its input, which we hold. It takes no CPU, memory or GPU from the user's own steps,
and whatever ends kforge-run ends its input: it does not outlive us, nor hold the job open. If we are killed, srun dies
with us, and what srun has left for that case has Slurm end the step.

A SIGTERM to the steps need not be a preemption: `scancel -s TERM JOB` sends one, too. The policy asks Slurm.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Mapping
from typing import Literal

from ..policy.words import StepEnded
from ..processes import child, reaping

#: What the step says when it listens, and when Slurm has told it.
_READY, _TOLD = b"kforge-notice: ready", b"kforge-notice: SIGTERM"
#: POSIX: a signal with a trap interrupts `read`. bash, dash and busybox keep to it.
_TASK = f'trap "echo {_TOLD.decode()}; exit 0" TERM; echo {_READY.decode()}; read -r _'
#: Variables of the job or the user that would change what srun does (srun(1), "INPUT ENVIRONMENT VARIABLES") …
_STEERING = ("SLURM", "_SLURM_", "SRUN_", "SBATCH_", "SALLOC_", "SPANK_", "PMI", "PYXIS_")
#: … and those with which it finds the controller, is believed, and is known to belong to the job.
_NEEDED = frozenset(
    {"SLURM_JOB_ID", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_SOCKET"}
)
#: How long srun may wait for the step to be created (s). It takes nothing, so as a rule there is nothing to wait
#: for. A guess.
_CREATED_WITHIN = 60
#: More than the step ever says; of an srun that complains at length, its last words count (bytes).
_LONGEST = 4096
#: How long our end waits for the step's, which was asked to end when the training process did (s): a guess.
_PATIENCE = 0.4

_State = Literal["off", "starting", "listening", "told", "ending"]


class EarlyNotice:
    """Owns the srun of the step that listens.

    Args:
        job_id: SLURM_JOB_ID.
        environment: of kforge-run.
        poller: gets the descriptor of srun's output.
        helpers: of kforge-run's own children those that are no part of the run; gets srun while it runs.

    Attributes:
        trouble: why there is no step, though there should be; None: there is, or need not be.
    """

    def __init__(self, job_id: str, environment: Mapping[str, str], poller: select.poll, helpers: set[int]) -> None:
        self.trouble: str | None = None
        self._command = srun_command(job_id, environment.get("SLURMD_NODENAME", ""))
        self._environment = srun_environment(environment)
        self._poller = poller
        self._helpers = helpers
        self._state: _State = "off"
        self._srun: child.Child | None = None
        self._input: int | None = None
        self._output: int | None = None
        self._said = b""
        #: To be started once more when the present srun has ended.
        self._again = False

    def listen(self) -> None:
        """Start the step, or start it once more as soon as the one that was told has ended."""
        if self._state == "ending":
            return
        if self._srun is not None:
            self._again = True
            return
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            theirs_in, ours_in, ours_out, theirs_out = pipes
            self._srun = child.spawn_helper(self._command, self._environment, theirs_out, theirs_in)
        except OSError as error:
            self.trouble = error.strerror
            for descriptor in pipes:
                os.close(descriptor)
            return
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(ours_out, False)
        self._poller.register(ours_out, select.POLLIN)
        self._helpers.add(self._srun.pid)
        self._input, self._output, self._said = ours_in, ours_out, b""
        self._state, self.trouble = "starting", None

    def news(self) -> Iterator[StepEnded]:
        """Take in what the step says; yield if that is its end, and none of our doing."""
        if self._output is None:
            return
        try:
            block = os.read(self._output, _LONGEST)
        except BlockingIOError:
            return
        if not block:
            self._close_output()
        self._said = (self._said + block)[-_LONGEST:]
        lines = self._said.splitlines()
        if self._state == "starting" and _READY in lines:
            self._state = "listening"
        if self._state == "listening" and _TOLD in lines:
            self._state = "told"
            yield StepEnded()

    def owns(self, pid: int) -> bool:
        return self._srun is not None and self._srun.pid == pid

    def ended(self) -> Iterator[StepEnded]:
        """Reap srun, which has ended; yield if it ended by Slurm's or a person's doing, and has not said so before."""
        assert self._srun is not None
        yield from self.news()
        self._srun.reap()
        self._helpers.discard(self._srun.pid)
        self._srun = None
        self._close_input()
        self._close_output()
        before, self._state = self._state, "off"
        if before == "starting":
            self.trouble = _last_words(self._said)
        elif before == "listening":
            yield StepEnded()
        if self._again:
            self._again = False
            self.listen()

    def end(self) -> None:
        """Have the step end, and do not wait for it."""
        if self._srun is not None:
            self._close_input()
            if self._state == "starting":
                # Its input does not count yet. srun takes this for the end of a step, whatever we have it ignore.
                self._srun.send(signal.SIGTERM)
        self._again, self._state = False, "ending"

    def close(self) -> None:
        """Have the step end, and wait for it a moment."""
        self.end()
        if self._srun is not None and not reaping.wait_for(self._srun.pid, _PATIENCE):
            # Only srun itself: another process of its group is there to end the step then.
            self._srun.send(signal.SIGKILL)
        self._close_output()

    def _close_input(self) -> None:
        if self._input is not None:
            os.close(self._input)
            self._input = None

    def _close_output(self) -> None:
        if self._output is not None:
            self._poller.unregister(self._output)
            os.close(self._output)
            self._output = None


def srun_command(job_id: str, node: str) -> list[str]:
    """Return the command line of the step: beside all others, and with nothing of its own.

    Args:
        job_id: whose step.
        node: this one, as Slurm calls it; empty: unknown, and any of the job's will do.
    """
    where = [f"--nodelist={node}"] if node else []
    size = ["--overlap", "--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--mem=0", "--gres=none"]
    manners = ["--quiet", "--mpi=none", "--export=NONE", "--job-name=kforge-notice", f"--immediate={_CREATED_WITHIN}"]
    return ["srun", f"--jobid={job_id}", *where, *size, *manners, "/bin/sh", "-c", _TASK]


def srun_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment srun is to see: nothing that asks for another step than ours."""
    return {name: value for name, value in environment.items() if name in _NEEDED or not name.startswith(_STEERING)}


def _last_words(said: bytes) -> str:
    """Return the last line of what srun said: the reason of its end."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("srun: error: ") if lines else "srun has ended"
