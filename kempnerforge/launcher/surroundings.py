"""What around a run would lose it, said once at the start, with the cure."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from ..bootstrap import contract, proc, programs
from .asking import slurm
from .policy import tables
from .processes import tree

#: `sbatch --signal=[{R|B}:]SIGNAL[@SECONDS]`; without seconds it comes 60 s before the end (sbatch(1)).
_SIGNAL_OPTION = re.compile(
    r"""^#SBATCH\s[^#\n]*?--signal[=\s]+["']?(?:([RB]+):)?(?:SIG)?(\w+)(?:@(\d{1,9}))?""", re.MULTILINE | re.IGNORECASE
)
DEFAULT_LEAD = 60
#: What torchrun's agent gives the other ranks when one has ended with an error (s), and what changes that.
AGENT_PATIENCE = 30.0
AGENT_PATIENCE_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
DEAF_SRUN = "srun does not hand the notice on to its tasks on other nodes, which do not save then"
#: What it means that the bootstrap is not in a Python.
_WITHOUT = "a notice gets there as Ctrl-C, and Slurm's own SIGTERM ends it, also while it saves"
#: Python's options with which it does not read PYTHONPATH, or no sitecustomize (python(1)).
_ISOLATED = re.compile(r"-[A-Za-z]*?([IES])")


def batch_shell_warning(task: str) -> str | None:
    """Return what is wrong if another process is the batch process and keeps SIGUSR1 from us.

    `--signal=B:` signals the batch process alone, and /bin/sh or bash dies of SIGUSR1, which ends the job
    (slurm-facts, "Who receives what").

    Args:
        task: SLURM_TASK_PID, which tells the batch process where /proc hides slurmstepd.
    """
    batch = None
    if task == str(os.getpid()):
        return None
    for pid in slurm.ancestors():
        if proc.command_line(pid)[:1] and proc.command_line(pid)[0].startswith("slurmstepd:"):
            break
        batch = pid
        if task == str(pid):
            break
    else:
        return None
    if batch is None:
        return None
    caught, ignored = proc.signal_set(batch, "SigCgt"), proc.signal_set(batch, "SigIgn")
    if signal.SIGUSR1 in caught:
        return None
    name = os.path.basename((proc.command_line(batch) or ["a process"])[0])
    does = (
        "ignores SIGUSR1, so no notice gets here" if signal.SIGUSR1 in ignored else "dies of SIGUSR1, and the job ends"
    )
    return f"the batch script's {name} (pid {batch}) {does}: start with `exec kforge-run …`"


def not_requeueable_warning(requeueable: bool, wanted: bool) -> str | None:
    """Return what is wrong if the job cannot be requeued though that is wanted."""
    if requeueable or not wanted:
        return None
    return "this job may not be requeued: add `#SBATCH --requeue`, or say --no-requeue to kforge-run"


def unreadable_warning(job_id: str, why: str) -> str:
    """Return what it means that Slurm's record of the job makes no sense to us, and what would help to change that."""
    report = f"the output of `scontrol show job -o {job_id}` and of `scontrol --version`"
    return f"cannot read this job's record ({why}): nothing will be requeued; please report it with {report}"


class AskedSignal(NamedTuple):
    """What the last ``--signal`` of a batch script asks for; sbatch's command line may have asked for another."""

    #: It goes to the batch process.
    batch: bool
    #: Its name without SIG, or its number.
    name: str
    #: So long before the end (s).
    lead: float

    @property
    def is_notice(self) -> bool:
        """Whether it gets here, and tells that the end is near."""
        return self.batch and (self.name in ("USR1", "10") or self.is_term)

    @property
    def is_term(self) -> bool:
        """Whether it is what a person sends as well."""
        return self.batch and self.name in ("TERM", "15")


def asked_signal(script: str) -> AskedSignal | None:
    """Return which signal a batch script has Slurm send before the end; None: none."""
    found = _SIGNAL_OPTION.findall(script)
    if not found:
        return None
    flags, name, seconds = found[-1]
    return AskedSignal("B" in flags.upper(), name.upper(), float(seconds or DEFAULT_LEAD))


def signal_warning(asked: AskedSignal | None) -> str | None:
    """Return what is wrong if a batch script asks for another signal than the notice's."""
    if asked is None or (asked.is_notice and not asked.is_term):
        return None
    cure = f"ask for `#SBATCH --signal=B:USR1@{asked.lead:.0f}`"
    if not asked.batch:
        return f"the batch script's --signal={asked.name} has no B:, and does not get here: {cure}"
    means = "is taken for the time limit if it comes when it is due, and a person's then as well"
    other = "is no notice: it is handed on to the program, and nothing is requeued after it"
    return f"the batch script's --signal=B:{asked.name} {means if asked.is_term else other}: {cure}"


def lead_warning(time_to_stop: float, kill_wait: float, asked: AskedSignal | None) -> str | None:
    """Return what is wrong if Slurm gives less time than the run needs to stop.

    Args:
        time_to_stop: what ``--timeout`` allows, or the last attempt took (s).
        kill_wait: from SIGTERM to SIGKILL (s).
        asked: for which signal the batch script asks.
    """
    if asked is not None and not asked.is_notice:
        return None  # that is said
    lead = 0.0 if asked is None else asked.lead
    if time_to_stop <= max(lead, kill_wait):
        return None
    without = f"the batch script has no --signal, and unless sbatch was given one Slurm gives {kill_wait:.0f} s"
    gives = f"the batch script's --signal gives {lead:.0f} s" if asked else without
    cure = f"#SBATCH --signal=B:USR1@{tables.recommended_lead(time_to_stop)}"
    return f"stopping may take {time_to_stop:.0f} s, but {gives}: ask for `{cure}`"


def agent_warning(child: int, time_to_stop: float) -> str | None:
    """Return what is wrong if a rank agent of torch's may kill the ranks that save.

    Args:
        child: pid of the direct child.
        time_to_stop: what ``--timeout`` allows, or the last attempt took (s).
    """
    if time_to_stop <= AGENT_PATIENCE:
        return None
    for process in tree.walk(child, past=("srun",)):
        is_agent = programs.runs_one_of(proc.command_line(process.pid), programs.TORCH_AGENTS)
        if is_agent and tree.was_given(process.pid, AGENT_PATIENCE_VARIABLE) is False:
            agent = f"{os.path.basename(tree.program(process.pid))} (pid {process.pid})"
            kills = f"kills all ranks {AGENT_PATIENCE:.0f} s after one has ended with an error"
            cure = f"set {AGENT_PATIENCE_VARIABLE}={tables.recommended_lead(time_to_stop)}"
            return f"stopping may take {time_to_stop:.0f} s, but {agent} {kills}: {cure}"
    return None


def deaf_srun_warning(command: list[str]) -> str | None:
    """Return what is wrong if the command is an srun that hands no notice on."""
    if os.path.basename(command[0]) != "srun" or not slurm.keeps_notices_back(command):
        return None
    return f"{DEAF_SRUN}: take USR1 out of --ignore-signals"


def not_armed_warning(child: int, last_look: bool) -> str | None:
    """Return what it means that nothing is armed; None if something may still be, or needs not be.

    Args:
        child: pid of the direct child.
        last_look: what is not armed now, we do not wait for.
    """
    below = list(tree.walk(child, past=("srun",)))
    if any(process.name == "srun" for process in below):
        return None  # its tasks are on other nodes
    if any(tree.program(process.pid).endswith(("kforge-run", "kempnerforge.launcher")) for process in below):
        return None  # that one looks after what is below it
    name = proc.executable(child)
    if not name:
        return None  # it has ended, just now
    if any({signal.SIGUSR1, signal.SIGTERM} & proc.signal_set(process.pid, "SigCgt") for process in below):
        return None  # that one acts on a notice by itself
    pythons = [process.pid for process in below if "python" in proc.executable(process.pid)]
    for pid in pythons:
        cause = _why_not_armed(pid)
        if cause:
            return f"{tree.program(pid)} (pid {pid}) can only be interrupted from outside: {cause}; {_WITHOUT}"
    if pythons:
        # It is too old a Python, or has not come so far.
        only = f"{tree.program(pythons[0])} (pid {pythons[0]}) can only be interrupted from outside; {_WITHOUT}"
        return only if last_look else None
    if not last_look and (name in programs.SHELLS or len(below) > 1):
        return None
    return f"nothing can be interrupted: no Python runs in {name} (pid {child}), nor what handles SIGTERM"


def isolating_option(arguments: Sequence[str]) -> str | None:
    """Return the option of a Python command line that keeps the bootstrap out; None: there is none."""
    for argument in arguments[1:]:
        if not argument.startswith("-") or argument.startswith(("-c", "-m", "-W", "-X")):
            break
        if option := _ISOLATED.match(argument):
            return f"-{option[1]}"
    return None


def _why_not_armed(pid: int) -> str | None:
    """Return why the bootstrap does not reach a Python; None: it does, or did not yet."""
    if option := isolating_option(proc.command_line(pid)):
        return f"started with {option}"
    return "its environment was cleaned" if tree.was_given(pid, contract.CONTROL_VARIABLE) is False else None
