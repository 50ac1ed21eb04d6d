"""Lightning's own requeue: on SIGUSR1 it saves and asks Slurm to requeue the job. `lightning_requeue.py STEPS`.

The checkpoint is Lightning's, in the folder that the job was submitted from; a later attempt finds it by itself.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from tests.slurm.programs.training import say


class Tiny(LightningModule):
    """One weight, and the lines that runs.py reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def on_train_start(self) -> None:
        if self.global_step:
            say(f"resumed at step {self.global_step + 1}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        say(f"checkpoint saved at step {checkpoint['global_step']}")

    def training_step(self, batch: Any) -> torch.Tensor:
        time.sleep(0.2)
        say(f"step {self.global_step + 1} done")
        return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


trainer = Trainer(
    accelerator="cpu",
    max_steps=int(sys.argv[1]),
    max_epochs=-1,
    default_root_dir=f"lightning-{os.environ['SLURM_JOB_ID']}",
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
)
trainer.fit(Tiny(), DataLoader(TensorDataset(torch.zeros(8, 1))))
say(f"finished at step {trainer.global_step}")
