"""Trains on a DataLoader with two workers; `ctrl_c` knows nothing of kforge-run, `cooperative` polls its handler.

It says `ready` once both workers have delivered, and then `epoch` after each pass over the data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset[int]):
    """So few that a pass over them is soon over."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        time.sleep(0.005)
        return index


def epochs(method: str) -> Iterator[None]:
    """Yield after each pass over the data, which never ends."""
    loader = DataLoader(Numbers(), num_workers=2, multiprocessing_context=method, persistent_workers=True)
    first = True
    while True:
        assert sum(int(batch) for batch in loader) == sum(range(8))
        print("ready" if first else "epoch", flush=True)
        first = False
        yield


def save() -> None:
    print("told", flush=True)
    time.sleep(1.2)
    print("saved", flush=True)


def ctrl_c(method: str) -> None:
    try:
        for _ in epochs(method):
            pass
    except KeyboardInterrupt:
        save()


def cooperative(method: str) -> None:
    from kempnerforge.resilience import shutdown_handler

    for _ in epochs(method):
        if shutdown_handler.should_shutdown():
            save()
            shutdown_handler.finish()
            break


if __name__ == "__main__":
    {"ctrl_c": ctrl_c, "cooperative": cooperative}[sys.argv[1]](sys.argv[2])
