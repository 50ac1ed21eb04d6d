"""What a notice does: in the main program of a rank, and in a rank agent."""

import _signal  # type: ignore[import-not-found]
import _thread
import os
import sys
from time import monotonic, sleep

from .. import proc, programs
from ..site.sitecustomize import folder_of_launcher, open_folder
from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Iterator

# As in contract.py, which is not there in a user's process.
NOTICE_FILE = "notice"
SEEN_NEWS = "seen"
RANKS_TOLD_FILE = "ranks told"
TERMINATE_FILE = "terminate"

#: What Python calls before and after a fork.
_FORK_HOOKS = ("dispositions.before_fork", "dispositions.after_fork")

#: Slurm and kforge-run often send the same signal. Closer together than this (s, a guess) it is one notice.
_SAME_NOTICE = 1.0
#: How long kforge-run may take to give a notice that Slurm gave first (s): a guess.
_KFORGE_RUN_FOLLOWS = 2.0
#: How often a notice that waits is looked at again (s): a guess.
_REMIND_EVERY = 0.05
#: When an import has just ended, the next one may come within so long (s): a guess.
_IMPORTS_FOLLOW = 1.0
#: How long a program that has imported ShutdownHandler may take to register one (s): a guess.
_REGISTERS_WITHIN = 30.0
#: How long a rank agent waits for kforge-run's notice to follow a SIGTERM (s), as Slurm may be the first; and how
#: often it looks. Guesses.
_NOTICE_FOLLOWS = 0.5
_LOOK_EVERY = 0.01


class _State:
    """What has become of the notice."""

    #: The signal of one that waits until the program is ready for it; 0: there is none.
    pending = 0
    #: Until when it may wait once the program's imports are over (s, monotonic).
    patient_until = 0.0
    #: When it was last seen to import something (s, monotonic).
    imported_at = 0.0
    #: A thread brings it back to mind.
    reminding = False
    #: kforge-run knows that it got here.
    acknowledged = False
    #: It was acted on, and what comes now repeats it: when (s, monotonic), and whether kforge-run had given it.
    acted = False
    acted_at = 0.0
    acted_in_notice = False
    #: What was acted on was SIGTERM as kforge-run's last word: all that comes now is SIGKILL.
    acted_on_last_word = False
    #: A ShutdownHandler was registered, and is not any more.
    has_cooperated = False


#: An object, because setting a name of a class makes Python forget what it knows of all classes.
_notice = _State()
#: When the program's own handlers were last called (s, monotonic).
_told_at = {}  # type: dict[int, float]


# --- the main program of a rank ----------------------------------------------------------------------


def on_notice(signum: int, frame: "FrameType | None") -> None:
    """Act on a notice once: Slurm and kforge-run both send it, as different signals too, and Slurm again at the end."""
    own = process.own[signum]
    _acknowledge()
    if _is_in_fork_hook(frame):
        _notice.pending = signum
        _remind()
    elif callable(own):
        if not _repeats_at_once(signum):
            own(signum, frame)
    elif not _acted_already():
        is_last_word = _is_there(TERMINATE_FILE)
        if is_last_word or any(callable(handler) for handler in process.own.values()):
            _act(is_last_word)
        elif _may_cooperate(frame):
            _notice.pending = signum
            if not _notice.has_cooperated:
                _remind()
        elif not _hand_on(frame):
            _act(is_last_word)
    elif signum == _signal.SIGTERM and _is_there(TERMINATE_FILE) and not _notice.acted_on_last_word:
        die_of(signum)


def _acknowledge() -> None:
    """Tell kforge-run that this program has noticed: it need not signal it once more."""
    if not _notice.acknowledged and _is_there(NOTICE_FILE):
        _notice.acknowledged = True
        try:
            folder = open_folder(process.folder)
            try:
                process.tell_news(SEEN_NEWS, folder)
            finally:
                os.close(folder)
        except OSError:
            pass  # the folder is gone, or the news are not read


def _acted_already() -> bool:
    """Return whether this repeats what was acted on. A signal by hand, without a notice, is over after a while."""
    if not _notice.acted:
        return False
    _notice.acted_in_notice = _notice.acted_in_notice or (
        _is_there(NOTICE_FILE) and monotonic() - _notice.acted_at < _KFORGE_RUN_FOLLOWS
    )
    return _notice.acted_in_notice or monotonic() - _notice.acted_at < _KFORGE_RUN_FOLLOWS


def _is_in_fork_hook(frame: "FrameType | None") -> bool:
    """Return whether a hook of ours is interrupted: what a handler raises now would be dropped."""
    while frame is not None:
        if frame.f_code is process.call.__code__ and frame.f_locals.get("function") in _FORK_HOOKS:
            return True
        frame = frame.f_back
    return False


def _repeats_at_once(signum: int) -> bool:
    """Return whether the program's own handler was called just before; note that it is called now."""
    now, last = monotonic(), _told_at.get(signum)
    if _is_there(NOTICE_FILE):
        _note_acted()
        if last is not None and now - last < _SAME_NOTICE:
            return True
    _told_at[signum] = now
    take_pending()
    return False


def _act(is_last_word: bool) -> None:
    """Do what the program can do best: its own SIGUSR1 handler, else its own SIGTERM handler, else Ctrl-C.

    When SIGTERM is kforge-run's last word, an own handler had its chance.
    """
    _note_acted()
    _notice.acted_on_last_word = is_last_word
    take_pending()
    for signum in (_signal.SIGUSR1, _signal.SIGTERM):
        if not is_last_word and callable(process.own.get(signum)):
            return _send_to_self(signum)
    if callable(process.real_getsignal(_signal.SIGINT)):
        return _send_to_self(_signal.SIGINT)
    # In a shell's background SIGINT is ignored, which is not meant for a notice.
    raise KeyboardInterrupt


def _hand_on(frame: "FrameType | None") -> bool:
    """Hand the notice on where this program does nothing but wait for another Python; return whether it does.

    The other one counts as its helper, but Ctrl-C here would have `subprocess` kill it in the middle of its save.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") == "subprocess" and hasattr(frame.f_locals.get("self"), "pid"):
            break
        frame = frame.f_back
    else:
        return False
    below = list(_programs_below(frame.f_locals["self"].pid))
    for pid in below:
        caught = proc.signal_set(pid, "SigCgt")
        best = [signum for signum in (_signal.SIGUSR1, _signal.SIGTERM) if signum in caught]
        os.kill(pid, best[0] if best else _signal.SIGINT)
    if below:
        _note_acted()
    return bool(below)


def _programs_below(pid: int) -> "Iterator[int]":
    """Yield the pids of the nearest Python programs at or below a process: what is below those are their helpers.

    kforge-run signals one that is armed as well, and that counts both once.
    """
    arguments, executable = proc.command_line(pid), proc.executable(pid)
    if not executable:
        return  # it has just ended, or is another user's
    if "python" in executable and arguments:
        kind, program = programs.program_of(arguments)
        if kind != "-c" and process.role_of(arguments, kind, program) == "program":
            yield pid
            return
    for child in proc.children(pid):
        yield from _programs_below(child)


def _note_acted() -> None:
    """From now on more of the same changes nothing, not even while the interpreter ends and takes all handlers away."""
    _notice.acted_at = monotonic()
    _notice.acted_in_notice = _is_there(NOTICE_FILE)
    if not _notice.acted:
        _notice.acted = True
        import atexit

        atexit.register(_ignore_repeats)


def _ignore_repeats() -> None:
    for signum in process.own:
        if process.real_getsignal(signum) is process.handler:
            process.real_signal(signum, _signal.SIG_IGN)


# --- a notice that waits -----------------------------------------------------------------------------


def _may_cooperate(frame: "FrameType | None") -> bool:
    """Return whether the program is likely to have a handler in a while, and nothing to save until then."""
    if _notice.has_cooperated:
        return True  # and knows what it does
    now = monotonic()
    imports, knows_us = _look_at(frame)
    if imports:
        _notice.imported_at = now
    if imports or not _notice.pending:
        _notice.patient_until = now + _REGISTERS_WITHIN
    if imports or now < _notice.imported_at + _IMPORTS_FOLLOW:
        return True
    # By this module: there are other packages of the name.
    return (knows_us or "kempnerforge.bootstrap.contract" in sys.modules) and now < _notice.patient_until


def _look_at(frame: "FrameType | None") -> "tuple[bool, bool]":
    """Return whether something is being imported, and whether the main program names us: it may be about to."""
    imports = knows_us = False
    while frame is not None:
        imports = imports or frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        if frame.f_back is None and "kempnerforge" not in sys.modules:
            knows_us = any(name.startswith("kempnerforge") for name in frame.f_code.co_names)
        frame = frame.f_back
    return imports, knows_us


def _remind() -> None:
    """Have the notice come again and again until it can be acted on."""
    if not _notice.reminding:
        _notice.reminding = True
        try:
            _thread.start_new_thread(_send_reminders, (_thread.get_ident(),))
        except RuntimeError:
            _notice.reminding = False  # no thread can be had: what comes next is the next signal


def _send_reminders(main_thread: int) -> None:
    _signal.pthread_sigmask(_signal.SIG_BLOCK, all_signals())
    while _notice.reminding:
        sleep(_REMIND_EVERY)
        signum = _notice.pending
        if signum and process.real_getsignal(signum) is process.handler:
            _signal.pthread_kill(main_thread, signum)


def send_pending() -> None:
    """Send the notice that waits, to a handler that has just been installed."""
    if _notice.pending:
        _send_to_self(_notice.pending)


def take_pending() -> int:
    """Return the signal of a notice that waits for a handler, and leave telling it to the caller; 0: there is none."""
    pending, _notice.pending, _notice.reminding = _notice.pending, 0, False
    return pending


def was_told(signum: int) -> bool:
    """Return whether the program's own handler for this signal has been called."""
    return signum in _told_at


def note_cooperation(signum: int) -> None:
    """Note that a ShutdownHandler had the signal, and has left it to us again: the program knows what it does."""
    _notice.has_cooperated = True
    _told_at.pop(signum, None)


# --- a rank agent -------------------------------------------------------------------------------------


def spare_wrapper(signum: int, frame: "FrameType | None") -> None:
    """Keep a notice from an agent whose ranks save: torchrun would kill them after 30 s, others would orphan them."""
    own = process.own[signum]
    if signum == _signal.SIGTERM and _ranks_save():
        return
    if callable(own):
        own(signum, frame)
    elif signum == _signal.SIGTERM:
        die_of(signum)


def _ranks_save() -> bool:
    """Return whether kforge-run has given the notice to ranks, and not said its last word since."""
    for _ in range(int(_NOTICE_FOLLOWS / _LOOK_EVERY)):
        if _is_there(TERMINATE_FILE) or not _kforge_run_lives():
            return False
        if _is_there(RANKS_TOLD_FILE):
            return True
        sleep(_LOOK_EVERY)
    return False


def _kforge_run_lives() -> bool:
    try:
        return folder_of_launcher() is not None
    except OSError:
        return False


# --- what all of them need ---------------------------------------------------------------------------


def die_of(signum: int) -> None:
    """Do what the signal does by default."""
    process.real_signal(signum, _signal.SIG_DFL)
    _send_to_self(signum)


def _send_to_self(signum: int) -> None:
    """Signal this very thread: what happens then is exactly what the signal does."""
    _signal.pthread_kill(_thread.get_ident(), signum)


def all_signals() -> "Any":
    """Return every signal that can be blocked."""
    return getattr(_signal, "valid_signals", lambda: range(1, _signal.NSIG))()  # Python 3.7 has no such function


def _is_there(name: str) -> bool:
    """Return whether kforge-run has put a file into the private folder, and no other user something in its place."""
    try:
        folder = open_folder(process.folder)
    except OSError:
        return False  # it was tidied away
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True
