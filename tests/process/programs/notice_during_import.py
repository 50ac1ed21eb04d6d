"""Imports torch, and only then registers a handler, in the form that is asked for; says what its first poll is."""

from __future__ import annotations

import sys

from tests.process.children import say


class InTheMiddle:
    """A finder that finds nothing, and says so when torch has begun to be imported."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "torch.types":
            say("importing")


sys.meta_path.insert(0, InTheMiddle)
import torch  # noqa: E402, F401

say("imported")
if sys.argv[1] == "two lines":
    from kempnerforge.resilience import shutdown_handler as handler
else:
    from kempnerforge.resilience import ShutdownHandler

    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
say("first poll", handler.should_shutdown(), handler.signal_received.name if handler.signal_received else None)
handler.finish()
