"""What this process is. That is decided once, at its start, and nothing else is disturbed:

- the main program of a rank is *armed*: SIGTERM and SIGUSR1 are a notice, which acts like the best handler that the
  program has (notice.py). The program sees the dispositions that it would see without us (dispositions.py);
- a launcher of ranks is *spared*: no SIGTERM reaches it while its ranks save, and SIGUSR1 does not kill it (notice.py);
- a multiprocessing helper is *shielded*: of all SIGTERMs only its parent's ends it (shield.py);
- every other Python is left alone.

Every Python of the run pays for this file: the other ones are loaded when they are needed.
"""

import _signal  # type: ignore[import-not-found]
import os
import posix
import sys

from .sitecustomize import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Callable

# As in contract.py, which cannot be imported in somebody else's process.
CLAIM_VARIABLE = "KFORGE_CLAIM"
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
ARMED_FOLDER = "armed"
BELOW_FOLDER = "below"
EMPTY_FILE = "empty"

#: What is loaded when it is needed, in the order in which one needs the other.
_LATER = ("notice", "shield", "dispositions")

#: What tells one rank from another. With the same values, a Python below an armed one is its helper.
_RANK_VARIABLES = (
    b"SLURM_JOB_ID",
    b"SLURM_STEP_ID",
    b"SLURM_PROCID",
    b"RANK",
    b"LOCAL_RANK",
    b"GROUP_RANK",
    b"NODE_RANK",
    b"TORCHELASTIC_RESTART_COUNT",
    b"OMPI_COMM_WORLD_RANK",
    b"PMI_RANK",
    b"PMIX_RANK",
)

#: Programs that run others and are never the run itself: the names of scripts, modules with their packages, and modules
#: that are started by their path.
_LAUNCHER_SCRIPTS = (
    "torchrun accelerate accelerate-launch deepspeed ds horovodrun composer fabric ray "
    "conda mamba pip pip3 pipenv pipx pdm poetry hatch uv"
)
_LAUNCHER_MODULES = (
    "torch.distributed.run torch.distributed.launch accelerate.commands deepspeed.launcher horovod.runner composer.cli "
    "conda ensurepip hatch pdm pip pipenv pipx poetry uv venv virtualenv"
)
_LAUNCHER_PATHS = (
    "/torch/distributed/run.py",
    "/torch/distributed/launch.py",
    "/accelerate/commands/launch.py",
    "/deepspeed/launcher/launch.py",
    "/deepspeed/launcher/runner.py",
    "/pip/__main__.py",
)
#: kforge-run and kforge look after their signals themselves.
_OUR_SCRIPTS = "kforge-run kforge"
_OUR_MODULES = "kempnerforge.launcher kempnerforge.commands"

#: How multiprocessing and loky start their helpers, with `-c` and with `-m`.
_HELPER_CODE = ("from multiprocessing.", "from loky.backend.", "from joblib.externals.loky.backend.")
_HELPER_MODULES = "loky.backend joblib.externals.loky.backend"
#: The resource tracker ignores SIGTERM by itself.
_TRACKER_CODE = "from multiprocessing.resource_tracker "


#: The launcher's private folder.
folder = sys.modules[BOOTSTRAP_MODULE].folder if BOOTSTRAP_MODULE in sys.modules else ""  # type: str
#: `PID.START` of this process; empty: nobody needs it.
me = ""
#: What the program believes its dispositions of our signals to be; empty: we hold none.
own = {}  # type: dict[int, Any]
#: What runs in truth when one of them comes.
handler = None  # type: Any
#: The functions of the module `_signal`, which the program does not get to see.
real_signal, real_getsignal = _signal.signal, _signal.getsignal


def start() -> None:
    """Find out what this process is, and make it that."""
    global me
    _announce()
    arguments = _arguments()
    kind, program = program_of(arguments)
    if not _is_python(arguments) or _is_one_of(kind, program, _OUR_SCRIPTS, _OUR_MODULES):
        return
    if (
        (kind == "-c" and program.startswith(_HELPER_CODE))
        or "--multiprocessing-fork" in arguments
        or _is_one_of(kind, program, "", _HELPER_MODULES)
    ):
        if not program.startswith(_TRACKER_CODE):
            _disguise()
            _later("shield", "raise_shield")()
    elif launches_others(kind, program):
        _take_signals(_later("notice", "spare_launcher"))
        return
    me = identity(os.getpid())
    if _claim():
        _take_signals(_later("notice", "on_notice"))
        if own:
            _list_in(ARMED_FOLDER)
    elif kind != "-c":
        _list_in(BELOW_FOLDER)


def identity(pid: "int | str") -> str:
    """Return `PID.START` of a living process, which no other process of this boot has; empty: it does not live."""
    try:
        # Without a Python file around it, which takes as long again.
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fields = os.read(stat, 4096).rpartition(b")")[2].split()
    except OSError:
        return ""  # it has just ended
    finally:
        os.close(stat)
    return "" if fields[0] in (b"Z", b"X") else f"{pid}.{fields[19].decode()}"


def _is_python(arguments: "list[str]") -> bool:
    """Return whether this is an interpreter, and not a debugger or an editor of which Python is a part."""
    if arguments and "python" in arguments[0]:
        return True
    name = os.path.basename(os.readlink("/proc/self/exe"))
    return "python" in name or "pypy" in name


def _arguments() -> "list[str]":
    """Return the command line. `sys.argv` is not there yet."""
    known = getattr(sys, "orig_argv", None)  # since Python 3.10
    if known is not None:
        return known  # type: ignore[no-any-return]
    with open("/proc/self/cmdline", "rb") as stream:
        return [os.fsdecode(argument) for argument in stream.read().split(b"\0")[:-1]]


def program_of(arguments: "list[str]") -> "tuple[str, str]":
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


def launches_others(kind: str, program: str) -> bool:
    """Return whether a program runs others and is never the run itself."""
    if kind == "" and program.endswith(_LAUNCHER_PATHS):
        return True
    return _is_one_of(kind, program, _LAUNCHER_SCRIPTS, _LAUNCHER_MODULES)


def _is_one_of(kind: str, program: str, scripts: str, modules: str) -> bool:
    """Return whether a program is one of these scripts, or of these modules with all that is in them."""
    if kind == "":
        return os.path.basename(program) in scripts.split()
    if kind == "-m":
        return any(program == module or program.startswith(module + ".") for module in modules.split())
    return False


def _claim() -> bool:
    """Claim this rank: return whether this process is its main program, and not a helper below that.

    The claim names its owner and is handed down in the environment. No helper is who has other rank variables, whose
    owner is dead, and the owner itself after an execv.
    """
    # Not os.environ, which takes ten times as long for what is not there.
    rank = os.fsdecode(b",".join([posix.environ.get(name, b"") for name in _RANK_VARIABLES]))
    owner, _, claimed = os.environ.get(CLAIM_VARIABLE, "").partition("|")
    if claimed == rank and owner != me and identity(owner.partition(".")[0]) == owner != "":
        return False
    os.environ[CLAIM_VARIABLE] = f"{me}|{rank}"
    return True


def _list_in(name: str) -> None:
    # A file that is there already, under one more name: a new one takes three times as long.
    os.link(f"{folder}/{EMPTY_FILE}", f"{folder}/{name}/{me}")


# --- what is there when it is needed -------------------------------------------------------------------


def _announce() -> None:
    """Tell `kempnerforge.resilience` in this process where the bootstrap is, and Python where that may be found."""
    package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
    package.holds = _later("dispositions", "holds")
    package.rearm = _later("dispositions", "rearm")
    package.take_pending = _later("notice", "take_pending")
    package.shield_worker = _later("shield", "shield_worker")
    package.find_spec = _find_spec
    sys.meta_path.append(package)  # the last of all finders


def _later(module: str, name: str) -> "Callable[..., Any]":
    """Return a function of another module, which is loaded when it is first called."""

    def function(*arguments: "Any") -> "Any":
        for each in _LATER:
            load(each)
        return getattr(load(module), name)(*arguments)

    return function


def _find_spec(name: str, _path: "Any" = None, _target: "Any" = None) -> "ModuleSpec | None":
    """Find kforge-run's own `kempnerforge` where nobody else has one."""
    found: "ModuleSpec | None" = load("package").spec_of_package(name) if name == "kempnerforge" else None
    return found


def _take_signals(function: "Callable[..., Any]") -> None:
    """Have a handler get SIGTERM and SIGUSR1."""
    global handler
    handler = function
    for signum in (_signal.SIGTERM, _signal.SIGUSR1):
        # What is ignored is so on purpose: by `trap ''`, by nohup.
        if real_getsignal(signum) == _signal.SIG_DFL:
            real_signal(signum, handler)  # fails in a subinterpreter, before anything is changed
            own[signum] = _signal.SIG_DFL
    _disguise()


def _disguise() -> None:
    """Show the program the dispositions that it would have without us, and keep forked children free of us."""
    # The module `signal` looks both up at each call, so it need not be there yet.
    for name, ours in (("signal", "set_disposition"), ("getsignal", "get_disposition")):
        function = _later("dispositions", ours)
        function.__doc__ = getattr(_signal, name).__doc__
        setattr(_signal, name, function)
    os.register_at_fork(
        before=_later("dispositions", "before_fork"),
        after_in_parent=_later("dispositions", "after_fork"),
        after_in_child=_later("dispositions", "after_fork_in_child"),
    )
