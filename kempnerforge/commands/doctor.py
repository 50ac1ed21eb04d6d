"""`kforge doctor`: what each event would mean for a job here, and what in a batch script would lose a run."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..launcher.policy.words import CHECKPOINTED_STATUS
from ..launcher.telling.journal import default_folder
from . import files, journals, sbatch_arguments, slurm_commands
from .batch.sbatch_options import Option
from .diagnosis import cluster as clusters
from .diagnosis import findings
from .diagnosis.cluster import Cluster, Event, Partition
from .diagnosis.finding import Finding, Past
from .diagnosis.findings import Subject
from .sbatch_arguments import Given, SbatchOptionsCommand
from .screen import echo, echo_json, paint
from .trouble import FOUND, UNCLEAR, Trouble

#: The lead of the three lines (s), as in the README.
_USUAL_LEAD = 120
#: How many journals are looked through for earlier attempts of a job of the same name: a folder may hold thousands.
#: A guess.
_JOURNALS = 100
#: Of each its end: dozens of attempts (bytes). A guess.
_OF_EACH = 1 << 17
#: Larger than any script that sbatch takes (bytes).
_MOST = 16 << 20

_WIDTH, _INDENT = 80, "    "
_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}

_EPILOG = f"""\b
Examples:
  kforge doctor
  kforge doctor job.sbatch
  kforge doctor job.sbatch && sbatch job.sbatch
  kforge doctor job.sbatch --signal=B:USR1@300

Options of sbatch can be given as sbatch will be given them.

A script is safe if the shell surely comes to its last line, exec kforge-run …: no condition, loop, function or string
is around that, and nothing that may end the shell is before it.

\b
Exit status:
  0  nothing would lose a run
  {FOUND}  something would lose a run
  {UNCLEAR}  cannot tell; nothing else would lose a run
"""


@click.command(cls=SbatchOptionsCommand, epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--journal", type=click.Path(), metavar="DIR", envvar="KFORGE_JOURNAL", help="Folder of the journals.")
@sbatch_arguments.words_argument("[SCRIPT]", sbatch_arguments.complete_file)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, journal: str | None, words: list[str]) -> int:
    """Find what would lose a run, on this cluster or in a script.

    Of the batch script SCRIPT it says what, on which line, and the cure. Without SCRIPT: what each event would mean for
    a job on this cluster.
    """
    sbatch_arguments.check_known(Given.of(ctx))
    given = Given.of(ctx).options
    if len(words) > 1:
        raise Trouble(f"{words[1]!r} is too much", "one script at a time, and values as --key=value")
    if not words:
        _show_cluster(_wanted(clusters.read(), given), as_json=as_json)
        return 0
    script = words[0]
    subject = Subject(_read(script), script)
    cluster, unknown = _cluster_if_any()
    past = _past(script, subject, given, journal or default_folder(os.environ))
    found = findings.find(subject, cluster=cluster, past=past, environment=os.environ, given=given)
    if as_json:
        echo_json({"script": script, "findings": [finding._asdict() for finding in found]})
    else:
        _show_findings(script, found, unknown)
    if any(finding.loses for finding in found):
        return FOUND
    return UNCLEAR if any(finding.is_unclear for finding in found) else 0


# --- a script ------------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            raise Trouble(f"{path} is no file" if os.path.exists(path) else f"there is no file {path}")
        with files.open_to_read(path) as file:
            return file.read(_MOST) or b""
    except OSError as error:
        raise Trouble(f"cannot read {path}: {error.strerror}") from None


def _cluster_if_any() -> tuple[Cluster | None, str]:
    """Return the cluster, and why it is not known."""
    if not slurm_commands.have("scontrol"):
        return None, "there is no Slurm here"
    try:
        return clusters.read(), ""
    except Trouble as trouble:
        return None, str(trouble)


def _past(script: str, subject: Subject, given: list[Option], folder: str) -> Past | None:
    """Return what the slowest of the earlier attempts of a job of this name has shown; None: there are none."""
    options = findings.job_options(subject.script, os.environ, given)
    name = options["job-name"].option.value if "job-name" in options else os.path.basename(script)
    slowest: Past | None = None
    for path in _latest_journals(folder):
        for attempt in _attempts(path):
            if attempt.name != name or attempt.place != "batch" or attempt.notice is None:
                continue
            was_killed = attempt.outcome == "forced"
            end = attempt.exit_time if attempt.shutdown is None else attempt.notice.time + attempt.shutdown
            if end is not None and (slowest is None or end - attempt.notice.time > slowest.stop):
                same = _may_be_the_same(subject.launched, attempt.command)
                slowest = Past(attempt.job, end - attempt.notice.time, was_killed, same)
    return slowest


def _latest_journals(folder: str) -> list[Path]:
    try:
        return journals.latest(folder, _JOURNALS)
    except Trouble:
        return []


def _may_be_the_same(words: Sequence[str], command: Sequence[str]) -> bool:
    """Return whether a command may be what these words of a script became: expansions can be anything."""
    return {word for word in words if "$" not in word and "`" not in word} <= set(command)


def _attempts(path: Path) -> tuple[journals.Attempt, ...]:
    try:
        return journals.read(path, _OF_EACH).attempts
    except Trouble:
        return ()  # a journal that cannot be read tells nothing


def _show_findings(script: str, found: list[Finding], unknown: str) -> None:
    for finding in found:
        where = f"{script}:{finding.line}" if finding.line else script
        weight = "would lose a run: " if finding.loses else "" if finding.is_unclear else "good to know: "
        said = f"{where}: {weight}{finding.what}"
        text = textwrap.fill(said, _WIDTH, subsequent_indent=_INDENT, **_WHOLE_WORDS)
        marked = weight.removesuffix(": ") or "cannot tell"
        echo(text.replace(marked, paint(marked, "red" if finding.loses else "yellow"), 1))
        echo(f"{_INDENT}cure: {finding.cure}".replace("\n", f"\n{_INDENT * 2}"))
    count = sum(finding.loses for finding in found)
    if count:
        echo(f"\n{count} {'finding' if count == 1 else 'findings'} would lose a run")
    elif any(finding.is_unclear for finding in found):
        echo(f"\n{script}: cannot tell whether it would lose a run")
    else:
        echo(f"{script}: nothing found that would lose a run")
    if unknown:
        echo(f"looked at without the cluster's settings: {unknown}", err=True)


# --- a cluster -----------------------------------------------------------------------------------


def _wanted(cluster: Cluster, given: list[Option]) -> Cluster:
    """Return the cluster with the partitions that were asked for, if any were."""
    for option in given:
        if option.name != "partition":
            raise Trouble(f"{option} says nothing of a cluster", "name a script, or a --partition")
        names = (option.value or "").split(",")
        if missing := set(names) - {partition.name for partition in cluster.partitions}:
            known = ", ".join(partition.name for partition in cluster.partitions)
            raise Trouble(f"there is no partition {missing.pop()}", f"there are {known}")
        wanted = tuple(partition for partition in cluster.partitions if partition.name in names)
        cluster = cluster._replace(partitions=wanted)
    return cluster


def _show_cluster(cluster: Cluster, *, as_json: bool) -> None:
    if as_json:
        echo_json(_as_json(cluster))
        return
    echo(f"cluster {cluster.name}, Slurm {cluster.version}: what happens to a job with these lines\n")
    echo(f"    #SBATCH --signal=B:USR1@{_USUAL_LEAD}\n    #SBATCH --requeue\n    exec kforge-run python train.py\n")
    rows = [("in every partition", "notice", "killed", "back by")]
    rows += [_row(event) for event in clusters.events_everywhere(cluster, _USUAL_LEAD)]
    for partition in cluster.partitions:
        marks = "".join([" (default)" if partition.is_default else "", "" if partition.is_up else " (down)"])
        limits = _limits(partition)
        rows += [("", "", "", ""), (f"in partition {partition.name}{marks}", limits, "", "")]
        rows += [_row(event) for event in clusters.preemption_in(cluster, partition)] or [
            ("  never preempted", "", "", "")
        ]
    for row in rows:
        echo(f"{row[0]:<34}{row[1]:<23}{row[2]:<11}{row[3]}".rstrip())
    echo("")
    for remark in _remarks(cluster):
        echo(textwrap.fill(f"- {remark}", _WIDTH, subsequent_indent="  ", **_WHOLE_WORDS))


def _limits(partition: Partition) -> str:
    longest = "no time limit" if partition.longest == "UNLIMITED" else f"at most {partition.longest}"
    return longest if partition.usual == "NONE" else f"{longest}, {partition.usual} if none is asked"


def _row(event: Event) -> tuple[str, str, str, str]:
    until = "-" if event.seconds is None else f"+{event.seconds:.0f} s"
    return f"  {event.event}", event.notice, until, event.requeued_by or "nobody"


def _remarks(cluster: Cluster) -> list[str]:
    remarks = [
        f"A requeued job waits {cluster.requeue_wait:.0f} s or more before it starts again.",
        "Slurm may send the notice up to a minute early.",
    ]
    if not cluster.requeues:
        remarks.append("Without --requeue a job is not requeued here (JobRequeue=0).")
    if not cluster.appends:
        remarks.append("Without --open-mode=append each attempt empties the log (JobFileAppend=0).")
    if cluster.kills_on_bad_exit:
        remarks.append("srun kills all tasks when one ends with an error (KillOnBadExit=1).")
    if any(clusters.is_told_early(cluster, partition) for partition in cluster.partitions):
        remarks.append("SIGTERM at once: kforge-run listens by a small step, kforge-notice.")
    if cluster.preemption == "qos":
        remarks.append("Who is preempted, how and with what grace, is up to the QOS (sacctmgr show qos).")
    if cluster.requeue_exits:
        remarks.append(f"Slurm requeues by itself after these exit statuses: {cluster.requeue_exits}.")
    if cluster.checkpointed_status != CHECKPOINTED_STATUS:
        instead = f"{cluster.checkpointed_status} instead of {CHECKPOINTED_STATUS}"
        remarks.append(f"So kforge-run ends with {instead} when it has checkpointed and does not requeue.")
    times = f"After {cluster.most_requeues} requeues of its own (MaxBatchRequeue) Slurm holds a job"
    remarks.append(f"{times}; those by kforge-run do not count.")
    return remarks


def _as_json(cluster: Cluster) -> dict[str, Any]:
    return {
        **cluster._asdict(),
        "events": [event._asdict() for event in clusters.events_everywhere(cluster, _USUAL_LEAD)],
        "partitions": [_partition_as_json(cluster, partition) for partition in cluster.partitions],
    }


def _partition_as_json(cluster: Cluster, partition: Partition) -> dict[str, Any]:
    events = [event._asdict() for event in clusters.preemption_in(cluster, partition)]
    grace = None if math.isinf(partition.grace) else partition.grace
    return {**partition._asdict(), "grace": grace, "events": events}
