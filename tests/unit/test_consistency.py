"""Options that cannot be right are refused, with a hint."""

from __future__ import annotations

import pytest

from kempnerforge.commands.batch import consistency, sbatch_options
from kempnerforge.commands.trouble import Trouble

FINE = [
    "--time=60 --signal=B:USR1@120",
    "--time=0 --signal=B:USR1@3600",
    "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4",
    "--nodes=2 --ntasks=8 --gpus=8",
    "--nodes=1-4 --ntasks=2",
    "--ntasks=1 --gpus=8",
    "--ntasks-per-node=4 --gpus-per-task=1 --gpus-per-node=a100:4",
    "--gres=gpu:a100:4,lscratch:100 --ntasks-per-node=2",
    "--gpus-per-node=0 --ntasks-per-node=4",
    "--array=[0-15:5,17%3]",
]
REFUSED = {
    "--time=1 --signal=B:USR1@60": "as soon as it starts",
    "--time=soon": "not a time limit",
    "--signal=USR1@60": "B:USR1@60",
    "--signal=B:TERM@60": "B:USR1@60",
    "--nodes=4 --ntasks=2": "--ntasks=4",
    "--nodes=2 --ntasks-per-node=2 --ntasks=8": "--ntasks=4",
    "--nodes=3 --gpus=8": "--gpus=9",
    "--ntasks-per-node=3 --gpus-per-node=4": "--ntasks-per-node=4",
    "--ntasks=8 --gpus=4": "--ntasks=4",
    "--ntasks-per-node=4 --gpus-per-task=1 --gpus-per-node=8": "--ntasks-per-node=8",
    "--nodes=2 --ntasks=6 --gres=gpu:4": "--ntasks=8",
    "--gpus=many": "--gpus=4",
    "--ntasks=0": "not a number above 0",
    "--array=a-b": "0-15",
}


def check(words: str) -> None:
    options, others = sbatch_options.parse(words.split())
    assert not others
    consistency.check({option.name: option.value for option in options})


@pytest.mark.parametrize("words", FINE)
def test_what_may_be_right_passes(words: str) -> None:
    check(words)


@pytest.mark.parametrize(("words", "hint"), REFUSED.items())
def test_what_cannot_be_right_is_refused(words: str, hint: str) -> None:
    with pytest.raises(Trouble) as refusal:
        check(words)
    assert hint in str(refusal.value)
