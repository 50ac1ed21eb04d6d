"""What becomes of our signals at a fork: of the bootstrap's, and of `ShutdownHandler`'s, which both have hooks there.

A forked child must not inherit our handlers: it would survive terminate(). Resetting them in the child is not enough, a
signal that comes first would be lost (59 of 60 at zero delay). So our signals are blocked from before the fork until
the child is clean. Only ours: others keep their timing.

In the parent, handlers may run inside a hook, and Python drops what one raises there: so the bootstrap's notice waits
until the hook is over. In the child, the program's own handler runs as soon as its signal is let in. If that raises,
SystemExit most likely, Python drops it as well, and the child would live on: so it dies of SIGTERM instead.

A stray SIGUSR1, as Slurm sends it to every process of a job, must not kill a data worker: it is given `ignore`.

What multiprocessing has forked also ends in another way than others (`at_end`).
"""

import _signal  # type: ignore[import-not-found]
import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable, Iterable


class HeldSignals:
    """The signals that are held back while threads fork."""

    def __init__(self) -> None:
        #: The signal masks of each thread that forks, the outermost fork first: a signal handler may fork during one.
        self._masks = {}  # type: dict[int, list[Any]]

    def hold(self, signums: "Iterable[int]") -> None:
        """Block signals, before a fork."""
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, signums)
        self._masks.setdefault(_thread.get_ident(), []).append(mask)

    def are_there(self) -> bool:
        """Return whether this thread holds some, after a fork and in the parent."""
        return bool(self._masks.get(_thread.get_ident()))

    def let_in(self) -> None:
        """Let them in again, in the parent."""
        if self.are_there():
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._masks[_thread.get_ident()].pop())

    def forget(self) -> "Any":
        """Forget them all, in a child that is going to be clean; return the mask for `let_in_child()`."""
        masks = self._masks.get(_thread.get_ident())
        self._masks.clear()
        return masks[-1] if masks else None


def let_in_child(mask: "Any") -> bool:
    """Let in what was held, in a child that is clean now. Return False where it has to die of SIGTERM."""
    try:
        if mask is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    except BaseException:  # noqa: BLE001 - see above
        return False
    return True


def ignore(_signum: int, _frame: "FrameType | None") -> None:
    """Let a stray signal pass. Not SIG_IGN, which is inherited across exec, and which bash cannot trap."""


def at_end(function: "Callable[[], None]") -> None:
    """Have a function called when the process comes to its end by itself."""
    import atexit

    atexit.register(function)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # What multiprocessing has forked ends without atexit.
        util.Finalize(None, function, exitpriority=0)
