"""What the training programs here have in common: an exact checkpoint of one number, and lines that runs.py reads."""

from __future__ import annotations

import os
from pathlib import Path


def checkpoint_of(rank: str = "0") -> Path:
    """Return the file of this job's checkpoint, in the folder that it was submitted from, which every node sees."""
    return Path(f"checkpoint-{os.environ['SLURM_JOB_ID']}-{rank}")


def load(checkpoint: Path, prefix: str = "") -> int:
    """Return the last step that was saved."""
    if not checkpoint.exists():
        return 0
    step = int(checkpoint.read_text())
    say(f"{prefix}resumed at step {step + 1}")
    return step


def save(checkpoint: Path, step: int) -> None:
    partial = checkpoint.with_suffix(".partial")
    partial.write_text(str(step))
    partial.replace(checkpoint)


def say(line: str) -> None:
    """Write a line in one piece, also among several ranks."""
    os.write(1, f"{line}\n".encode())
