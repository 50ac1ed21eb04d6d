"""Trains in ray's driver, which has nothing but `except KeyboardInterrupt`."""

from __future__ import annotations

import ray
import train

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False)
    train.train()
