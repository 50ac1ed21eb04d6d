"""Says what PyTorch's checkpoints hold that the first one does not, bit for bit. `compare_checkpoints.py FIRST …`.

Each may be a file, or a folder that ranks wrote their shards into.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def load(path: str) -> Any:
    if not Path(path).is_dir():
        return torch.load(path)
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save  # 2 s

    with tempfile.NamedTemporaryFile() as whole:
        dcp_to_torch_save(path, whole.name)
        return torch.load(whole.name)


def parts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in a checkpoint, each with where it is."""
    if isinstance(value, (dict, list, tuple)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(one, f"{name}/{key}")
    else:
        yield name, value


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


first, *others = (dict(parts(load(path))) for path in sys.argv[1:])
assert any(isinstance(part, torch.Tensor) for part in first.values())
for other in others:
    assert first.keys() == other.keys()
    print(*([name for name in first if not equal(first[name], other[name])] or ["same"]))
