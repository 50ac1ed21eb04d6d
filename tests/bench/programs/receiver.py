"""Say `ready PID`, then `SIGNAL NANOSECONDS` for each signal when it comes; end at SIGUSR1.

    python receiver.py [cooperative]

The time is CLOCK_MONOTONIC's, taken when the signal is there: no Python handler has to run first.
"""

from __future__ import annotations

import os
import signal
import sys
import time

SIGNALS = {signal.SIGUSR1, signal.SIGUSR2}

signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
handler = None
if "cooperative" in sys.argv[1:]:
    from kempnerforge.resilience import ShutdownHandler

    handler = ShutdownHandler()
    handler.register()
    handler.should_shutdown()  # the first poll is told to the launcher, once

os.write(1, b"ready %d\n" % os.getpid())
signum = None
while signum != signal.SIGUSR1:
    signum = signal.sigwait(SIGNALS)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.write(1, b"%d %d\n" % (signum, now))
if handler is not None:
    handler.finish()
