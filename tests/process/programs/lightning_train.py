"""A tiny Lightning run of many steps. It says which dispositions it finds, and what ends it."""

from __future__ import annotations

import signal
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class Tiny(LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any) -> torch.Tensor:
        if self.global_step == 3:
            print("ready", flush=True)
        return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Told(Callback):
    """Says what ends the run."""

    def on_exception(self, _trainer: Trainer, _module: LightningModule, exception: BaseException) -> None:
        print("told by", type(exception).__name__, flush=True)


print("found", *(signal.getsignal(signum).name for signum in (signal.SIGUSR1, signal.SIGTERM)), flush=True)  # type: ignore[union-attr]
trainer = Trainer(
    accelerator="cpu",
    max_steps=10**6,
    max_epochs=-1,
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
    callbacks=[Told()],
)
trainer.fit(Tiny(), DataLoader(TensorDataset(torch.zeros(8, 1))))
