"""Trains, and polls kempnerforge's handler. `cooperative.py WAY`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from train import LONG, begin, say, step

from kempnerforge.resilience import shutdown_handler


def plain(tag: str = "run", meet: Callable[[str], None] = lambda _: None, saves_at: str = "USR1") -> None:
    begin(tag, saves_at)
    end, number = time.monotonic() + LONG, 0
    while time.monotonic() < end:
        step()
        meet(f"step{number}")
        if shutdown_handler.should_shutdown():
            say("told", tag)
            meet(f"save{number}")
            time.sleep(0.3)
            say("SAVED", tag)
            shutdown_handler.finish()
            break
        number += 1


def in_a_thread() -> None:
    """As ray's workers do: the main thread waits."""
    thread = threading.Thread(target=plain)
    thread.start()
    thread.join()


def without_descriptors() -> None:
    """It closes every descriptor that it does not know."""
    os.closerange(3, 4096)
    plain()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
