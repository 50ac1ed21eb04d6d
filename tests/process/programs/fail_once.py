"""Becomes another program, but the first time the last of two ranks fails."""

from __future__ import annotations

import os
import runpy
import sys

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    sys.exit(7)
runpy.run_path(sys.argv[1], run_name="__main__")
