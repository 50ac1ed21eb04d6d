"""The child side: what training code imports to stop in time. Standard library only, Python 3.8."""

from __future__ import annotations

from .signal_handler import ShutdownHandler

__all__ = ["ShutdownHandler"]
