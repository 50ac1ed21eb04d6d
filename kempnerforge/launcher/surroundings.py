"""What around a run would lose it, said once at the start, with the cure."""

from __future__ import annotations

import os
import re
import signal

from . import slurm, tree

#: `sbatch --signal=[{R|B}:]SIGNAL[@SECONDS]`; without seconds it comes 60 s before the end (sbatch(1)).
_SIGNAL_OPTION = re.compile(r"^#SBATCH\s+--signal[=\s]+(?:[RB]+:)?\w+(?:@(\d+))?", re.MULTILINE)
_DEFAULT_LEAD = 60.0


def batch_shell_warning() -> str | None:
    """Return what is wrong if another process is the batch process and keeps SIGUSR1 from us.

    `--signal=B:` signals the batch process alone, and /bin/sh or bash dies of SIGUSR1, which ends the job
    (slurm-facts, "Who receives what").
    """
    batch = None
    for pid in slurm.ancestors():
        if tree.command_line(pid)[:1] and tree.command_line(pid)[0].startswith("slurmstepd:"):
            break
        batch = pid
    else:
        return None
    if batch is None:
        return None
    caught, ignored = _signal_set(batch, "SigCgt"), _signal_set(batch, "SigIgn")
    if signal.SIGUSR1 in caught:
        return None
    name = os.path.basename((tree.command_line(batch) or ["a process"])[0])
    does = (
        "ignores SIGUSR1, so no notice gets here" if signal.SIGUSR1 in ignored else "dies of SIGUSR1, and the job ends"
    )
    return f"the batch script's {name} (pid {batch}) {does}: start with `exec kforge-run …`"


def _signal_set(pid: int, field: str) -> set[int]:
    """Return a signal mask of /proc/PID/status as signal numbers (proc_pid_status(5))."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            mask = re.search(rf"^{field}:\s*([0-9a-f]+)", status.read(), re.MULTILINE)
    except OSError:
        return set()
    bits = int(mask[1], 16) if mask else 0
    return {signum for signum in range(1, signal.NSIG) if bits >> (signum - 1) & 1}


def not_requeueable_warning(requeueable: bool, wanted: bool) -> str | None:
    """Return what is wrong if the job cannot be requeued though that is wanted."""
    if requeueable or not wanted:
        return None
    return "this job may not be requeued: add `#SBATCH --requeue`, or say --no-requeue to kforge-run"


def lead_warning(time_to_stop: float, kill_wait: float, script: str) -> str | None:
    """Return what is wrong if Slurm gives less time than the run needs to stop.

    Args:
        time_to_stop: what ``--timeout`` allows, or the last attempt took (s).
        kill_wait: from SIGTERM to SIGKILL (s).
        script: the batch script.
    """
    option = _SIGNAL_OPTION.search(script)
    lead = 0.0 if option is None else float(option[1] or _DEFAULT_LEAD)
    if time_to_stop <= max(lead, kill_wait):
        return None
    without = f"the batch script has no --signal, and unless sbatch was given one Slurm gives {kill_wait:.0f} s"
    gives = f"the batch script's --signal gives {lead:.0f} s" if option else without
    cure = f"#SBATCH --signal=B:USR1@{time_to_stop + 60:.0f}"
    return f"stopping may take {time_to_stop:.0f} s, but {gives}: ask for `{cure}`"
