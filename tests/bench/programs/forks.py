"""Fork and wait so many times for each line on standard input, and say how long one took in the median (ns)."""

from __future__ import annotations

import os
import statistics
import sys
import time

for line in sys.stdin:
    took = []
    for _ in range(int(line)):
        started = time.perf_counter_ns()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        took.append(time.perf_counter_ns() - started)
    print(statistics.median(took), flush=True)
