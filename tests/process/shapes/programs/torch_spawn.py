"""Trains in two processes that torch.multiprocessing.spawn starts and waits for."""

from __future__ import annotations

import torch.multiprocessing
import train


def rank(number: int) -> None:
    train.train(f"rank{number}")


if __name__ == "__main__":
    torch.multiprocessing.spawn(rank, nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
