"""The start of an attempt: find out where we are, make what the child needs, start it, and only then do the rest."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from .. import __about__
from ..bootstrap import contract
from . import child, inject, libc, place, reaping, slurm, surroundings
from .armed import ArmedProcesses
from .control import Control
from .journal import Journal, default_folder
from .output import Log
from .policy import tables, words
from .policy.machine import Policy
from .private_folder import PrivateFolder, parents
from .report import Report
from .settings import Settings
from .signals import CapturedSignals, Received

if TYPE_CHECKING:
    from .early_notice import EarlyNotice
    from .outer import Outer

_NO_FOLDER = "no private folder: processes cannot register, signals are passed on"
#: How long the facts may keep an srun from starting (s): its environment is fixed then.
_FACTS_FIRST = 2.0


class FirstFacts(NamedTuple):
    """What came before the child was there."""

    signals: list[Received]
    answers: list[slurm.Answer]

    @property
    def job(self) -> words.Job | None:
        return next((answer.job for answer in self.answers if isinstance(answer, words.JobRead)), None)

    @property
    def site(self) -> slurm.SiteFacts:
        known = (answer for answer in self.answers if isinstance(answer, slurm.SiteFacts))
        return next(known, slurm.SiteFacts(words.Site(), False))


class Meeting(NamedTuple):
    """Where kforge-run and the processes below it meet; without a private folder they do not, and the run goes on."""

    folder: PrivateFolder | None = None
    control: Control | None = None
    #: What PYTHONPATH leads to; None: nothing is injected.
    site: str | None = None
    #: None: nothing is injected.
    armed: ArmedProcesses | None = None

    def close(self) -> None:
        for part in (self.control, self.armed):
            if part is not None:
                part.close()
        if self.folder is not None:
            self.folder.remove()


class Attempt(NamedTuple):
    """Everything that the loop works with."""

    settings: Settings
    #: pids of our own children that are no part of the run.
    helpers: set[int]
    where: place.Whereabouts
    child: child.Child
    #: The child is in our process group, and gets what the terminal sends.
    in_our_group: bool
    #: None: not a batch process, so Slurm is not asked.
    controller: slurm.Controller | None
    #: None: nobody should listen for us, or the tasks of the command, an srun, are told themselves.
    early_notice: EarlyNotice | None
    meeting: Meeting
    #: None: no kforge-run above this one can be reached.
    outer: Outer | None
    report: Report
    policy: Policy
    first_facts: FirstFacts


class AlreadyDone(NamedTuple):
    """The run has completed in an earlier attempt: nothing was started."""

    status: int


def start(
    settings: Settings, environment: Mapping[str, str], poller: select.poll, signals: CapturedSignals
) -> Attempt | AlreadyDone:
    """Start the command, unless the run is done.

    Args:
        poller: gets every descriptor that the loop has to wait for.
        signals: what comes before the child is there is kept for it.

    Raises:
        child.CannotExecute: the command is not there or not executable.
        OSError: no process could be started.
    """
    libc.become_child_subreaper()
    where = place.find(environment)
    verbosity = "brief" if where.outer is not None and settings.verbosity == "normal" else settings.verbosity
    helpers: set[int] = set()
    log = Log(verbosity, poller, helpers, f"task {where.task}" if where.task else "")
    controller = _ask(where, environment, poller, helpers)
    is_srun = os.path.basename(settings.command[0]) == "srun"
    facts = FirstFacts([], [])
    report: Report | None = None
    history: words.History = ()
    if controller is not None and environment.get("SLURM_RESTART_COUNT", "0") != "0":
        report = _begin_report(settings, environment, where, poller, helpers, log)
        history = report.wait_for_history(_FACTS_FIRST)
    if controller is not None and (is_srun or tables.may_be_done(history)):
        facts = _wait_for_facts(controller, poller, signals, report)
    if controller is not None and report is not None and facts.job is not None and tables.is_done(history, facts.job):
        controller.close()
        ended = _end_at_once(facts.job, report)
        reaping.reap_all()
        return ended
    # Of an srun deeper below, only what the environment says is known in time.
    command = settings.command if is_srun else []
    kills = slurm.kills_on_bad_exit(command, environment, facts.site.kill_on_bad_exit)
    job_facts = None
    if where.place == "batch":
        end = None if facts.job is None else facts.job.end
        job_facts = place.facts_to_hand_down(where.job_id, end, facts.site.site, kills)
    in_our_group = child.shares_our_terminal()
    try:
        started, meeting = _spawn(settings, environment, not in_our_group, job_facts, poller, helpers, log)
    except BaseException:
        if controller is not None:
            controller.close()
        (report or Report(log, None)).close()
        reaping.reap_all()
        raise
    # The child runs: from here on everything may take its time.
    report = report or _begin_report(settings, environment, where, poller, helpers, log)
    rules = words.Rules(
        place=where.place,
        requeue=settings.requeue,
        max_requeues=settings.max_requeues,
        retry_failures=settings.retry_failures,
        timeout=settings.timeout,
        term_grace=settings.term_grace,
        child_is_srun=is_srun,
        kill_on_bad_exit=where.outer.kill_on_bad_exit if where.outer else kills,
        has_outer=where.outer is not None,
        job_id=slurm.requeue_id_by_environment(environment),
    )
    site, end = (where.outer.site, where.outer.end) if where.outer else (facts.site.site, None)
    if end is None and where.place != "outside":
        now = time.monotonic()
        end = slurm.end_by_environment(environment, time.time() - now, now)
    policy = Policy(rules, site, end)
    early_notice = None
    if controller is not None and settings.early_notice and not is_srun:
        from .early_notice import EarlyNotice  # only a batch process pays for it

        early_notice = EarlyNotice(where.job_id, environment, poller, helpers)
    attempt = Attempt(
        settings,
        helpers,
        where,
        started,
        in_our_group,
        controller,
        early_notice,
        meeting,
        _register_above(where),
        report,
        policy,
        facts,
    )
    _tell(attempt, environment)
    return attempt


def _spawn(
    settings: Settings,
    environment: Mapping[str, str],
    own_group: bool,
    job_facts: str | None,
    poller: select.poll,
    helpers: set[int],
    log: Log,
) -> tuple[child.Child, Meeting]:
    """Start the command where it and what is below it will meet us.

    Raises:
        child.CannotExecute: it is not there or not executable.
        OSError: no process could be started.
    """
    inject.protect_compiled_code()
    meeting = _open_meeting(settings.embed, environment, poller, helpers, log)
    while True:
        try:
            started = child.spawn(
                settings.command,
                inject.child_environment(environment, meeting.folder, meeting.site, job_facts),
                own_group=own_group,
                death_signal=signal.SIGTERM,
                umask=settings.umask,
            )
        except BaseException as error:
            meeting.close()
            if meeting.folder is None or not isinstance(error, OSError) or error.errno != errno.EMFILE:
                raise
            # The run comes first: without a private folder there are descriptors enough.
            log.say("warning", f"{_NO_FOLDER} ({error.strerror})")
            meeting = Meeting()
        else:
            return started, meeting


def _open_meeting(
    embed: bool, environment: Mapping[str, str], poller: select.poll, helpers: set[int], log: Log
) -> Meeting:
    """Make the private folder, with all that belongs into it, in the first place where that works."""
    site = _find_site(environment, log) if embed else None
    failure = OSError("there is no place for it")
    for parent in parents(environment):
        try:
            folder = PrivateFolder(parent, poller, helpers)
        except OSError as error:
            failure = error
            continue
        meeting = Meeting(folder)
        try:
            if site is not None:
                inject.install_bootstrap(folder)
            meeting = Meeting(folder, Control(folder.fd, poller))
            return meeting if site is None else meeting._replace(site=site, armed=ArmedProcesses(folder.fd, poller))
        except OSError as error:
            failure = error
            meeting.close()
    log.say("warning", f"{_NO_FOLDER} ({failure})")
    return Meeting()


def _find_site(environment: Mapping[str, str], log: Log) -> str | None:
    try:
        return inject.find_site(environment)
    except OSError as error:
        cure = "install kforge-run where nobody else can write"
        log.say("warning", f"nothing is injected, a notice gets to programs as a signal: {error.strerror} ({cure})")
        return None


def _ask(
    where: place.Whereabouts, environment: Mapping[str, str], poller: select.poll, helpers: set[int]
) -> slurm.Controller | None:
    """Have the job's facts asked for, if it is ours to ask."""
    if where.place != "batch":
        return None
    partition = environment.get("SLURM_JOB_PARTITION", "")
    controller = slurm.Controller(where.job_id, partition, environment, poller, helpers)
    controller.ask_job()
    controller.ask_site()
    return controller


def _wait_for_facts(
    controller: slurm.Controller, poller: select.poll, signals: CapturedSignals, report: Report | None
) -> FirstFacts:
    facts = FirstFacts([], [])
    until = time.monotonic() + _FACTS_FIRST
    facts.answers.extend(controller.start_next(time.monotonic()))
    while controller.busy and (left := until - time.monotonic()) > 0:
        poller.poll(left * 1000)
        controller.read()
        facts.signals.extend(one for one in signals.read() if one.signum != signal.SIGCHLD)
        writers = [] if report is None else report.writers()
        for pid in reaping.ended_children():
            if not any(writer.ended(pid) for writer in writers):
                facts.answers.extend(controller.ended(pid))
        facts.answers.extend(controller.start_next(time.monotonic()))
    return facts


def _end_at_once(job: words.Job, report: Report) -> AlreadyDone:
    """Carry out what the policy says of a run that is done."""
    status = 0
    for action in Policy(words.Rules(place="batch")).already_done(job, time.monotonic()):
        if isinstance(action, words.Say):
            report.say(action.level, action.text)
        elif isinstance(action, words.Record):
            report.record(action.event, action.fields)
        elif isinstance(action, words.Exit):
            status = action.status
    report.close()
    return AlreadyDone(status)


def _begin_report(
    settings: Settings,
    environment: Mapping[str, str],
    where: place.Whereabouts,
    poller: select.poll,
    helpers: set[int],
    log: Log,
) -> Report:
    """Open the journal, and record what is to be run."""
    journal = None
    if settings.journal is not None or where.place != "outside":
        journal = _journal(settings, environment, where, poller, helpers)
        log.say("detail", f"journal: {journal.path}, which only you can read (0600)")
    report = Report(log, journal)
    report.record(
        "start",
        {
            "command": settings.command if settings.command_in_journal else settings.command[:1],
            "version": __about__.__version__,
            "place": where.place,
            "name": environment.get("SLURM_JOB_NAME", ""),
            "array_task": slurm.array_task(environment),
            "node": contract.node_name(),
        },
    )
    return report


def _journal(
    settings: Settings,
    environment: Mapping[str, str],
    where: place.Whereabouts,
    poller: select.poll,
    helpers: set[int],
) -> Journal:
    """Return the journal: one file per job, and one per task of a step."""
    folder = settings.journal or default_folder(environment)
    cluster = environment.get("SLURM_CLUSTER_NAME", "slurm")
    name = f"{cluster}-{where.job_id}" if where.job_id else f"local-{time.time():.0f}-{os.getpid()}"
    if where.place == "step":
        name += f".{environment.get('SLURM_STEP_ID', 'x')}.{where.task}"
    common = {"job": where.job_id, "attempt": f"{time.time():.0f}-{os.getpid()}"}
    return Journal(folder, name.replace("/", "_") + ".jsonl", common, poller, helpers)


def _register_above(where: place.Whereabouts) -> Outer | None:
    if where.outer is None:
        return None
    from .outer import Outer

    try:
        return Outer()
    except OSError:
        return None  # it is on another node, where srun hands its signals on


def _tell(attempt: Attempt, environment: Mapping[str, str]) -> None:
    """Say what was started, and what around it would lose the run."""
    report, where, command = attempt.report, attempt.where, attempt.settings.command
    report.say("detail", f"started {command[0]} (pid {attempt.child.pid}), {where.place}")
    report.warn(where.trouble)
    report.warn(surroundings.deaf_srun_warning(command))
    if where.place == "batch" and (warning := surroundings.batch_shell_warning(environment.get("SLURM_TASK_PID", ""))):
        report.warn(warning)
        # When that process ends, the job does. Nothing else would tell us.
        libc.set_parent_death_signal(signal.SIGTERM)
