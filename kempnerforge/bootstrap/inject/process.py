"""What this process is. That is decided once, at its start, and nothing else is disturbed:

- the main program of a rank is *armed*: SIGTERM and SIGUSR1 are a notice, which acts like the best handler that the
  program has (notice.py). The program sees the dispositions that it would see without us (dispositions.py);
- a rank agent is *spared*: no SIGTERM reaches it while its ranks save, and SIGUSR1 does not kill it (notice.py). So is
  whatever else only runs other programs;
- a multiprocessing helper is *shielded*: of all SIGTERMs only its parent's ends it (shield.py);
- every other Python is left alone.

Every Python of the run pays for this file: the other ones are loaded when they are needed. Its types are comments,
because annotations are objects: with so many more, the interpreter would collect its garbage once more at each start.
"""

import _signal  # type: ignore[import-not-found]
import os
import posix
import sys

from .. import programs
from ..site.sitecustomize import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec  # noqa: F401 - in comments below
    from typing import Any  # noqa: F401

# As in contract.py, which cannot be imported in a user's process.
CLAIM_VARIABLE = "KFORGE_CLAIM"
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
NEWS_FIFO = "news"
ARMED_NEWS = "armed"

#: What is loaded when it is needed, in the order in which one needs the other.
_LATER = ("proc", "forks", "notice", "shield", "dispositions")

#: What tells one rank from another. With the same values, a Python below an armed one is its helper.
_RANK_VARIABLES = (
    b"SLURM_JOB_ID SLURM_STEP_ID SLURM_PROCID RANK LOCAL_RANK GROUP_RANK NODE_RANK TORCHELASTIC_RESTART_COUNT "
    b"OMPI_COMM_WORLD_RANK PMI_RANK PMIX_RANK"
)

#: Programs besides rank agents that run others, and are never the run itself.
_WRAPPERS = (
    "ray conda mamba pip pip3 pipenv pipx pdm poetry hatch uv",
    "conda ensurepip hatch pdm pip pipenv pipx poetry uv venv virtualenv",
    ("/pip/__main__.py",),
)
#: kforge-run and kforge look after their signals themselves.
_OURS = ("kforge-run kforge", "kempnerforge.launcher kempnerforge.commands", ())

#: How multiprocessing and loky start their helpers, with `-c` and with `-m`.
_HELPER_CODE = ("from multiprocessing.", "from loky.backend.", "from joblib.externals.loky.backend.")
_HELPERS = ("", "loky.backend joblib.externals.loky.backend", ())
#: The resource tracker ignores SIGTERM by itself.
_TRACKER_CODE = "from multiprocessing.resource_tracker "


#: The launcher's private folder.
folder = sys.modules[BOOTSTRAP_MODULE].folder if BOOTSTRAP_MODULE in sys.modules else ""  # type: str
#: `PID.START` of this process as /proc has it; empty: it is not needed.
me = ""
#: What the program believes its dispositions of our signals to be; empty: we hold none.
own = {}  # type: dict[int, Any]
#: What runs in truth when one of them comes.
handler = None  # type: Any
#: What `call` has found.
_functions = {}  # type: dict[str, Any]
#: The functions of the module `_signal`, which the program does not get to see.
real_signal, real_getsignal = _signal.signal, _signal.getsignal


def start(folder_fd):
    # type: (int) -> None
    """Find out what this process is, and make it that.

    Args:
        folder_fd: the launcher's private folder, which is ours.
    """
    package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
    package.find_spec = _find_spec
    sys.meta_path.append(package)  # the last of all finders
    # `sys.argv` is not there yet, and before Python 3.10 nothing else is.
    arguments = getattr(sys, "orig_argv", None) or load("proc").command_line("self")
    kind, program = programs.program_of(arguments)
    role = role_of(arguments, kind, program)
    if role == "ours" or ("python" not in arguments[0] and not _is_python()):
        return
    if role == "helper":
        _take_signals(None)
        call("shield.ignore_strays" if program.startswith(_TRACKER_CODE) else "shield.raise_shield")
    elif role == "wrapper":
        _take_signals("notice.spare_wrapper")
    elif _claim():
        _take_signals("notice.on_notice")
        if own:
            tell_news(ARMED_NEWS, folder_fd)


def role_of(arguments, kind, program):
    # type: (list[str], str, str) -> str
    """Return what a Python is by its command line: `ours`, `helper` of multiprocessing, `wrapper` or `program`.

    Args:
        kind, program: as `program_of` finds them in the arguments.
    """
    is_one_of = programs.is_one_of
    if is_one_of(kind, program, _OURS):
        return "ours"
    if (
        (kind == "-c" and program.startswith(_HELPER_CODE))
        or "--multiprocessing-fork" in arguments
        or is_one_of(kind, program, _HELPERS)
    ):
        return "helper"
    runs_others = is_one_of(kind, program, programs.RANK_AGENTS) or is_one_of(kind, program, _WRAPPERS)
    return "wrapper" if runs_others else "program"


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
        os.write(fifo, f"{news} {me}\n".encode())
    finally:
        os.close(fifo)


def _claim():
    # type: () -> bool
    """Claim this rank: return whether this process is its main program, and not a helper below that.

    The claim names its owner and is handed down in the environment. No helper is who has other rank variables, whose
    owner is dead, and the owner itself after an execv.
    """
    global me
    # Not os.environ, which takes ten times as long for what is not there.
    values = b""
    for name in _RANK_VARIABLES.split():
        values += posix.environ.get(name, b"") + b","
    rank = os.fsdecode(values)
    owner, _, claimed = os.environ.get(CLAIM_VARIABLE, "").partition("|")
    pid = owner.partition(".")[0]
    if claimed == rank and pid.isdigit() and int(pid) != os.getpid():
        try:
            os.kill(
                int(pid), 0
            )  # whether it has another owner now is not looked for: /proc costs as much as all else here
        except OSError:
            pass  # it is dead
        else:
            return False
    me = load("proc").identity("self")
    os.environ[CLAIM_VARIABLE] = f"{os.getpid()}.{me.partition('.')[2]}|{rank}"
    return True


# --- what is there when it is needed -------------------------------------------------------------------


def call(function, *arguments):
    # type: (str, Any) -> Any
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
    return found(*arguments)


def _without_the_rest(function, arguments):
    # type: (str, tuple[Any, ...]) -> Any
    """Do without the other modules: the private folder was tidied away, or no descriptor is left."""
    if function == "dispositions.set_disposition":
        return real_signal(*arguments)
    if function == "dispositions.get_disposition":
        return real_getsignal(*arguments)
    if function == "notice.on_notice":
        raise KeyboardInterrupt
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
                real_signal(signum, handler)  # fails in a subinterpreter, before anything is changed
                own[signum] = _signal.SIG_DFL
    # The module `signal` looks both up at each call, so it need not be there yet.
    _signal.signal = lambda signalnum, handler: call("dispositions.set_disposition", signalnum, handler)
    _signal.getsignal = lambda signalnum: call("dispositions.get_disposition", signalnum)
    _signal.signal.__doc__, _signal.getsignal.__doc__ = real_signal.__doc__, real_getsignal.__doc__
    os.register_at_fork(
        before=_later(call, "dispositions.before_fork"),
        after_in_parent=_later(call, "dispositions.after_fork"),
        after_in_child=_later(call, "dispositions.after_fork_in_child"),
    )
