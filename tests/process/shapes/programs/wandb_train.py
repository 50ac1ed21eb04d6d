"""Trains with wandb's service below it, to which the last metrics go at the save."""

from __future__ import annotations

import time

import train
import wandb

run = wandb.init(project="shapes", mode="offline")
try:
    train.begin("run")
    end = time.monotonic() + train.LONG
    while time.monotonic() < end:
        train.step()
        run.log({"loss": 1.0})
except KeyboardInterrupt:
    train.say("told run")
    time.sleep(0.3)
    run.log({"loss": 0.5})
    run.finish()
    train.say("SAVED run")
