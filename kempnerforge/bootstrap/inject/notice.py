"""What becomes of a notice in a Python: of kforge-run's word, and of the signals of Slurm and others.

kforge-run's word is a signal of its own, so that it says all that has to be known: this process, and now. Slurm's
signals may come to every process of a job, before kforge-run has decided anything and again at the end. So while a
notice stands they wait for the word, and without one they do what they would do without us.
"""

import _signal  # type: ignore[import-not-found]
import _thread
import os
import sys
from time import monotonic, sleep, time

from .. import forks, proc, programs
from ..site.sitecustomize import folder_of_launcher, open_folder
from . import doors, process, signals, wakeup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Iterator

# As in contract.py, which is not there in a user's process.
NOTICE_FILE = "notice"
SEEN_NEWS = "seen"
DONE_NEWS = "done"
TERMINATE_FILE = "terminate"
SIGNALLED_FILE = "signalled"

#: What Python calls before and after a fork.
_FORK_HOOKS = ("dispositions.before_fork", "dispositions.after_fork")

#: When Slurm signals every process, kforge-run may get its signal later than we do, and needs a while to say so if it
#: is at work already: so often we look whether it has. Below a program, which may terminate() us, we are quick to
#: believe that nothing has come to it. Not a time, because a loaded machine has us look more slowly. Guesses.
_SAME_SIGNAL = 250
_SAME_SIGNAL_NESTED = 50
_AT_WORK = 1000
#: A signal that kforge-run got so long ago (s) came with ours, and so long ago at most if it has not asked since then
#: what we are: on a loaded machine ours has waited for its turn. Guesses.
_SAME_EVENT = 0.15
_SAME_EVENT_UNASKED = 2.0
#: When a signal that waits is looked at again (s): a guess.
_LOOK_AGAIN_AFTER = 0.01
#: How often to look (s): a guess.
_LOOK_EVERY = 0.001
#: A word that comes so soon after another repeats it, and is no second interrupt (s): kforge-run waits longer.
_SAME_WORD = 4.0
#: How often a word that waits is looked at again (s): a guess.
_REMIND_EVERY = 0.05
#: How long another place is looked for (s), at the words that kforge-run sends meanwhile: a guess.
_SEEKS_FOR = 5.0
#: When an import has just ended, the next one may come within so long (s): a guess.
_IMPORTS_FOLLOW = 1.0
#: Python's own modules in which a Ctrl-C may leave a lock taken, a waiter unknown or a process unheard of; and how long
#: their end is waited for (s): a guess.
_DELICATE = """
threading queue subprocess concurrent.futures._base concurrent.futures.process concurrent.futures.thread
multiprocessing.connection multiprocessing.pool multiprocessing.queues multiprocessing.synchronize
"""
_LEAVES_WITHIN = 0.2
#: How long a program that has imported ShutdownHandler may take to register one, and one that only names it (s).
#: Guesses.
_REGISTERS_WITHIN = 30.0
_IMPORTS_WITHIN = 3.0


class _State:
    """What has become of the notice."""

    #: A word that waits until the program is ready for it.
    waits = False
    #: Until when it may wait once the program's imports are over (s, monotonic).
    patient_until = 0.0
    #: When it was last seen to import something (s, monotonic).
    imported_at = 0.0
    #: Where in a delicate module the word has come last, and until when that one is waited for (s, monotonic).
    passed = ()  # type: tuple[object, ...]
    leaves_until = 0.0
    #: A thread brings it back to mind.
    reminding = False
    #: When it was acted on (s, monotonic); None: it was not.
    acted_at = None  # type: float | None
    #: By which door (`doors.py`).
    door = ""
    #: Where it was interrupted: who swallows a Ctrl-C there does so again.
    places = ()  # type: tuple[object, ...]
    #: Until when another place is looked for (s, monotonic).
    seeks_until = 0.0
    #: A signal is looked at for the second time; and at the first time, it was Slurm's, to everybody.
    looks_again = False
    is_everybodys = False
    #: kforge-run has asked what this process is.
    was_asked = False
    #: The last word was heard.
    had_last_word = False
    #: A thread cooperates, and hears of the notice by a message.
    by_message = False
    #: A ShutdownHandler was registered, and is not any more.
    has_cooperated = False


#: An object, because setting a name of a class makes Python forget what it knows of all classes.
_notice = _State()


def forget() -> None:
    """Begin anew, in a forked child."""
    global _notice
    _notice = _State()


# --- kforge-run's word ---------------------------------------------------------------------------------


def on_word(_signum: int, frame: "FrameType | None") -> None:
    """Save and end."""
    if _notice.by_message:
        return
    if _is_in_fork_hook(frame):
        # What a handler raises now would be dropped.
        _keep(remind=True)
    elif _notice.acted_at is None and _is_there(TERMINATE_FILE):
        _hear_last_word(frame)
    elif _notice.acted_at is None:
        _act_when_ready(frame)
    elif monotonic() - _notice.acted_at > _SAME_WORD or _notice.seeks_until or _is_there(TERMINATE_FILE):
        _interrupt_again(frame)


def _act_when_ready(frame: "FrameType | None") -> None:
    """Act on the word, or keep it until that can be done."""
    if not doors.has_handler() and _may_cooperate(frame):
        _keep(remind=not _notice.has_cooperated)
        tell_seen("-")
    elif not doors.has_handler() and _is_at_a_delicate_place(frame):
        _keep(remind=True)
    else:
        _act(frame)


def _is_at_a_delicate_place(frame: "FrameType | None") -> bool:
    """Return whether a Ctrl-C would come between two lines of Python's own that belong together.

    Who is seen twice at the very same place waits there for something, and may be interrupted.
    """
    before, _notice.passed = _notice.passed, ()
    if frame is None or frame.f_globals.get("__name__") not in _DELICATE.split():
        return False
    _notice.passed = (frame.f_code, frame.f_lasti)
    _notice.leaves_until = _notice.leaves_until or monotonic() + _LEAVES_WITHIN
    return _notice.passed != before and monotonic() < _notice.leaves_until


def _act(frame: "FrameType | None") -> None:
    _notice.acted_at, _notice.waits, _notice.reminding = monotonic(), False, False
    forks.at_end(_end)
    door = doors.best(frame, _signal_of_notice())
    if door == doors.IN_C and not doors.is_there_one_in_c():
        door = doors.CTRL_C
    _notice.door, _notice.places = door, (doors.place(frame),)
    tell_seen(door)
    doors.go_through(door)


def _interrupt_again(frame: "FrameType | None") -> None:
    """Interrupt a program once more which goes on as if nothing had happened, and no other."""
    is_other_use = _notice.door == doors.OWN_USR1 and doors.names_interrupt(frame)
    if not (_notice.door in (doors.NAMED, doors.CTRL_C) or is_other_use) or doors.is_interrupted(frame):
        _notice.seeks_until = 0.0
        tell_seen(_notice.door)
        return
    now, place, is_last = monotonic(), doors.place(frame), _is_there(TERMINATE_FILE)
    if is_last and _notice.had_last_word:
        return
    _notice.had_last_word = is_last
    if not _notice.seeks_until:
        _notice.seeks_until = now + _SEEKS_FOR
    if place in _notice.places and now < _notice.seeks_until and not (is_other_use or is_last):
        return
    _notice.acted_at, _notice.seeks_until, _notice.places = now, 0.0, (*_notice.places, place)
    # What has SIGUSR1 for something else has not heard of a notice yet.
    _notice.door = doors.NAMED if is_other_use else _notice.door
    tell_seen(_notice.door)
    doors.go_through(_notice.door)


def tell_seen(letter: str) -> None:
    """Tell kforge-run that this program has noticed, and by which door it acts."""
    process.tell(SEEN_NEWS + ":" + letter)


def _is_in_fork_hook(frame: "FrameType | None") -> bool:
    """Return whether a hook of ours is interrupted."""
    ours = process.call.__code__
    return any(one.f_code is ours and one.f_locals.get("function") in _FORK_HOOKS for one in doors.frames(frame))


def _end() -> None:
    """Tell kforge-run that this is a regular end, and let no signal of Slurm's come between it and that.

    The interpreter takes all handlers away on its way out.
    """
    error = getattr(sys, "last_value", None)
    if error is None or isinstance(error, KeyboardInterrupt):
        process.tell(DONE_NEWS)
    for signum in (*process.own, *process.listeners):
        if process.real_getsignal(signum) is (process.listeners.get(signum) or process.handler):
            process.real_signal(signum, _signal.SIG_IGN)


# --- SIGTERM and SIGUSR1, Slurm's and others' ------------------------------------------------------------


def on_signal(signum: int, frame: "FrameType | None") -> None:
    """Do what a signal does without us, but not while there is a notice: then kforge-run's word counts."""
    if signals.is_sent(signum):
        if callable(process.own[signum]):
            _call_own(signum, frame)
    elif signum == _signal.SIGTERM and _is_there(TERMINATE_FILE):
        _hear_last_word(frame)
    elif _dies_of_own_accord(signum):
        _go_on_to_interrupt(frame)
    elif _notice.acted_at is not None:
        pass  # whoever acts is left in peace
    elif not kforge_run_lives() or not proc.stat("self"):
        _act_when_ready(frame)  # nobody is left to give the word, or can know whom to give it
    elif stands():
        _hold_back(signum, frame)
    elif not _came_to_kforge_run():
        _call_own(signum, frame)


def _hold_back(signum: int, frame: "FrameType | None") -> None:
    """Leave a signal to kforge-run's word, unless it is another program's, which ends what has helped it."""
    if _notice.has_cooperated:
        _act_when_ready(frame)  # nobody has polled it: it waits for the next handler
    elif not _is_below_a_program():
        pass
    elif not _notice.looks_again:
        # After a long call of C, the word is handled after this.
        _notice.is_everybodys = _came_with_ours()
        _notice.looks_again = signals.start_thread(_send_again, signum, _thread.get_ident()) != 0
    else:
        _notice.looks_again = False
        if not _notice.is_everybodys and not _came_to_kforge_run():
            _call_own(signum, frame)


def _send_again(signum: int, main_thread: int) -> None:
    sleep(_LOOK_AGAIN_AFTER)
    _signal.pthread_kill(main_thread, signum)


def _call_own(signum: int, frame: "FrameType | None") -> None:
    """Do what a signal does without us."""
    own = process.own[signum]
    if callable(own):
        own(signum, frame)
        wakeup.write(signum)
    else:
        signals.die_of(signum)


def note_probe() -> None:
    """Note that kforge-run asks what this process is: what it got before that, we have handled before this."""
    _notice.was_asked = True


def _came_with_ours() -> bool:
    """Return whether kforge-run has got a signal when we did."""
    return _age_of(SIGNALLED_FILE) < (_SAME_EVENT if _notice.was_asked else _SAME_EVENT_UNASKED)


def _came_to_kforge_run() -> bool:
    """Return whether a signal is Slurm's, to every process of the job: then kforge-run has it as well."""
    launcher = folder_pid()
    patience = _SAME_SIGNAL_NESTED if _is_below_a_program() else _SAME_SIGNAL
    for look in range(_AT_WORK):
        if _came_with_ours():
            return True
        state = proc.stat(launcher)
        # Where it is hidden, in a container, it counts as asleep.
        if look >= patience and (not state or state[proc.STATE] == "S"):
            break
        sleep(_LOOK_EVERY)
    return False


def _is_below_a_program() -> bool:
    """Return whether another Python that is no rank agent is between kforge-run and us."""
    for pid in above():
        arguments = proc.command_line(pid)
        kind, program = programs.program_of(arguments)
        if "python" in proc.executable(pid) and programs.role_of(arguments, kind, program) != "wrapper":
            return True
    return False


def above() -> "Iterator[int]":
    """Yield who is above this process, up to kforge-run."""
    launcher, pid = folder_pid(), os.getppid()
    while pid not in (0, 1, launcher):
        yield pid
        fields = proc.stat(pid)
        pid = int(fields[proc.PARENT]) if fields else 0


def stands() -> bool:
    """Return whether there is a notice."""
    return _is_there(NOTICE_FILE)


def folder_pid() -> int:
    """Return the pid of kforge-run, as its private folder is named."""
    return int(process.folder.rpartition("/")[2].split("-")[2])


def kforge_run_lives() -> bool:
    """Return whether anybody is there to give the word."""
    try:
        if folder_of_launcher() is None:
            return False
    except OSError:
        return False
    state = proc.stat(folder_pid())
    return not state or state[proc.STATE] not in proc.ENDED + "T"


def _dies_of_own_accord(signum: int) -> bool:
    """Return whether the program has stepped aside to die of a signal, in its own handler that is the door."""
    door = {doors.OWN_TERM: _signal.SIGTERM, doors.OTHER_TERM: _signal.SIGTERM, doors.OWN_USR1: _signal.SIGUSR1}
    return door.get(_notice.door) == signum and not callable(process.own[signum])


def _go_on_to_interrupt(frame: "FrameType | None") -> None:
    """Let a tracker's hook flush, and the program save at Ctrl-C if it means to; else let it die as it wants to."""
    if doors.names_interrupt(frame):
        _notice.door = doors.NAMED
        doors.go_through(_notice.door)
    else:
        signals.die_of(_signal.SIGTERM)


def _hear_last_word(frame: "FrameType | None") -> None:
    """Take the last chance before SIGKILL; who acts on the notice is left in peace."""
    own = signals.get_disposition(_signal.SIGTERM)
    if _notice.acted_at is not None:
        _interrupt_again(frame)
    elif process.role == "wrapper" and not callable(own):
        signals.die_of(_signal.SIGTERM)
    elif process.role == "wrapper":
        own(_signal.SIGTERM, frame)
    else:
        _act(frame)


# --- a word that waits -----------------------------------------------------------------------------------


def _keep(remind: bool) -> None:
    _notice.waits = True
    if remind:
        _remind()


def _remind() -> None:
    """Have the word come again until it can be acted on."""
    if not _notice.reminding:
        _notice.reminding = True
        if not signals.start_thread(_send_reminders, _thread.get_ident()):
            _notice.reminding = False  # what comes next is the next word


def _may_cooperate(frame: "FrameType | None") -> bool:
    """Return whether the program is likely to have a handler in a while, and nothing to save until then."""
    if _notice.has_cooperated:
        return True  # and knows what it does
    now = monotonic()
    imports, names_us = _look_at(frame)
    # By this module: there are other packages of the name.
    has_us = "kempnerforge.bootstrap.contract" in sys.modules
    if imports:
        _notice.imported_at = now
    if imports or not _notice.waits:
        _notice.patient_until = now + (_REGISTERS_WITHIN if has_us else _IMPORTS_WITHIN)
    if imports or now < _notice.imported_at + _IMPORTS_FOLLOW:
        return True
    return (names_us or has_us) and now < _notice.patient_until


def _look_at(frame: "FrameType | None") -> "tuple[bool, bool]":
    """Return whether something is being imported, and whether the main program names us: it may be about to."""
    imports = names_us = False
    for one in doors.frames(frame):
        imports = imports or one.f_code.co_filename == "<frozen importlib._bootstrap>"
        if one.f_back is None and "kempnerforge" not in sys.modules:
            names_us = any(name.startswith("kempnerforge") for name in one.f_code.co_names)
    return imports, names_us


def _send_reminders(main_thread: int) -> None:
    while _notice.reminding:
        sleep(_LOOK_EVERY if _notice.passed else _REMIND_EVERY)
        if _notice.waits:
            _signal.pthread_kill(main_thread, process.WORD_SIGNAL)
        elif _notice.acted_at is not None:
            _notice.reminding = False


def send_pending() -> None:
    """Bring the word that waits to a handler that has just been installed."""
    if _notice.waits:
        signals.send_to_self(process.WORD_SIGNAL)


def take_pending() -> int:
    """Return the signal of a notice that waits for a handler, and leave telling it to the caller; 0: there is none."""
    waits, _notice.waits, _notice.reminding = _notice.waits, False, False
    return _signal_of_notice() if waits else 0


def note_cooperation() -> None:
    """Note that a ShutdownHandler had the signals, and has left them to us again: the program knows what it does."""
    _notice.has_cooperated = True
    _notice.acted_at, _notice.door = None, ""


def hear_by_message() -> None:
    """Note that a thread has a ShutdownHandler, and no signal."""
    _notice.by_message = True


# --- what all of them need -----------------------------------------------------------------------------


def _signal_of_notice() -> int:
    """Return the signal that kforge-run got: a message of `wire`, read without a reader for it."""
    try:
        folder = open_folder(process.folder)
        try:
            file = os.open(NOTICE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        with open(file, "rb") as notice:
            is_term = b'"signal": %d,' % _signal.SIGTERM in notice.read()
    except OSError:
        is_term = False
    return int(_signal.SIGTERM if is_term else _signal.SIGUSR1)


def _age_of(name: str) -> float:
    """Return how old a file is that kforge-run has put into the private folder (s); infinity: there is none."""
    try:
        folder = open_folder(process.folder)
    except OSError:
        return float("inf")  # it was tidied away
    try:
        return abs(time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime)
    except OSError:
        return float("inf")
    finally:
        os.close(folder)


def _is_there(name: str) -> bool:
    """Return whether kforge-run has put a file into the private folder."""
    return _age_of(name) < float("inf")
