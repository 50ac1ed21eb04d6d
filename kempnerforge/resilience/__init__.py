"""The child side: what training code imports to stop in time. Standard library only, Python 3.8.

Two lines are enough::

    from kempnerforge.resilience import shutdown_handler
    ...
        if shutdown_handler.should_shutdown():  # after each step
            save_checkpoint()
            shutdown_handler.finish()
            break

``shutdown_handler`` is a :class:`ShutdownHandler` that is registered when it is first imported; in a process that
multiprocessing has started, which helps and does not train, it is not, and never says stop.
"""

from __future__ import annotations

from .signal_handler import ShutdownHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    shutdown_handler: ShutdownHandler
else:
    # Not for a type checker: it would take any other name for one of ours, too.
    def __getattr__(name: str) -> ShutdownHandler:
        """Make ``shutdown_handler`` when a program asks for it: who only wants the class gets no handler registered.

        Raises:
            AttributeError: there is nothing of this name.
            ValueError: ``shutdown_handler`` is first imported off the main thread, where no handler can be registered.
        """
        if name != "shutdown_handler":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import injected

        handler = ShutdownHandler()
        if not injected.is_helper():
            handler.register()
        globals()[name] = handler
        return handler


__all__ = ["ShutdownHandler", "shutdown_handler"]
