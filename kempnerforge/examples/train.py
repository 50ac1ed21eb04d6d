"""Train a tiny model in the way that survives a time limit, a preemption and a requeue.

Try it, and send kforge-run a SIGUSR1 whenever you like::

    kforge-run python -m kempnerforge.examples.train --steps 200 --step-seconds 0.1 --checkpoint run.json

Three things make the loop below safe, and none of them is about the model:

1. The checkpoint holds everything that the next step depends on, the random generator included, so that a
   resumed run ends with the same weights, bit for bit, as one that was never stopped.
2. A checkpoint is replaced in one move, so that at any moment either the old or the new one is there, whole.
3. After each step the loop asks whether to stop. If so it saves, says so with ``finish()``, and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from typing import Any

from kempnerforge.resilience import ShutdownHandler

TRUE_WEIGHTS = (2.0, -1.0, 0.5)
BATCH_SIZE = 16
LEARNING_RATE = 0.05


class Run:
    """Everything that the next step depends on: the steps done, the weights, the random generator."""

    def __init__(self, seed: int) -> None:
        self.step = 0
        self.weights = [0.0] * len(TRUE_WEIGHTS)
        self.random = random.Random(seed)

    def train_step(self) -> float:
        """Take one step of gradient descent on a fresh random batch, and return the batch's mean loss."""
        gradient = [0.0] * len(self.weights)
        loss = 0.0
        for _ in range(BATCH_SIZE):
            inputs, target = self.sample()
            error = sum(weight * x for weight, x in zip(self.weights, inputs)) - target
            loss += error**2 / BATCH_SIZE
            for i, x in enumerate(inputs):
                gradient[i] += 2 * error * x / BATCH_SIZE
        self.weights = [weight - LEARNING_RATE * slope for weight, slope in zip(self.weights, gradient)]
        self.step += 1
        return loss

    def sample(self) -> tuple[list[float], float]:
        """Draw one input and its noisy target."""
        inputs = [self.random.gauss(0, 1) for _ in TRUE_WEIGHTS]
        return inputs, sum(weight * x for weight, x in zip(TRUE_WEIGHTS, inputs)) + self.random.gauss(0, 0.1)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds (floats come back from JSON exactly as they were)."""
        return {"step": self.step, "weights": self.weights, "random": self.random.getstate()}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the run that ``state`` was taken from."""
        self.step = state["step"]
        self.weights = state["weights"]
        version, internal, next_gauss = state["random"]
        self.random.setstate((version, tuple(internal), next_gauss))


def save_checkpoint(run: Run, path: str, save_seconds: float = 0.0) -> None:
    """Replace the checkpoint at ``path`` in one move.

    The new one is written beside it, since a file can be moved in one step only within a file system, and is on
    the disk before it takes the name. A process killed half-way leaves the old checkpoint, and a ``.partial`` file
    that the next save overwrites.
    """
    partial = path + ".partial"
    with open(partial, "w") as file:
        json.dump(run.state(), file)
        time.sleep(save_seconds)  # stands for the minutes that a large model takes
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    # The new name is safe from a power cut only when the folder is on the disk, too.
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    print(f"checkpoint saved at step {run.step}", flush=True)


def load_checkpoint(run: Run, path: str) -> bool:
    """Continue from the checkpoint at ``path``; return False when there is none yet."""
    try:
        with open(path) as file:
            run.restore(json.load(file))
    except FileNotFoundError:
        return False
    return True


def main(arguments: list[str] | None = None) -> None:
    """Train until the last step, or until a notice asks us to stop."""
    options = parse(arguments)

    # First of all, before anything slow: from here on a signal means "save", not "die".
    handler = ShutdownHandler(timeout_sec=120)
    handler.register()

    run = Run(options.seed)
    if load_checkpoint(run, options.checkpoint):
        print(f"resumed at step {run.step + 1}", flush=True)

    while run.step < options.steps:
        loss = run.train_step()
        time.sleep(options.step_seconds)  # stands for the work of a larger model
        print(f"step {run.step} loss {loss:.4f}", flush=True)

        if handler.should_shutdown():
            save_checkpoint(run, options.checkpoint, options.save_seconds)
            handler.finish()
            return
        if options.save_every and run.step % options.save_every == 0:
            save_checkpoint(run, options.checkpoint, options.save_seconds)

    save_checkpoint(run, options.checkpoint, options.save_seconds)
    handler.unregister()
    print(f"finished at step {run.step}", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse now what would lose the run when it wants to save."""
    parser = argparse.ArgumentParser(description="Train a tiny model that survives being stopped.")
    parser.add_argument("--steps", type=int, default=100, help="train up to this step (default: %(default)s)")
    parser.add_argument("--step-seconds", type=float, default=0.1, help="how long a step takes (default: %(default)s)")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="save to and resume from this file")
    parser.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="also save every so many steps")
    parser.add_argument("--save-seconds", type=float, default=0, help="how long a save takes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("steps", "step_seconds", "save_every", "save_seconds"):
        if not 0 <= getattr(options, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}, but must be 0 or more")
    folder = os.path.dirname(os.path.abspath(options.checkpoint))
    if not os.access(folder, os.W_OK):
        parser.error(f"cannot write to folder {folder} (hint: create it, or choose another --checkpoint)")
    return options


if __name__ == "__main__":
    main()
