"""What a Python is and does, told to kforge-run when it asks: only the process itself sees its frames."""

import sys
from time import monotonic

from .. import proc
from . import doors, notice, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Iterator

ANSWER_NEWS = "answer"

ANSWER_LETTERS = "hmndtlw"

#: Whose children help, and do not train: by the module of what they run.
_HELPING = (
    "concurrent.futures.",
    "joblib.externals.loky.",
    "loky.",
    "multiprocessing.managers",
    "multiprocessing.pool",
)
#: Libraries of whoever trains.
_TENSOR_LIBRARIES = ("torch", "jax", "tensorflow")
#: Modules with functions that wait for a process, which is `self` there or `pid`.
_WAITING = ("subprocess", "multiprocessing.popen_fork", "asyncio.unix_events", "torch.multiprocessing.spawn")
#: The most pids that fit in the line.
_MOST_PIDS = 64
#: Opcodes that begin a try or a with before Python 3.11, where no table tells.
_SETUP_FINALLY, _SETUP_WITH = 122, 143
#: Who waits for a processor for so much of the time has no chance to go on to something else. A guess.
_HELD_UP = 0.5

#: When it was asked before (s, monotonic), and how long it had waited for a processor by then (s).
_asked = (0.0, 0.0)


def on_probe(_signum: int, frame: "FrameType | None") -> None:
    """Answer on the FIFO."""
    notice.note_probe()
    holds = (
        _is_helper(),
        _is_mp_child(),
        doors.names_interrupt(frame),
        doors.has_handler(),
        _is_inside_try(frame),
        any(name in sys.modules for name in _TENSOR_LIBRARIES),
        _was_held_up(),
    )
    letters = "".join(letter for letter, one in zip(ANSWER_LETTERS, holds) if one)
    pids = sorted(set(_awaited()))[:_MOST_PIDS]
    process.tell("%s:%s:%s" % (ANSWER_NEWS, letters, ",".join(map(str, pids))))


def _was_held_up() -> bool:
    """Return whether the main thread has mostly waited for a processor since it was asked before."""
    global _asked
    before, now = _asked, monotonic()
    # Its second number: "time spent waiting on a runqueue" (ns; the kernel's sched-stats documentation).
    numbers = proc.read("/proc/self/schedstat").split()
    _asked = (now, int(numbers[1]) / 1e9 if len(numbers) > 1 else 0.0)
    return _asked[1] - before[1] > _HELD_UP * (now - before[0])


def _is_mp_child() -> bool:
    module = sys.modules.get("multiprocessing.process")
    return module is not None and getattr(module, "parent_process", lambda: None)() is not None


def _is_helper() -> bool:
    """Return whether multiprocessing has started this process to help another one."""
    if not _is_mp_child():
        return False
    current = sys.modules["multiprocessing.process"].current_process()
    module = getattr(getattr(current, "_target", None), "__module__", None) or type(current).__module__
    return bool(current.daemon) or module.startswith(_HELPING)


def _is_inside_try(frame: "FrameType | None") -> bool:
    """Return whether a function of the program's own has a try or a with, as far as is quickly told."""
    return any(doors.is_own(one.f_code.co_filename) and _has_try(one.f_code) for one in doors.frames(frame))


def _has_try(code: "CodeType") -> bool:
    if hasattr(code, "co_exceptiontable"):
        return bool(code.co_exceptiontable)
    operations = code.co_code[::2]
    return _SETUP_FINALLY in operations or _SETUP_WITH in operations


def _awaited() -> "Iterator[int]":
    """Yield the pids of processes that some thread waits for in Python's own functions for that."""
    for thread in sys._current_frames().values():
        for frame in doors.frames(thread):
            if frame.f_globals.get("__name__") in _WAITING:
                for found in (frame.f_locals.get("self"), frame.f_locals.get("pid")):
                    for pid in [found, getattr(found, "pid", None), *_pids(found)]:
                        if isinstance(pid, int) and pid > 0:
                            yield pid


def _pids(found: object) -> "list[object]":
    """Return the pids of what torch's `spawn` waits for."""
    return [getattr(one, "pid", None) for one in getattr(found, "processes", None) or ()]
