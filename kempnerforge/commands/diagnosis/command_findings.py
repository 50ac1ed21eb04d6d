"""What in the commands of a batch script would lose a run: how it starts kforge-run, and what kforge-run starts.

It is content with a script only if the shell surely comes to `exec kforge-run`: at the top level, behind commands that
do not end the shell. Of everything else it says that it cannot tell.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
import string
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...bootstrap import programs
from ...launcher.asking import slurm, srun
from ...launcher.options import options_of
from ...launcher.policy.tables import recommended_lead
from ...launcher.surroundings import AGENT_PATIENCE, AGENT_PATIENCE_VARIABLE, DEAF_SRUN, isolating_option
from .finding import Finding
from .shell_commands import Command, Script

#: Builtins that run the command that they are given.
_IN_SHELL = frozenset({"command", "builtin"})
#: Programs that become the command that they are given.
_TRANSPARENT = frozenset({"env", "nice", "ionice", "numactl", "taskset", "chrt", "stdbuf", "setarch", "catchsegv"})
#: Programs that start the one behind them.
_STARTING = _TRANSPARENT | _IN_SHELL | {"exec", "kforge-run", "uv", "run", "nohup", "setsid", "timeout"}
#: Commands that end the shell.
_LEAVING = frozenset({"exec", "exit", "return", "logout"})
#: Programs that only talk of others.
_TALKING = frozenset(
    {"which", "type", "hash", "whereis", "echo", "printf", "cat", "pip", "pip3", "module", "ml", "test"}
)
#: kforge-run by its name, by its path, or as the shell finds it.
_IS_LAUNCHER = re.compile(r"^(?:.*/)?kforge-run$|^(?:\$\(|`)(?:which|command -v|type -p) +kforge-run(?:\)|`)$")
#: A script in a word, like that of bash -c.
_HIDDEN_LAUNCH = re.compile(r"\bkforge-run\s+\S")
#: Programs that do the training, or start what does.
_WORKERS = re.compile(
    rf"python[0-9.]*|{'|'.join(programs.RANK_AGENTS[0].split())}|srun|mpirun|mpiexec|apptainer|singularity|.*\.(py|sh)"
)
_PYTHON = re.compile(r"python[0-9.]*")
_CONTAINERS = frozenset({"apptainer", "singularity"})
#: Options of Apptainer's that clean the environment.
_CLEANING = frozenset({"-e", "--cleanenv", "-C", "--containall"})
#: How a KFORGE_* variable says no.
_NO = frozenset({"0", "false", "no", "off", "f", "n"})
_NOTICES = frozenset({"USR1", "SIGUSR1", "10", "TERM", "SIGTERM", "15"})
#: A shorter ``--timeout`` is hardly meant (s): a guess.
_SHORTEST_SHUTDOWN = 30.0
#: So many words behind a program are looked at for its options: a guess.
_MOST_OPTIONS = 100
#: Where a redirection leads to what is open already.
_OPEN = frozenset({"", "1", "2", "-"})
#: How to write what the doctor understands.
_CLEAR = """write it like this, the last line by itself and at the end:
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
exec kforge-run python train.py"""


class Around(NamedTuple):
    """What is known of a job besides its commands.

    Attributes:
        environment: of the sbatch that submits it, which hands it on.
        needed: how long a shutdown may take: what earlier attempts needed, else the lead (s).
        kills_on_bad_exit: srun kills all tasks when one ends with an error, unless told otherwise.
        of_steps: variables that the job's options give to srun.
    """

    environment: Mapping[str, str]
    needed: float
    kills_on_bad_exit: bool
    of_steps: Mapping[str, str]


def find(script: Script, around: Around) -> Iterator[Finding]:
    """Yield what in the commands of a script would lose a run."""
    commands = _up_to_the_end(script.commands)
    launches = [(command, index) for command in commands if (index := _launcher_in(command.words)) is not None]
    exported = {**around.environment, **around.of_steps, **_exported(commands)}
    unclear = list(_of_what_is_unclear(script, commands))
    yield from unclear
    for command, index in launches:
        if command.is_certain:
            yield from _of_a_launch(command, index)
        yield from _of_kforge_run_options(command, index)
        yield from _of_kforge_run_variables(command, exported)
        yield from _of_what_cannot_be_armed(command, index)
        yield from _of_sruns_tasks(command, exported)
    if not launches and not unclear:
        behind = script.commands[len(commands) :]
        yield from _of_no_launch(commands, is_behind=any(_launcher_in(command.words) is not None for command in behind))
    no_shell_stays = any("exec" in command.words[:index] for command, index in launches)
    for command in commands:
        yield from _of_a_trap(command, no_shell_stays)
        yield from _of_a_person(command)
        yield from _of_slurms_variables(command)
        yield from _of_a_bad_exit(command, exported, around.kills_on_bad_exit)
        yield from _of_sruns_patience(command, exported, around.needed)
        yield from _of_a_deaf_srun(command)
        yield from _of_an_agent(command, exported, around.needed)
        if command.words == ("exec",):
            yield from _of_redirections(command)


# --- what is run -------------------------------------------------------------------------------------


def _up_to_the_end(commands: list[Command]) -> list[Command]:
    """Return the commands that may be run: none behind an `exec` or an `exit` to which the shell surely comes."""
    for number, command in enumerate(commands, 1):
        if command.is_certain and _leaving(command) in ("exec", "exit"):
            return commands[:number]
    return commands


def _leaving(command: Command) -> str:
    """Return which command ends the shell here; empty: none does."""
    words = [word for word in command.words[:3] if word not in _IN_SHELL]
    redirects = words == ["exec"]
    leaves = words and words[0] in _LEAVING and not redirects and _process_of_its_own(command) is None
    return words[0] if leaves else ""


def _refuses(command: Command) -> bool:
    """Return whether it ends the script with an error where something is missing: nothing is lost by that."""
    words = command.words
    if words[0] != "exit" or len(words) > 2:
        return False
    return re.fullmatch(r"[1-9][0-9]*", words[-1]) is not None or (command.before == "||" and words[-1] != "0")


def _of_what_is_unclear(script: Script, commands: list[Command]) -> Iterator[Finding]:
    """Look for what keeps us from telling whether kforge-run is reached; the first is enough."""
    if script.lost is not None:
        what = f"cannot tell what happens from here on: {script.lost.why}"
        yield Finding(script.lost.line, False, what, _CLEAR, is_unclear=True)
        return
    for command in commands:
        why = _why_unclear(command)
        if why is not None:
            yield Finding(command.line, False, why, _CLEAR, is_unclear=True)
            return


def _why_unclear(command: Command) -> str | None:
    is_launch = _launcher_in(command.words) is not None
    if is_launch and not command.is_certain:
        return "cannot tell whether the shell comes to this kforge-run"
    leaving = _leaving(command)
    if leaving and not (command.is_certain and leaving in ("exec", "exit")) and not _refuses(command):
        return f"cannot tell whether the shell comes further than to this {leaving}"
    if is_launch or _only_talks(command.words):
        return None
    if command.words[:1] == ("eval",) and (_LEAVING | {"kforge-run"}) & set(re.findall(r"[\w-]+", str(command.words))):
        return "cannot tell what eval runs"
    if any(_HIDDEN_LAUNCH.search(word) for word in (*command.words, *command.assignments.values())):
        return "cannot tell what becomes of this kforge-run"
    return None


# --- how kforge-run is started -----------------------------------------------------------------------


def launched(commands: list[Command]) -> tuple[str, ...]:
    """Return the command that a script's last kforge-run is given; empty: there is none."""
    for command in reversed(commands):
        if (index := _launcher_in(command.words)) is not None:
            return command.words[index + 1 :]
    return ()


def _launcher_in(words: Sequence[str]) -> int | None:
    """Return where in a command kforge-run is run; None: it is not, or only asked for its help."""
    if _only_talks(words):
        return None
    for index, word in enumerate(words):
        if _IS_LAUNCHER.search(word) or (word == "kempnerforge.launcher" and words[index - 1] == "-m"):
            return None if "".join(words[index + 1 : index + 2]) in ("--version", "--help", "-h") else index
    return None


def _only_talks(words: Sequence[str]) -> bool:
    is_known = os.path.basename("".join(words[:1])) in _TALKING or tuple(words[:2]) == ("command", "-v")
    return is_known or "install" in words[:3]


def _of_a_launch(command: Command, index: int) -> Iterator[Finding]:
    before = list(command.words[:index])
    is_exec = "exec" in before and all(word in _IN_SHELL for word in before[: before.index("exec")])
    before = before[before.index("exec") + 1 :] if is_exec else before
    if is_exec and before[:1] == ["-a"]:
        before = before[2:]
    # Behind env only is a word like A=1 no program.
    between = before[:1] if "=" in "".join(before[:1]) else []
    skipped = () if is_exec else _IN_SHELL
    between += [word for word in before if not word.startswith("-") and "=" not in word and word not in skipped]
    program = os.path.basename(between[0]) if between else ""
    if _PYTHON.fullmatch(program) and command.words[index] == "kempnerforge.launcher":
        program = ""
    if (where := _process_of_its_own(command)) is not None:
        what = f"kforge-run {where} is not the batch process: the shell gets the notice, and dies of it"
        log = "; for a log use #SBATCH --output" if command.in_pipeline else ""
        yield Finding(command.line, True, what, f"exec kforge-run … on a line of its own{log}")
    elif program == "srun":
        what = "kforge-run runs in tasks of srun only: the batch shell gets the notice, and nothing requeues"
        yield Finding(command.line, True, what, f"exec kforge-run {shlex.join(before)} kforge-run …")
    elif program and program not in _TRANSPARENT and program != "uv":
        what = f"{program} stands between Slurm and kforge-run, and gets the notice instead"
        yield Finding(command.line, True, what, f"exec kforge-run {program} …")
    elif not is_exec:
        what = "no exec: the shell stays the batch process, and dies of the notice with the whole job"
        said = shlex.join(command.words)
        yield Finding(command.line, True, what, f"exec {said[:60]}…" if len(said) > 60 else f"exec {said}")
    yield from _of_redirections(command)


def _process_of_its_own(command: Command) -> str | None:
    if command.in_pipeline:
        return "in a pipeline"
    return "in the background" if command.after == "&" else None


def _of_redirections(command: Command) -> Iterator[Finding]:
    for operator, target in command.redirections:
        plain = operator.lstrip("12")
        if plain in (">", ">|", "&>", ">&") and target not in _OPEN and not target.startswith((">(", "/dev/")):
            what = f"each attempt empties {target}, with all that tells why the last one ended"
            appends = "&>>" if "&" in operator else operator.replace(">", ">>").rstrip("|")
            yield Finding(command.line, True, what, f"{appends}{target}")


def _of_kforge_run_options(command: Command, index: int) -> Iterator[Finding]:
    try:
        options = options_of(list(command.words[index + 1 :]))
    except ValueError as error:
        yield Finding(command.line, True, f"kforge-run will not start: {error}", "kforge-run --help")
        return
    if options.get("requeue") is False:
        yield Finding(command.line, True, "kforge-run --no-requeue never brings the job back", "leave it out")
    if options.get("max_requeues") == "0":
        yield Finding(command.line, True, "--max-requeues 0 never brings the job back", "leave it out")
    yield from _of_a_timeout(command, f"--timeout {options.get('timeout')}", str(options.get("timeout", "")))


def _of_kforge_run_variables(command: Command, exported: dict[str, str]) -> Iterator[Finding]:
    given = _environment_of(command, exported)
    for name, values in {"KFORGE_REQUEUE": _NO, "KFORGE_MAX_REQUEUES": frozenset({"0"})}.items():
        if given.get(name, "").lower() in values:
            yield Finding(command.line, True, f"{name}={given[name]} never brings the job back", f"unset {name}")
    yield from _of_a_timeout(command, f"KFORGE_TIMEOUT={given.get('KFORGE_TIMEOUT')}", given.get("KFORGE_TIMEOUT", ""))


def _of_a_timeout(command: Command, said: str, value: str) -> Iterator[Finding]:
    """Look for a shutdown that is cut short: a third of it is for the escalation."""
    if re.fullmatch(r"\d+(\.\d*)?", value) and 0 < float(value) < _SHORTEST_SHUTDOWN:
        what = f"{said} leaves {float(value) * 2 / 3:.0f} s for step and save"
        yield Finding(command.line, True, what, "leave it out: kforge-run uses all that Slurm gives")


def _of_what_cannot_be_armed(command: Command, index: int) -> Iterator[Finding]:
    """Look for what keeps the bootstrap from the program: see docs/notice.md, "Who is told"."""
    words = command.words[index + 1 :]
    for start, word in enumerate(words):
        name = os.path.basename(word)
        option = None
        if _PYTHON.fullmatch(name):
            option = isolating_option(words[start : start + _MOST_OPTIONS])
        elif name in _CONTAINERS:
            option = next(
                (
                    word
                    for word in _container_options(words[start + 2 : start + 2 + _MOST_OPTIONS])
                    if word in _CLEANING
                ),
                None,
            )
        if option is not None:
            what = f"{name} {option} keeps the notice from the program, unless it handles SIGUSR1 by itself"
            yield Finding(command.line, True, what, "leave it out")


def _container_options(words: Sequence[str]) -> Iterator[str]:
    """Yield what may be options of `apptainer exec`: after its image comes the command."""
    before = "-"
    for word in words:
        if not word.startswith("-") and not before.startswith("-"):
            return
        yield word
        before = word


def _of_no_launch(commands: list[Command], *, is_behind: bool) -> Iterator[Finding]:
    if is_behind:
        last = commands[-1]
        what = f"the shell comes no further than to this {_leaving(last)}, and kforge-run is behind it"
        yield Finding(last.line, True, what, "leave it out")
        return
    for command in reversed(commands):
        program = _program(command.words) or ""
        if program.startswith("$") or (program in ("source", ".") and command is commands[-1]):
            yield Finding(command.line, False, f"cannot tell what {program} runs", _CLEAR, is_unclear=True)
            return
        if _WORKERS.fullmatch(os.path.basename(program)):
            words = command.words[1:] if command.words[0] == "exec" else command.words
            cure = f"exec kforge-run {shlex.join(words)}"
            yield Finding(command.line, True, f"{program} does not run under kforge-run", cure)
            return
    yield Finding(0, True, "nothing runs under kforge-run", "exec kforge-run python train.py")


def _program(words: Sequence[str]) -> str | None:
    """Return the program that a command becomes."""
    for word in words:
        is_around = os.path.basename(word) in _TRANSPARENT | _IN_SHELL | {"exec"}
        if not is_around and word[:1] != "-" and "=" not in word:
            return word
    return None


# --- what is around it -------------------------------------------------------------------------------


def _exported(commands: list[Command]) -> dict[str, str]:
    """Return the variables that a script sets for what it runs."""
    found: dict[str, str] = {}
    for command in commands:
        if not command.words:
            found.update(command.assignments)
        elif command.words[0] in ("export", "declare", "typeset"):
            for word in command.words[1:]:
                name, _, value = word.partition("=")
                found[name] = value or found.get(name, "")
        elif command.words[0] == "setenv" and len(command.words) > 2:
            found[command.words[1]] = command.words[2]
    return found


def _environment_of(command: Command, exported: dict[str, str]) -> Mapping[str, str]:
    own = dict(word.split("=", 1) for word in command.words if re.match(r"[A-Z_][A-Z0-9_]*=", word))
    # Not copied: a script may export thousands, and run thousands of commands.
    return ChainMap(own, command.assignments, exported)


def _of_a_trap(command: Command, no_shell_stays: bool) -> Iterator[Finding]:
    words = command.words
    trapped = [name for name in words[2:] if name.upper() in _NOTICES]
    if words[:1] != ("trap",) or not trapped or words[1] == "-":
        return
    names = " and ".join(trapped)
    if no_shell_stays:
        what = f"until exec, this trap swallows {names}; behind it it does nothing"
        yield Finding(command.line, False, what, "leave it out: kforge-run takes the notice")
        return
    does = "ignores it" if not words[1] else "runs it only when the command in front has ended"
    cure = "leave it out, and end the script with: exec kforge-run …"
    yield Finding(command.line, True, f"this trap swallows {names}: the shell {does}", cure)


def _of_a_person(command: Command) -> Iterator[Finding]:
    """Look for what a script does to jobs itself."""
    if command.words[:2] == ("scontrol", "requeue"):
        what = "a requeue of one's own also brings back what its owner has cancelled"
        yield Finding(command.line, False, what, "leave it to kforge-run")
    if command.words[:1] == ("scancel",) and re.search(r" (-s|--signal)\b", f" {' '.join(command.words)}"):
        flags = [word for word in command.words if re.fullmatch(r"-[a-zA-Z]*[bf][a-zA-Z]*|--batch|--full", word)]
        if not flags:
            what = "scancel with a signal but without -b reaches job steps only, never kforge-run"
            yield Finding(command.line, True, what, "scancel -b -s USR1 JOB")


def _of_slurms_variables(command: Command) -> Iterator[Finding]:
    """Look for what makes kforge-run believe that it is in no job."""
    words = command.words[: _launcher_in(command.words)]
    taken = any(word == "SLURM_JOB_ID" or re.match(r"\$\{!SLURM_?[@*]\}", word) for word in words)
    cleaned = "env" in words and bool({"-i", "-", "--ignore-environment"} & set(words))
    if (taken and (words[:1] == ("unset",) or "-u" in words)) or (cleaned and len(words) < len(command.words)):
        what = "without SLURM_JOB_ID kforge-run does not know its job, and cannot requeue it"
        yield Finding(command.line, True, what, "take them off behind it: exec kforge-run env -u …")


# --- what it starts ----------------------------------------------------------------------------------


def _srun_of(command: Command) -> list[str]:
    """Return an srun in a command, with all behind it; empty: there is none."""
    names = [os.path.basename(word) for word in command.words]
    return list(command.words[names.index("srun") :]) if "srun" in names else []


def _of_sruns_tasks(command: Command, exported: dict[str, str]) -> Iterator[Finding]:
    """Look whether kforge-run puts itself before the programs of an srun (docs/notice.md, "Several nodes")."""
    words = _launched_by(command)
    verdict = _put_into_srun(command, exported)
    if verdict.is_put:
        what = f"kforge-run runs in srun's tasks, too: {shlex.join(verdict.command)}"
        yield Finding(command.line, False, what, "none is needed")
    elif verdict.why_not and any("$" in word or "`" in word for word in words):
        what = f"cannot tell whether kforge-run runs in srun's tasks: {verdict.why_not}"
        yield Finding(command.line, False, what, verdict.cure, is_unclear=True)
    elif verdict.why_not:
        what = f"kforge-run does not run in srun's tasks, which may not hear the notice: {verdict.why_not}"
        yield Finding(command.line, True, what, verdict.cure)


def _launched_by(command: Command) -> tuple[str, ...]:
    """Return what kforge-run runs in a command; empty: nothing that can be seen."""
    index = _launcher_in(command.words)
    try:
        launched = () if index is None else options_of(list(command.words[index + 1 :])).get("command")
    except ValueError:
        return ()  # it will not start
    return launched if isinstance(launched, tuple) else ()


def _put_into_srun(command: Command, exported: dict[str, str]) -> srun.Verdict:
    """Return what becomes of an srun that kforge-run runs."""
    given = _environment_of(command, exported)
    words = [string.Template(word).safe_substitute(given) for word in _launched_by(command)]
    if not words or os.path.basename(words[0]) != "srun":
        return srun.Verdict(words, "unknown")
    return srun.put(["kforge-run"], words, given, first_line=_first_line_by_name)


def _first_line_by_name(program: str, _folder: str) -> str:
    """Return how a program's file may begin; it need not be here."""
    is_script = program.endswith((".py", ".sh")) or os.path.basename(program) in programs.RANK_AGENTS[0].split()
    return "#!/bin/sh\n" if is_script else ""


def _of_a_bad_exit(command: Command, exported: dict[str, str], configured: bool) -> Iterator[Finding]:
    words = _srun_of(command)
    if words and slurm.kills_on_bad_exit(words, _environment_of(command, exported), configured):
        inner = _launcher_in(words) is not None or _put_into_srun(command, exported).is_put
        what = "--kill-on-bad-exit: the first task that ends with an error takes those with it that still save"
        cure = "srun --kill-on-bad-exit=0" if inner else "srun --kill-on-bad-exit=0 kforge-run …"
        yield Finding(command.line, not inner, what, cure)


def _of_sruns_patience(command: Command, exported: dict[str, str], needed: float) -> Iterator[Finding]:
    """Look for an srun that ends the other tasks so long after the first one's end (srun(1), --wait)."""
    words = _srun_of(command)
    if not words:
        return
    given = _environment_of(command, exported).get("SLURM_WAIT", "0")
    for before, word in itertools.pairwise(words):
        if not word.startswith("-") and not before.startswith("-"):
            break
        if found := re.fullmatch(r"(?:--wait=|-W=?)([0-9]+)", word):
            given = found[1]
        elif before in ("--wait", "-W"):
            given = word
    if re.fullmatch(r"[0-9]{1,9}", given) and 0 < int(given) < max(needed, 1.0):
        what = f"srun ends the other tasks {given} s after the first one has ended, also those that save"
        yield Finding(command.line, True, what, "srun --wait=0")


def _of_a_deaf_srun(command: Command) -> Iterator[Finding]:
    if slurm.keeps_notices_back(_srun_of(command)):
        yield Finding(command.line, True, f"--ignore-signals: {DEAF_SRUN}", "take USR1 out of it")


def _of_an_agent(command: Command, exported: dict[str, str], needed: float) -> Iterator[Finding]:
    name = _agent_in(command.words)
    if name is None:
        return
    given = _environment_of(command, exported).get(AGENT_PATIENCE_VARIABLE)
    # What cannot be read, an expansion for instance, is taken to be right.
    patience = AGENT_PATIENCE if given is None else float(given) if given.isdecimal() else math.inf
    if needed > patience:
        what = f"{name} kills the other ranks {patience:.0f} s after one has ended with an error, also those that save"
        cure = f"export {AGENT_PATIENCE_VARIABLE}={recommended_lead(needed)}"
        yield Finding(command.line, True, what, cure)


def _agent_in(words: Sequence[str]) -> str | None:
    """Return the name of torch's rank agent that a command runs, and does not only name; None: there is none."""
    is_started = False  # by what has options and arguments of its own, which are not all known here
    for index, word in enumerate(words):
        name = os.path.basename(word)
        # uv run takes a module without a Python before it.
        arguments = ["python", *words[index:]] if word == "-m" else words[index:]
        if programs.runs_one_of(arguments, programs.TORCH_AGENTS):
            is_named = name in programs.TORCH_AGENTS[0].split()
            return name if is_named else os.path.basename(programs.program_of(arguments)[1])
        if name in ("srun", *_CONTAINERS) or _IS_LAUNCHER.search(word):
            is_started = True
        elif _WORKERS.fullmatch(name) or (
            not is_started and name not in _STARTING and not word.startswith("-") and "=" not in word
        ):
            return None
    return None
