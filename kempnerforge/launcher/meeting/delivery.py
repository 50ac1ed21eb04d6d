"""Who has a way of its own to hear a notice, and is told in any case: cooperative processes, and every srun below us.

An srun gets SIGUSR1 whatever came: it hands that on to all its tasks on all nodes, while SIGTERM would make it kill
them (slurm-facts, "Who receives what").
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from ...bootstrap import contract
from ..policy.tables import SRUN_SETTLES
from ..policy.words import Delivered
from ..processes import tree
from ..processes.child import Child
from ..processes.process import Process, identify
from .receivers import is_armed

#: Receivers that are named in the log; a node may have more ranks than a line has room. A guess.
_MOST_NAMED = 8


def deliver(signum: int, child: Child, cooperative: Iterable[Process]) -> Delivered:
    """Signal them at once, and return who that was."""
    told = [process.name for process in cooperative if process.notify(_word(process, signum))]
    sruns = _sruns(child) if child.status is None else []
    told += _signal_sruns(sruns)
    return Delivered(_listed(told), max((process.started for process in sruns), default=None))


def deliver_again(child: Child, now: float) -> Delivered:
    """Signal every srun so young that it may have swallowed the first SIGUSR1."""
    young = [process for process in _sruns(child) if now - process.started < SRUN_SETTLES]
    return Delivered(_listed(_signal_sruns(young)), max((process.started for process in young), default=None))


def _word(process: Process, signum: int) -> int:
    """Return the signal by which a process hears us: an armed one keeps Slurm's own signals back."""
    return contract.WORD_SIGNAL if is_armed(process.who.pid) else signum


def _listed(told: list[str]) -> str:
    more = len(told) - _MOST_NAMED
    return ", ".join(told[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _sruns(child: Child) -> list[tree.Process]:
    # An srun forks a helper of the same name: only the outermost is asked.
    return [process for process in tree.walk(child.pid, past=("srun",)) if process.name == "srun"]


def _signal_sruns(sruns: list[tree.Process]) -> list[str]:
    told = []
    for found in sruns:
        srun = Process(identify(found.pid), found.name)
        if srun.send(signal.SIGUSR1):
            told.append(f"{srun.name} as SIGUSR1")
        srun.close()
    return told
