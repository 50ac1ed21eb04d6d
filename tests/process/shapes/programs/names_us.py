"""Names kempnerforge in a branch that is not taken, and saves when it is interrupted, as any script."""

from __future__ import annotations

import sys

from train import train

if "--cooperative" in sys.argv:
    from kempnerforge.resilience import shutdown_handler  # noqa: F401

train()
