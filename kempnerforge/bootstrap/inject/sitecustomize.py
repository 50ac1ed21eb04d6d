"""What kforge-run injects into every Python below it: PYTHONPATH leads here, and `site` imports it at the start.

It decides once what this process is, and disturbs nothing else:

- the main program of a rank is *armed*: SIGTERM and SIGUSR1 are a notice, which acts like the best handler that the
  program has. The program itself sees the dispositions that it would see without us;
- a multiprocessing helper is *shielded*: of all SIGTERMs only its parent's ends it;
- a launcher of ranks is *spared*: no SIGTERM reaches it while its ranks save, and SIGUSR1 does not kill it;
- every other Python is left alone.

Whatever goes wrong here, the program starts as if we were not there. The syntax is that of Python 2.7, because old
Pythons read this file too. Until a signal comes it uses only what is built in or loaded anyway.
It stands alone: what it shares with the launcher is in bootstrap/contract.py, and a test compares the two.
"""

import os
import sys

if sys.version_info >= (3, 5):
    import _signal  # type: ignore[import-not-found]
    import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - in comments below

# --- as in contract.py -------------------------------------------------------------------------------

CONTROL_VARIABLE = "KFORGE_CONTROL"
CLAIM_VARIABLE = "KFORGE_CLAIM"
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
ARMED_FOLDER = "armed"
BELOW_FOLDER = "below"
NOTICE_FILE = "notice"
TERMINATE_FILE = "terminate"
PACKAGE_FILE = "package"

# --- which process is what ---------------------------------------------------------------------------

#: The oldest Python with fork hooks: without them, every forked child would inherit what we install.
_OLDEST = (3, 7)

#: What tells one rank from another. With the same values, a Python below an armed one is its helper.
_RANK_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "TORCHELASTIC_RESTART_COUNT",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
)

#: Programs that run others and are never the run itself, as scripts and as modules.
_LAUNCHERS = (
    "torchrun",
    "accelerate",
    "accelerate-launch",
    "deepspeed",
    "ds",
    "horovodrun",
    "composer",
    "fabric",
    "ray",
)
_LAUNCHER_MODULES = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands",
    "deepspeed.launcher",
    "horovod.runner",
    "composer.cli",
)
_TOOLS = ("conda", "mamba", "pip", "pip3", "pipenv", "pipx", "pdm", "poetry", "hatch", "uv")
_TOOL_MODULES = ("conda", "ensurepip", "hatch", "pdm", "pip", "pipenv", "pipx", "poetry", "uv", "venv", "virtualenv")
#: kforge-run and kforge look after their signals themselves.
_OURS = ("kforge-run", "kforge")
_OUR_MODULES = ("kempnerforge.launcher", "kempnerforge.commands")

#: How multiprocessing and loky start their helpers, with `-c` and with `-m`.
_HELPER_CODE = ("from multiprocessing.", "from loky.backend.", "from joblib.externals.loky.backend.")
_HELPER_MODULES = ("loky.backend", "joblib.externals.loky.backend")

# --- times -------------------------------------------------------------------------------------------

#: Slurm and kforge-run often send the same signal. Closer together than this (s) it is one notice.
_SAME_NOTICE = 1.0
#: How often a notice that waits is looked at again (s).
_REMIND_EVERY = 0.05
#: How long a program that has imported ShutdownHandler may take to register one (s).
_REGISTERS_WITHIN = 30.0
#: How long a launcher of ranks waits for kforge-run's notice to follow a SIGTERM (s): Slurm may be the first.
_NOTICE_FOLLOWS = 0.5
_LOOK_EVERY = 0.01


class _State:
    """What this process is. In a class, because a function of Python 2 cannot assign to anything between."""

    #: The launcher's private folder.
    folder = ""
    #: What runs when one of our signals comes; None: we hold none.
    handler = None  # type: Any
    #: What the program believes its dispositions of our signals to be.
    own = {}  # type: dict[int, Any]
    #: Signals that the program's own handler was told of.
    told = set()  # type: set[int]
    #: When it was last told (s, monotonic).
    told_at = {}  # type: dict[int, float]
    #: The signal of a notice that waits until the program is ready for it; 0: there is none.
    pending = 0
    #: Until when it may wait once the program's imports are over (s, monotonic).
    patient_until = 0.0
    reminding = False
    #: A ShutdownHandler was registered, and is not any more.
    has_cooperated = False
    #: The notice was acted on, and what comes now repeats it.
    acted = False
    #: The thread that takes this process's SIGTERMs; 0: it is not shielded.
    shield = 0
    #: This process was forked by multiprocessing.
    is_worker = False
    #: The signal masks of threads that are forking.
    masks = {}  # type: dict[int, Any]


#: The functions of the module `_signal`, which the program does not get to see.
_real_signal = _real_getsignal = None  # type: Any


def _start():
    """Find out what this process is, and make it that."""
    folder = _folder_of_launcher()
    if folder is None or sys.version_info < _OLDEST:
        return
    _State.folder = folder
    sys.modules[BOOTSTRAP_MODULE] = sys.modules[__name__]
    sys.meta_path.append(_PackageOfLauncher)
    arguments = _arguments()
    kind, program = program_of(arguments)
    if not _is_python() or _is_one_of(kind, program, _OURS, _OUR_MODULES):
        return
    if kind == "-c" and program.startswith("from multiprocessing.resource_tracker "):
        return  # it ignores SIGTERM by itself
    if (
        (kind == "-c" and program.startswith(_HELPER_CODE))
        or "--multiprocessing-fork" in arguments
        or _is_one_of(kind, program, (), _HELPER_MODULES)
    ):
        _disguise()
        _raise_shield()
    elif launches_others(kind, program):
        _take_signals(_spare_launcher)
    elif _claim():
        _take_signals(_on_notice)
        if _State.own:
            _list_in(ARMED_FOLDER)
    elif kind != "-c":
        _list_in(BELOW_FOLDER)


def _list_in(folder):
    os.mknod(os.path.join(_State.folder, folder, _identity(os.getpid())), 0o600)


def _listed_in(folder):
    """Return the pids of the living processes that are listed in a folder."""
    names = [name.partition(".") for name in os.listdir(os.path.join(_State.folder, folder))]
    return [int(pid) for pid, _, start in names if _identity(pid) == pid + "." + start]


def _folder_of_launcher():
    """Return the private folder of the kforge-run above us; None: there is none that is meant for this process."""
    node, _, rest = os.environ.get(CONTROL_VARIABLE, "").partition(":")
    job, _, folder = rest.partition(":")
    here = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    if not folder or node != here or os.environ.get("SLURM_JOB_ID", job) != job:
        return None
    # kforge-UID-PID-START-RANDOM. If kforge-run was killed, the folder is still there, and the environment stale.
    name = os.path.basename(folder).split("-")
    if len(name) != 5 or _identity(name[2]) != name[2] + "." + name[3] or not os.path.isdir(folder):
        return None
    return folder


def _identity(pid):
    """Return `PID.START` of a living process, which no other process of this boot has; empty: it does not live."""
    try:
        stat = open("/proc/%s/stat" % pid, "rb")
    except (IOError, OSError):
        return ""
    try:
        fields = stat.read().rpartition(b")")[2].split()
    except (IOError, OSError):
        return ""  # it has just ended
    finally:
        stat.close()
    return "" if fields[0] in (b"Z", b"X") else "%s.%s" % (pid, fields[19].decode())


def _is_python():
    """Return whether this is an interpreter, and not a debugger or an editor of which Python is a part."""
    name = os.path.basename(os.readlink("/proc/self/exe")).lower()
    return "python" in name or "pypy" in name


def _arguments():
    """Return the command line. `sys.argv` is not there yet."""
    known = getattr(sys, "orig_argv", None)
    if known is not None:
        return known
    stream = open("/proc/self/cmdline", "rb")
    try:
        return [os.fsdecode(argument) for argument in stream.read().split(b"\0")[:-1]]
    finally:
        stream.close()


def program_of(arguments):
    """Return how a Python's program is given, and which: `("-c", code)`, `("-m", module)` or `("", path)`.

    Options are read as the interpreter does (python(1)): one dash may carry several, and a value may be attached.
    """
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "--check-hash-based-pycs":
            next(rest, "")
        elif not argument.startswith("-") or argument in ("-", "--"):
            return "", next(rest, "") if argument == "--" else argument
        elif not argument.startswith("--"):
            for position, letter in enumerate(argument[1:], 2):
                if letter in "cmWX":
                    value = argument[position:] or next(rest, "")
                    if letter in "cm":
                        return "-" + letter, value
                    break
    return "", ""


def launches_others(kind, program):
    """Return whether a program runs others and is never the run itself."""
    return _is_one_of(kind, program, _LAUNCHERS, _LAUNCHER_MODULES) or _is_one_of(kind, program, _TOOLS, _TOOL_MODULES)


def _is_one_of(kind, program, scripts, modules):
    """Return whether a program is one of these scripts, or of these modules with all that is in them."""
    if kind == "-m":
        return any(program == module or program.startswith(module + ".") for module in modules)
    if kind != "":
        return False
    # A module may also be started by its path.
    for path in ["/" + module.replace(".", "/") for module in modules]:
        if program.endswith((path + ".py", path + "/__main__.py")) or ("/" in path[1:] and path + "/" in program):
            return True
    return os.path.basename(program) in scripts


def _claim():
    """Claim this rank: return whether this process is its main program, and not a helper below that.

    The claim names its owner and is handed down in the environment. No helper is who has other rank variables, whose
    owner is dead, and the owner itself after an execv.
    """
    rank = ",".join([os.environ.get(name, "") for name in _RANK_VARIABLES])
    owner, _, claimed = os.environ.get(CLAIM_VARIABLE, "").partition("|")
    me = _identity(os.getpid())
    if claimed == rank and owner != me and _identity(owner.partition(".")[0]) == owner != "":
        return False
    os.environ[CLAIM_VARIABLE] = "%s|%s" % (me, rank)
    return True


class _PackageOfLauncher:
    """Finds kforge-run's own `kempnerforge` where nobody else has one: the last of all finders."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # noqa: ARG004
        if name != "kempnerforge":
            return None
        try:
            stream = open(os.path.join(_State.folder, PACKAGE_FILE), "rb")
        except (IOError, OSError):
            return None
        try:
            package = os.fsdecode(stream.read())
        finally:
            stream.close()
        start = os.path.join(package, "__init__.py")
        if not os.path.isfile(start):
            return None  # a container does not show it
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, start, submodule_search_locations=[package])


# --- our signals, which look as if they were not ours ------------------------------------------------


def _take_signals(handler):
    """Have a handler get SIGTERM and SIGUSR1."""
    _State.handler = handler
    for signum in (_signal.SIGTERM, _signal.SIGUSR1):
        # What is ignored is so on purpose: by `trap ''`, by nohup.
        if _signal.getsignal(signum) == _signal.SIG_DFL:
            _signal.signal(signum, handler)  # fails in a subinterpreter, before anything is changed
            _State.own[signum] = _signal.SIG_DFL
    _disguise()


def _disguise():
    """Show the program the dispositions that it would have without us, and keep forked children free of us."""
    global _real_signal, _real_getsignal
    _real_signal, _real_getsignal = _signal.signal, _signal.getsignal
    # The module `signal` looks both up at each call, so it need not be there yet.
    _signal_as_without_us.__doc__, _getsignal_as_without_us.__doc__ = _real_signal.__doc__, _real_getsignal.__doc__
    _signal.signal, _signal.getsignal = _signal_as_without_us, _getsignal_as_without_us
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def _signal_as_without_us(signalnum, handler):
    """Set the program's disposition. Ours stays in front of it, so that a notice counts once.

    SIG_DFL means "as before": who restores what it found stays armed. Only when its own handler has been told, SIG_DFL
    is meant: to die of the signal next.
    """
    is_default = isinstance(handler, int) and handler == _signal.SIG_DFL
    ours = isinstance(signalnum, int) and signalnum in _State.own
    if ours and (callable(handler) or (is_default and signalnum not in _State.told)):
        _real_signal(signalnum, _State.handler)
        before, _State.own[signalnum] = _State.own[signalnum], handler
        if _State.pending and callable(handler):
            _send_to_self(_State.pending)
        return before
    before = _real_signal(signalnum, handler)
    if ours:
        before, _State.own[signalnum] = _State.own[signalnum], handler
    if _State.shield and signalnum == _signal.SIGTERM:
        _lower_shield()
    return _signal.SIG_DFL if before is _ignore else before


def _getsignal_as_without_us(signalnum):
    """Return the program's disposition."""
    found = _real_getsignal(signalnum)
    if signalnum in _State.own and found is _State.handler:
        return _State.own[signalnum]
    return _signal.SIG_DFL if found is _ignore else found


def holds(signum):
    """Return whether a signal is ours while the program has no handler of its own for it."""
    return signum in _State.own and _real_getsignal(signum) is _State.handler and not callable(_State.own[signum])


def take_pending():
    """Return the signal of a notice that waits for a handler, and leave telling it to the caller; 0: there is none."""
    pending, _State.pending, _State.reminding = _State.pending, 0, False
    return pending


def rearm(signum):
    """Take a signal back from the program's own handler, also after that was told; return False if it is not ours."""
    if signum not in _State.own:
        return False
    _State.has_cooperated = True
    _State.told.discard(signum)
    _signal_as_without_us(signum, 0)
    return True


def _send_to_self(signum):
    """Signal this very thread: what it does is then exactly what the signal does."""
    _signal.pthread_kill(_thread.get_ident(), signum)


def _die_of(signum):
    _real_signal(signum, _signal.SIG_DFL)
    _send_to_self(signum)


def _all_signals():
    return getattr(_signal, "valid_signals", lambda: range(1, _signal.NSIG))()


def _is_there(name):
    """Return whether kforge-run has put a file into the private folder."""
    return os.path.exists(os.path.join(_State.folder, name))


def _ignore(_signum, _frame):
    """Let a stray SIGUSR1 pass. Not SIG_IGN, which is inherited across exec, and which bash cannot trap."""


# --- the main program of a rank ----------------------------------------------------------------------


def _on_notice(signum, frame):
    """Act on a notice once: Slurm and kforge-run both send it, as different signals too, and Slurm again at the end."""
    own = _State.own[signum]
    if callable(own):
        if not _repeats_at_once(signum):
            own(signum, frame)
    elif not _State.acted:
        at_last = _is_there(TERMINATE_FILE)
        if at_last or any(callable(handler) for handler in _State.own.values()):
            _act(at_last)
        elif _may_cooperate(frame):
            _State.pending = signum
            _remind()
        elif not _hand_on(frame):
            _act(at_last)
    elif signum == _signal.SIGTERM and _is_there(TERMINATE_FILE):
        _die_of(signum)


def _repeats_at_once(signum):
    """Return whether the program's own handler has just been told; note that it is told now."""
    from time import monotonic

    now = monotonic()
    last = _State.told_at.get(signum)
    in_a_notice = _is_there(NOTICE_FILE)
    if in_a_notice:
        _note_acted()
        if last is not None and now - last < _SAME_NOTICE:
            return True
    _State.told.add(signum)
    _State.told_at[signum] = now
    _State.pending, _State.reminding = 0, False
    return False


def _act(at_last):
    """Do what the program can do best: its own SIGUSR1 handler, else its own SIGTERM handler, else Ctrl-C.

    At last, when SIGTERM is kforge-run's last word, an own handler had its chance.
    """
    _note_acted()
    _State.pending, _State.reminding = 0, False
    for signum in (_signal.SIGUSR1, _signal.SIGTERM):
        if not at_last and callable(_State.own.get(signum)):
            return _send_to_self(signum)
    if callable(_real_getsignal(_signal.SIGINT)):
        return _send_to_self(_signal.SIGINT)
    # In a shell's background SIGINT is ignored, which is not meant for a notice.
    raise KeyboardInterrupt


def _hand_on(frame):
    """Hand the notice on where this program does nothing but wait for another Python; return whether it does.

    The other one counts as its helper, but Ctrl-C here would have `subprocess` kill it in the middle of its save.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") == "subprocess" and hasattr(frame.f_locals.get("self"), "pid"):
            break
        frame = frame.f_back
    else:
        return False
    started = frame.f_locals["self"].pid
    programs = [pid for pid in _listed_in(BELOW_FOLDER) if started in _lineage(pid)]
    for pid in programs:
        caught = _signals_caught(pid)
        best = [signum for signum in (_signal.SIGUSR1, _signal.SIGTERM) if signum in caught]
        os.kill(pid, best[0] if best else _signal.SIGINT)
    if programs:
        _note_acted()
    return bool(programs)


def _lineage(pid):
    """Yield a pid and those of its parents, nearest first, as far as this pid namespace goes."""
    while pid > 0:
        yield pid
        try:
            with open("/proc/%d/stat" % pid, "rb") as stat:
                pid = int(stat.read().rpartition(b")")[2].split()[1])
        except (IOError, OSError):
            return


def _signals_caught(pid):
    """Return the signals for which a process has a handler (proc_pid_status(5), `SigCgt`)."""
    try:
        with open("/proc/%s/status" % pid, "rb") as status:
            masks = [int(line.split()[1], 16) for line in status if line.startswith(b"SigCgt:")]
    except (IOError, OSError):
        return ()
    return [signum for mask in masks for signum in range(1, _signal.NSIG) if mask >> (signum - 1) & 1]


def _note_acted():
    """From now on more of the same changes nothing, not even while the interpreter ends and takes all handlers away."""
    if not _State.acted:
        _State.acted = True
        import atexit

        atexit.register(_ignore_repeats)


def _ignore_repeats():
    for signum in _State.own:
        if _real_getsignal(signum) is _State.handler:
            _real_signal(signum, _signal.SIG_IGN)


def _may_cooperate(frame):
    """Return whether the program is likely to have a handler in a while, and nothing to save until then."""
    from time import monotonic

    if _State.has_cooperated:
        return True  # and knows what it does
    if not _State.pending or _imports(frame):
        _State.patient_until = monotonic() + _REGISTERS_WITHIN
    return _imports(frame) or ("kempnerforge.resilience" in sys.modules and monotonic() < _State.patient_until)


def _imports(frame):
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _remind():
    """Have the pending notice come again and again until it can be acted on."""
    if not _State.reminding and not _State.has_cooperated:
        _State.reminding = True
        _thread.start_new_thread(_send_reminders, (_thread.get_ident(),))


def _send_reminders(main_thread):
    from time import sleep

    _signal.pthread_sigmask(_signal.SIG_BLOCK, _all_signals())
    while _State.reminding:
        sleep(_REMIND_EVERY)
        signum = _State.pending
        if signum and _real_getsignal(signum) is _State.handler:
            _signal.pthread_kill(main_thread, signum)


# --- a launcher of ranks -----------------------------------------------------------------------------


def _spare_launcher(signum, frame):
    """Keep a notice from a launcher whose ranks save: torchrun would kill them after 30 s, others would orphan them."""
    own = _State.own[signum]
    if signum == _signal.SIGTERM and _ranks_save():
        return
    if callable(own):
        own(signum, frame)
    elif signum == _signal.SIGTERM:
        _die_of(signum)


def _ranks_save():
    """Return whether kforge-run has given a notice to armed ranks and not said its last word."""
    from time import sleep

    for _ in range(int(_NOTICE_FOLLOWS / _LOOK_EVERY)):
        if _is_there(TERMINATE_FILE) or _folder_of_launcher() is None:
            return False
        if not _listed_in(ARMED_FOLDER):
            return False
        if _is_there(NOTICE_FILE):
            return True
        sleep(_LOOK_EVERY)
    return False


# --- a multiprocessing helper ------------------------------------------------------------------------
# Slurm may send SIGTERM to every process of a job. A DataLoader worker dies of it, and its parent of that, before its
# checkpoint. Ignoring it is no way out: terminate() would hang. Only sigwaitinfo(2) tells who has sent a signal, so a
# thread takes SIGTERM, and every other one has it blocked.


def shield_worker():
    """Shield this process if multiprocessing has forked it."""
    if _State.is_worker:
        _raise_shield()


def _raise_shield():
    if _real_getsignal(_signal.SIGUSR1) == _signal.SIG_DFL:
        _real_signal(_signal.SIGUSR1, _ignore)
    if _State.shield or _real_getsignal(_signal.SIGTERM) != _signal.SIG_DFL:
        return  # the program has a handler of its own
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
    try:
        _State.shield = _thread.start_new_thread(_take_sigterms, ())
    except Exception:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        raise
    _start_programs_unblocked()


def _lower_shield():
    """Let SIGTERM through, to the program's own handler (main thread only)."""
    thread, _State.shield = _State.shield, 0
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
    _signal.pthread_kill(thread, _signal.SIGTERM)


def _take_sigterms():
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _all_signals())
    while True:
        sender = _signal.sigwaitinfo((_signal.SIGTERM,)).si_pid
        if sender == os.getpid() and not _State.shield:
            return  # lowered
        if sender in (os.getpid(), os.getppid(), _parent_by_multiprocessing()):
            _end_as_asked()


def _parent_by_multiprocessing():
    """Return the pid of who may terminate() us: not our parent where a fork server is."""
    process = sys.modules.get("multiprocessing.process")
    parent = getattr(process, "parent_process", lambda: None)()
    return parent.pid if parent is not None else None


def _end_as_asked():
    if "torch" in sys.modules and _signal.SIGTERM in _signals_caught("self"):
        os._exit(0)  # as the C handler of a DataLoader worker does, which looks for the sender too
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
    _send_to_self(_signal.SIGTERM)


def _start_programs_unblocked():
    """Have `subprocess` start programs with SIGTERM unblocked: a mask is inherited across exec."""
    import _posixsubprocess

    real_fork_exec = _posixsubprocess.fork_exec

    def fork_exec(*arguments):
        if not _State.shield:
            return real_fork_exec(*arguments)
        mask = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
        try:
            return real_fork_exec(*arguments)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)

    _posixsubprocess.fork_exec = fork_exec
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None and getattr(subprocess, "_fork_exec", None) is real_fork_exec:
        setattr(subprocess, "_fork_exec", fork_exec)  # noqa: B010 - typeshed does not know it


# --- fork --------------------------------------------------------------------------------------------
# A forked child must not inherit the handlers: it would survive terminate(). Resetting them in the child is not enough,
# a signal that comes first would be lost. So our signals are blocked from before the fork until the child is clean.


def _before_fork():
    if _State.own:
        _State.masks[_thread.get_ident()] = _signal.pthread_sigmask(_signal.SIG_BLOCK, tuple(_State.own))


def _after_fork():
    if _State.own:
        mask = _State.masks.pop(_thread.get_ident(), None)
        if mask is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def _after_fork_in_child():
    mask = _State.masks.get(_thread.get_ident())
    own, was_shielded = _State.own, _State.shield
    _State.own, _State.masks, _State.shield, _State.pending, _State.reminding = {}, {}, 0, 0, False
    for signum, disposition in own.items():
        if _real_getsignal(signum) is _State.handler:
            stray = signum == _signal.SIGUSR1 and not callable(disposition)
            _real_signal(signum, _ignore if stray else disposition)
    forking_module = sys._getframe(1).f_globals.get("__name__")
    _State.is_worker = forking_module in ("multiprocessing.popen_fork", "multiprocessing.forkserver")
    try:
        if mask is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    except BaseException:  # noqa: BLE001
        # The program's handler was due and raised, SystemExit most likely. Python drops what a fork hook raises, and
        # the child would live on.
        _die_of(_signal.SIGTERM)
    if was_shielded:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
    shield_worker()


# --- the end of the start ----------------------------------------------------------------------------


def _make_way():
    """Leave no trace on the path, and import the `sitecustomize` that would have been imported without us.

    What that raises is its own, and goes to whom it would have gone to.
    """
    here = os.path.dirname(__file__)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    us = sys.modules.pop(__name__)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", __name__) != __name__:
            raise
        sys.modules[__name__] = us  # there is none, but the import system wants to find what it has loaded


if __name__ == "sitecustomize":
    try:
        _start()
    except Exception:  # noqa: BLE001, S110 - a bug of ours must not keep a program from starting, nor be seen
        pass
    _make_way()
