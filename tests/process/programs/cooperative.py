"""A rank that polls the ready-made handler: two lines of ours. Its save takes longer than a notice's repeats."""

from __future__ import annotations

import os
import time

from kempnerforge.resilience import shutdown_handler
from tests.process.children import say

rank, parent = os.environ.get("RANK", "0"), os.getppid()
say("ready", rank, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.getpid(), parent)
while not shutdown_handler.should_shutdown():
    time.sleep(0.005)
say("told", rank)
time.sleep(1.2)
say("saved" if os.getppid() == parent else "orphaned", rank)
shutdown_handler.finish()
