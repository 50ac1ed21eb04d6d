"""Starts helpers of a kind and has them ended at once, again and again; says each exit code that there was.

`terminate_workers.py KIND METHOD COUNT`. It fails if one lives on.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

#: Longer than anything here takes on a loaded machine (s).
PATIENCE = 10.0


def ended(processes: Iterable[BaseProcess]) -> set[int]:
    """Wait for processes and return their exit codes."""
    codes, processes = set(), list(processes)
    for process in processes:
        if not wait([process.sentinel], PATIENCE):
            for each in processes:
                each.kill()
            sys.exit("hangs")
        process.join(PATIENCE)
        if process.exitcode is not None:  # an executor's own thread may have reaped it before us
            codes.add(process.exitcode)
    return codes


def terminated(processes: Iterable[BaseProcess]) -> set[int]:
    processes = list(processes)
    for process in processes:
        process.terminate()
    return ended(processes)


def process() -> set[int]:
    """A plain process."""
    worker = multiprocessing.Process(target=time.sleep, args=(600,))
    worker.start()
    return terminated([worker])


def busy_process() -> set[int]:
    """A process that is well under way."""
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=tell_and_sleep, args=(theirs,))
    worker.start()
    ours.recv()
    return terminated([worker])


def tell_and_sleep(connection: Connection) -> None:
    connection.send("ready")
    time.sleep(600)


def pool() -> set[int]:
    """A pool, which terminates its workers when it is left."""
    with multiprocessing.Pool(2) as workers:
        processes = list(workers._pool)  # type: ignore[attr-defined]
    return ended(processes)


def executor() -> set[int]:
    """An executor whose workers somebody terminates, as from Python 3.14 on it does itself."""
    workers = ProcessPoolExecutor(2)
    future = workers.submit(time.sleep, 600)
    codes = terminated(workers._processes.values())
    assert future.exception(PATIENCE) is not None
    workers.shutdown()
    return codes


def loky() -> set[int]:
    """An executor of loky's, with processes of its own kind: when one has died, it kills the others itself."""
    from loky.process_executor import ProcessPoolExecutor as LokyExecutor  # type: ignore[import-untyped]

    workers = LokyExecutor(2)
    workers.submit(time.sleep, 600)
    codes = terminated(workers._processes.values())
    workers.shutdown(kill_workers=True)
    return {-15 if code == -9 else code for code in codes}


def dataloader() -> set[int]:
    """Workers of a DataLoader. They may have torch's own handler already, which ends them with 0."""
    import torch
    from torch.utils.data import DataLoader

    batches = iter(DataLoader(range(10**6), num_workers=2))  # type: ignore[arg-type]
    # Their end is no error, and nothing is left to be shut down.
    torch._C._remove_worker_pids(id(batches))
    batches._shutdown = True  # type: ignore[attr-defined]
    return {0 if code == -15 else code for code in terminated(batches._workers)}  # type: ignore[attr-defined]


if __name__ == "__main__":
    kind: Callable[[], set[int]] = globals()[sys.argv[1]]
    if sys.argv[2] != "loky":
        multiprocessing.set_start_method(sys.argv[2])
    codes: set[int] = set()
    for _ in range(int(sys.argv[3])):
        codes |= kind()
    print("exit codes", *sorted(codes), flush=True)
