"""Who has a way of its own to hear a notice, and is told in any case: cooperative processes, and every srun below us.

An srun gets SIGUSR1 whatever came: it hands that on to all its tasks on all nodes, while SIGTERM would make it kill
them (slurm-facts, "Who receives what"). But it gets nothing where its tasks would die of it, because no kforge-run and
no handler is known to be in them; and nothing where all its tasks are kforge-runs that have registered here: it hands
on to what is below them, too.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from ...bootstrap import contract, proc
from ..policy.ledger import listed
from ..policy.tables import SRUN_SETTLES
from ..policy.words import Delivered, Rules
from ..processes import tree
from ..processes.child import Child
from ..processes.process import Process, identify
from .receivers import is_armed


def deliver(signum: int, child: Child, cooperative: Sequence[Process], rules: Rules) -> Delivered:
    """Signal them at once, and return who that was."""
    told = [process.name for process in cooperative if process.notify(_word(process, signum))]
    sruns = _sruns(child) if child.status is None and _hand_on(rules, len(told)) else []
    told += _signal_sruns(sruns)
    return Delivered(listed(told), max((process.started for process in sruns), default=None))


def deliver_again(child: Child, cooperative: Sequence[Process], rules: Rules, now: float) -> Delivered:
    """Signal every srun so young that it may have swallowed the first SIGUSR1."""
    if not _hand_on(rules, len(cooperative)):
        return Delivered("", None)
    young = [process for process in _sruns(child) if now - process.started < SRUN_SETTLES]
    return Delivered(listed(_signal_sruns(young)), max((process.started for process in young), default=None))


def _hand_on(rules: Rules, told: int) -> bool:
    """Return whether an srun is to hand the notice on.

    Args:
        told: how many cooperative processes are here.
    """
    if rules.tasks == "ours":
        return not 0 < rules.tasks_here <= told
    return told > 0


def _word(process: Process, signum: int) -> int:
    """Return the signal by which a process hears us: an armed one keeps Slurm's own back, unless it waits for them."""
    pid = process.who.pid
    return contract.WORD_SIGNAL if is_armed(pid) and tree.SIGNAL_WAIT not in tree.sleeps_in(pid) else signum


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
