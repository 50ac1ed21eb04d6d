"""Our signals, which look to the program as if they were not ours; and which a forked child does not inherit."""

import _signal  # type: ignore[import-not-found]
import sys

from .. import forks
from . import notice, process, shield, signals, wakeup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: While a thread forks.
_held = forks.HeldSignals()


def set_disposition(signalnum: "Any", handler: "Any") -> "Any":
    """Set the program's disposition as `signal.signal()` does. Ours stays in front of it, so that a notice counts once.

    SIG_DFL means "as before": who restores what it found stays armed.
    """
    if isinstance(signalnum, int) and signalnum in process.listeners:
        # Who sets a handler for every signal there is does not mean ours.
        before, process.hidden[signalnum] = signals.get_disposition(signalnum), handler
        return before
    is_default = isinstance(handler, int) and handler == _signal.SIG_DFL
    ours = signalnum in process.own if isinstance(signalnum, int) else False
    if ours and (callable(handler) or is_default):
        process.real_signal(signalnum, process.handler)
        before, process.own[signalnum] = process.own[signalnum], handler
        if callable(handler):
            notice.send_pending()
        return before
    before = process.real_signal(signalnum, handler)
    if ours:
        before, process.own[signalnum] = process.own[signalnum], handler
    if signalnum == _signal.SIGTERM:
        shield.lower_shield()
    return _signal.SIG_DFL if signals.is_ours(before) else before


def holds(signum: int) -> bool:
    """Return whether a signal is ours while the program has no handler of its own for it."""
    if signum not in process.own or process.real_getsignal(signum) is not process.handler:
        return False
    return not callable(process.own[signum])


def rearm(signum: int) -> bool:
    """Take a signal back from a `ShutdownHandler`, also after that has the notice; return False if it is not ours."""
    if signum not in process.own:
        return False
    notice.note_cooperation()
    set_disposition(signum, _signal.SIG_DFL)
    return True


# --- fork --------------------------------------------------------------------------------------------
# See forks.py.


def before_fork() -> None:
    """Block our signals."""
    _held.hold((*process.own, *process.listeners))


def after_fork() -> None:
    """Go on as before, in the parent."""
    _held.let_in()


def after_fork_in_child() -> None:
    """Be what the process would be without us, or the shielded worker of one."""
    mask = _held.forget()
    own, process.own = process.own, {}
    notice.forget()  # it is the parent's
    wakeup.forget()
    for signum, disposition in own.items():
        if process.real_getsignal(signum) is process.handler:
            stray = signum == _signal.SIGUSR1 and not callable(disposition)
            process.real_signal(signum, forks.ignore if stray else disposition)
    if not forks.let_in_child(mask):
        signals.die_of(_signal.SIGTERM)
    # Above this function is process.call(), and above that whoever forked.
    shield.forked_by(sys._getframe(2).f_globals.get("__name__"))
