"""What a signal does, read and put back exactly, also where the handler is not Python's."""

from __future__ import annotations

import signal

from ..bootstrap import proc
from . import injected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable

#: More than any libc's ``struct sigaction`` takes (glibc on x86-64: 152 bytes). We only carry it, never look inside.
_SIGACTION_SIZE = 512


def is_caught(signum: int) -> bool:
    """Return whether the kernel has a handler for the signal (proc(5), ``SigCgt``).

    ``signal.getsignal()`` cannot tell: it knows what Python installed, and answers SIG_DFL for the handlers that
    ``faulthandler.register()`` and torch install at run time.
    """
    return signum in proc.signal_set("self", "SigCgt")


class Displaced:
    """What a signal did before :meth:`take`, to be put back."""

    def __init__(self, signum: int) -> None:
        self._signum = signum
        self._handler = signal.getsignal(signum)
        self._is_armed = injected.holds(signum)
        self._c_action: Any = None
        if not callable(self._handler) and not self._is_armed and is_caught(signum):
            self._c_action = _c_action(signum)

    @property
    def is_default(self) -> bool:
        """Whether it did what the kernel does by default, or the bootstrap in its place."""
        return self._handler == signal.SIG_DFL and self._c_action is None

    @property
    def kills(self) -> bool:
        """Whether it ended the process."""
        return self.is_default and not self._is_armed

    def call(self, signum: int, frame: FrameType | None) -> None:
        """Call the handler, if it was one of Python's."""
        if callable(self._handler):
            self._handler(signum, frame)

    def take(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        """Make the signal ours (main thread only)."""
        signal.signal(self._signum, handler)

    def put_back(self) -> None:
        """Make the signal do what it did (main thread only)."""
        if self._is_armed and injected.rearm(self._signum):
            return
        signal.signal(self._signum, signal.SIG_DFL if self._handler is None else self._handler)
        if self._c_action is not None:
            _set_c_action(self._signum, self._c_action)


# ctypes costs 5 ms, so it is imported only where there is a C handler to carry over.


def _c_action(signum: int) -> Any:
    """Return the kernel's action for the signal as opaque bytes; None without ctypes."""
    try:
        import ctypes
    except ImportError:  # built without libffi: the C handler is lost, which is what signal.signal() does as well
        return None
    action = ctypes.create_string_buffer(_SIGACTION_SIZE)
    return action if ctypes.CDLL(None).sigaction(signum, None, action) == 0 else None


def _set_c_action(signum: int, action: Any) -> None:
    import ctypes

    ctypes.CDLL(None).sigaction(signum, action, None)
