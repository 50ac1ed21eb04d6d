"""Which program a command line runs, what that is, and the one list of rank agents.

kforge-run reads it, and every Python below it at its start: it is short, and its types are comments (process.py).
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence  # noqa: F401 - in comments below

    #: Names of scripts; modules, with all that is in them; and the ends of paths, of modules started by these.
    Programs = tuple[str, str, tuple[str, ...]]

#: Rank agents start the ranks of a node and wait for them. Those that are torch's own agent, or are that inside: it
#: hands SIGTERM on to its ranks, and kills the others some time after one has failed (TORCH_ELASTIC_SHUTDOWN_TIMEOUT).
TORCH_AGENTS = (
    "torchrun accelerate accelerate-launch fabric",
    "torch.distributed.run torch.distributed.launch accelerate.commands",
    ("/torch/distributed/run.py", "/torch/distributed/launch.py", "/accelerate/commands/launch.py"),
)  # type: Programs
#: All of them.
RANK_AGENTS = (
    TORCH_AGENTS[0] + " deepspeed ds horovodrun composer",
    TORCH_AGENTS[1] + " deepspeed.launcher horovod.runner composer.cli",
    TORCH_AGENTS[2] + ("/deepspeed/launcher/launch.py", "/deepspeed/launcher/runner.py"),
)  # type: Programs

#: Programs below which others may come that are not there yet.
SHELLS = frozenset(("bash", "busybox", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"))
#: Python programs besides rank agents that run others, and are never the run itself.
_WRAPPERS = (
    "ray conda mamba pip pip3 pipenv pipx pdm poetry hatch uv",
    "conda ensurepip hatch pdm pip pipenv pipx poetry uv venv virtualenv",
    ("/pip/__main__.py",),
)  # type: Programs
#: kforge-run and kforge look after their signals themselves.
_OURS = ("kforge-run kforge", "kempnerforge.launcher kempnerforge.commands", ())  # type: Programs
#: How multiprocessing and loky start what helps, with `-c` and with `-m`.
_HELPER_CODE = ("from multiprocessing.", "from loky.backend.", "from joblib.externals.loky.backend.")
_HELPERS = ("", "loky.backend joblib.externals.loky.backend", ())  # type: Programs


def role_of(arguments, kind, program):
    # type: (Sequence[str], str, str) -> str
    """Return what a Python is by its command line: `ours`, `helper` of multiprocessing, `wrapper` or `program`.

    Args:
        kind, program: as `program_of` finds them in the arguments.
    """
    if is_one_of(kind, program, _OURS):
        return "ours"
    if (
        (kind == "-c" and program.startswith(_HELPER_CODE))
        or "--multiprocessing-fork" in arguments
        or is_one_of(kind, program, _HELPERS)
    ):
        return "helper"
    runs_others = is_one_of(kind, program, RANK_AGENTS) or is_one_of(kind, program, _WRAPPERS)
    return "wrapper" if runs_others else "program"


def program_of(arguments):
    # type: (Sequence[str]) -> tuple[str, str]
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


def name_of(arguments):
    # type: (Sequence[str]) -> str
    """Return what a Python runs, for the log: its script, its module, or `-c`; of its own accord, the Python itself."""
    kind, name = program_of(arguments)
    return kind if kind == "-c" else name or "".join(arguments[:1])


def is_one_of(kind, program, programs):
    # type: (str, str, Programs) -> bool
    """Return whether what `program_of` has found is one of these."""
    scripts, modules, paths = programs
    if kind == "":
        return os.path.basename(program) in scripts.split() or program.endswith(paths)
    if kind == "-m":
        for module in modules.split():
            if program == module or program.startswith(module + "."):
                return True
    return False


def runs_one_of(arguments, programs):
    # type: (Sequence[str], Programs) -> bool
    """Return whether a command line is that of one of these programs, by its name or behind a Python or a shell."""
    name = os.path.basename(arguments[0]) if arguments else ""
    if name in programs[0].split():
        return True
    return ("python" in name or name.endswith("sh")) and is_one_of(*program_of(arguments), programs)
