"""Saves when it is interrupted, as by Ctrl-C, and knows of no other signal. `save_when_interrupted.py STEPS`."""

from __future__ import annotations

import sys
import time

from tests.slurm.programs.training import checkpoint_of, load, save, say

steps, checkpoint = int(sys.argv[1]), checkpoint_of()
step = load(checkpoint)
try:
    while step < steps:
        time.sleep(0.2)
        step += 1
        say(f"step {step} done")
except KeyboardInterrupt:
    time.sleep(1.5)  # longer than a notice's repeats
    save(checkpoint, step)
    say(f"checkpoint saved at step {step}")
else:
    save(checkpoint, step)
    say(f"checkpoint saved at step {step}")
    say(f"finished at step {step}")
