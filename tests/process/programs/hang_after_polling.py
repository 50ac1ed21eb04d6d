"""Polls, and then hangs in a collective: with `gil` it holds the GIL, so that nothing in Python gets it out."""

from __future__ import annotations

import ctypes
import sys
import time

from kempnerforge.resilience import ShutdownHandler


def all_reduce() -> None:
    if sys.argv[1:] == ["gil"]:
        mutex, library = ctypes.create_string_buffer(256), ctypes.PyDLL(None)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)
    time.sleep(600)


handler = ShutdownHandler(timeout_sec=60)
handler.register()
handler.should_shutdown()
all_reduce()
