"""Who gets the notice. In this order:

1. every cooperative process, and every srun below us. An srun gets SIGUSR1 whatever came: it hands that on to all its
   tasks on all nodes, while SIGTERM would make it kill them (slurm-facts, "Who receives what");
2. if there is neither, the direct child. A launcher of ranks gets SIGTERM: torchrun dies of SIGUSR1 and orphans them.

A cooperative process is the one that saves: the bash or uv above it, and the workers below it, are left in peace.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from . import tree
from .child import Child
from .control import Peer
from .policy.tables import SRUN_SETTLES
from .policy.words import Delivered

#: Receivers that are named in the log; a node may have more ranks than a line has room.
_MOST_NAMED = 8
_RANK_LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})
_RANK_LAUNCHER_MODULES = frozenset({"torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch"})


def deliver(signum: int, child: Child, peers: Iterable[Peer]) -> Delivered:
    """Signal whoever should have the notice, at once, and return who that was."""
    told = [f"{peer.program} (pid {peer.pid})" for peer in peers if peer.cooperative and peer.send(signum)]
    if child.status is not None:
        return Delivered(_listed(told), None)
    sruns = _sruns(child)
    told += _signal_sruns(sruns)
    if not told:
        wanted = signal.SIGTERM if launches_ranks(tree.command_line(child.pid)) else signum
        child.send(wanted)
        as_other = "" if wanted == signum else f" as {signal.Signals(wanted).name}"
        told = [f"the child (pid {child.pid}){as_other}"]
    return Delivered(_listed(told), max((process.started for process in sruns), default=None))


def deliver_again(child: Child, now: float) -> Delivered:
    """Signal every srun so young that it may have swallowed the first SIGUSR1."""
    young = [process for process in _sruns(child) if now - process.started < SRUN_SETTLES]
    return Delivered(_listed(_signal_sruns(young)), max((process.started for process in young), default=None))


def _listed(told: list[str]) -> str:
    more = len(told) - _MOST_NAMED
    return ", ".join(told[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "") or "nobody"


def _sruns(child: Child) -> list[tree.Process]:
    # An srun forks a helper of the same name: only the outermost is asked.
    return [process for process in tree.walk(child.pid, past=("srun",)) if process.name == "srun"]


def _signal_sruns(sruns: list[tree.Process]) -> list[str]:
    return [f"srun (pid {process.pid}) as SIGUSR1" for process in sruns if _send(process.pid, signal.SIGUSR1)]


def launches_ranks(arguments: list[str]) -> bool:
    """Return whether a command line is that of a known launcher of ranks, run as a script or with `-m`."""
    names = {os.path.basename(argument) for argument in arguments[:2]}
    module = arguments[arguments.index("-m") + 1 : arguments.index("-m") + 2] if "-m" in arguments else []
    return bool(names & _RANK_LAUNCHERS) or bool(_RANK_LAUNCHER_MODULES.intersection(module))


def _send(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True
