"""Who is below us, and what /proc tells of each (proc(5)): read at a notice, and quickly, while signals wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator

from ...bootstrap import contract, proc, programs
from ..policy.words import Identity, Role, Seen
from . import tree

#: What tells one rank from another.
_RANK_NAMES = """
SLURM_PROCID RANK LOCAL_RANK GROUP_RANK NODE_RANK TORCHELASTIC_RESTART_COUNT OMPI_COMM_WORLD_RANK PMI_RANK PMIX_RANK
"""
_RANK_VARIABLES = tuple(_RANK_NAMES.split())
#: Programs that are no Python, run others, and are never the run itself; some of them catch SIGTERM.
_FORWARDER_NAMES = """
apptainer ash bash bwrap catchsegv chroot chrt conda csh dash docker doas doit dumb-init env fish flock gdb
hydra_pmi_proxy ionice ksh make micromamba mpiexec mpiexec.hydra mpirun nice nohup nsys numactl orted orterun parallel
perf podman prte prted prterun pixi runc screen script setarch setpriv setsid sh singularity slurmstepd stdbuf strace su
sudo taskset tcsh time timeout tini tmux unshare uv watch xargs zsh
"""
_FORWARDERS = frozenset(_FORWARDER_NAMES.split())
#: Of Pythons, as `programs.role_of` calls them.
_ROLES: dict[str, Role] = {"ours": "launcher", "helper": "helper", "wrapper": "wrapper", "program": "program"}
_NOTICES = (signal.SIGUSR1, signal.SIGTERM)
#: Devices of accelerators.
_ACCELERATORS = ("/dev/nvidia", "/dev/kfd", "/dev/accel", "/dev/dri/render")
_TICKS = os.sysconf("SC_CLK_TCK")
#: The most descriptors that are looked at in a process. A guess.
_MOST_DESCRIPTORS = 512


def read(without: Collection[int], folder: str | None) -> tuple[Seen, ...]:
    """Return all that is below us, parents first, and the tasks of an srun of ours that the bootstrap is in.

    Args:
        without: pids of our own children that are no part of the run.
        folder: our private folder; None: no tasks, for others of them are on other nodes, and cannot be told.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS
    seen = [one for pid in proc.children(os.getpid()) if pid not in without for one in _below(pid, now)]
    if folder is not None and any(one.role == "srun" for one in seen):
        seen += _tasks(folder, {one.who.pid for one in seen}, now)
    return tuple(seen)


def _tasks(folder: str, known: set[int], now: float) -> Iterator[Seen]:
    """Yield armed processes that belong to us, though slurmstepd has started them."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in known and f":{folder}\0" in proc.read(f"/proc/{name}/environ"):
            seen = see(int(name), now)
            if seen is not None and seen.armed:
                yield seen


def unseen(pid: int) -> Seen:
    """Return our child where /proc shows nothing: it is taken to act on what came, as without us."""
    return Seen(Identity(contract.node_name(), pid, 0), os.getpid(), "script", caught=frozenset(_NOTICES))


def _below(pid: int, now: float) -> Iterator[Seen]:
    seen = see(pid, now)
    if seen is None:
        return
    yield seen
    # An inner kforge-run looks after what it runs, and an srun's own child is its helper.
    if seen.role not in ("launcher", "srun"):
        for child in proc.children(pid):
            yield from _below(child, now)


def see(pid: int, now: float) -> Seen | None:
    """Return a process as it is at this moment; None: it has ended, or is hidden.

    Args:
        now: clock ticks since the boot.
    """
    fields = proc.stat(pid)
    if not fields or fields[proc.STATE] in proc.ENDED:
        return None
    arguments = proc.command_line(pid)
    masks = proc.signal_sets(pid)
    if not masks:
        return None
    who = Identity(contract.node_name(), pid, int(fields[proc.STARTED]))
    is_python, role = _role(pid, fields[proc.NAME], arguments, masks)
    asleep_in = tree.sleeps_in(pid)
    seen = Seen(
        who,
        int(fields[proc.PARENT]),
        role,
        (programs.name_of(arguments) if is_python else os.path.basename("".join(arguments[:1]))) or fields[proc.NAME],
        tuple(arguments),
        armed=masks["SigCgt"] >= contract.ARMED_SIGNALS,
        used=(int(fields[proc.USER]) + int(fields[proc.SYSTEM])) / _TICKS,
        age=max(now - int(fields[proc.STARTED]), 0) / _TICKS,
        waits_for_children="do_wait" in asleep_in,
        waits_for_signal=tree.SIGNAL_WAIT in asleep_in,
        in_kernel=fields[proc.STATE] == "D",
        caught=frozenset(masks["SigCgt"]),
        blocked=frozenset(masks["SigBlk"]),
        ignored=frozenset(masks["SigIgn"]),
    )
    if not is_python:
        return seen
    links = list(_links(pid))
    pipes = frozenset(link for _, link in links if link.startswith("pipe:"))
    return seen._replace(
        ranks=_ranks(pid),
        output=frozenset(link for number, link in links if number in ("1", "2") and link.startswith("pipe:")),
        pipes=pipes,
        accelerator=any(link.startswith(_ACCELERATORS) for _, link in links),
    )


def _role(pid: int, name: str, arguments: list[str], masks: dict[str, set[int]]) -> tuple[bool, Role]:
    """Return whether a process is a Python, and what it is."""
    if name == "srun":
        return False, "srun"  # or a site's script of that name
    executable = proc.executable(pid)
    if "python" in executable or "pypy" in executable:
        return True, _ROLES[programs.role_of(arguments, *programs.program_of(arguments))]
    if name in programs.SHELLS and {signal.SIGUSR1, signal.SIGTERM} & masks["SigCgt"]:
        return False, "script"
    if executable in _FORWARDERS or name in _FORWARDERS:
        return False, "wrapper"
    heard = masks["SigCgt"] | masks["SigBlk"]
    return False, "foreign" if signal.SIGTERM in heard or signal.SIGINT in heard else "deaf"


def _ranks(pid: int) -> str:
    given = proc.read(f"/proc/{pid}/environ").split("\0")
    found = dict(entry.partition("=")[::2] for entry in given)
    return ",".join(found.get(name, "") for name in _RANK_VARIABLES)


def _links(pid: int) -> Iterator[tuple[str, str]]:
    """Yield what is open in a process, by its number."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers[:_MOST_DESCRIPTORS]:
        try:
            yield number, os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
