"""Trains in a task of ray's; the driver waits for it."""

from __future__ import annotations

import os

import ray
import train


@ray.remote
def remote() -> None:
    train.train()


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}})
    ray.get(remote.remote())
