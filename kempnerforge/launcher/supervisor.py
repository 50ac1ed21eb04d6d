"""The loop: wait for one thing, turn it into events, ask the policy, carry its actions out."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..bootstrap import contract
from . import delivery, reaping, slurm, surroundings, tree
from .control import Connection, StatusText, Unusable
from .policy import tables, words
from .settings import Settings
from .signals import CapturedSignals, stop_as_asked
from .start import AlreadyDone, Attempt, start

if TYPE_CHECKING:
    from ..bootstrap import wire

#: After a SIGKILL, how often to look for what was forked meanwhile (s).
_KILL_AGAIN = 0.2
#: What poll(2) can wait at most (ms), 24 days: jobs may run longer than that.
_LONGEST_POLL = 2**31 - 1
#: During a shutdown we wake so often (s): a stop is seen by what it adds.
_HEARTBEAT = 0.25
#: How long an scontrol that got SIGKILL may take to go (s).
_LAST_REAP = 1.0
#: json and the messages are loaded when the start is over, and not while a notice waits to be delivered (s).
_WARM_UP_AFTER = 0.1
#: When to look whether anything is armed (s): a Python is at once, but a script may have to fetch its data first.
_LOOK_FOR_ARMED_AFTER = 1.5
_LOOK_FOR_ARMED_AGAIN = 30.0


def supervise(settings: Settings, environment: Mapping[str, str]) -> int:
    """Run a command to its end and return kforge-run's exit status.

    Args:
        settings: what the user asked for.
        environment: of this process.

    Raises:
        child.CannotExecute: the command is not there or not executable.
        OSError: no process could be started.
    """
    poller = select.poll()
    signals = CapturedSignals()
    poller.register(signals.fd, select.POLLIN)
    attempt = start(settings, environment, poller, signals)
    if isinstance(attempt, AlreadyDone):
        return attempt.status
    supervisor = Supervisor(attempt, poller, signals)
    try:
        return supervisor.run()
    except Exception:  # noqa: BLE001 - a bug in kforge-run must not cost the run: it goes on, without a requeue
        import traceback

        traceback.print_exc()
        return supervisor.only_forward()
    finally:
        supervisor.clean_up()


class Supervisor:
    """The loop around one attempt, from when its child has been started."""

    def __init__(self, attempt: Attempt, poller: select.poll, signals: CapturedSignals) -> None:
        self._attempt = attempt
        self._child = attempt.child
        self._policy = attempt.policy
        self._control = attempt.meeting.control
        self._armed = attempt.meeting.armed
        self._folder = attempt.meeting.folder
        self._controller = attempt.controller
        self._early_notice = attempt.early_notice
        self._report = attempt.report
        folder_writer = self._folder.writer if self._folder is not None else None
        self._writers = [*attempt.report.writers(), *([folder_writer] if folder_writer is not None else [])]
        self._poller = poller
        self._signals = signals
        self._tree = tree.Tree(attempt.helpers, None if attempt.in_our_group else attempt.child.pid)
        self._site = attempt.first_facts.site.site
        #: Read, but not handed on yet.
        self._received = attempt.first_facts.signals
        self._answered = attempt.first_facts.answers
        #: The notice as last told, for who registers later.
        self._told: words.Tell | None = None
        #: When something of this module itself is due, and what.
        self._chores = {"warm up": time.monotonic() + _WARM_UP_AFTER}
        if self._armed is not None:
            self._chores["look for armed"] = time.monotonic() + _LOOK_FOR_ARMED_AFTER
        #: The job's Restarts as first read.
        self._restarts: int | None = None
        self._said_unreadable = False
        self._stop_asked_at: float | None = None
        self._started = self._looked_at = self._slept_from = time.monotonic()
        self._missed = 0.0
        self._exit_status: int | None = None

    def run(self) -> int:
        """Return kforge-run's exit status when everything is over."""
        while self._exit_status is None:
            self._wait()
            for event in self._events():
                self._carry_out(self._policy.handle(event, time.monotonic()))
        return self._exit_status

    # --- the four steps: wait, turn into events, (ask the policy), carry out -----------------------

    def _wait(self) -> None:
        """Sleep until something happens or is due; for ever if nothing is."""
        if self._controller is not None:
            self._answered += self._controller.start_next(time.monotonic())
        for writer in self._writers:
            writer.start_next()
        if self._received or self._answered:
            return
        due = [self._policy.due, self._controller.due if self._controller else None, *self._chores.values()]
        now = self._slept_from = self._look_at_clock(0.0)
        if self._policy.deadline is not None:
            due.append(now + _HEARTBEAT)
        wait = min((moment for moment in due if moment is not None), default=math.inf) - now
        # Rounded up: waking before anything is due would mean waking again. A month ahead is woken for, too.
        milliseconds = math.ceil(min(max(wait, 0.0) * 1000, _LONGEST_POLL))
        self._poller.poll(None if wait == math.inf else milliseconds)
        self._look_at_clock(wait)

    def _look_at_clock(self, allowed: float) -> float:
        """Return the time, and note how much more of it has gone by since the last look than is our own doing.

        Nothing tells when a SIGSTOP came. Slurm sends SIGTSTP before it, but SIGCONT discards one that was not read
        yet: then a stop is seen by what it adds.

        Args:
            allowed: how long we may have slept (s).
        """
        now = time.monotonic()
        missed = now - self._looked_at - max(allowed, 0.0)
        if missed > _HEARTBEAT:
            self._missed += missed
        self._looked_at = now
        return now

    def _events(self) -> Iterator[words.Event]:
        """Yield what has happened, in an order that keeps causes before effects."""
        # Who was there before a notice was sent is known before it is delivered: so the signals are read first.
        self._received += self._signals.read()
        yield from self._reports()
        yield from self._armed_news()
        yield from self._signalled()
        if self._early_notice is not None:
            yield from self._early_notice.news()
        if self._controller is not None:
            before, self._answered = self._answered, []
            yield from self._answers(before)
            self._controller.read()
        for writer in self._writers:
            writer.read()
        self._report.look_after_journal()
        for pid in reaping.ended_children():
            yield from self._ended(pid)
        yield from self._due_now(time.monotonic())

    def _reports(self) -> Iterator[words.Event]:
        if self._control is None:
            return
        for connection, report in self._control.reports():
            if isinstance(report, StatusText):
                self._report.say("info", f"pid {report.pid}: {report.text}")
                self._report.record("status", {"pid": report.pid, "text": report.text})
            elif isinstance(report, Unusable):
                self._report.say("detail", f"control socket: {report.why} from pid {report.pid} ignored")
            else:
                if isinstance(report, words.Registered) and connection is not None and self._told is not None:
                    self._control.tell(_notice(self._told), connection)
                if isinstance(report, words.Registered):
                    self._chores.pop("look for armed", None)
                yield report

    def _armed_news(self) -> Iterator[words.Event]:
        if self._armed is not None:
            for event in self._armed.news():
                if isinstance(event, words.Armed) and self._chores.pop("look for armed", None) is not None:
                    self._report.warn(surroundings.agent_warning(self._child.pid, self._time_to_stop()))
                yield event

    def _signalled(self) -> Iterator[words.Event]:
        """Yield what the signals that were read mean."""
        while self._received:
            one = self._received[0]
            if one.signum == signal.SIGCONT:
                yield words.Continued(self._stopped_for())
            if one.signum != signal.SIGCHLD:
                child_alive = self._child.status is None and not reaping.has_ended(self._child.pid)
                child_has_it = one.from_kernel and self._attempt.in_our_group
                yield words.Signalled(one.signum, one.sender, child_has_it, child_alive)
            if one.signum == signal.SIGTSTP:
                self._stop_asked_at = time.monotonic()
                stop_as_asked()
                if time.monotonic() - self._stop_asked_at > _HEARTBEAT and signal.SIGCONT not in signal.sigpending():
                    # We were stopped just before our own SIGTSTP, which has discarded the SIGCONT.
                    yield words.Continued(self._stopped_for())
            # Only now: what a bug of ours keeps from being handled is passed on all the same.
            del self._received[0]
        self._missed = 0.0  # a stop leaves a SIGCONT to be read; without one we were only slow

    def _stopped_for(self) -> float:
        """Return how long we have been stopped until now (s)."""
        now = self._look_at_clock(0.0)
        asked, self._stop_asked_at = self._stop_asked_at, None
        missed, self._missed = self._missed, 0.0
        return missed if asked is None else max(missed, now - max(asked, self._slept_from))

    def _ended(self, pid: int) -> Iterator[words.Event]:
        """Reap one of our children that has ended."""
        if pid == self._child.pid:
            # What it said last counts for how it ended.
            yield from self._reports()
            yield from self._armed_news()
            self._child.reap()
            if self._early_notice is not None:
                self._early_notice.end()
            assert self._child.status is not None
            yield words.ChildExited(self._child.status, self._tree.is_empty())
        elif any(writer.ended(pid) for writer in self._writers):
            pass
        elif self._early_notice is not None and self._early_notice.owns(pid):
            yield from self._early_notice.ended()
            self._say_why_nobody_listens()
        elif self._controller is not None and pid in self._attempt.helpers:
            yield from self._answers(self._controller.ended(pid))
        else:
            os.waitpid(pid, 0)
        if self._child.status is not None and self._tree.is_empty():
            yield words.TreeEmpty()

    def _due_now(self, now: float) -> Iterator[words.Event]:
        if self._policy.due is not None and self._policy.due <= now:
            # We may have been stopped since we last looked, and nothing is due before the policy knows that.
            self._received += self._signals.read()
            yield from self._signalled()
            yield words.TimePassed()
        if self._controller is not None:
            self._controller.check_patience(now)
        if self._chores.get("warm up", math.inf) <= now:
            del self._chores["warm up"]
            _warm_up()
        if self._chores.get("look for armed", math.inf) <= now:
            self._look_for_armed(now)
        if self._chores.get("kill again", math.inf) <= now:
            self._tree.kill()
            self._chores["kill again"] = now + _KILL_AGAIN

    def _look_for_armed(self, now: float) -> None:
        """Warn if nothing is armed: at first only where it is clear that nothing will be, and later of that itself."""
        del self._chores["look for armed"]
        if self._child.status is not None:
            return
        last_look = self._told is not None or now - self._started > _LOOK_FOR_ARMED_AGAIN
        warning = surroundings.not_armed_warning(self._child.pid, last_look)
        self._report.warn(warning)
        if warning is None and not last_look:
            self._chores["look for armed"] = self._started + _LOOK_FOR_ARMED_AGAIN

    def _answers(self, answers: list[slurm.Answer]) -> Iterator[words.Event]:
        for answer in answers:
            event = self._take_in(answer)
            if event is not None:
                yield event

    def _take_in(self, answer: slurm.Answer) -> words.Event | None:
        """Keep what Slurm said of the site and warn about it; return what the policy needs to know."""
        if isinstance(answer, slurm.NoScontrol):
            self._report.say("warning", f"{answer.why}: without it this job cannot be requeued")
            return None
        if isinstance(answer, slurm.SiteFacts):
            self._site = answer.site
            if self._controller is not None and self._time_to_stop() > answer.site.kill_wait:
                self._controller.ask_script()
            if answer.early_notice_helps:
                self._listen()
            return words.SiteRead(answer.site)
        if isinstance(answer, slurm.BatchScript):
            self._report.warn(surroundings.lead_warning(self._time_to_stop(), self._site.kill_wait, answer.text))
            return None
        if isinstance(answer, words.JobRead) and (history := self._report.history) is not None:
            self._policy.handle(words.HistoryRead(history), time.monotonic())
        if isinstance(answer, words.JobRead) and answer.answered and not self._said_unreadable:
            self._said_unreadable = True
            self._report.warn(surroundings.unreadable_warning(self._attempt.where.job_id, answer.error))
        if isinstance(answer, words.JobRead) and answer.job is not None and self._restarts is None:
            self._restarts = answer.job.restarts
            self._report.say("info", _which_attempt(answer.job))
            self._report.warn(
                surroundings.not_requeueable_warning(answer.job.requeueable, self._attempt.settings.requeue)
            )
        return answer

    def _listen(self) -> None:
        """Have our own small step listen for a preemption, unless there is nothing left to stop."""
        if self._early_notice is not None and self._child.status is None:
            self._early_notice.listen()
            self._say_why_nobody_listens()

    def _say_why_nobody_listens(self) -> None:
        # When the job is about to end, no step can be had, and none is needed.
        if self._early_notice is not None and self._early_notice.trouble is not None and self._policy.deadline is None:
            why = self._early_notice.trouble
            self._report.warn(f"a preemption is noticed only when its grace is over: no step can be started ({why})")

    def _time_to_stop(self) -> float:
        """Return how long stopping may take, by the user's word and by the last attempt (s)."""
        last = tables.past_of(self._report.history, self._restarts or 0).last_shutdown
        return max(self._attempt.settings.timeout or 0.0, last or 0.0)

    def _carry_out(self, actions: list[words.Action]) -> None:
        delivered = [event for action in actions if (event := self._perform(action)) is not None]
        for event in delivered:
            self._carry_out(self._policy.handle(event, time.monotonic()))

    def _perform(self, action: words.Action) -> words.Delivered | None:
        now = time.monotonic()
        match action:
            case words.Deliver():
                return self._deliver(action, now)
            case words.Forward():
                self._child.send(action.signum)
            case words.Tell():
                self._tell(action)
            case words.AskSlurm():
                if self._controller is not None:
                    self._controller.ask_job()
            case words.Listen():
                self._listen()
            case words.Requeue():
                if self._controller is not None:
                    self._controller.requeue(action.job_id)
            case words.DumpStacks():
                self._report.flush()
                for connection in self._cooperative():
                    if connection.stacks is not None:
                        connection.process.send(connection.stacks)
            case words.Terminate():
                if self._folder is not None:
                    self._folder.mark(contract.TERMINATE_FILE)
                self._tree.terminate()
            case words.Kill():
                self._tree.kill()
                self._chores["kill again"] = now + _KILL_AGAIN
            case words.Say():
                self._report.say(action.level, action.text)
            case words.Record():
                self._report.record(action.event, action.fields)
                checkpointed = action.event == "end" and action.fields["outcome"] == "checkpointed"
                if checkpointed and self._attempt.outer is not None:
                    self._attempt.outer.finished()
            case words.Exit():
                self._exit_status = action.status
            case _:
                return words.never(action)
        return None

    def _deliver(self, action: words.Deliver, now: float) -> words.Delivered:
        armed = self._armed.living if self._armed is not None else []
        if action.again:
            return delivery.deliver_again(action.signum, self._child, armed, now)
        self._write_notice(action.signum, None)
        if "look for armed" in self._chores:
            self._chores["look for armed"] = now  # after the delivery
        cooperative = [connection.process for connection in self._cooperative()]
        delivered = delivery.deliver(action.signum, self._child, cooperative, armed)
        if delivered.ranks_told and self._folder is not None:
            self._folder.mark(contract.RANKS_TOLD_FILE)
        return delivered

    def _cooperative(self) -> list[Connection]:
        return self._control.cooperative if self._control is not None else []

    def _tell(self, told: words.Tell) -> None:
        self._told = told
        if self._control is not None:
            self._control.tell(_notice(told))
        self._write_notice(told.signum, told.reason)

    def _write_notice(self, signum: int, reason: words.Reason | None) -> None:
        from ..bootstrap import wire

        if self._folder is not None:
            self._folder.write_notice(wire.encode(wire.Notice(signum, reason)))

    # --- if kforge-run has a bug -----------------------------------------------------------------

    def only_forward(self) -> int:
        """Pass signals on and wait for the child, with as little code as possible; return its exit status."""
        self._report.say(
            "warning", "a bug in kforge-run, see above: signals are only passed on, and nothing is requeued"
        )
        self._report.flush()
        alone = select.poll()
        alone.register(self._signals.fd, select.POLLIN)
        while self._child.status is None:
            if not self._received:
                alone.poll()
            received, self._received = self._received + self._signals.read(), []
            for one in received:
                if one.signum not in (signal.SIGCHLD, signal.SIGTSTP) and not reaping.has_ended(self._child.pid):
                    self._child.send(one.signum)
            for pid in reaping.ended_children():
                if pid == self._child.pid:
                    self._child.reap()
                elif self._early_notice is not None and self._early_notice.owns(pid):
                    list(self._early_notice.ended())
                elif not any(writer.ended(pid) for writer in self._writers):
                    os.waitpid(pid, 0)
        self._tree.kill()
        return self._child.status if self._child.status >= 0 else 128 - self._child.status

    # --- the end ---------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Leave nothing behind, and name what could not be ended."""
        if self._controller is not None:
            self._controller.close()
        if self._early_notice is not None:
            self._early_notice.close()
        if not self._tree.is_empty():
            for survivor in self._tree.survivors():
                self._report.say("warning", f"could not be killed: {survivor}")
        self._attempt.meeting.close()
        self._report.close()
        if self._controller is not None:
            reaping.reap_all()


def _warm_up() -> None:
    """Import what is needed later: by then a folder on Python's path may hang, and a notice not wait for 2 ms."""
    import json  # noqa: F401
    import traceback  # noqa: F401

    from ..bootstrap import wire  # noqa: F401

    tree.warm_up()
    time.strptime("2000", "%Y")  # imports what it needs


def _which_attempt(job: words.Job) -> str:
    """Return where one attempt's lines begin, in a log that is appended to for days."""
    left = "no time limit" if job.end is None else f"{(job.end - time.monotonic()) / 60:.0f} min to the time limit"
    return f"{time.strftime('%Y-%m-%d')}: attempt {job.restarts + 1} of job {job.requeue_id}, {left}"


def _notice(told: words.Tell) -> wire.Notice:
    """Return what to tell; how long is left counts from the moment it is sent."""
    from ..bootstrap import wire

    now = time.monotonic()
    seconds_left = None if told.deadline is None else max(0.0, told.deadline - now)
    forced_exit_in = None if told.forced_exit is None else max(0.0, told.forced_exit - now)
    return wire.Notice(told.signum, told.reason, seconds_left, forced_exit_in)
