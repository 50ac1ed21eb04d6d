"""Polls once, and then takes its time to complete without polling any more, whatever comes."""

from __future__ import annotations

import time

from kempnerforge.resilience import ShutdownHandler

handler = ShutdownHandler(timeout_sec=60)
handler.register()
handler.should_shutdown()
until = time.monotonic() + 1.0
while time.monotonic() < until:
    time.sleep(0.01)
