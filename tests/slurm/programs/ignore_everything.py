"""Ignores every signal that can be ignored; after a requeue it finishes at once."""

from __future__ import annotations

import os
import signal

if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
    print("finished", flush=True)
    raise SystemExit

for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
    signal.signal(signum, signal.SIG_IGN)
print("ignoring", flush=True)
while True:
    signal.pause()
