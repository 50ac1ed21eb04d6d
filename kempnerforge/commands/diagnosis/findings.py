"""What in a batch script would lose a run: each finding with its line and the cure. Pure: text in, findings out."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...launcher import slurm
from ...launcher.cli import options_of
from ...launcher.delivery import launches_ranks
from ...launcher.policy.tables import FORCED_EXIT_GAP, REQUEUE_GAP, recommended_lead
from ...launcher.settings import Settings
from ...launcher.surroundings import AGENT_PATIENCE, AGENT_PATIENCE_VARIABLE, isolating_option
from ..batch import sbatch_options
from ..batch.batch_script import BatchScript, Directive
from ..batch.sbatch_options import Lead, Option
from ..trouble import Trouble
from . import shell_commands
from .cluster import Cluster
from .shell_commands import Command

#: What escalation takes off the end of a lead, when time is plenty (s).
_ESCALATION = FORCED_EXIT_GAP + Settings([]).term_grace + REQUEUE_GAP
#: A shorter lead leaves too little for a step and a save, unless past attempts show that it does not (s).
_SHORTEST_LEAD = 60
#: The largest script that sbatch takes: SchedulerParameters=max_script_size (bytes).
_LARGEST = 4 << 20
#: How much of a script is looked at (bytes).
_READ = 1 << 20
_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "ash", "busybox"})
#: Programs that become the command that they are given.
_TRANSPARENT = frozenset(
    {"command", "builtin", "env", "nice", "ionice", "numactl", "taskset", "chrt", "stdbuf", "setarch", "catchsegv"}
)
#: kforge-run by its name, by its path, or as the shell finds it.
_IS_LAUNCHER = re.compile(r"^(?:.*/)?kforge-run$|^(?:\$\(|`)(?:which|command -v|type -p) +kforge-run(?:\)|`)$")
#: Programs that do the training, or start what does.
_WORKERS = re.compile(
    r"python[0-9.]*|torchrun|accelerate|deepspeed|srun|mpirun|mpiexec|apptainer|singularity|.*\.(py|sh)"
)
#: Variables that sbatch reads before a script's own lines (sbatch(1), "Input environment variables").
_VARIABLES = {
    "SBATCH_SIGNAL": "signal",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_NO_REQUEUE": "no-requeue",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_OUTPUT": "output",
    "SBATCH_JOB_NAME": "job-name",
}
#: How a KFORGE_* variable says no.
_NO = frozenset({"0", "false", "no", "off", "f", "n"})
#: Options of Apptainer's that clean the environment.
_CLEANING = frozenset({"-e", "--cleanenv", "-C", "--containall"})
_NOTICES = frozenset({"USR1", "SIGUSR1", "10", "TERM", "SIGTERM", "15"})


class Finding(NamedTuple):
    """What is wrong.

    Attributes:
        line: where, from 1; 0: nowhere in particular.
        loses: it would lose a run; otherwise it is only worth knowing.
        what: in one sentence.
        cure: what to do, or to write instead.
    """

    line: int
    loses: bool
    what: str
    cure: str


class Past(NamedTuple):
    """What earlier attempts of the job have shown.

    Attributes:
        job: which one needed the longest.
        stop: how long that was, from the notice to the end (s).
        was_killed: it did not come to its end by itself.
    """

    job: str
    stop: float
    was_killed: bool


def job_options(script: BatchScript, environment: Mapping[str, str], given: Sequence[Option]) -> dict[str, Directive]:
    """Return the options that the job will have, and their lines: 0 for what does not come from the script.

    sbatch's command line counts most, then its variables, then the script.
    """
    directives = script.directives()[0]
    directives += [
        Directive(0, Option(name, environment[variable]))
        for variable, name in _VARIABLES.items()
        if variable in environment
    ]
    directives += [Directive(0, option) for option in given]
    found: dict[str, Directive] = {}
    for directive in directives:
        found.pop(sbatch_options.OPPOSITES.get(directive.option.name, ""), None)
        found[directive.option.name] = directive
    return found


def find(
    content: bytes,
    *,
    cluster: Cluster | None = None,
    past: Past | None = None,
    environment: Mapping[str, str] | None = None,
    given: Sequence[Option] = (),
) -> list[Finding]:
    """Return what in a script would lose a run, in the order of the lines.

    Args:
        content: the script.
        cluster: where it will run; None: not known.
        past: what earlier attempts have shown; None: nothing.
        environment: of the sbatch that will submit it.
        given: options that sbatch will be given besides.

    Raises:
        Trouble: it is no script.
    """
    if b"\0" in content:
        raise Trouble("this is no script: it holds NUL bytes", "sbatch takes a text that begins with #!")
    text = content[:_READ].decode("utf-8", "surrogateescape")
    script = BatchScript(text.replace("\r\n", "\n"))
    options = job_options(script, environment or {}, given)
    findings = [
        *_of_the_file(content, script),
        *_of_directives(script),
        *_of_the_lead(options, cluster, past),
        *_of_the_requeue(options, cluster),
        *_of_the_log(options, cluster),
    ]
    if script.interpreter in _SHELLS:
        findings += _of_commands(
            shell_commands.simplify(shell_commands.read(script.text)), options, environment or {}, cluster, past
        )
    elif script.interpreter and "kempnerforge.launcher" not in text:
        findings.append(
            Finding(
                1,
                True,
                f"{script.interpreter} is the batch process, not kforge-run, and dies of the notice",
                f"a shell script with: exec kforge-run {script.interpreter} …",
            )
        )
    return sorted(findings, key=lambda finding: (finding.line, not finding.loses))


# --- the file ----------------------------------------------------------------------------------


def _of_the_file(content: bytes, script: BatchScript) -> Iterator[Finding]:
    if b"\r\n" in content:
        yield Finding(1, True, "its lines end as on Windows, which sbatch refuses", "sed -i 's/\\r$//' SCRIPT")
    if len(content) > _LARGEST:
        size = f"{len(content) / (1 << 20):.0f} MB"
        yield Finding(1, True, f"it has {size}, and sbatch takes 4 MB", "read the data from a file of its own")
    if len(content) > _READ:
        yield Finding(1, False, "only its first MB was looked at", "a short script that runs another one")
    if not script.lines[0].startswith("#!"):
        yield Finding(1, True, "sbatch refuses a script that does not begin with #!", "#!/bin/bash")


def _of_directives(script: BatchScript) -> Iterator[Finding]:
    for bad in script.directives()[1]:
        yield Finding(bad.line, True, f"sbatch stops here: {bad.text}", "an option as --key=value, or a # before it")
    header = script.header
    for number, line in enumerate(script.lines, 1):
        if number > header and line.startswith("#SBATCH"):
            cure = f"move it above line {header + 1}"
            yield Finding(number, True, "sbatch reads no #SBATCH line behind the first command", cure)
        elif number <= header and re.match(r"\s+#\s*SBATCH\b|#\s+SBATCH\s+-|#(?i:sbatch)(?<!#SBATCH)\s", line):
            yield Finding(number, False, "sbatch does not read this line", "#SBATCH, from the very first column")


# --- options -------------------------------------------------------------------------------------


def _of_the_lead(options: Mapping[str, Directive], cluster: Cluster | None, past: Past | None) -> Iterator[Finding]:
    need = None if past is None else past.stop
    wanted = 120 if need is None else max(120, recommended_lead(need))
    cure = f"#SBATCH --signal=B:USR1@{wanted}"
    if "signal" not in options:
        kill_wait = cluster.kill_wait if cluster is not None else None
        gives = "KillWait, often 30 s" if kill_wait is None else f"{kill_wait:.0f} s (KillWait)"
        enough = need is not None and kill_wait is not None and need < kill_wait * 2 / 3
        yield Finding(0, not enough, f"no --signal: when the time is up the run has {gives} to save", cure)
        return
    line, option = options["signal"]
    try:
        lead = sbatch_options.lead(option.value or "")
    except Trouble as trouble:
        yield Finding(line, True, str(trouble), cure)
        return
    if not lead.batch:
        what = f"{option} without B: does not reach the batch process, which is kforge-run"
        yield Finding(line, True, what, f"#SBATCH --signal=B:USR1@{lead.seconds}")
    elif not lead.is_notice:
        what = f"kforge-run does not requeue after {lead.signal}, which a person may have sent"
        yield Finding(line, True, what, f"#SBATCH --signal=B:USR1@{lead.seconds}")
    yield from _of_seconds(line, lead, options, past, cure)


def _of_seconds(
    line: int, lead: Lead, options: Mapping[str, Directive], past: Past | None, cure: str
) -> Iterator[Finding]:
    if past is not None and lead.seconds < past.stop + _ESCALATION:
        took = f"was killed after {past.stop:.0f} s" if past.was_killed else f"took {past.stop:.0f} s to stop"
        what = f"{lead.seconds} s are too short: job {past.job} {took}, and kforge-run keeps {_ESCALATION:.0f} s"
        yield Finding(line, True, what, cure)
    elif past is None and lead.seconds < _SHORTEST_LEAD:
        left = lead.seconds - min(_ESCALATION, lead.seconds / 3)
        yield Finding(
            line, True, f"{lead.seconds} s are too short: {left:.0f} s of it are left for step and save", cure
        )
    if "time" in options:
        try:
            limit = sbatch_options.minutes_and_more(options["time"].option.value or "")
        except Trouble as trouble:
            yield Finding(options["time"].line, True, str(trouble), "#SBATCH --time=24:00:00")
            return
        if lead.seconds >= limit:
            what = f"the notice comes {lead.seconds} s before the end of {limit:.0f} s: as soon as the run starts"
            yield Finding(line, True, what, "a longer --time, or a shorter lead")


def _of_the_requeue(options: Mapping[str, Directive], cluster: Cluster | None) -> Iterator[Finding]:
    if "no-requeue" in options:
        what = "--no-requeue: Slurm refuses to start this job again"
        yield Finding(options["no-requeue"].line, True, what, "#SBATCH --requeue")
    elif "requeue" not in options:
        site = "" if cluster is None else f" (JobRequeue={int(cluster.requeues)} here)"
        what = f"no --requeue: whether the job may start again is left to the cluster{site}"
        yield Finding(0, True, what, "#SBATCH --requeue")


def _of_the_log(options: Mapping[str, Directive], cluster: Cluster | None) -> Iterator[Finding]:
    mode = options.get("open-mode")
    cure = "#SBATCH --open-mode=append"
    if mode is not None and not "append".startswith((mode.option.value or "x").lower()):
        yield Finding(mode.line, True, "each attempt empties the log, with all that tells why the last one ended", cure)
    elif mode is None and not (cluster is not None and cluster.appends):
        yield Finding(0, False, "no --open-mode: each attempt empties the log of the one before", cure)
    for name in ("output", "error"):
        if name in options:
            yield from _of_a_log(options[name], "array" in options)


def _of_a_log(log: Directive, is_array: bool) -> Iterator[Finding]:
    path = log.option.value or ""
    if is_array and not re.search(r"%\d*[aj]", path) and path != os.devnull:
        yield Finding(log.line, False, "all tasks of the array write into one log", f"--{log.option.name}=%x-%A_%a.log")
    folder = os.path.dirname(path)
    if folder and "%" not in folder and not os.path.isdir(folder):
        what = f"there is no folder {folder}, and without it the job fails before it starts"
        yield Finding(log.line, True, what, f"mkdir -p {shlex.quote(folder)}")


# --- commands ------------------------------------------------------------------------------------


def _of_commands(
    commands: list[Command],
    options: Mapping[str, Directive],
    environment: Mapping[str, str],
    cluster: Cluster | None,
    past: Past | None,
) -> Iterator[Finding]:
    launches = [(command, index) for command in commands if (index := _launcher_in(command.words)) is not None]
    for command, index in launches:
        yield from _of_a_launch(command, index)
        yield from _of_kforge_run_options(command, index)
        yield from _of_what_cannot_be_armed(command, index)
    if not launches:
        yield from _of_no_launch(commands)
    exported = _exported(commands)
    yield from _of_variables(exported, environment, [launch for launch, _ in launches])
    for command in commands:
        yield from _of_a_trap(command, [launch for launch, _ in launches])
        yield from _of_a_person(command)
        yield from _of_srun(command, exported, cluster)
        yield from _of_an_agent(command, exported, options, past)


def _launcher_in(words: Sequence[str]) -> int | None:
    """Return where in a command kforge-run is."""
    for index, word in enumerate(words):
        if _IS_LAUNCHER.search(word) or (word == "kempnerforge.launcher" and words[index - 1] == "-m"):
            return index
    return None


def _of_a_launch(command: Command, index: int) -> Iterator[Finding]:
    said = shlex.join(command.words)
    said = f"{said[:60]}…" if len(said) > 60 else said
    before = list(command.words[:index])
    is_exec = "exec" in before and all(word in _TRANSPARENT for word in before[: before.index("exec")])
    before = before[before.index("exec") + 1 :] if is_exec else before
    if is_exec and before[:1] == ["-a"]:
        before = before[2:]
    between = [word for word in before if not word.startswith("-") and "=" not in word]
    program = os.path.basename(between[0]) if between else ""
    if program.startswith("python") and command.words[index] == "kempnerforge.launcher":
        program = ""
    if command.in_pipeline or command.after == "&" or command.in_subshell:
        where = (
            "in a pipeline" if command.in_pipeline else "in the background" if command.after == "&" else "in a subshell"
        )
        what = f"kforge-run {where} is not the batch process: the shell gets the notice, and dies of it"
        log = "; for a log use #SBATCH --output" if command.in_pipeline else ""
        yield Finding(command.line, True, what, f"exec kforge-run … on a line of its own{log}")
    elif program == "srun":
        what = "only tasks of srun are under kforge-run: nobody gets the batch notice, and nobody requeues"
        yield Finding(command.line, True, what, f"exec kforge-run {shlex.join(before)} kforge-run …")
    elif program and program not in _TRANSPARENT and program != "uv":
        what = f"{program} stands between Slurm and kforge-run, and gets the notice instead"
        yield Finding(command.line, True, what, f"exec kforge-run {program} …")
    elif not is_exec:
        what = "no exec: the shell stays the batch process, and dies of the notice with the whole job"
        yield Finding(command.line, True, what, f"exec {said}")
    for operator, target in command.redirections:
        if (
            operator.lstrip("12&") in (">", ">|")
            and not target.isdigit()
            and target not in ("/dev/null", "/dev/stderr")
        ):
            what = f"each attempt empties {target}, with all that tells why the last one ended"
            yield Finding(command.line, True, what, f"{operator.replace('>', '>>').rstrip('|')}{target}")


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


def _of_variables(
    exported: Mapping[str, str], environment: Mapping[str, str], launches: list[Command]
) -> Iterator[Finding]:
    """Look for variables that have kforge-run never requeue: see its --help."""
    for name, values in {"KFORGE_REQUEUE": _NO, "KFORGE_MAX_REQUEUES": frozenset({"0"})}.items():
        for command in launches:
            given = _environment_of(command, {**environment, **exported}).get(name, "")
            if given.lower() in values:
                yield Finding(command.line, True, f"{name}={given} never brings the job back", f"unset {name}")


def _of_what_cannot_be_armed(command: Command, index: int) -> Iterator[Finding]:
    """Look for what keeps the bootstrap from the program: see the README, "Who gets the notice"."""
    words = command.words[index + 1 :]
    names = [os.path.basename(word) for word in words]
    for start, name in enumerate(names):
        option = None
        if re.fullmatch(r"python[0-9.]*", name):
            option = isolating_option(words[start:])
        elif name in ("apptainer", "singularity"):
            option = next((word for word in _container_options(words[start + 2 :]) if word in _CLEANING), None)
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


def _of_no_launch(commands: list[Command]) -> Iterator[Finding]:
    candidates = [
        command
        for command in commands
        if command.words and _WORKERS.fullmatch(os.path.basename(_program(command.words) or ""))
    ]
    unclear = [command for command in commands if command.words and (_program(command.words) or "").startswith("$")]
    if unclear and not candidates:
        what = f"what {_program(unclear[-1].words)} is cannot be told from here"
        yield Finding(unclear[-1].line, False, what, "exec kforge-run …, written out")
        return
    if not candidates:
        yield Finding(0, True, "nothing runs under kforge-run", "exec kforge-run python train.py")
        return
    main = candidates[-1]
    words = main.words[1:] if main.words[0] == "exec" else main.words
    yield Finding(
        main.line, True, f"{_program(words)} does not run under kforge-run", f"exec kforge-run {shlex.join(words)}"
    )


def _program(words: Sequence[str]) -> str | None:
    """Return the program that a command becomes."""
    for word in words:
        if (
            word != "exec"
            and os.path.basename(word) not in _TRANSPARENT
            and not word.startswith("-")
            and "=" not in word
        ):
            return word
    return None


def _of_a_trap(command: Command, launches: list[Command]) -> Iterator[Finding]:
    words = command.words
    trapped = [name for name in words[2:] if name.upper() in _NOTICES]
    if words[:1] != ("trap",) or not trapped or words[1] == "-":
        return
    if any(launch.words[0] == "exec" for launch in launches):
        what = f"until exec, this trap swallows {' and '.join(trapped)}; behind it it does nothing"
        yield Finding(command.line, False, what, "leave it out: kforge-run takes the notice")
        return
    does = "ignores it" if not words[1] else "runs it only when the command in front has ended"
    yield Finding(
        command.line,
        True,
        f"this trap swallows {' and '.join(trapped)}: the shell {does}",
        "leave it out, and end the script with: exec kforge-run …",
    )


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


def _exported(commands: list[Command]) -> dict[str, str]:
    """Return the variables that a script sets for what it runs."""
    found: dict[str, str] = {}
    for command in commands:
        if not command.words:
            found.update(command.assignments)
        elif command.words[0] in ("export", "declare", "typeset", "setenv"):
            for word in command.words[1:]:
                name, _, value = word.partition("=")
                found[name] = value or found.get(name, "")
            if command.words[0] == "setenv" and len(command.words) > 2:
                found[command.words[1]] = command.words[2]
    return found


def _environment_of(command: Command, exported: Mapping[str, str]) -> dict[str, str]:
    own = dict(word.split("=", 1) for word in command.words if re.match(r"[A-Z_][A-Z0-9_]*=", word))
    return {**exported, **command.assignments, **own}


def _of_srun(command: Command, exported: Mapping[str, str], cluster: Cluster | None) -> Iterator[Finding]:
    names = [os.path.basename(word) for word in command.words]
    if "srun" not in names:
        return
    words = list(command.words[names.index("srun") :])
    configured = cluster is not None and cluster.kills_on_bad_exit
    if slurm.kills_on_bad_exit(words, _environment_of(command, exported), configured):
        inner = "kforge-run" in names[names.index("srun") :]
        what = "--kill-on-bad-exit: the first task that ends with an error takes those with it that still save"
        cure = "srun --kill-on-bad-exit=0" if inner else "srun --kill-on-bad-exit=0 kforge-run …"
        yield Finding(command.line, not inner, what, cure)


def _of_an_agent(
    command: Command, exported: Mapping[str, str], options: Mapping[str, Directive], past: Past | None
) -> Iterator[Finding]:
    starts = [index for index in range(len(command.words)) if launches_ranks(list(command.words[index : index + 3]))]
    if not starts:
        return
    given = _environment_of(command, exported).get(AGENT_PATIENCE_VARIABLE)
    # What cannot be read, an expansion for instance, is taken to be right.
    patience = AGENT_PATIENCE if given is None else float(given) if given.isdecimal() else math.inf
    try:
        lead = sbatch_options.lead(options["signal"].option.value or "").seconds if "signal" in options else 0
    except Trouble:
        lead = 0
    needed = lead if past is None else past.stop
    if needed <= patience:
        return
    name = next(
        (os.path.basename(word) for word in command.words[starts[-1] :] if not word.startswith("-")), "torchrun"
    )
    yield Finding(
        command.line,
        True,
        f"{name} kills the other ranks {patience:.0f} s after one has ended with an error, also those that save",
        f"export {AGENT_PATIENCE_VARIABLE}={recommended_lead(needed)}",
    )
