"""A rank that polls the ready-made handler, and begins each line with its number. `rank_of_torchrun.py STEPS`."""

from __future__ import annotations

import os
import sys
import time

from kempnerforge.resilience import shutdown_handler
from tests.slurm.programs.training import checkpoint_of, load, save, say

rank, steps = os.environ["RANK"], int(sys.argv[1])
checkpoint = checkpoint_of(rank)
step = load(checkpoint, f"{rank}: ")
while step < steps and not shutdown_handler.should_shutdown():
    time.sleep(0.2)
    step += 1
    say(f"{rank}: step {step} done")
save(checkpoint, step)
say(f"{rank}: checkpoint saved at step {step}")
if step == steps:
    say(f"{rank}: finished at step {step}")
shutdown_handler.finish()
