"""Saves after each step, and knows nothing of signals. `save_each_step.py STEPS`."""

from __future__ import annotations

import sys
import time

from tests.slurm.programs.training import checkpoint_of, load, save, say

steps, checkpoint = int(sys.argv[1]), checkpoint_of()
for step in range(load(checkpoint) + 1, steps + 1):
    time.sleep(0.2)
    save(checkpoint, step)
    say(f"step {step} done")
say(f"finished at step {steps}")
