"""The bootstrap that kforge-run has injected into this process, if it has."""

from __future__ import annotations

import signal
import sys

from ..bootstrap.contract import BOOTSTRAP_MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _ask(function: str, *arguments: int) -> Any:
    """Call a function of the bootstrap; None: it is not there."""
    process = _process()
    return None if process is None else process.call(function, *arguments)


def _process() -> Any:
    """Return the bootstrap's module about this process; None: it is not there."""
    return getattr(sys.modules.get(BOOTSTRAP_MODULE), "process", None)


def holds(signum: int) -> bool:
    """Return whether the bootstrap has armed a signal: it then looks as if it were at its default, and is not."""
    return bool(_ask("dispositions.holds", signum))


def rearm(signum: int) -> bool:
    """Hand a signal back to the bootstrap (main thread only); return False if it never was its."""
    return bool(_ask("dispositions.rearm", signum))


def take_pending() -> int:
    """Return the signal that came before anybody was registered, 0 if there was none, and forget it."""
    return _ask("notice.take_pending") or 0


def set_wakeup_fd(fd: int, **options: bool) -> int:
    """Set the wakeup fd as Python does, and not as the bootstrap does for others: we want to see what waits, too."""
    process = _process()
    real = signal.set_wakeup_fd if process is None else process.real_set_wakeup_fd
    return int(real(fd, **options))


def hear_by_message() -> None:
    """Have kforge-run's word interrupt nothing: a thread hears of it otherwise."""
    _ask("notice.hear_by_message")


def shield_worker() -> None:
    """In a process that multiprocessing has just forked: let no SIGTERM end it but its parent's."""
    _ask("shield.shield_worker")


def is_helper() -> bool:
    """Return whether multiprocessing has started this process, to help another one."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # While a spawned process imports what it needs, it knows of no parent yet.
    return process.parent_process() is not None or bool(getattr(process.current_process(), "_inheriting", False))
