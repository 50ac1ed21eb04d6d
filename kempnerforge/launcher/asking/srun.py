"""Where in an srun's command line its programs begin, and what may be put before them.

Pure: words in, words out. It is certain, or it changes nothing: srun's options differ by version and site, may be cut
short, and a word taken for the wrong thing would run another program than the user's.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...bootstrap import programs
from ..policy.words import Tasks

#: Each task gets a kforge-run of its own: 16 MB, and the start of a Python from what may be one file system for all
#: nodes. A guess.
MOST_TASKS = 16

#: Options of srun 22.05, 24.11 and 26.05 that leave the program what and where it is, as these give them to
#: getopt_long(3). One that is not listed may take the next word for its value, or not.
FLAGS = """
    consolidate-segments contiguous disable-status exact hold label overcommit oversubscribe parsable preserve-env quiet
    quit-on-interrupt reboot spread-job spread-segments unbuffered use-min-nodes verbose wait-for-children whole
"""
VALUED = """
    accel-bind account acctg-freq bb bbf begin chdir cluster-constraint comment constraint context core-spec
    cores-per-socket cpu-bind cpu-freq cpu_bind cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution
    epilog error exclude export extra extra-node-info gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task
    gres gres-flags het-group hint ignore-signals input job-name licenses mail-type mail-user mcs-label mem mem-bind
    mem-per-cpu mem-per-gpu mem-update mincpus mpi msg-timeout network nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket ntasks-per-tres open-mode output pack-group partition power prefer
    priority profile prolog qos relative reservation resources segment signal slurmd-debug sockets-per-node switches
    task-epilog task-prolog tasks-per-node thread-spec threads threads-per-core time time-min tmp treewidth tres-bind
    tres-per-task wait wckey
"""
#: These take a value only behind a "=", or at once behind the letter.
OPTIONAL = "exclusive immediate kill-on-bad-exit nice no-kill oom-kill-step overlap propagate resv-ports"
SHORT_FLAGS, SHORT_OPTIONAL, SHORT_VALUED = "EHOQXlsuv", "IKk", "ABCDFGJLNSTWbcdeimnopqrtwx"
#: The long names of those whose value counts here.
_LONG = {"D": "chdir", "N": "nodes", "n": "ntasks", "tasks-per-node": "ntasks-per-node"}
#: With these srun runs nothing.
_RUN_NOTHING = frozenset({"help", "usage", "version", "test-only", "autocomplete", "h", "V"})
#: What keeps us out, and what to do about it.
_AGAINST = {
    "multi-prog": "write kforge-run before each program in its file",
    "bcast": "leave it out: it would ship kforge-run, and not the program",
    "async": "leave it out: srun does not wait for its tasks",
    "pty": "leave it out, unless somebody sits at it",
    "jobid": "leave it out, unless it is another job",
    "container": "write kforge-run before the program, if the image has it",
}
#: The same by a variable: srun's own, and those in which sbatch hands options of the plugin pyxis down.
_VARIABLES = {
    "multi-prog": re.compile("SLURM_SRUN_MULTI"),
    "bcast": re.compile("SLURM_BCAST"),
    "container": re.compile("_?(SLURM|SRUN)_.*CONTAINER.*|PYXIS_.*", re.IGNORECASE),
}
#: By these there are as many tasks as the nodes have of something.
_BY_HARDWARE = ("ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket", "ntasks-per-tres")

_PYTHON = re.compile(r"python[0-9.]*")
_SHELL = re.compile(r"(?:ba|c|da|fi|k|tc|z)?sh")
_SHEBANG = re.compile(rf"#! *(?:\S*/)?(?:env +(?:-S +)?)?(?:\S*/)?(?:{_PYTHON.pattern}|{_SHELL.pattern})(?:\s|$)")
_STARTS_US = re.compile(r"\b(?:kforge-run|kempnerforge\.launcher)(?:\s|$)")
#: The last line of a script that hands all its words on to the real srun, behind plain options of its own …
_HANDS_ON = re.compile(r"""(?:exec +)?[\w./-]*srun[\w.-]*((?: +[\w.,:=/+-]+)*) +"\$@"$""")
#: … if nothing before that looks at them or says what only a variable would.
_LOOKS = re.compile(r"\$\{?[@*#0-9]|\b(?:shift|set|getopts?|eval)\b|BCAST|MULTI|CONTAINER|PYXIS|\\$")


class Verdict(NamedTuple):
    """What becomes of an srun's command line."""

    command: list[str]
    tasks: Tasks
    #: How many of ours these are, if there is one node; 0: not known.
    number: int = 0
    #: Something was put before its programs.
    is_put: bool = False
    #: Why not, where they would need it; empty: they have it, or there are none.
    why_not: str = ""
    #: What to do about that.
    cure: str = ""


class _Uncertain(Exception):
    def __init__(self, why: str, cure: str, tasks: Tasks = "unknown") -> None:
        super().__init__(why)
        self.cure = cure
        self.tasks = tasks


class _NothingToPut(Exception):
    """There is no program, or one that starts a kforge-run by itself."""


def put(
    before: Sequence[str],
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    script: str = "",
    first_line: Callable[[str, str], str],
) -> Verdict:
    """Put words before each program of an srun's command line, if that is certain to be right.

    Args:
        before: a kforge-run, with what it needs.
        command: `srun`, its options, a program; behind each `:` the same again (srun(1), "Heterogeneous job steps").
        environment: srun's, which may hold options.
        script: the text of srun itself, where it is a site's script; empty: it is Slurm's.
        first_line: returns how the file begins that a program's name and the folder it would run in lead to; empty:
            there is none, or it is no script.
    """
    words: list[str] = []
    number = 0
    is_put = False
    try:
        _check_variables(environment)
        _check_script(script)
        for component in _components(command[1:]):
            options, start = _options(component)
            has_one = _has_a_launcher(component[start:], options, first_line, _line(component, start))
            tasks = _tasks_on_a_node(options, environment)
            if not has_one:
                _check_tasks(tasks, _line(component, start))
                is_put = True
            number += tasks or MOST_TASKS
            words += [":", *component[:start], *(() if has_one else before), *component[start:]]
    except _NothingToPut:
        return Verdict(list(command), "unknown")
    except _Uncertain as why:
        return Verdict(list(command), why.tasks, why_not=str(why), cure=why.cure)
    return Verdict([command[0], *words[1:]], "ours" if words else "unknown", number, is_put)


def _components(words: Sequence[str]) -> Iterator[list[str]]:
    for is_separator, component in itertools.groupby(words, lambda word: word == ":"):
        if not is_separator:
            yield list(component)


def _options(words: Sequence[str]) -> tuple[dict[str, str], int]:
    """Return the options of one component, and where its program begins; like getopt_long(3), the first of others."""
    found: dict[str, str] = {}
    rest = iter(enumerate(words))
    for index, word in rest:
        if word == "--":
            return found, index + 1
        if not word.startswith("-") or word == "-":
            return found, index
        for name, value in _named(word):
            if name in _RUN_NOTHING:
                raise _NothingToPut
            if value is None and (value := next(rest, (0, None))[1]) is None:
                break  # srun will say so
            found[_LONG.get(name, name)] = value
    return found, len(words)


def _named(word: str) -> Iterator[tuple[str, str | None]]:
    """Yield the options that a word has, and their values; None: that is the next word."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        against = "container" if name.startswith("container") else name
        if against in _AGAINST:
            raise _Uncertain(f"with --{name}", _AGAINST[against])
        if name in VALUED.split():
            yield name, value if equals else None
        elif name in [*OPTIONAL.split(), *_RUN_NOTHING] or (name in FLAGS.split() and not equals):
            yield name, value
        else:
            raise _unknown(f"--{name}")
        return
    for position, letter in enumerate(word[1:], 2):
        if letter in SHORT_VALUED:
            yield letter, word[position:] or None
            return
        if letter in SHORT_OPTIONAL:
            yield letter, word[position:]
            return
        if letter not in SHORT_FLAGS and letter not in _RUN_NOTHING:
            raise _unknown(f"-{letter}")
        yield letter, ""


def _unknown(option: str) -> _Uncertain:
    return _Uncertain(
        f"{option} is no option of srun that it knows in full", "write it before the program: srun … kforge-run …"
    )


def _check_variables(environment: Mapping[str, str]) -> None:
    for option, names in _VARIABLES.items():
        for name, value in environment.items():
            if value and names.fullmatch(name):
                raise _Uncertain(f"with {name} set", _AGAINST[option])


def _check_script(text: str) -> None:
    """Make sure that an srun which is a script hands its words on as they are."""
    if not text:
        return
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip() and not line.lstrip().startswith("#")]
    last = _HANDS_ON.match(lines[-1]) if lines else None
    if last is None or not _SHEBANG.match(text) or any(map(_LOOKS.search, lines[:-1])):
        cure = "write it before the program: srun … kforge-run …"
        raise _Uncertain("srun is a script here that may change its words", cure)
    own = last[1].split()
    if _options(own)[1] != len(own):
        raise _Uncertain("srun is a script here that runs another program", "run the program itself")


def _has_a_launcher(
    program: Sequence[str], options: Mapping[str, str], first_line: Callable[[str, str], str], line: str
) -> bool:
    """Return whether a program is a kforge-run, where it is not one that needs and can have one."""
    if not program:
        raise _NothingToPut
    name = os.path.basename(program[0])
    is_python, is_shell = _PYTHON.fullmatch(name) is not None, _SHELL.fullmatch(name) is not None
    if name == "kforge-run" or (is_python and programs.program_of(program) == ("-m", "kempnerforge.launcher")):
        return True
    if is_python or (not is_shell and _SHEBANG.match(first_line(program[0], options.get("chdir", "")))):
        return False
    if any(map(_STARTS_US.search, program)):
        raise _NothingToPut  # env, or bash -c, starts it
    if not is_shell:
        raise _Uncertain(f"{name} is neither a Python nor a shell", line, "strangers")
    return False


def _check_tasks(tasks: int | None, line: str) -> None:
    """Make sure that no node gets too many of them."""
    if tasks is None or tasks > MOST_TASKS:
        many = "an unknown number of" if tasks is None else tasks
        why = f"{many} tasks on a node, and each would get one (at most {MOST_TASKS})"
        raise _Uncertain(why, line, "strangers")


def _tasks_on_a_node(options: Mapping[str, str], environment: Mapping[str, str]) -> int | None:
    """Return how many tasks of a step a node gets, if they are spread evenly; None: unknown."""

    def given(option: str, *variables: str) -> str:
        return options.get(option) or next((environment[name] for name in variables if environment.get(name)), "")

    on_each = options.get("ntasks-per-node", "")
    tasks = on_each or given("ntasks", "SLURM_NTASKS", "SLURM_NPROCS")
    if "ntasks" not in options and not on_each:
        if any(option in options for option in _BY_HARDWARE):
            # No node has more GPUs than that.
            return MOST_TASKS if options.get("ntasks-per-gpu") == "1" else None
        on_each = environment.get("SLURM_NTASKS_PER_NODE", "")
        tasks = on_each or tasks
    nodes = "1" if on_each else given("nodes", "SLURM_NNODES", "SLURM_JOB_NUM_NODES").partition("-")[0]
    if not tasks:
        return 1
    if not (tasks.isdecimal() and (nodes or "1").isdecimal()):
        return None
    return math.ceil(int(tasks) / max(int(nodes or "1"), 1))


def _line(component: Sequence[str], start: int) -> str:
    """Return the line to write."""
    line = shlex.join(["srun", *component[:start], "kforge-run", *component[start:]])
    return f"write: {line[:100]}…" if len(line) > 100 else f"write: {line}"
