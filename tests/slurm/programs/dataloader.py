"""Trains on a DataLoader with two workers, and saves when it is interrupted. `dataloader.py STEPS`."""

from __future__ import annotations

import os
import sys
import time

from torch.utils.data import DataLoader, Dataset

from tests.slurm.programs.training import checkpoint_of, load, save, say


class Numbers(Dataset[int]):
    """More than there are steps."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> int:
        return index


def main() -> None:
    steps, checkpoint = int(sys.argv[1]), checkpoint_of()
    step = load(checkpoint)
    try:
        for _ in DataLoader(Numbers(), num_workers=2):
            if step == steps:
                break
            time.sleep(0.2)
            step += 1
            say(f"step {step} done")
    except KeyboardInterrupt:
        time.sleep(1.5)  # longer than a notice's repeats
        save(checkpoint, step)
        say(f"checkpoint saved at step {step}")
        # torch takes some six seconds to end on a loaded machine, and KillWait is eight.
        os._exit(0)
    else:
        save(checkpoint, step)
        say(f"checkpoint saved at step {step}")
        say(f"finished at step {step}")


if __name__ == "__main__":
    main()
