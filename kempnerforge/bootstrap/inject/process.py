"""What this process is. That is decided once, at its start, and nothing else is disturbed:

- every Python has a door for kforge-run's word: two real-time signals that nobody else uses, one that asks what it is
  and does, and one by which it is told (notice.py). A door tells nobody: who is told, and when, kforge-run decides;
- Slurm's own SIGTERM and SIGUSR1 wait for that word, once there is a notice (notice.py). The program sees the
  dispositions that it would see without us (dispositions.py);
- a multiprocessing helper is *shielded*: of all SIGTERMs only its parent's ends it (shield.py).

Every Python of the run pays for this file: the other ones are loaded when they are needed. Its types are comments,
because annotations are objects: with so many more, the interpreter would collect its garbage once more at each start.
"""

import _signal  # type: ignore[import-not-found]
import atexit
import os
import sys

from .. import programs
from ..site.sitecustomize import load, open_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec  # noqa: F401 - in comments below
    from typing import Any  # noqa: F401

# As in contract.py, which cannot be imported in a user's process.
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
NEWS_FIFO = "news"
ARMED_NEWS = "armed"
WORD_SIGNAL = _signal.SIGRTMAX - 2
PROBE_SIGNAL = _signal.SIGRTMAX - 3

#: What is loaded when it is needed, in the order in which one needs the other.
_LATER = ("proc", "forks", "signals", "wakeup", "doors", "notice", "shield", "dispositions", "probe")

#: The resource tracker ignores SIGTERM by itself.
_TRACKER_CODE = "from multiprocessing.resource_tracker "


#: The launcher's private folder.
folder = sys.modules[BOOTSTRAP_MODULE].folder if BOOTSTRAP_MODULE in sys.modules else ""  # type: str
#: What a command line tells of it (`programs.role_of`).
role = ""
#: What the program believes its dispositions of our signals to be; empty: we hold none.
own = {}  # type: dict[int, Any]
#: What runs in truth when one of them comes.
handler = None  # type: Any
#: What runs when kforge-run's own signals come.
listeners = {}  # type: dict[int, Any]
#: What the program believes to have set for these.
hidden = {}  # type: dict[int, Any]
#: Whoever has started it had SIGINT ignored: a script's background, which does not mean a notice.
ignores_sigint = False
#: What `call` has found.
_functions = {}  # type: dict[str, Any]
#: The functions of the module `_signal`, which the program does not get to see.
real_signal, real_getsignal, real_set_wakeup_fd = _signal.signal, _signal.getsignal, _signal.set_wakeup_fd


def start(folder_fd):
    # type: (int) -> None
    """Find out what this process is, and make it that.

    Args:
        folder_fd: the launcher's private folder, which is ours.
    """
    global role, ignores_sigint
    package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
    package.find_spec = _find_spec
    sys.meta_path.append(package)  # the last of all finders
    # `sys.argv` is not there yet, and before Python 3.10 nothing else is.
    arguments = getattr(sys, "orig_argv", None) or load("proc").command_line("self")
    kind, program = programs.program_of(arguments)
    role = programs.role_of(arguments, kind, program)
    if role == "ours" or ("python" not in arguments[0] and not _is_python()):
        return
    ignores_sigint = real_getsignal(_signal.SIGINT) == _signal.SIG_IGN
    _listen()
    if role == "helper":
        _take_signals(None)
        call("shield.ignore_strays" if program.startswith(_TRACKER_CODE) else "shield.raise_shield")
    else:
        _take_signals("notice.on_signal")
        if role == "program":
            tell_news(ARMED_NEWS, folder_fd)


def _is_python():
    # type: () -> bool
    """Return whether this is an interpreter, and not a debugger or an editor of which Python is a part."""
    name = load("proc").executable("self")
    return "python" in name or "pypy" in name


def tell_news(news, folder_fd):
    # type: (str, int) -> None
    """Tell kforge-run something of this process; an exception: it cannot be told."""
    fifo = os.open(NEWS_FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        os.write(fifo, f"{news} {load('proc').identity('self')}\n".encode())
    finally:
        os.close(fifo)


# --- what is there when it is needed -------------------------------------------------------------------


def call(function, *arguments, **options):
    # type: (str, Any, Any) -> Any
    """Call a function of another module (`MODULE.FUNCTION`), which is loaded now if need be."""
    found = _functions.get(function)
    if found is None:
        try:
            for each in _LATER:
                load(each)
        except OSError:
            return _without_the_rest(function, arguments)
        module, _, name = function.partition(".")
        found = _functions[function] = getattr(load(module), name)
    return found(*arguments, **options)


def _without_the_rest(function, arguments):
    # type: (str, tuple[Any, ...]) -> Any
    """Do without the other modules: the private folder was tidied away, or no descriptor is left."""
    if function == "dispositions.set_disposition":
        return real_signal(*arguments)
    if function == "signals.get_disposition":
        return real_getsignal(*arguments)
    if function == "wakeup.set_wakeup_fd":
        return real_set_wakeup_fd(*arguments)
    if function == "notice.on_word":
        raise KeyboardInterrupt
    if function == "notice.on_signal":
        real_signal(arguments[0], _signal.SIG_DFL)
        os.kill(os.getpid(), arguments[0])
    return None


#: Makes a callable of `call` and its first argument, as one object where a closure would take four.
_later = type(os.environ.get)  # type: Any


def _find_spec(name, _path=None, _target=None):
    # type: (str, Any, Any) -> ModuleSpec | None
    """Find kforge-run's own `kempnerforge` where the program has none."""
    if name != "kempnerforge":
        return None
    path = sys.modules[BOOTSTRAP_MODULE].path
    found = load("package").spec_of_package(name, path)  # type: ModuleSpec | None
    return found


def tell(news):
    # type: (str) -> None
    """Tell kforge-run something, if it can be told: the folder may be gone."""
    try:
        folder_fd = open_folder(folder)
        try:
            tell_news(news, folder_fd)
        finally:
            os.close(folder_fd)
    except OSError:
        pass


def _listen():
    # type: () -> None
    """Have kforge-run's own signals heard: who catches both is known by that to be armed (proc_pid_status(5))."""
    for signum, function in ((WORD_SIGNAL, "notice.on_word"), (PROBE_SIGNAL, "probe.on_probe")):
        listeners[signum] = _later(call, function)
        real_signal(signum, listeners[signum])  # fails in a subinterpreter, before anything is changed
    atexit.register(_leave)


def _leave():
    # type: () -> None
    """Be deaf, but for SIGTERM: the interpreter is about to take all handlers away, and what comes then would kill."""
    for signum in (_signal.SIGUSR1, *listeners):
        if real_getsignal(signum) is (listeners.get(signum) or handler):
            try:
                real_signal(signum, _signal.SIG_IGN)
            except ValueError:
                return  # a program runs the functions of its exit by itself, in a thread


def _take_signals(function):
    # type: (str | None) -> None
    """Have a function get SIGTERM and SIGUSR1 (None: for now none does).

    The program is shown the dispositions that it would have without us, and forked children are kept free of us.
    """
    global handler
    if function is not None:
        handler = _later(call, function)
        for signum in (_signal.SIGTERM, _signal.SIGUSR1):
            # What is ignored is so on purpose: by `trap ''`, by nohup.
            if real_getsignal(signum) == _signal.SIG_DFL:
                real_signal(signum, handler)
                own[signum] = _signal.SIG_DFL
    # The module `signal` looks both up at each call, so it need not be there yet.
    _signal.signal = lambda signalnum, handler: call("dispositions.set_disposition", signalnum, handler)
    _signal.getsignal = lambda signalnum: call("signals.get_disposition", signalnum)
    _signal.signal.__doc__, _signal.getsignal.__doc__ = real_signal.__doc__, real_getsignal.__doc__
    if own:
        _signal.set_wakeup_fd = _later(call, "wakeup.set_wakeup_fd")
    os.register_at_fork(
        before=_later(call, "dispositions.before_fork"),
        after_in_parent=_later(call, "dispositions.after_fork"),
        after_in_child=_later(call, "dispositions.after_fork_in_child"),
    )
