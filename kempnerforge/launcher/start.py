"""The start of an attempt: find out where we are, make what the child needs, start it, and only then do the rest."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from typing import NamedTuple

from .. import __about__
from ..bootstrap import contract
from . import child, inject, libc, place, reaping, slurm, surroundings
from .armed import ArmedProcesses
from .control import Control
from .journal import Journal, default_folder
from .outer import Outer
from .output import Log
from .policy import tables, words
from .policy.machine import Policy
from .private_folder import PrivateFolder, parents
from .report import Report
from .settings import Settings
from .signals import CapturedSignals, Received

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


class Attempt(NamedTuple):
    """Everything that the loop works with."""

    settings: Settings
    where: place.Whereabouts
    child: child.Child
    #: The child is in our process group, and gets what the terminal sends.
    in_our_group: bool
    #: None: not a batch process, so Slurm is not asked.
    controller: slurm.Controller | None
    #: None: there is no private folder.
    folder: PrivateFolder | None
    control: Control | None
    #: None: nothing is injected.
    armed: ArmedProcesses | None
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
    log = Log(verbosity, f"task {where.task}" if where.task else "")
    controller = _ask(where, environment, poller)
    is_srun = os.path.basename(settings.command[0]) == "srun"
    facts = FirstFacts([], [])
    report: Report | None = None
    history: words.History = ()
    if controller is not None and environment.get("SLURM_RESTART_COUNT", "0") != "0":
        report = _begin_report(settings, environment, where, log)
        history = report.wait_for_history(_FACTS_FIRST)
    if controller is not None and (is_srun or tables.may_be_done(history)):
        facts = _wait_for_facts(controller, poller, signals)
    if controller is not None and report is not None and facts.job is not None and tables.is_done(history, facts.job):
        controller.close()
        reaping.reap_all()
        return _end_at_once(facts.job, report)
    # Of an srun deeper below, only what the environment says is known in time.
    command = settings.command if is_srun else []
    kills = slurm.kills_on_bad_exit(command, environment, facts.site.kill_on_bad_exit)
    job_facts = None
    if where.place == "batch":
        end = None if facts.job is None else facts.job.end
        job_facts = place.facts_to_hand_down(where.job_id, end, facts.site.site, kills)
    folder, control, armed = _open_folder(settings.embed, environment, poller, log)
    in_our_group = child.shares_our_terminal()
    try:
        started = child.spawn(
            settings.command,
            inject.child_environment(environment, folder, armed is not None, job_facts),
            own_group=not in_our_group,
            death_signal=signal.SIGTERM,
        )
    except BaseException:
        if controller is not None:
            controller.close()
            reaping.reap_all()
        if folder is not None:
            folder.remove()
        raise
    # The child runs: from here on everything may take its time.
    report = report or _begin_report(settings, environment, where, log)
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
    policy = Policy(rules, site, end)
    attempt = Attempt(
        settings,
        where,
        started,
        in_our_group,
        controller,
        folder,
        control,
        armed,
        _register_above(where),
        report,
        policy,
        facts,
    )
    _tell(attempt, environment)
    return attempt


def _open_folder(
    embed: bool, environment: Mapping[str, str], poller: select.poll, log: Log
) -> tuple[PrivateFolder, Control, ArmedProcesses | None] | tuple[None, None, None]:
    """Make the private folder, with all that belongs into it, in the first place where that works."""
    failure = OSError()
    for parent in parents(environment):
        try:
            folder = PrivateFolder(parent)
        except OSError as error:
            failure = error
            continue
        try:
            if embed:
                inject.install_bootstrap(folder)
            control = Control(folder.fd, poller)
            return folder, control, ArmedProcesses(folder.fd, poller) if embed else None
        except OSError as error:
            failure = error
            folder.remove()
    log.say("warning", f"no private folder ({failure}): processes cannot register, signals are passed on")
    return None, None, None


def _ask(where: place.Whereabouts, environment: Mapping[str, str], poller: select.poll) -> slurm.Controller | None:
    """Have the job's facts asked for, if it is ours to ask."""
    if where.place != "batch":
        return None
    controller = slurm.Controller(where.job_id, environment.get("SLURM_JOB_PARTITION", ""), environment, poller)
    controller.ask_job()
    controller.ask_site()
    return controller


def _wait_for_facts(controller: slurm.Controller, poller: select.poll, signals: CapturedSignals) -> FirstFacts:
    facts = FirstFacts([], [])
    until = time.monotonic() + _FACTS_FIRST
    facts.answers.extend(controller.start_next(time.monotonic()))
    while controller.busy and (left := until - time.monotonic()) > 0:
        poller.poll(left * 1000)
        controller.read()
        facts.signals.extend(one for one in signals.read() if one.signum != signal.SIGCHLD)
        for pid in reaping.ended_children():
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


def _begin_report(settings: Settings, environment: Mapping[str, str], where: place.Whereabouts, log: Log) -> Report:
    """Open the journal, and record what is to be run."""
    report = Report(log, _journal(settings, environment, where))
    report.record(
        "start",
        {
            "command": settings.command,
            "version": __about__.__version__,
            "place": where.place,
            "name": environment.get("SLURM_JOB_NAME", ""),
            "array_task": slurm.array_task(environment),
            "node": contract.node_name(),
        },
    )
    return report


def _journal(settings: Settings, environment: Mapping[str, str], where: place.Whereabouts) -> Journal | None:
    """Return the journal: one file per job, and one per task of a step."""
    if settings.journal is None and where.place == "outside":
        return None
    folder = settings.journal or default_folder(environment)
    cluster = environment.get("SLURM_CLUSTER_NAME", "slurm")
    name = f"{cluster}-{where.job_id}" if where.job_id else f"local-{time.time():.0f}-{os.getpid()}"
    if where.place == "step":
        name += f".{environment.get('SLURM_STEP_ID', 'x')}.{where.task}"
    common = {"job": where.job_id, "attempt": f"{time.time():.0f}-{os.getpid()}"}
    return Journal(os.path.join(folder, name.replace("/", "_") + ".jsonl"), common)


def _register_above(where: place.Whereabouts) -> Outer | None:
    if where.outer is None:
        return None
    try:
        return Outer()
    except OSError:
        return None  # it is on another node, where srun hands its signals on


def _tell(attempt: Attempt, environment: Mapping[str, str]) -> None:
    """Say what was started, and what around it would lose the run."""
    report, where, command = attempt.report, attempt.where, attempt.settings.command
    report.say("detail", f"started {command[0]} (pid {attempt.child.pid}), {where.place}")
    report.warn(where.trouble)
    if where.place == "batch" and (warning := surroundings.batch_shell_warning(environment.get("SLURM_TASK_PID", ""))):
        report.warn(warning)
        # When that process ends, the job does. Nothing else would tell us.
        libc.set_parent_death_signal(signal.SIGTERM)
