"""A tiny run of Hugging Face's Trainer with its just-in-time checkpoint, which is asked for by SIGTERM."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments


class Ready(TrainerCallback):
    """Says when the first step is done, and takes some time for each."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.global_step == 1:
            print("ready", flush=True)
        time.sleep(0.01)


config = BertConfig(
    vocab_size=8,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=4,
    max_position_embeddings=4,
)
data = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor(0)}] * 8
arguments = TrainingArguments(
    output_dir=sys.argv[1],
    enable_jit_checkpoint=True,
    max_steps=10**6,
    save_strategy="no",
    logging_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
)
Trainer(BertForSequenceClassification(config), arguments, train_dataset=data, callbacks=[Ready()]).train()
print("ended", flush=True)
