"""Signals that this process sends itself, and what it seems to do with each."""

import _signal  # type: ignore[import-not-found]
import _thread

from .. import forks
from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _State:
    #: The signal that this process sends itself as a door; 0: what comes is somebody else's.
    sent = 0


#: An object: see notice.py.
_own = _State()


def start_thread(function: "Any", *arguments: "Any") -> int:
    """Run a function in a thread that gets no signals, and return the thread's identifier; 0: no more can be had."""
    # A thread inherits the mask.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, all_signals())
    try:
        return _thread.start_new_thread(function, arguments)
    except RuntimeError:
        return 0
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def send(signum: int) -> bool:
    """Have this very thread get a signal as a door; return False where a handler in C has taken it."""
    _own.sent = signum
    send_to_self(signum)
    # Here at the latest Python calls its own handler.
    taken, _own.sent = not _own.sent, 0
    return taken


def is_sent(signum: int) -> bool:
    """Return, once, whether a signal that has come is what `send` has sent."""
    if _own.sent != signum:
        return False
    _own.sent = 0
    return True


def die_of(signum: int) -> None:
    """Do what the signal does by default."""
    process.real_signal(signum, _signal.SIG_DFL)
    send_to_self(signum)


def send_to_self(signum: int) -> None:
    """Signal this very thread: what happens then is exactly what the signal does."""
    _signal.pthread_kill(_thread.get_ident(), signum)


def all_signals() -> "Any":
    """Return every signal that can be blocked."""
    return getattr(_signal, "valid_signals", lambda: range(1, _signal.NSIG))()  # Python 3.7 has no such function


def get_disposition(signalnum: int) -> "Any":
    """Return the program's disposition as `signal.getsignal()` does."""
    found = process.real_getsignal(signalnum)
    if signalnum in process.own and found is process.handler:
        return process.own[signalnum]
    return _signal.SIG_DFL if is_ours(found) else found


def is_ours(found: "Any") -> bool:
    """Return whether something stands where without us the default would be."""
    return found is forks.ignore or any(found is listener for listener in process.listeners.values())
