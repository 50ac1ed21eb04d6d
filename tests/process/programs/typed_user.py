"""A training script as a user's type checker sees it: each name of the public API with its type, and what is none.

A line that must be an error has its `type: ignore`, which mypy --strict reports where there is nothing to ignore.
"""

import signal

from typing_extensions import assert_type

from kempnerforge import resilience
from kempnerforge.resilience import ShutdownHandler, shutdown_handler
from kempnerforge.resilience.signal_handler import ShutdownHandler as TheSame

assert_type(shutdown_handler, ShutdownHandler)
assert_type(shutdown_handler, TheSame)


def train(handler: ShutdownHandler) -> None:
    handler.register()
    while not assert_type(handler.should_shutdown(), bool):
        pass
    assert_type(handler.shutdown_requested, bool)
    assert_type(handler.signal_received, signal.Signals | None)
    assert_type(handler.reason, str | None)
    assert_type(handler.remaining(), float | None)
    handler.ask_for_time(60)
    handler.status("saving")
    handler.finish()
    handler.unregister()


train(ShutdownHandler())
train(ShutdownHandler(timeout_sec=120))
with ShutdownHandler(600.5) as registered:
    assert_type(registered, ShutdownHandler)

ShutdownHandler(timeout_sec="120")  # type: ignore[arg-type]
shutdown_handler.should_shutdown = True  # type: ignore[method-assign,assignment]
shutdown_handler.signal_received = signal.SIGTERM  # type: ignore[misc]
print(shutdown_handler.requested)  # type: ignore[attr-defined]
print(resilience.ShutDownHandler)  # type: ignore[attr-defined]
