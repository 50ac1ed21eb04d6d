"""A rank that knows nothing of kforge-run, and saves when it is interrupted. A second interrupt ends it with 1."""

from __future__ import annotations

import os
import time

from tests.process.children import say

rank, parent = os.environ.get("RANK", "0"), os.getppid()
try:
    say("ready", rank, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.getpid(), parent)
    while True:
        time.sleep(0.005)
except KeyboardInterrupt:
    say("told", rank)
    time.sleep(1.2)
    say("saved" if os.getppid() == parent else "orphaned", rank)
