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
from . import surroundings
from .asking import place, slurm
from .meeting import inject
from .meeting.control import Control
from .meeting.private_folder import PrivateFolder, parents
from .meeting.receivers import Receivers
from .policy import facts, tables, words
from .policy.machine import Policy
from .processes import child, libc, reaping
from .processes.signals import CapturedSignals, Received
from .settings import Settings
from .telling.chronicle import Chronicle
from .telling.journal import Journal, default_folder
from .telling.output import Log

if TYPE_CHECKING:
    from .asking.early_notice import EarlyNotice
    from .inside_srun import InsideSrun
    from .meeting.outer import Outer

_NO_FOLDER = "no private folder: processes cannot register, signals are passed on"
#: How long the facts may keep an srun from starting (s): its environment is fixed then. A guess.
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

    receivers: Receivers
    folder: PrivateFolder | None = None
    control: Control | None = None
    #: What PYTHONPATH leads to; None: nothing is injected.
    site: str | None = None

    def close(self) -> None:
        self.receivers.close()
        if self.control is not None:
            self.control.close()
        if self.folder is not None:
            self.folder.remove()


class Launched(NamedTuple):
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
    #: None: a step of ours is not wanted, or the command is an srun, whose tasks Slurm tells itself.
    early_notice: EarlyNotice | None
    meeting: Meeting
    #: None: no kforge-run above this one can be reached.
    outer: Outer | None
    chronicle: Chronicle
    rules: words.Rules
    policy: Policy
    first_facts: FirstFacts


class AlreadyDone(NamedTuple):
    """The run has completed in an earlier attempt: nothing was started."""

    status: int


def start(
    settings: Settings, environment: Mapping[str, str], poller: select.poll, signals: CapturedSignals
) -> Launched | AlreadyDone:
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
    chronicle = Chronicle(Log(verbosity, poller, helpers, f"task {where.task}" if where.task else ""))
    controller = _ask(where, environment, poller, helpers)
    is_srun = os.path.basename(settings.command[0]) == "srun"
    first = FirstFacts([], [])
    history: words.History = ()
    restarted = controller is not None and environment.get("SLURM_RESTART_COUNT", "0") != "0"
    if restarted:
        _open_journal(chronicle, settings, environment, where, poller, helpers)
        chronicle.tell(_started(settings, environment, where))
        history = chronicle.wait_for_history(_FACTS_FIRST)
    if controller is not None and (is_srun or tables.may_be_done(history)):
        first = _wait_for_facts(controller, poller, signals, chronicle)
    if controller is not None and first.job is not None and tables.is_done(history, first.job):
        controller.close()
        ended = _end_at_once(first.job, chronicle)
        reaping.reap_all()
        return ended
    # Of an srun deeper below, only what the environment says is known in time.
    command = settings.command if is_srun else []
    kills = slurm.kills_on_bad_exit(command, environment, first.site.kill_on_bad_exit)
    job_facts = None
    if where.place == "batch":
        end = None if first.job is None else first.job.end
        job_facts = place.facts_to_hand_down(where.job_id, end, first.site.site, kills)
    inside = None
    if is_srun:
        from .inside_srun import InsideSrun

        inside = InsideSrun(settings, environment, where)
    in_our_group = child.shares_our_terminal()
    try:
        started, meeting = _spawn(
            settings, environment, not in_our_group, job_facts, inside, poller, helpers, chronicle
        )
    except BaseException as error:
        if controller is not None:
            controller.close()
        if not restarted:
            _open_journal(chronicle, settings, environment, where, poller, helpers)
        chronicle.tell(facts.NotStarted(child.explain(error)))
        chronicle.close()
        reaping.reap_all()
        raise
    # The child runs: from here on everything may take its time.
    if not restarted:
        _open_journal(chronicle, settings, environment, where, poller, helpers)
        chronicle.tell(_started(settings, environment, where))
    rules = words.Rules(
        place=where.place,
        requeue=settings.requeue,
        max_requeues=settings.max_requeues,
        retry_failures=settings.retry_failures,
        timeout=settings.timeout,
        term_grace=settings.term_grace,
        notify=None if settings.notify is None else signal.Signals[f"SIG{settings.notify}"],
        child_is_srun=is_srun,
        tasks="unknown" if inside is None else inside.tasks,
        tasks_here=0 if inside is None else inside.tasks_here,
        kill_on_bad_exit=where.outer.kill_on_bad_exit if where.outer else kills,
        has_outer=where.outer is not None,
        job_id=slurm.requeue_id_by_environment(environment),
    )
    site, end = (where.outer.site, where.outer.end) if where.outer else (first.site.site, None)
    if end is None and where.place != "outside":
        now = time.monotonic()
        end = slurm.end_by_environment(environment, time.time() - now, now)
    policy = Policy(rules, site, end)
    early_notice = None
    if controller is not None and settings.early_notice and not is_srun:
        from .asking.early_notice import EarlyNotice  # only a batch process pays for it

        early_notice = EarlyNotice(where.job_id, environment, poller, helpers)
    launched = Launched(
        settings,
        helpers,
        where,
        started,
        in_our_group,
        controller,
        early_notice,
        meeting,
        _register_above(where),
        chronicle,
        rules,
        policy,
        first,
    )
    _tell(launched, environment, inside)
    return launched


def _spawn(
    settings: Settings,
    environment: Mapping[str, str],
    own_group: bool,
    job_facts: str | None,
    inside: InsideSrun | None,
    poller: select.poll,
    helpers: set[int],
    chronicle: Chronicle,
) -> tuple[child.Child, Meeting]:
    """Start the command where it and what is below it will meet us.

    Raises:
        child.CannotExecute: it is not there or not executable.
        OSError: no process could be started.
    """
    inject.protect_compiled_code()
    meeting = _open_meeting(settings.inject, environment, poller, helpers, chronicle)
    while True:
        try:
            started = child.spawn(
                settings.command if inside is None else inside.command(meeting.folder, job_facts),
                inject.child_environment(environment, meeting.folder, meeting.site, job_facts, settings.notify),
                own_group=own_group,
                death_signal=signal.SIGTERM,
                umask=settings.umask,
            )
        except BaseException as error:
            meeting.close()
            if meeting.folder is None or not isinstance(error, OSError) or error.errno != errno.EMFILE:
                raise
            # The run comes first: without a private folder there are descriptors enough.
            chronicle.warn(f"{_NO_FOLDER} ({error.strerror})")
            meeting = Meeting(Receivers(None, poller))
        else:
            return started, meeting


def _open_meeting(
    injects: bool, environment: Mapping[str, str], poller: select.poll, helpers: set[int], chronicle: Chronicle
) -> Meeting:
    """Make the private folder, with all that belongs into it, in the first place where that works."""
    site = _find_site(environment, chronicle) if injects else None
    failure = OSError("there is no place for it")
    for parent in parents(environment):
        try:
            folder = PrivateFolder(parent, poller, helpers)
        except OSError as error:
            failure = error
            continue
        receivers = None
        try:
            if site is not None:
                inject.install_bootstrap(folder)
            receivers = Receivers(None if site is None else folder.fd, poller)
            return Meeting(receivers, folder, Control(folder.fd, poller), site)
        except OSError as error:
            failure = error
            if receivers is not None:
                receivers.close()
            folder.remove()
    chronicle.warn(f"{_NO_FOLDER} ({failure})")
    return Meeting(Receivers(None, poller))


def _find_site(environment: Mapping[str, str], chronicle: Chronicle) -> str | None:
    try:
        return inject.find_site(environment)
    except OSError as error:
        cure = "install kforge-run where no other user can write"
        chronicle.warn(f"nothing is injected, a notice gets to programs as a signal: {error.strerror} ({cure})")
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
    controller: slurm.Controller, poller: select.poll, signals: CapturedSignals, chronicle: Chronicle
) -> FirstFacts:
    first = FirstFacts([], [])
    until = time.monotonic() + _FACTS_FIRST
    first.answers.extend(controller.start_next(time.monotonic()))
    while controller.busy and (left := until - time.monotonic()) > 0:
        poller.poll(left * 1000)
        controller.read()
        first.signals.extend(one for one in signals.read() if one.signum != signal.SIGCHLD)
        for pid in reaping.ended_children():
            if not any(writer.ended(pid) for writer in chronicle.writers()):
                first.answers.extend(controller.ended(pid))
        first.answers.extend(controller.start_next(time.monotonic()))
    return first


def _end_at_once(job: words.Job, chronicle: Chronicle) -> AlreadyDone:
    """Carry out what the policy says of a run that is done."""
    status = 0
    for action in Policy(words.Rules(place="batch")).already_done(job, time.monotonic()):
        if isinstance(action, words.Exit):
            status = action.status
        elif isinstance(action, facts.Fact):
            chronicle.tell(action)
    chronicle.close()
    return AlreadyDone(status)


def _open_journal(
    chronicle: Chronicle,
    settings: Settings,
    environment: Mapping[str, str],
    where: place.Whereabouts,
    poller: select.poll,
    helpers: set[int],
) -> None:
    """Have a journal kept, where one is wanted."""
    if settings.journal is None and where.place == "outside":
        chronicle.keep_journal(None)
        return
    journal = _journal(settings, environment, where, poller, helpers)
    chronicle.keep_journal(journal)
    chronicle.tell(facts.Remark(f"journal: {journal.path}, which only you can read (0600)", detail=True))


def _started(settings: Settings, environment: Mapping[str, str], where: place.Whereabouts) -> facts.Started:
    return facts.Started(
        command=settings.command if settings.command_in_journal else settings.command[:1],
        version=__about__.__version__,
        place=where.place,
        name=environment.get("SLURM_JOB_NAME", ""),
        array_task=slurm.array_task(environment),
        node=contract.node_name(),
    )


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
    from .meeting.outer import Outer

    try:
        return Outer()
    except OSError:
        return None  # it is on another node, where srun hands its signals on


def _tell(launched: Launched, environment: Mapping[str, str], inside: InsideSrun | None) -> None:
    """Say what was started, and what around it would lose the run."""
    chronicle, where, command = launched.chronicle, launched.where, launched.settings.command
    chronicle.tell(facts.Remark(f"started {command[0]} (pid {launched.child.pid}), {where.place}", detail=True))
    chronicle.warn(where.trouble)
    chronicle.warn(surroundings.deaf_srun_warning(command))
    if inside is not None and inside.is_put:
        chronicle.tell(facts.Remark("kforge-run runs inside srun's tasks, too"))
    elif inside is not None:
        chronicle.warn(inside.warning)
    if where.place == "batch" and (warning := surroundings.batch_shell_warning(environment.get("SLURM_TASK_PID", ""))):
        chronicle.warn(warning)
        # When that process ends, the job does. Nothing else would tell us.
        libc.set_parent_death_signal(signal.SIGTERM)
