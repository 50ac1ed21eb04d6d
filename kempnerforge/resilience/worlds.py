"""Which ranks have to stop together with this process: found without importing anything, and told to kforge-run.

Libraries that have not been imported are not in use, so `sys.modules` is all that is looked at. Whatever a library
turns out to be like, nothing is raised here: a rank without a world stops alone, as one without kforge-run does.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

    #: What tells the world from every other one of the job, the rank in it, and how many it has (0: it is not known).
    World = Tuple[str, int, int]
    Found = Optional[World]

#: Where a world can be told from another one only with the node's name.
_LOOPBACK = ("", "localhost", "127.0.0.1", "::1")
#: What Slurm and torchrun call the part of the job that a process belongs to.
_PARTS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
#: Launchers of MPI: a rank, the world's size, and what tells one start from another.
_MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE"),
    ("PMIX_RANK", "PMIX_SIZE", "PMIX_NAMESPACE"),
    ("PMI_RANK", "PMI_SIZE", "PMI_JOBID"),
)


def named(name: str) -> World:
    """Return the world of all that give it this name."""
    return f"name {name} {_part()}", os.getpid(), 0


def find() -> Found:
    """Return the world of this process; None: it has none, or none yet."""
    for look in (_torch, _jax, _horovod, _mpi):
        try:
            world = look()
        except Exception:  # noqa: BLE001 - another version of a library may look in any way
            world = None
        if world is not None and world[2] > 1:
            return world
    return None


def _torch() -> Found:
    c10d: Any = sys.modules.get("torch.distributed.distributed_c10d")
    if c10d is None or not c10d.is_initialized():
        return None
    store = c10d._world.pg_map[c10d._get_default_group()][1]
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    if hasattr(store, "host"):
        address = _address(store.host, store.port)
    elif hasattr(store, "path"):
        address = store.path
    else:
        address = _address(os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", ""))
    size = c10d.get_world_size()
    return f"torch {address} {_part()} {size}", c10d.get_rank(), size


def _jax() -> Found:
    state: Any = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    if state is None or state.client is None:
        return None
    host, _, port = state.coordinator_address.rpartition(":")
    size = state.num_processes
    return f"jax {_address(host, port)} {_part()} {size}", state.process_id, size


def _horovod() -> Found:
    if "horovod" not in sys.modules or "HOROVOD_RANK" not in os.environ:
        return None
    size = int(os.environ["HOROVOD_SIZE"])
    host, port = (os.environ.get("HOROVOD_GLOO_RENDEZVOUS_" + name, "") for name in ("ADDR", "PORT"))
    return f"horovod {_address(host, port)} {_part()} {size}", int(os.environ["HOROVOD_RANK"]), size


def _mpi() -> Found:
    if "mpi4py.MPI" not in sys.modules:
        return None
    for rank, size, start in _MPI:
        if rank in os.environ and size in os.environ:
            key = f"mpi {os.environ.get(start, '')} {_part()} {os.environ[size]}"
            return key, int(os.environ[rank]), int(os.environ[size])
    return None


def _address(host: str, port: object) -> str:
    on = "@" + os.uname().nodename if host in _LOOPBACK else ""
    return f"{host}{on}:{port}"


def _part() -> str:
    return ".".join(os.environ.get(name, "") for name in _PARTS)
