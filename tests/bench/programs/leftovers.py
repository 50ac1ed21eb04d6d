"""Leave processes behind: every twentieth stopped, and as many in sessions of their own.

    python leftovers.py COUNT [ignoring] [straight]

`ignoring`: they ignore SIGTERM. It says `left NANOSECONDS` (CLOCK_MONOTONIC) and is gone.
`straight`: instead it kills and reaps them itself, and says `took NANOSECONDS`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

count, words = int(sys.argv[1]), sys.argv[2:]
sleep = shutil.which("sleep") or "/bin/sleep"
if "ignoring" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited, also across exec
pids = []
for number in range(count):
    pids.append(os.posix_spawn(sleep, ["sleep", "1000"], os.environ, setsid=number % 20 == 0))
    if number % 20 == 10:
        os.kill(pids[-1], signal.SIGSTOP)

now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
if "straight" in words:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    os.write(1, b"took %d\n" % (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - now))
else:
    os.write(1, b"left %d\n" % now)
os._exit(0)
