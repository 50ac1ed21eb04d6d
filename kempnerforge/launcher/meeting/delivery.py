"""Who gets the notice. In this order:

1. every cooperative process, and every srun below us. An srun gets SIGUSR1 whatever came: it hands that on to all its
   tasks on all nodes, while SIGTERM would make it kill them (slurm-facts, "Who receives what"). Where all its tasks
   are kforge-runs that have registered here it gets nothing: it hands on to what is below them, too;
2. if there is neither, every armed process;
3. if there is none either, the direct child. A rank agent gets SIGTERM: it would die of SIGUSR1, and torchrun hands
   SIGTERM on to its ranks.

Whoever saves is left in peace, and so is what is around it: the bash, uv or torchrun above it, the workers below it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from ...bootstrap import proc, programs
from ..policy.tables import SRUN_SETTLES
from ..policy.words import Delivered
from ..processes import tree
from ..processes.child import Child
from ..processes.process import Process, identify
from .armed import ArmedProcess

#: Receivers that are named in the log; a node may have more ranks than a line has room. A guess.
_MOST_NAMED = 8


def deliver(
    signum: int, child: Child, cooperative: Iterable[Process], armed: Iterable[ArmedProcess], tasks_here: int = 0
) -> Delivered:
    """Signal whoever should have the notice, at once, and return who that was.

    Args:
        tasks_here: see `Rules`.
    """
    told = [process.name for process in cooperative if process.notify(signum)]
    ranks_told = bool(told)
    all_told = 0 < tasks_here <= len(told)
    sruns = _sruns(child) if child.status is None and not all_told else []
    told += _signal_sruns(sruns)
    started = max((process.started for process in sruns), default=None)
    if told:
        return Delivered(_listed(told), started, ranks_told=ranks_told)
    acting = [one for one in armed if one.notify(signum)]
    if acting or child.status is not None:
        told = [one.process.name for one in acting]
        return Delivered(_listed(told), None, tuple(one.process.who for one in acting), bool(acting))
    is_agent = programs.runs_one_of(proc.command_line(child.pid), programs.RANK_AGENTS)
    wanted = signal.SIGTERM if is_agent else signum
    child.send(wanted)
    as_other = "" if wanted == signum else f" as {signal.Signals(wanted).name}"
    return Delivered(f"the child (pid {child.pid}){as_other}", None)


def deliver_again(signum: int, child: Child, armed: Iterable[ArmedProcess], now: float) -> Delivered:
    """Signal every srun so young that it may have swallowed the first SIGUSR1, and every armed process that had it."""
    young = [process for process in _sruns(child) if now - process.started < SRUN_SETTLES]
    told = [one.process.name for one in armed if one.notify_again(signum)]
    return Delivered(_listed(_signal_sruns(young) + told), max((process.started for process in young), default=None))


def _listed(told: list[str]) -> str:
    more = len(told) - _MOST_NAMED
    return ", ".join(told[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "") or "nobody"


def _sruns(child: Child) -> list[tree.Process]:
    # An srun forks a helper of the same name: only the outermost is asked. A site's srun may be a script around it.
    sruns: dict[int, tree.Process] = {}
    for process in tree.walk(child.pid):
        if _is_srun(process) and tree.parent(process.pid) not in sruns:
            sruns[process.pid] = process
    return list(sruns.values())


def _is_srun(process: tree.Process) -> bool:
    executable = proc.executable(process.pid)
    return executable.startswith("srun") or (process.name == "srun" and not executable.endswith("sh"))


def _signal_sruns(sruns: list[tree.Process]) -> list[str]:
    told = []
    for found in sruns:
        srun = Process(identify(found.pid), found.name)
        if srun.send(signal.SIGUSR1):
            told.append(f"{srun.name} as SIGUSR1")
        srun.close()
    return told
