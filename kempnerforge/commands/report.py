"""`kforge report`: what happened to a run, over all its attempts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from ..launcher.policy.tables import RUNNING_STATES
from ..launcher.telling.journal import default_folder
from . import files, job_state, journals, slurm_commands
from .journals import Journal
from .screen import echo, echo_json, paint
from .timeline import answer, page, story, text, wording
from .timeline.story import Story
from .trouble import Trouble

#: Lines longer than this are hard to read, however wide the terminal is (columns): a guess.
_WIDEST = 120
#: Of so many tasks the journals are read for what the job's own does not know: a guess, as are the next ones.
_MOST_TASKS = 512
#: Of all journals together so much is read, of each its share (bytes); and no more journals than these.
_MOST_IN_ALL, _LEAST = 2 * journals.MOST, 1 << 16
_MOST_JOURNALS = 4096

#: Of the latest jobs a shell offers so many to choose from.
_MOST_OFFERED = 200

_EPILOG = """\b
Examples:
  kforge report                           the latest jobs
  kforge report 4242                      one job, attempt by attempt
  kforge report 4242_7                    a task of an array
  kforge report 4242 --html report.html   the same as a page with a timeline
  kforge report 4242 --json | jq '.jobs[0].totals'
"""


def _complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the jobs that the shell may offer, latest first."""
    folder = ctx.params.get("folder") or os.environ.get("KFORGE_JOURNAL") or default_folder(os.environ)
    try:
        latest = journals.latest(folder, _MOST_OFFERED)
    except Trouble:
        return []  # a shell that completes a line is no place to say why
    return [label for label in map(journals.label_of, latest) if label.startswith(incomplete)]


@click.command(epilog=_EPILOG)
@click.argument("job", required=False, shell_complete=_complete_job)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, times in epoch seconds.")
@click.option("--html", "page_file", metavar="FILE", help="Write one self-contained page, with a timeline chart.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option("--all", "everything", is_flag=True, help="Show all attempts, however many.")
@click.option("--tasks", "with_tasks", is_flag=True, help="Show the tasks of the job's steps, too.")
@click.option(
    "-n", "--latest", type=click.IntRange(1), default=20, show_default=True, help="Without JOB: so many jobs."
)
@click.option("--journal", "folder", metavar="DIR", envvar="KFORGE_JOURNAL", help="Folder of the journals.")
def report(
    job: str | None,
    as_json: bool,
    page_file: str | None,
    force: bool,
    everything: bool,
    with_tasks: bool,
    latest: int,
    folder: str | None,
) -> None:
    """Tell what happened: all attempts, why each ended.

    JOB is a job's number, an array's, one of its tasks (ARRAY_TASK), or a journal's file. Without it the latest jobs
    are shown.
    """
    place = folder or default_folder(os.environ)
    told = _latest(place, latest, with_tasks) if job is None else _of_job(place, job, with_tasks)
    if page_file is not None:
        content = page.render(told.jobs, told.tasks, time.time())
        # It holds command lines, which are nobody else's business until the user says so.
        files.write_new(page_file, content.encode("utf-8", "backslashreplace"), force=force, mode=0o600)
        echo(f"written: {os.path.abspath(page_file)}", err=True)
    if as_json:
        echo_json(answer.answer(told.jobs, told.tasks))
    elif page_file is None:
        _print(told, place, one_by_one=job is not None, everything=everything)


class Told(NamedTuple):
    """What there is to show."""

    jobs: list[Story]
    #: Of some of the jobs, by their place in `jobs`.
    tasks: dict[int, list[Story]]
    #: How many journals of tasks there are that the user did not ask for.
    untold: int


# --- gathering -----------------------------------------------------------------------------------


def _latest(folder: str, most: int, with_tasks: bool) -> Told:
    own = _read_what_can_be(journals.latest(folder, most, _left_out))
    tasks = journals.tasks_beside(folder, own) if with_tasks else []
    return _tell(own, _read_what_can_be(tasks), 0)


def _of_job(folder: str, job: str, with_tasks: bool) -> Told:
    paths = journals.find(folder, job, _left_out)
    if not paths:
        raise _no_journal(folder, job)
    tasks = [path for path in paths if journals.task_of(path)]
    # Where no kforge-run was around the steps, a task has to stand for the job.
    own = [path for path in paths if not journals.task_of(path)] or tasks[:1]
    below = _read_what_can_be(tasks) if with_tasks or len(tasks) <= _MOST_TASKS else []
    of_jobs = sorted(_read_what_can_be(own) if len(own) > 1 else [journals.read(own[0])], key=_by_array_task)
    by_job: dict[str, list[Journal]] = {}
    for task in below:
        by_job.setdefault(task.job, []).append(task)
    whole = [journals.with_tasks(one, by_job.get(one.job, ())) for one in of_jobs]
    told = _tell(whole, below if with_tasks else [], 0 if with_tasks else len(tasks))
    if not told.jobs:
        raise Trouble(f"{own[0]} tells of no attempt: it is empty, or no journal of kforge-run")
    return told


def _by_array_task(journal: Journal) -> tuple[int, ...]:
    """Sort an array's tasks by their numbers: those of their jobs are in another order."""
    name = journal.attempts[-1].array_task if journal.attempts else ""
    return tuple(int(part) for part in name.split("_") if part.isdecimal())


def _no_journal(folder: str, job: str) -> Trouble:
    problem = f"no journal of job {job} in {folder}"
    told = job_state.without_journal(job)
    if told is None:
        return Trouble(problem, "kforge report shows the jobs that have one; --journal DIR looks elsewhere")
    state, log = told
    if slurm_commands.could_not_be_launched(state.partition("(")[2]):
        return Trouble(f"{problem}: Slurm says {state}", f"it could not be started; then: scontrol release {job}")
    if state.startswith(("PENDING", "CONFIGURING")):
        return Trouble(f"{problem}: Slurm says {state}", "it has not started yet")
    return Trouble(f"{problem}: Slurm says {state}", f"kforge-run did not start anything; the log is {log}")


def _read_what_can_be(paths: Sequence[Path]) -> list[Journal]:
    if len(paths) > _MOST_JOURNALS:
        _left_out(f"{len(paths) - _MOST_JOURNALS:,} of {len(paths):,} journals: there are too many")
        paths = paths[:_MOST_JOURNALS]
    share = min(journals.MOST, max(_MOST_IN_ALL // max(len(paths), 1), _LEAST))
    found = []
    for path in paths:
        try:
            found.append(journals.read(path, share))
        except Trouble as trouble:
            _left_out(str(trouble))
    return found


def _left_out(what: str) -> None:
    echo(f"left out: {what}", err=True)


def _tell(own: Sequence[Journal], tasks: Sequence[Journal], untold: int) -> Told:
    now = time.time()
    states = job_state.states(journal for journal in own if story.may_go_on(journal))
    beside: dict[tuple[str, str], list[Journal]] = {}
    for task in tasks:
        beside.setdefault((task.cluster, task.job), []).append(task)
    jobs: list[Story] = []
    by_job: dict[int, list[Story]] = {}
    for journal in own:
        told = story.tell(journal, now, states.get(journal.job))
        if told is None:
            _left_out(f"{journal.path} tells of no attempt")
            continue
        # That the job runs does not tell whether this task does.
        state = None if told.slurm_state in RUNNING_STATES else told.slurm_state
        below = [
            below
            for task in beside.get((journal.cluster, journal.job), ())
            if (below := story.tell(task, now, state)) is not None
        ]
        if below:
            by_job[len(jobs)] = below
        jobs.append(told)
    return Told(jobs, by_job, untold)


# --- printing ------------------------------------------------------------------------------------


def _print(told: Told, folder: str, *, one_by_one: bool, everything: bool) -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    if not told.jobs:
        echo(f"no journals in {folder}")
        echo("hint: kforge-run keeps one for each job in Slurm, and elsewhere with --journal DIR")
        return
    lines: list[str] = []
    if not one_by_one:
        lines += text.jobs(told.jobs, width, _paint)
    for index, job in enumerate(told.jobs):
        if one_by_one:
            lines += [""] if index else []
            lines += text.job(job, width, _paint, everything=everything)
        if index in told.tasks:
            lines += ["", *text.tasks(told.tasks[index], width, _paint)]
    if told.untold:
        tasks = wording.plural(told.untold, "task")
        lines.append(f"{tasks} of its steps wrote journals, too (--tasks shows them)")
    # In one piece: ten thousand attempts are as many lines.
    echo("\n".join(lines))


def _paint(content: str, style: str) -> str:
    if os.environ.get("NO_COLOR"):
        return content
    return paint(content, style)
