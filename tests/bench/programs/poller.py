"""Say `ready PID`, poll the shared handler until it says stop, and say `stop NANOSECONDS` (CLOCK_MONOTONIC)."""

from __future__ import annotations

import os
import time

from kempnerforge.resilience import shutdown_handler

shutdown_handler.should_shutdown()  # the first poll is told to the launcher, once
os.write(1, b"ready %d\n" % os.getpid())
while not shutdown_handler.should_shutdown():
    time.sleep(0.0002)  # stands for a step, and leaves the processors to other ranks
now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
shutdown_handler.finish()
os.write(1, b"stop %d\n" % now)
