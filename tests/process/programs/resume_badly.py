"""Saves as it should, and cannot load what it has saved. `resume_badly.py FILE`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kempnerforge.resilience import ShutdownHandler

if Path(sys.argv[1]).exists():
    sys.exit("ValueError: unexpected key in the state dict")
with ShutdownHandler(timeout_sec=60) as handler:
    while not handler.should_shutdown():
        time.sleep(0.01)
    Path(sys.argv[1]).write_text("saved")
    handler.finish()
