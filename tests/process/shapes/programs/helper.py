"""What works for a trainer. `helper.py KIND`."""

from __future__ import annotations

import os
import signal
import sys
import time

import train


def evaluate(seconds: str = "60") -> None:
    """It works more than its trainer, and comes to its end."""
    train.say("up evaluation")
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        train.step()


def answer() -> None:
    """Repeat each line."""
    for line in sys.stdin:
        sys.stdout.write(line)
        sys.stdout.flush()


def answer_deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer()


def generate() -> None:
    """Write data, as fast as it is read."""
    train.say("up loader")
    while True:
        os.write(1, sum(range(20000)).to_bytes(100, "big"))


def serve() -> None:
    import http.server

    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        train.say("up server")
        server.serve_forever()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
