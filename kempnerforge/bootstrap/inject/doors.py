"""The doors of a Python: by which way its program can hear a notice, the best one first.

1. `OWN_USR1`: a SIGUSR1 handler of its own, 2. `OWN_TERM`: a SIGTERM handler of its own, or of a framework that saves
then; where it has both, the one for the signal that came. 3. `AWAITED`: a thread waits for one of them. 4. `NAMED`:
Ctrl-C, where the program says that it means it. 5. `OTHER_TERM`: another library's SIGTERM handler (trackers flush and
die), 6. `IN_C`: a handler that is not Python's. 7. `CTRL_C`: what every Python has.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

from . import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Iterator

DOOR_VARIABLE = "KFORGE_NOTIFY"

OWN_USR1, OWN_TERM, AWAITED, NAMED, OTHER_TERM, IN_C, CTRL_C = "utwkoci"

#: Frameworks that save when they get SIGTERM, or that hand a Ctrl-C on to what saves.
_FRAMEWORKS = (
    "accelerate composer fastai ignite jax keras lightning megatron nemo nemo_automodel olmo_core optuna orbax"
    " pytorch_lightning skorch stable_baselines3 transformers"
)
#: Where packages are installed.
_INSTALLED = ("/site-packages/", "/dist-packages/")


def has_handler() -> bool:
    """Return whether the program has a handler of its own for SIGUSR1 or SIGTERM, or waits for one of them."""
    handled = any(callable(signals.get_disposition(signum)) for signum in (_signal.SIGUSR1, _signal.SIGTERM))
    return handled or _awaited() != 0


def _awaited() -> int:
    """Return which of them the program has blocked, for a thread that takes it, as a rule; 0: none."""
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    # What helps has SIGTERM blocked by us (shield.py), and none of these is then ours.
    return next(
        (signum for signum in (_signal.SIGUSR1, _signal.SIGTERM) if signum in blocked and signum in process.own), 0
    )


def best(frame: "FrameType | None", came: int) -> str:
    """Return the best door.

    Args:
        frame: what the main thread was at.
        came: the signal that kforge-run got.
    """
    usr1, term = (signals.get_disposition(signum) for signum in (_signal.SIGUSR1, _signal.SIGTERM))
    wanted = os.environ.get(DOOR_VARIABLE)
    if wanted == "INT":
        return CTRL_C
    if wanted == "TERM":
        return _term(term)
    if callable(usr1) and wanted == "USR1":
        return OWN_USR1
    # A server of a package takes all its signals by one function, and by SIGUSR1 it means a new log file.
    is_a_servers = usr1 == term and not _saves(usr1)
    if callable(usr1) and not is_a_servers and (came != _signal.SIGTERM or not callable(term)):
        return OWN_USR1
    if callable(term) and _saves(term):
        return OWN_TERM
    if _awaited():
        return AWAITED
    if names_interrupt(frame):
        return NAMED
    return _term(term)


def _term(term: "Any") -> str:
    """Return what SIGTERM is the door to. A handler in C cannot be seen: so it is tried (`go_through`)."""
    if callable(term):
        return OWN_TERM if _saves(term) else OTHER_TERM
    return IN_C if _signal.SIGTERM in process.own and not _awaited() else CTRL_C


def is_there_one_in_c() -> bool:
    """Return whether a handler in C has SIGTERM: then it has been called."""
    return not signals.send(_signal.SIGTERM)


def go_through(door: str) -> None:
    """Have the program hear the notice by a door."""
    if door == OWN_USR1:
        signals.send(_signal.SIGUSR1)
    elif door in (OWN_TERM, OTHER_TERM):
        signals.send(_signal.SIGTERM)
    elif door == AWAITED:
        os.kill(os.getpid(), _awaited())
    elif door != IN_C:
        _interrupt()


def _interrupt() -> None:
    """Do what Ctrl-C does."""
    found = process.real_getsignal(_signal.SIGINT)
    if callable(found):
        signals.send_to_self(_signal.SIGINT)
    elif process.ignores_sigint:
        # A shell's background ignores it, which is not meant for a notice.
        raise KeyboardInterrupt
    # Else the program ignores it on purpose.


def is_interrupted(frame: "FrameType | None") -> bool:
    """Return whether the program acts on a Ctrl-C, as far as can be seen, or has its own handler for it."""
    if process.real_getsignal(_signal.SIGINT) is not _signal.default_int_handler:
        return True
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    # The main module has ended: what is left are hooks, or threads that are waited for.
    return not _runs_main(frame)


def _runs_main(frame: "FrameType | None") -> bool:
    mains = ("__main__", "__mp_main__", "multiprocessing.spawn")
    return any(one.f_globals.get("__name__") in mains for one in frames(frame))


def names_interrupt(frame: "FrameType | None") -> bool:
    """Return whether the program, or a framework around its training, names KeyboardInterrupt where it is now."""
    return any(
        "KeyboardInterrupt" in one.f_code.co_names
        and (is_own(one.f_code.co_filename) or _is_framework(one.f_globals.get("__name__")))
        for one in frames(frame)
    )


def place(frame: "FrameType | None") -> "tuple[object, ...]":
    """Return where the program's own code is."""
    return tuple((one.f_code, one.f_lineno) for one in frames(frame) if is_own(one.f_code.co_filename))


def frames(frame: "FrameType | None") -> "Iterator[FrameType]":
    """Yield a frame and those that have called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_own(path: str) -> bool:
    """Return whether a file is the program's own, and not Python's, an installed package's or ours."""
    # Ours need not be installed: a word may come while a handler of ours runs.
    bootstrap = os.path.dirname(os.path.dirname(is_own.__code__.co_filename))
    if path.startswith(("<frozen", bootstrap + "/")) or any(part in path for part in _INSTALLED):
        return False
    library = os.path.dirname(os.__file__)
    return not path.startswith(library + "/")


def _saves(handler: "Any") -> bool:
    """Return whether a SIGTERM handler is the program's own, or of a framework that saves then."""
    while hasattr(handler, "func"):
        handler = handler.func  # functools.partial
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
    module = getattr(handler, "__module__", "")
    # asyncio calls the program's own, by the wakeup fd.
    return code is None or is_own(code.co_filename) or module == "asyncio.unix_events" or _is_framework(module)


def _is_framework(module: "Any") -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _FRAMEWORKS.split()
