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
            ValueError: ``shutdown_handler`` is first imported off the main thread, where no signal handler can be set,
                and there is no kforge-run to tell of a notice otherwise.
        """
        if name != "shutdown_handler":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import injected, process_guard

        handler = ShutdownHandler()
        if injected.is_helper():
            pass
        elif process_guard.in_main_thread():
            handler.register()
        else:
            handler._register_in_thread()
        globals()[name] = handler
        return handler


__all__ = ["ShutdownHandler", "shutdown_handler"]
