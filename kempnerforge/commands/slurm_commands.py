"""Slurm's own commands, run and waited for: sbatch and scontrol, each for a bounded time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from ..launcher.asking import job_record
from . import listening
from .trouble import BAD_INPUT, FAILED, Trouble

#: What a controller is given to answer (s). Slurm's commands try for minutes when it is down. A guess.
PATIENCE = 20.0
#: What sbatch is given to take a job (s): it may wait for a busy controller, and must not be killed half-way. A
#: guess.
SUBMIT_PATIENCE = 120.0
#: How much of a complaint is passed on (letters): a guess.
_LONGEST_COMPLAINT = 2000
#: What an array that has not started has for a task's number: NO_VAL in slurm.h.
_NO_TASK = "4294967294"
_NOT_CONFIGURED = "Could not establish a configuration source"
#: How Slurm's commands say that no controller answers: what they were asked may be right.
_NO_CONTROLLER = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    _NOT_CONFIGURED,
)


class Answer(NamedTuple):
    """What a command of Slurm's said.

    Attributes:
        status: its exit status.
        output: its standard output.
        errors: its standard error, in one line and without the command's name.
    """

    status: int
    output: str
    errors: str

    @property
    def controller_is_away(self) -> bool:
        """Whether it failed because Slurm's controller did not answer."""
        return self.status != 0 and any(text in self.errors for text in _NO_CONTROLLER)


def have(command: str) -> bool:
    """Return whether a command of Slurm's is here."""
    return shutil.which(command) is not None


def need(command: str) -> None:
    """Require a command of Slurm's.

    Raises:
        Trouble: it is not here.
    """
    if not have(command):
        raise Trouble(
            f"there is no {command} here", "run this where Slurm is, on a login node for instance", status=FAILED
        )


def run(
    command: Sequence[str],
    standard_input: bytes = b"",
    patience: float = PATIENCE,
    without: Sequence[str] = (),
    time_format: str = "%s",
    *,
    submits: bool = False,
) -> Answer:
    """Run a command of Slurm's, in the language and with the times that are understood here.

    Args:
        command: with its arguments.
        standard_input: what it reads.
        patience: how long it may take (s).
        without: variables that it shall not see.
        time_format: SLURM_TIME_FORMAT.
        submits: it may have submitted a job already: whatever it says, it is not ended before its time is up.

    Raises:
        Trouble: it cannot be executed, does not come to an end, or says more than an answer has.
    """
    # With SBATCH_WAIT sbatch would wait for the job's end.
    environment = {name: value for name, value in os.environ.items() if name not in ("SBATCH_WAIT", *without)}
    environment |= {"LC_ALL": "C", "SLURM_TIME_FORMAT": time_format}
    try:
        said = listening.listen(command, standard_input, environment, patience, discard=submits)
    except listening.TooSlow:
        raise Trouble(
            f"{command[0]} did not answer within {patience:.0f} s",
            "is Slurm's controller up? scontrol ping",
            status=FAILED,
        ) from None
    except listening.TooMuch:
        raise Trouble(
            f"{command[0]} says more than any answer has", f"is it Slurm's own? type {command[0]}", status=FAILED
        ) from None
    except OSError as error:
        raise Trouble(f"cannot execute {command[0]}: {error.strerror}", status=FAILED) from None
    complaint = said.errors[: 4 * _LONGEST_COMPLAINT].decode("utf-8", "replace")[:_LONGEST_COMPLAINT]
    lines = re.sub(rf"^{command[0]}: (error|fatal): ", "", complaint, flags=re.MULTILINE)
    errors = "; ".join(line.strip() for line in lines.splitlines() if line.strip())
    if _NOT_CONFIGURED in errors:
        errors = f"Slurm is installed here, but finds no slurm.conf ({_NOT_CONFIGURED})"
    return Answer(said.status, said.output.decode("utf-8", "replace"), errors)


def ask(*arguments: str) -> str:
    """Return what scontrol says.

    Raises:
        Trouble: it is not here, or fails.
    """
    need("scontrol")
    answer = run(["scontrol", *arguments])
    if answer.status != 0:
        raise Trouble(
            f"scontrol {' '.join(arguments)}: {answer.errors or answer.output.strip()[:_LONGEST_COMPLAINT]}",
            status=FAILED,
        )
    return answer.output


def job_records(
    job: str, cluster: Sequence[str] = (), patience: float = PATIENCE
) -> tuple[str, list[job_record.Record]]:
    """Return what scontrol says of a job: as it is, and the records in it as far as they can be read.

    Args:
        job: as scontrol has it: `12`, or `12_3`.
        cluster: options that name the cluster.
        patience: see `run`.

    Raises:
        Trouble: see `run`.
    """
    seal = job_record.new_seal()
    command = ["scontrol", *cluster, "show", "job", job]
    answer = run(command, patience=patience, time_format=job_record.time_format(seal)).output
    try:
        return answer, job_record.records(answer, seal)
    except job_record.Unreadable:
        return answer, []


def why_not_accepted(script: bytes, options: Sequence[str]) -> str | None:
    """Return why sbatch would not take a script; None: it would.

    Args:
        script: what sbatch reads.
        options: of its command line, which count more than SBATCH_* variables; those count more than the script.

    Raises:
        Trouble: it cannot be asked.
    """
    answer = run(["sbatch", "--test-only", *options], script)
    if answer.controller_is_away:
        raise Trouble(answer.errors, status=FAILED)
    return None if answer.status == 0 else answer.errors


def submit(script: bytes, options: Sequence[str]) -> str:
    """Submit a job, and return its id, with `;CLUSTER` behind it as sbatch --parsable has it.

    Args:
        script: what sbatch reads.
        options: see `why_not_accepted`.

    Raises:
        Trouble: sbatch did not take it.
    """
    need("sbatch")
    answer = run(["sbatch", "--parsable", *options], script, SUBMIT_PATIENCE, submits=True)
    if answer.status != 0:
        raise not_submitted(answer)
    return submitted_job(answer)


def submitted_job(answer: Answer) -> str:
    """Return what `sbatch --parsable` calls the job: its last line, for a site may have it greet first."""
    return answer.output.strip().rpartition("\n")[2]


def not_submitted(answer: Answer) -> Trouble:
    """Return why sbatch did not take a job."""
    status = FAILED if answer.controller_is_away else BAD_INPUT
    return Trouble(f"not submitted: {answer.errors}", hint_for(answer.errors), status=status)


def hint_for(refusal: str) -> str:
    """Return what to do about what sbatch says; empty: it says it itself."""
    return "no GPUs here? --gpus-per-node=0" if "(gres)" in refusal else ""


def could_not_be_launched(reason: str) -> bool:
    """Return whether a job waits because Slurm could not start it on its node, and holds it.

    Args:
        reason: Slurm's; squeue and scontrol join its words differently.
    """
    return reason.replace("_", " ").startswith("launch failed requeued held")


def log_of(job: str) -> str:
    """Return where a job's log will be, with `%a` for the number of an array's task."""
    return log_in(ask("show", "job", job)).replace(_NO_TASK, "%a")


def log_in(record: str) -> str:
    """Return where a job's log is, by what `scontrol show job` says of it."""
    path = re.search(r"^   StdOut=(.*)$", record, re.MULTILINE)
    return path[1] if path else "scontrol does not say where"
