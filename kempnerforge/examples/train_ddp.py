"""Train a small network on several ranks with PyTorch's DistributedDataParallel, and lose nothing.

Try it, and send kforge-run a SIGUSR1 whenever you like::

    kforge-run torchrun --standalone --nproc-per-node=2 -m kempnerforge.examples.train_ddp --checkpoint run.pt

Below `srun` it needs no torchrun: each task is a rank. ``train.py`` has the three things that make a loop safe; with
several ranks there is more to each of them:

1. What the next step depends on is in part each rank's own: its share of the data, which follows from the step, and
   its random generators, which rank 0 collects when it saves.
2. One rank writes the checkpoint, and the others wait until it is on the disk: "finished" is then true of all.
3. All ranks stop after the same step: below one kforge-run ``should_shutdown()`` turns True at the same call in each
   of them. Therefore every rank calls it after every step, and a save may use collectives.

It needs PyTorch. On a CPU a resumed run ends with the same weights, bit for bit, as one that was never stopped; on a
GPU, too, where the kernels are deterministic (``torch.use_deterministic_algorithms(True)``).
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from typing import Any, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kempnerforge.resilience import ShutdownHandler

SAMPLES = 256
BATCH_SIZE = 16
FEATURES = 8


def join() -> torch.device:
    """Meet the other ranks, as torchrun or srun has numbered them, and return this rank's device."""
    if "RANK" not in os.environ:  # not torchrun: srun, or a process alone
        job = os.environ.get("SLURM_JOB_ID")
        os.environ["RANK"] = os.environ.get("SLURM_PROCID", "0")
        os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
        # Not SLURM_NTASKS: in a batch script without srun that is more than the one process there is.
        os.environ["WORLD_SIZE"] = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
        # The address of the node where srun runs, which each task can reach: its output goes there. In a batch script
        # that is the job's first node, where rank 0 is. For an srun on a login node, set MASTER_ADDR to rank 0's node.
        os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
        # A port that no other job on that node has. For two srun at the same time in one job, set one for each.
        os.environ.setdefault("MASTER_PORT", str(10000 + int(job) % 20000) if job else "0")
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    # Slurm's --gpus-per-task shows each task its own GPU only, as number 0.
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return device


class Share(DistributedSampler[Any]):
    """This rank's share of an epoch, from a place in it on: what a resumed run skips is not even read."""

    first = 0

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(super().__iter__(), self.first, None)


class Run:
    """Everything that the next step depends on: the steps done, model, optimizer, data and random generators."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.step = 0
        self.device = device
        torch.manual_seed(seed)  # the same weights and the same data in every rank …
        network = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
        self.model = DistributedDataParallel(network.to(device))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        inputs = torch.randn(SAMPLES, FEATURES)
        data = TensorDataset(inputs, inputs.sin().sum(dim=1, keepdim=True))
        self.share = Share(data, seed=seed, drop_last=True)
        # With a generator of its own: each new iterator draws from it, also the one more that a resumed run begins.
        # Out of the default one, its dropout would differ from then on.
        self.loader = DataLoader(
            data, BATCH_SIZE, sampler=self.share, drop_last=True, generator=torch.Generator().manual_seed(seed)
        )
        # DDP groups the gradients anew after its first pass, and in another group those of three ranks or more add up
        # in another order. Have that behind us before the first step: a resumed run begins with such a pass as well.
        self.model(inputs[:1].to(device)).sum().backward()
        torch.manual_seed(seed + 1 + dist.get_rank())  # … and dropout of each rank's own

    def batches(self) -> Iterator[list[torch.Tensor]]:
        """Yield this rank's batches without end, from the one that the next step takes, each epoch in its own order."""
        while True:
            epoch, done = divmod(self.step, len(self.loader))
            self.share.set_epoch(epoch)
            self.share.first = done * BATCH_SIZE
            yield from self.loader

    def train_step(self, batch: list[torch.Tensor]) -> float:
        """Take one step, together with all ranks, and return the loss of this rank's batch."""
        inputs, targets = (tensor.to(self.device) for tensor in batch)
        loss = nn.functional.mse_loss(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()  # averages the gradients of all ranks
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; in rank 0 only, but all ranks have to call it."""
        randoms: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(random_state(), randoms)
        return {
            "step": self.step,
            "model": self.model.module.state_dict(),  # without DDP, to be of use without it
            "optimizer": self.optimizer.state_dict(),
            "randoms": randoms,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the run that ``state`` was taken from."""
        if len(state["randoms"]) != dist.get_world_size():
            ranks = f"it is of {len(state['randoms'])} ranks, and these are {dist.get_world_size()}"
            raise SystemExit(f"cannot go on from this checkpoint exactly: {ranks}")
        self.step = state["step"]
        self.model.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["randoms"][dist.get_rank()])


def random_state() -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random generators (add those of ``random`` and NumPy if you use them)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Make the random generators go on from ``state``."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(run: Run, path: str) -> None:
    """Have rank 0 replace the checkpoint at ``path`` in one move, as ``train.py`` explains, and all wait for it."""
    state = run.state()
    if dist.get_rank() == 0:
        partial = path + ".partial"
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        print(f"checkpoint saved at step {run.step}", flush=True)
    dist.barrier()


def load_checkpoint(run: Run, path: str) -> bool:
    """Continue from the checkpoint at ``path``; return False when there is none yet.

    Rank 0 reads it for all of them: on a network file system two nodes may for a while see two versions of a file.
    """
    states: list[Any] = [None]
    if dist.get_rank() == 0 and os.path.exists(path):
        states = [torch.load(path, map_location="cpu", weights_only=True)]
    dist.broadcast_object_list(states)
    if states[0] is None:
        return False
    run.restore(states[0])
    return True


def train(run: Run, handler: ShutdownHandler, options: argparse.Namespace) -> None:
    """Train until the last step, or until a notice asks us to stop."""
    batches = run.batches()
    while run.step < options.steps:
        loss = run.train_step(next(batches))
        time.sleep(options.step_seconds)  # stands for the work of a larger model
        if dist.get_rank() == 0:
            print(f"step {run.step} loss {loss:.4f}", flush=True)

        if handler.should_shutdown():
            save_checkpoint(run, options.checkpoint)
            handler.finish()
            return
        if options.save_every and run.step % options.save_every == 0:
            save_checkpoint(run, options.checkpoint)

    save_checkpoint(run, options.checkpoint)
    handler.unregister()
    if dist.get_rank() == 0:
        print(f"finished at step {run.step}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Train as one of the ranks."""
    options = parse(arguments)

    # First of all, before the ranks wait for each other: from here on a signal means "save", not "die".
    handler = ShutdownHandler(timeout_sec=120)
    handler.register()

    run = Run(options.seed, join())
    if load_checkpoint(run, options.checkpoint) and dist.get_rank() == 0:
        print(f"resumed at step {run.step + 1}", flush=True)
    train(run, handler, options)
    dist.destroy_process_group()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse now what would lose the run when it wants to save."""
    parser = argparse.ArgumentParser(description="Train a small network on several ranks (DDP).")
    parser.add_argument("--steps", type=int, default=100, help="train up to this step (default: %(default)s)")
    parser.add_argument("--step-seconds", type=float, default=0.1, help="how long a step takes (default: %(default)s)")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="save to and resume from this file")
    parser.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="also save every so many steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generators (default: %(default)s)")
    options = parser.parse_args(arguments)
    folder = os.path.dirname(os.path.abspath(options.checkpoint))
    if not os.access(folder, os.W_OK):
        parser.error(f"cannot write to folder {folder} (hint: create it, or choose another --checkpoint)")
    return options


if __name__ == "__main__":
    main()
