"""Trains on what joblib's workers compute, and needs them once more at the save."""

from __future__ import annotations

from math import sqrt

import train
from joblib import Parallel, delayed


def work(parallel: Parallel) -> None:
    assert parallel(delayed(sqrt)(number * number) for number in range(4)) == [0, 1, 2, 3]


if __name__ == "__main__":
    with Parallel(n_jobs=2) as parallel:
        try:
            work(parallel)
            train.begin("run")
            for _ in range(6000):
                work(parallel)
                train.step()
        except KeyboardInterrupt:
            train.save("run")
