"""Trains on torch's DataLoader with two workers. `dataloader.py METHOD`."""

from __future__ import annotations

import sys

import train
from torch.utils.data import DataLoader

if __name__ == "__main__":
    numbers = list(range(64))
    loader = DataLoader(numbers, num_workers=2, multiprocessing_context=sys.argv[1], persistent_workers=True)  # type: ignore[arg-type, var-annotated]
    try:
        assert sum(int(batch) for batch in loader) == sum(range(64))
        train.begin("run")
        for _ in range(6000):
            assert sum(int(batch) for batch in loader) == sum(range(64))
            train.step()
    except KeyboardInterrupt:
        train.save("run")
