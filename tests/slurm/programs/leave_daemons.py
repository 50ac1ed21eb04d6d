"""Leaves processes behind in every way there is, then ends with 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)

subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.Popen(["sh", "-c", "setsid sleep 600 & setsid setsid sleep 600 &"])
stopped = subprocess.Popen(["sleep", "600"])
os.kill(stopped.pid, signal.SIGSTOP)
stubborn = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True, stdout=subprocess.PIPE)
assert stubborn.stdout is not None
stubborn.stdout.readline()
print("leaving", flush=True)
os._exit(0)
