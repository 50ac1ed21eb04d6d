"""Knows nothing of kforge-run, and saves to a file when it is interrupted. `save_at_ctrl_c.py FILE STATUS`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

step = 0
try:
    while True:
        time.sleep(0.01)
        step += 1
except KeyboardInterrupt:
    if sys.argv[1]:
        Path(sys.argv[1]).write_text(str(step))
    if sys.argv[2] == "raise":
        raise
sys.exit(int(sys.argv[2]))
