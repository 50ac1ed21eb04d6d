"""Polls once, then sits in a C call that holds the GIL for ever; after a requeue it finishes at once."""

from __future__ import annotations

import ctypes
import os

from kempnerforge.resilience import ShutdownHandler

if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
    print("finished", flush=True)
    raise SystemExit

handler = ShutdownHandler()
handler.register()
handler.should_shutdown()
mutex = ctypes.create_string_buffer(64)  # at least sizeof(pthread_mutex_t), initialised
libc = ctypes.PyDLL(None)  # PyDLL keeps the GIL during the call
libc.pthread_mutex_lock(mutex)
print("stuck", flush=True)
libc.pthread_mutex_lock(mutex)
