"""What in a batch script would lose a run: each finding with its line and the cure. Pure: text in, findings out."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from ...launcher.policy.tables import FORCED_EXIT_GAP, REQUEUE_GAP, recommended_lead
from ...launcher.settings import Settings
from ..batch import sbatch_options
from ..batch.batch_script import BatchScript, Directive
from ..batch.sbatch_options import Lead, Option
from ..trouble import Trouble
from . import command_findings, shell_commands
from .cluster import Cluster
from .command_findings import Around
from .finding import Finding, Past
from .shell_commands import Script

#: What escalation takes off the end of a lead, when time is plenty (s).
_ESCALATION = FORCED_EXIT_GAP + Settings([]).term_grace + REQUEUE_GAP
#: A shorter lead leaves too little for a step and a save, unless past attempts show that it does not (s).
#: A guess.
_SHORTEST_LEAD = 60
#: The largest script that sbatch takes: SchedulerParameters=max_script_size (bytes).
_LARGEST = 4 << 20
#: How much of a script is looked at (bytes): a guess.
_READ = 1 << 20
#: So many findings are shown, and of each so many letters: more than anybody reads. Guesses.
_MOST, _LONGEST = 100, 500
#: In a log's name the number of the restart, or the SLUID, which a requeue changes; unless the `%` is itself one that
#: is kept. Seen on 26.05; on 24.11 they stay as they are.
_OF_AN_ATTEMPT, _ATTEMPT_SINCE = re.compile(r"(?<!%)(?:%%)*%\d*[rS]"), (26, 5)
#: No path is longer (bytes): PATH_MAX.
_LONGEST_PATH = 4096
_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "ash", "busybox"})
#: Variables that sbatch reads before a script's own lines (sbatch(1), "Input environment variables").
_VARIABLES = {
    "SBATCH_SIGNAL": "signal",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_NO_REQUEUE": "no-requeue",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_OUTPUT": "output",
    "SBATCH_ERROR": "error",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_JOB_NAME": "job-name",
}
#: Variables of the job that srun reads, and the options that they come from.
_OF_STEPS = {
    "ntasks": "SLURM_NTASKS",
    "nodes": "SLURM_JOB_NUM_NODES",
    "ntasks-per-node": "SLURM_NTASKS_PER_NODE",
    "container": "SLURM_CONTAINER",
}


class Subject:
    """A script to be looked at, read once for all who look.

    Args:
        content: all of it.
        name: what a user calls it.

    Raises:
        Trouble: it is no script.
    """

    def __init__(self, content: bytes, name: str = "this") -> None:
        if b"\0" in content:
            raise Trouble(f"{name} is no script: it holds NUL bytes", "sbatch takes a text that begins with #!")
        self.content = content
        self.script = BatchScript(content[:_READ].decode("utf-8", "surrogateescape").replace("\r\n", "\n"))

    @functools.cached_property
    def shell(self) -> Script:
        """What a shell would run of it."""
        return shell_commands.read(self.script.text)

    @property
    def launched(self) -> tuple[str, ...]:
        """The command that it gives kforge-run, without options and numbers; empty: none that can be seen."""
        words = command_findings.launched(self.shell.commands)
        return tuple(word for word in words if not word.startswith("-") and not word.isdecimal())


def job_options(
    script: BatchScript, environment: Mapping[str, str], given: Sequence[Option], version: str = ""
) -> dict[str, Directive]:
    """Return the options that the job will have, and their lines: 0 for what does not come from the script.

    sbatch's command line counts most, then its variables, then the script.

    Args:
        script: which one.
        environment: of sbatch.
        given: on its command line.
        version: of Slurm; empty: not known.
    """
    directives = script.directives(version)[0]
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
    subject: Subject,
    *,
    cluster: Cluster | None = None,
    past: Past | None = None,
    environment: Mapping[str, str] | None = None,
    given: Sequence[Option] = (),
) -> list[Finding]:
    """Return what in a script would lose a run, in the order of the lines.

    Args:
        subject: the script.
        cluster: where it will run; None: not known.
        past: what earlier attempts have shown; None: nothing.
        environment: of the sbatch that will submit it.
        given: options that sbatch will be given besides.
    """
    script = subject.script
    version = "" if cluster is None else cluster.version
    options = job_options(script, environment or {}, given, version)
    namesake = past if past is not None and not past.same_command else None
    past = None if namesake is not None else past
    sources: list[Iterator[Finding]] = [
        _of_a_namesake(options, namesake),
        _of_the_file(subject.content, script),
        _of_directives(script, version),
        _of_the_lead(options, cluster, past),
        _of_the_requeue(options, cluster),
        _of_the_log(options, cluster),
    ]
    if script.interpreter in _SHELLS:
        needed = _lead_of(options) if past is None else past.stop
        kills = cluster is not None and cluster.kills_on_bad_exit
        of_steps = {
            variable: options[name].option.value or "" for name, variable in _OF_STEPS.items() if name in options
        }
        around = Around(environment or {}, needed, kills, of_steps)
        sources.append(command_findings.find(subject.shell, around))
    else:
        sources.append(_of_the_interpreter(script))
    findings: list[Finding] = []
    for source in sources:
        findings += itertools.islice(source, _MOST)
        if next(source, None) is not None:
            what = f"cannot tell what else there is: only the first {_MOST} findings of a kind are shown"
            findings.append(Finding(0, False, what, "look again when these are cured", is_unclear=True))
    return sorted(map(_shortened, findings), key=lambda finding: (finding.line, not finding.loses))


def _shortened(finding: Finding) -> Finding:
    """Return a finding that can be read, whatever it quotes."""
    what, cure = (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in (finding.what, finding.cure))
    return finding._replace(what=what, cure=cure)


# --- the file ----------------------------------------------------------------------------------


def _of_the_file(content: bytes, script: BatchScript) -> Iterator[Finding]:
    if b"\r\n" in content:
        yield Finding(1, True, "its lines end as on Windows, which sbatch refuses", "sed -i 's/\\r$//' SCRIPT")
    if len(content) > _LARGEST:
        size = f"{len(content) / (1 << 20):.0f} MB"
        yield Finding(1, True, f"it has {size}, and sbatch takes 4 MB", "read the data from a file of its own")
    if len(content) > _READ:
        what = "cannot tell what the script does behind its first MB"
        yield Finding(1, False, what, "a short script that runs another one", is_unclear=True)
    if not script.lines[0].startswith("#!"):
        yield Finding(1, True, "sbatch refuses a script that does not begin with #!", "#!/bin/bash")


def _of_the_interpreter(script: BatchScript) -> Iterator[Finding]:
    cure = f"a shell script with: exec kforge-run {script.interpreter} …"
    if script.interpreter and "kempnerforge.launcher" in script.text:
        what = f"cannot tell whether {script.interpreter} becomes kforge-run"
        yield Finding(1, False, what, cure, is_unclear=True)
    elif script.interpreter:
        what = f"{script.interpreter} is the batch process, not kforge-run, and dies of the notice"
        yield Finding(1, True, what, cure)


def _of_directives(script: BatchScript, version: str) -> Iterator[Finding]:
    for bad in script.directives(version)[1]:
        if bad.text in ("'hetjob' is no option", "'packjob' is no option"):
            continue  # the next component of a heterogeneous job
        if not bad.stops:
            what = f"cannot tell what sbatch reads from here on: {bad.text}"
            yield Finding(bad.line, False, what, "fewer and shorter #SBATCH lines", is_unclear=True)
            continue
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
    if (why := sbatch_options.why_no_notice(option.value or "")) is not None:
        yield Finding(line, not lead.is_term, why, f"#SBATCH --signal=B:USR1@{lead.seconds}")
    yield from _of_seconds(line, lead, options, past, cure)


def _lead_of(options: Mapping[str, Directive]) -> float:
    """Return how long before the time limit the notice comes (s), 0 if it does not."""
    try:
        return sbatch_options.lead(options["signal"].option.value or "").seconds if "signal" in options else 0
    except Trouble:
        return 0


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


def _of_a_namesake(options: Mapping[str, Directive], past: Past | None) -> Iterator[Finding]:
    if past is not None and "signal" in options and _lead_of(options) < past.stop + _ESCALATION:
        what = f"job {past.job}, which had the same name but ran something else, took {past.stop:.0f} s to stop"
        cure = f"if this one will, too: #SBATCH --signal=B:USR1@{recommended_lead(past.stop)}"
        yield Finding(options["signal"].line, False, what, cure)


def _of_the_requeue(options: Mapping[str, Directive], cluster: Cluster | None) -> Iterator[Finding]:
    if "no-requeue" in options:
        what = "--no-requeue: Slurm refuses to start this job again"
        yield Finding(options["no-requeue"].line, True, what, "#SBATCH --requeue")
    elif "requeue" not in options:
        site = "" if cluster is None else f" (JobRequeue={int(cluster.requeues)} here)"
        what = f"no --requeue: whether the job may start again is left to the cluster{site}"
        yield Finding(0, True, what, "#SBATCH --requeue")
    elif options["requeue"].option.value == "expedite":
        what = "--requeue=expedite: after every exit status but 0 Slurm requeues the job, and holds it as a rule"
        yield Finding(options["requeue"].line, False, what, "scontrol release JOB, or #SBATCH --requeue")


def _of_the_log(options: Mapping[str, Directive], cluster: Cluster | None) -> Iterator[Finding]:
    mode = options.get("open-mode")
    cure = "#SBATCH --open-mode=append"
    if mode is not None and not "append".startswith((mode.option.value or "x").lower()):
        yield Finding(mode.line, True, "each attempt empties the log, with all that tells why the last one ended", cure)
    elif mode is None and not (
        cluster is not None and (cluster.appends or _each_attempt_has_its_own(options, cluster))
    ):
        yield Finding(0, False, "no --open-mode: each attempt empties the log of the one before", cure)
    for name in ("output", "error"):
        if name in options:
            yield from _of_a_log(options[name], options, _knows_attempts(cluster))


def _each_attempt_has_its_own(options: Mapping[str, Directive], cluster: Cluster) -> bool:
    """Return whether the logs' names change with each attempt."""
    paths = [options[name].option.value or "" for name in ("output", "error") if name in options]
    return _knows_attempts(cluster) and bool(paths) and all(_OF_AN_ATTEMPT.search(path) for path in paths)


def _knows_attempts(cluster: Cluster | None) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", "" if cluster is None else cluster.version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _ATTEMPT_SINCE


def _of_a_log(log: Directive, options: Mapping[str, Directive], knows_attempts: bool) -> Iterator[Finding]:
    path = log.option.value or ""
    if len(path) > _LONGEST_PATH:
        yield Finding(log.line, True, "no path is as long as that of the log", "a shorter one, like %x-%j.log")
        return
    if (
        "array" in options
        and not re.search(r"%\d*[ajS]" if knows_attempts else r"%\d*[aj]", path)
        and path != os.devnull
    ):
        yield Finding(log.line, False, "all tasks of the array write into one log", f"--{log.option.name}=%x-%A_%a.log")
    start = options["chdir"].option.value or "" if "chdir" in options else ""
    name = options["job-name"].option.value or "" if "job-name" in options else "%x"
    place = os.path.join(start, path.replace("%x", name))
    folder = os.path.dirname(place)
    if re.search(r"%\d*[jAaJsNtnrS]" if knows_attempts else r"%\d*[jAaJsNtn]", folder):
        what = f"the folder {folder} cannot be there yet, and without it the job fails before it starts"
        yield Finding(log.line, True, what, "numbers in the name of the file only, like logs/%x-%j.log")
    elif folder and "%" not in folder and not os.path.isdir(folder):
        what = f"there is no folder {folder}, and without it the job fails before it starts"
        yield Finding(log.line, True, what, f"mkdir -p {shlex.quote(folder)}")
    elif "%" not in place and os.path.isdir(place):
        yield Finding(log.line, True, f"{place} is a folder, and no log", f"--{log.option.name}={path}/%x-%j.log")
