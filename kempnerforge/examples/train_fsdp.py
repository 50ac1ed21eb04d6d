"""Train a small network that is sharded over several ranks (PyTorch's FSDP), and lose nothing.

Try it, and send kforge-run a SIGUSR1 whenever you like::

    kforge-run torchrun --standalone --nproc-per-node=2 -m kempnerforge.examples.train_fsdp --checkpoint run

Below `srun` it needs no torchrun: each task is a rank. ``train.py`` has the three things that make a loop safe, and
``train_ddp.py`` what several ranks add. Where no rank has the whole model, the save is different:

1. Every rank writes its own shards, all at the same time, into a new folder ``step-N``.
2. Once all are on the disk, rank 0 replaces the file ``latest``, which names that folder. This is the one move by which
   the checkpoint becomes another: a run killed before it goes on from the old folder, whole.
3. The old folder goes only then.

It needs PyTorch 2.6 or newer. On a CPU a resumed run ends with the same weights, bit for bit, as one that was never
stopped; on a GPU, too, where the kernels are deterministic (``torch.use_deterministic_algorithms(True)``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from kempnerforge.resilience import ShutdownHandler

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


class Run:
    """Everything that the next step depends on: the steps done, model, optimizer and random generators."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.step = 0
        #: The step of the checkpoint that there is.
        self.saved = 0
        self.device = device
        torch.manual_seed(seed)  # the same weights in every rank, before each keeps its shards only …
        self.model = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1)).to(device)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for part in self.model:
            fully_shard(part, mesh=mesh)  # gathered one part after the other, as with the layers of a transformer
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        torch.manual_seed(seed + 1 + dist.get_rank())  # … and data and dropout of each rank's own

    def train_step(self) -> float:
        """Take one step, together with all ranks, and return the loss of this rank's batch."""
        # The data come out of the generator, which is in the checkpoint; train_ddp.py has a sampler.
        inputs = torch.randn(BATCH_SIZE, FEATURES).to(self.device)
        loss = nn.functional.mse_loss(self.model(inputs), inputs.sin().sum(dim=1, keepdim=True))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return what this rank has of a checkpoint. Of what several have under one name, only one is written."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        state = {"step": self.step, "ranks": dist.get_world_size(), "model": model, "optimizer": optimizer}
        return {**state, f"random-{dist.get_rank()}": random_state()}

    def restore(self, folder: Path) -> None:
        """Become the run whose checkpoint is in a folder."""
        saved = {"ranks": 0}
        dcp.load(saved, checkpoint_id=folder)
        if saved["ranks"] != dist.get_world_size():
            ranks = f"it is of {saved['ranks']} ranks, and these are {dist.get_world_size()}"
            raise SystemExit(f"cannot go on from this checkpoint exactly: {ranks}")
        state = self.state()
        dcp.load(state, checkpoint_id=folder)  # overwrites what is in the state
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.step = self.saved = state["step"]
        set_random_state(state[f"random-{dist.get_rank()}"])


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


def save_checkpoint(run: Run, path: Path) -> None:
    """Write a new folder below ``path``, and then make it the checkpoint in one move."""
    if run.step == run.saved:
        return  # what is in use is never written to
    folder = path / f"step-{run.step}"
    dcp.save(run.state(), checkpoint_id=folder)  # overwrites what a run killed half-way has left there
    dist.barrier()
    if dist.get_rank() == 0:
        partial = path / "latest.partial"
        with open(partial, "w") as file:
            file.write(folder.name)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        os.replace(partial, path / "latest")
        sync_folder(path)
        print(f"checkpoint saved at step {run.step}", flush=True)
        for other in path.glob("step-*"):
            if other != folder:
                shutil.rmtree(other)
    dist.barrier()
    run.saved = run.step


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too, and so safe from a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(run: Run, path: Path) -> bool:
    """Continue from the checkpoint below ``path``; return False when there is none yet.

    Rank 0 reads ``latest`` for all of them: on a network file system two nodes may for a while see two versions of it.
    """
    names: list[Any] = [None]
    if dist.get_rank() == 0 and (path / "latest").exists():
        names = [(path / "latest").read_text()]
    dist.broadcast_object_list(names)
    if names[0] is None:
        return False
    run.restore(path / names[0])
    return True


def train(run: Run, handler: ShutdownHandler, options: argparse.Namespace) -> None:
    """Train until the last step, or until a notice asks us to stop."""
    while run.step < options.steps:
        loss = run.train_step()
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
    parser = argparse.ArgumentParser(description="Train a small network that is sharded over several ranks (FSDP).")
    parser.add_argument("--steps", type=int, default=100, help="train up to this step (default: %(default)s)")
    parser.add_argument("--step-seconds", type=float, default=0.1, help="how long a step takes (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", required=True, type=Path, metavar="FOLDER", help="save to and resume from this folder"
    )
    parser.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="also save every so many steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generators (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make folder {options.checkpoint}: {error.strerror} (hint: choose another --checkpoint)")
    if not os.access(options.checkpoint, os.W_OK):
        parser.error(f"cannot write to folder {options.checkpoint} (hint: choose another --checkpoint)")
    return options


if __name__ == "__main__":
    main()
