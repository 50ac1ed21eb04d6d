"""The loop: wait for one thing, turn it into events, ask the policy, carry its actions out."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .. import __about__
from ..bootstrap import contract
from . import child, delivery, inject, libc, place, slurm, surroundings, tree
from .control import Control, StatusText, Unusable
from .journal import Journal, default_folder
from .output import Log
from .policy import tables, words
from .policy.machine import Policy
from .settings import Settings
from .signals import CapturedSignals, Received, stop_as_asked

#: How long the facts may keep an srun from starting (s): its environment is fixed then.
_FACTS_FIRST = 2.0
#: After a SIGKILL, how often to look for what was forked meanwhile (s).
_KILL_AGAIN = 0.2
#: What poll(2) can wait at most (ms), 24 days: jobs may run longer than that.
_LONGEST_POLL = 2**31 - 1
#: json is loaded when the start is over, and not while a notice waits to be delivered (s).
_WARM_UP_AFTER = 0.1


class Supervisor:
    """Runs one command for one attempt.

    Args:
        settings: what the user asked for.
        environment: of this process.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._poller = select.poll()
        self._signals = CapturedSignals()
        self._poller.register(self._signals.fd, select.POLLIN)
        self._where = place.find(environment)
        self._log = Log(settings.verbosity, f"task {self._where.task}" if self._where.task else "")
        self._child_is_srun = os.path.basename(settings.command[0]) == "srun"
        self._controller: slurm.Controller | None = None
        if self._where.place == "batch":
            partition = environment.get("SLURM_JOB_PARTITION", "")
            self._controller = slurm.Controller(self._where.job_id, partition, environment, self._poller)
        self._tree = tree.Tree(self._controller.helpers if self._controller else ())
        self._folder: inject.PrivateFolder | None = None
        self._control: Control | None = None
        self._journal: Journal | None = None
        self._facts = slurm.SiteFacts(words.Site(), False)
        self._job: words.Job | None = None
        #: Signals that came before the child was there.
        self._early: list[Received] = []
        #: Slurm's answers that are not handed on yet.
        self._answered: list[slurm.Answer] = []
        self._history: words.History = ()
        self._told: words.Tell | None = None
        #: When something of this module itself is due, and what.
        self._chores: dict[str, float] = {}
        self._restarts: int | None = None
        self._stop_asked_at: float | None = None
        self._awake_until = self._due = math.inf
        self._exit_status: int | None = None

    def run(self) -> int:
        """Run the command to its end and return kforge-run's exit status.

        Raises:
            child.CannotExecute: the command is not there or not executable.
            OSError: no process could be started.
        """
        try:
            self._start()
            while self._exit_status is None:
                self._wait()
                for event in self._events():
                    self._carry_out(self._policy.handle(event, time.monotonic()))
            return self._exit_status
        finally:
            self._clean_up()

    # --- start -----------------------------------------------------------------------------------

    def _start(self) -> None:
        libc.become_child_subreaper()
        if self._controller is not None:
            self._controller.ask_job()
            self._controller.ask_site()
            if self._child_is_srun:
                self._wait_for_facts(self._controller)
        try:
            self._folder = inject.PrivateFolder(self._environment)
            self._control = Control(self._folder.fd, self._poller)
        except OSError as error:
            self._log.say("warning", f"no private folder ({error}): processes cannot register, signals are passed on")
        self._in_our_group = child.shares_our_terminal()
        self._child = child.spawn(
            self._settings.command,
            inject.child_environment(self._environment, self._folder, self._facts_to_hand_down()),
            own_group=not self._in_our_group,
            death_signal=signal.SIGTERM,
        )
        self._chores["warm up"] = time.monotonic() + _WARM_UP_AFTER
        # The child runs: from here on everything may take its time.
        self._journal = self._open_journal()
        self._policy = self._make_policy()
        where = self._where
        start = {"command": self._settings.command, "version": __about__.__version__, "place": where.place}
        self._record("start", start)
        self._log.say("detail", f"started {self._settings.command[0]} (pid {self._child.pid}), {where.place}")
        self._warn(where.trouble)
        if where.place == "batch":
            self._warn(surroundings.batch_shell_warning())

    def _wait_for_facts(self, controller: slurm.Controller) -> None:
        until = time.monotonic() + _FACTS_FIRST
        answers = controller.start_next(time.monotonic())
        while controller.busy and (left := until - time.monotonic()) > 0:
            self._poller.poll(left * 1000)
            controller.read()
            for received in self._signals.read():
                if received.signum != signal.SIGCHLD:
                    self._early.append(received)
            for pid in _ended_children():
                answers += controller.ended(pid)
            answers += controller.start_next(time.monotonic())
        self._answered = answers
        for answer in answers:
            if isinstance(answer, slurm.SiteFacts):
                self._facts = answer
            elif isinstance(answer, words.JobRead):
                self._job = answer.job

    def _facts_to_hand_down(self) -> str | None:
        """Return what inner kforge-runs are told; None: they are told what this one was."""
        if self._where.place != "batch":
            return None
        end = self._job.end if self._job is not None else None
        return place.facts_to_hand_down(self._where.job_id, end, self._facts.site, self._kills_on_bad_exit())

    def _kills_on_bad_exit(self) -> bool:
        return self._child_is_srun and slurm.kills_on_bad_exit(
            self._settings.command, self._environment, self._facts.kill_on_bad_exit
        )

    def _open_journal(self) -> Journal | None:
        where = self._where
        if self._settings.journal is None and where.place == "outside":
            return None
        folder = self._settings.journal or default_folder(self._environment)
        cluster = self._environment.get("SLURM_CLUSTER_NAME", "slurm").replace("/", "_")
        name = f"{cluster}-{where.job_id}" if where.job_id else f"local-{time.time():.0f}-{os.getpid()}"
        if where.place == "step":
            name += f".{self._environment.get('SLURM_STEP_ID', 'x').replace('/', '_')}.{where.task.replace('/', '_')}"
        common = {"job": where.job_id, "attempt": f"{time.time():.0f}-{os.getpid()}"}
        return Journal(os.path.join(folder, name + ".jsonl"), common)

    def _make_policy(self) -> Policy:
        settings, where = self._settings, self._where
        rules = words.Rules(
            place=where.place,
            requeue=settings.requeue,
            max_requeues=settings.max_requeues,
            retry_failures=settings.retry_failures,
            timeout=settings.timeout,
            term_grace=settings.term_grace,
            child_is_srun=self._child_is_srun,
            kill_on_bad_exit=where.outer.kill_on_bad_exit if where.outer else self._kills_on_bad_exit(),
            has_outer=where.outer is not None,
            job_id=slurm.requeue_id_by_environment(self._environment),
        )
        if self._journal is not None and where.place == "batch":
            self._history = self._journal.history()
        return Policy(
            rules,
            self._history,
            where.outer.site if where.outer else self._facts.site,
            where.outer.end if where.outer else None,
        )

    # --- the four steps: wait, turn into events, (ask the policy), carry out -----------------------

    def _wait(self) -> None:
        """Sleep until something happens or is due; for ever if nothing is."""
        if self._controller is not None:
            self._answered += self._controller.start_next(time.monotonic())
        if self._early or self._answered:
            return
        due = [self._policy.due, self._controller.due if self._controller else None, *self._chores.values()]
        self._due = min((moment for moment in due if moment is not None), default=math.inf)
        now = self._awake_until = time.monotonic()
        # Rounded up: waking before anything is due would mean waking again. A month ahead is woken for, too.
        milliseconds = min(max(self._due - now, 0) * 1000, _LONGEST_POLL)
        self._poller.poll(None if self._due == math.inf else math.ceil(milliseconds))

    def _events(self) -> Iterator[words.Event]:
        """Yield what has happened, in an order that keeps causes before effects."""
        # Who registers is known before a notice is delivered.
        yield from self._reports()
        yield from self._signalled()
        if self._controller is not None:
            early, self._answered = self._answered, []
            yield from self._answers(early)
            self._controller.read()
        for pid in _ended_children():
            yield from self._ended(pid)
        yield from self._due_now(time.monotonic())

    def _reports(self) -> Iterator[words.Event]:
        if self._control is None:
            return
        for peer, report in self._control.reports():
            if isinstance(report, StatusText):
                self._log.say("info", f"pid {report.pid}: {report.text}")
                self._record("status", {"pid": report.pid, "text": report.text})
            elif isinstance(report, Unusable):
                self._log.say("detail", f"control socket: {report.why} from pid {report.pid} ignored")
            else:
                if isinstance(report, words.Registered) and peer is not None and self._told is not None:
                    self._control.tell(_notice_message(self._told), peer)
                yield report

    def _signalled(self) -> Iterator[words.Event]:
        received, self._early = self._early + self._signals.read(), []
        for one in received:
            if one.signum == signal.SIGCHLD:
                continue
            if one.signum == signal.SIGCONT:
                yield words.Continued(self._stopped_for(time.monotonic()))
            child_alive = self._child.status is None and not _has_ended(self._child.pid)
            child_has_it = one.from_kernel and self._in_our_group
            yield words.Signalled(one.signum, one.sender, child_has_it, child_alive)
            if one.signum == signal.SIGTSTP:
                self._stop_asked_at = time.monotonic()
                stop_as_asked()

    def _stopped_for(self, now: float) -> float:
        """Return how long we have been stopped, at most (s).

        Nothing tells when a SIGSTOP came. Slurm sends SIGTSTP before it; else we know only that we did not wake when
        something was due.
        """
        asked, self._stop_asked_at = self._stop_asked_at, None
        since = max(asked, self._awake_until) if asked is not None else self._due
        return max(0.0, now - since)

    def _ended(self, pid: int) -> Iterator[words.Event]:
        """Reap one of our children that has ended."""
        if pid == self._child.pid:
            # What it said last counts for how it ended.
            yield from self._reports()
            self._child.reap()
            assert self._child.status is not None
            yield words.ChildExited(self._child.status, self._tree.is_empty())
        elif self._controller is not None and pid in self._controller.helpers:
            yield from self._answers(self._controller.ended(pid))
        else:
            os.waitpid(pid, 0)
        if self._child.status is not None and self._tree.is_empty():
            yield words.TreeEmpty()

    def _due_now(self, now: float) -> Iterator[words.Event]:
        if self._policy.due is not None and self._policy.due <= now:
            # We may have been stopped since we last looked, and nothing is due before the policy knows that.
            yield from self._signalled()
            yield words.TimePassed()
        if self._controller is not None:
            self._controller.check_patience(now)
        if self._chores.get("warm up", math.inf) <= now:
            del self._chores["warm up"]
            import json  # noqa: F401
        if self._chores.get("kill again", math.inf) <= now:
            self._tree.kill()
            self._chores["kill again"] = now + _KILL_AGAIN

    def _answers(self, answers: list[slurm.Answer]) -> Iterator[words.Event]:
        for answer in answers:
            event = self._take_in(answer)
            if event is not None:
                yield event

    def _take_in(self, answer: slurm.Answer) -> words.Event | None:
        """Keep what Slurm said of the site and warn about it; return what the policy needs to know."""
        if isinstance(answer, slurm.NoScontrol):
            self._log.say("warning", f"{answer.why}: without it this job cannot be requeued")
            return None
        if isinstance(answer, slurm.SiteFacts):
            self._facts = answer
            if self._controller is not None and self._time_to_stop() > answer.site.kill_wait:
                self._controller.ask_script()
            return words.SiteRead(answer.site)
        if isinstance(answer, slurm.BatchScript):
            self._warn(surroundings.lead_warning(self._time_to_stop(), self._facts.site.kill_wait, answer.text))
            return None
        if isinstance(answer, words.JobRead) and answer.job is not None and self._restarts is None:
            self._restarts = answer.job.restarts
            self._warn(surroundings.not_requeueable_warning(answer.job.requeueable, self._settings.requeue))
        return answer

    def _time_to_stop(self) -> float:
        """Return how long stopping may take, by the user's word and by the last attempt (s)."""
        last = tables.past_of(self._history, self._restarts or 0).last_shutdown
        return max(self._settings.timeout or 0.0, last or 0.0)

    def _carry_out(self, actions: list[words.Action]) -> None:
        delivered = [event for action in actions if (event := self._perform(action)) is not None]
        for event in delivered:
            self._carry_out(self._policy.handle(event, time.monotonic()))

    def _perform(self, action: words.Action) -> words.Delivered | None:
        now = time.monotonic()
        peers = self._control.peers if self._control is not None else []
        if isinstance(action, words.Deliver):
            if action.again:
                return delivery.deliver_again(self._child, now)
            return delivery.deliver(action.signum, self._child, peers)
        if isinstance(action, words.Forward):
            self._child.send(action.signum)
        elif isinstance(action, words.Tell):
            self._tell(action)
        elif isinstance(action, words.AskSlurm):
            if self._controller is not None:
                self._controller.ask_job()
        elif isinstance(action, words.Requeue):
            if self._controller is not None:
                self._controller.requeue(action.job_id)
        elif isinstance(action, words.DumpStacks):
            for peer in peers:
                if peer.stacks is not None:
                    peer.send(peer.stacks)
        elif isinstance(action, words.Terminate):
            self._tree.terminate()
        elif isinstance(action, words.Kill):
            self._tree.kill()
            self._chores["kill again"] = now + _KILL_AGAIN
        elif isinstance(action, words.Say):
            self._log.say(action.level, action.text)
        elif isinstance(action, words.Record):
            self._record(action.event, action.fields)
        else:
            self._exit_status = action.status
        return None

    def _tell(self, told: words.Tell) -> None:
        self._told = told
        if self._control is not None:
            self._control.tell(_notice_message(told))
        if self._folder is not None:
            self._folder.write_notice({"signal": told.signum, "reason": told.reason})

    def _record(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._journal is not None and (trouble := self._journal.record(event, fields)):
            self._log.say("warning", f"no journal: {trouble}")

    def _warn(self, text: str | None) -> None:
        if text is not None:
            self._log.say("warning", text)

    def _clean_up(self) -> None:
        if self._controller is not None:
            self._controller.close()
        if not self._tree.is_empty():
            for survivor in self._tree.survivors():
                self._log.say("warning", f"could not be killed: {survivor}")
        if self._control is not None:
            self._control.close()
        if self._folder is not None:
            self._folder.remove()


def _notice_message(told: words.Tell) -> dict[str, Any]:
    """Return the message of the contract; how long is left counts from the moment it is sent."""
    now = time.monotonic()
    return {
        "verb": contract.NOTICE,
        "signal": told.signum,
        "reason": told.reason,
        "seconds_left": None if told.deadline is None else max(0.0, told.deadline - now),
        "forced_exit_in": None if told.forced_exit is None else max(0.0, told.forced_exit - now),
    }


def _ended_children() -> Iterator[int]:
    """Yield the pid of each child that has ended; whoever takes it must reap it before taking the next."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        yield ended.si_pid


def _has_ended(pid: int) -> bool:
    """Return whether our child `pid` is a zombie by now."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
