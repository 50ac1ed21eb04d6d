"""The loop: wait for one thing, turn it into events, ask the policy, carry its actions out."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..bootstrap import contract, proc
from . import surroundings
from .advice import Advice
from .asking import slurm
from .meeting import delivery
from .meeting.control import Connection, StatusText, Unusable
from .policy import facts, ledger, tables, words
from .processes import reaping, snapshot, tree
from .processes.signals import CapturedSignals, Received
from .processes.stops import HEARTBEAT, Stops
from .settings import Settings
from .start import AlreadyDone, Launched, start
from .telling.writer import LAST_PATIENCE, Writer, wait_for

if TYPE_CHECKING:
    from ..bootstrap import wire
    from .processes.log_readers import Unread

#: After a SIGKILL, how often to look for what was forked meanwhile (s): a guess.
_KILL_AGAIN = 0.2
#: What poll(2) can wait at most (ms), 24 days: jobs may run longer than that.
_LONGEST_POLL = 2**31 - 1
#: How long whoever reads our log may take for what is left in the pipe (s): a guess.
_DRAIN = 10.0
#: json and the messages are loaded when the start is over, and not while a notice waits to be delivered (s). A guess.
_WARM_UP_AFTER = 0.1


def supervise(settings: Settings, environment: Mapping[str, str]) -> int:
    """Run a command to its end and return kforge-run's exit status.

    Args:
        settings: what the user asked for.
        environment: of this process.

    Raises:
        child.CannotExecute: the command is not there or not executable.
        OSError: no process could be started.
    """
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    poller = select.poll()
    signals = CapturedSignals()
    poller.register(signals.fd, select.POLLIN)
    launched = start(settings, environment, poller, signals)
    if isinstance(launched, AlreadyDone):
        return launched.status
    supervisor = Supervisor(launched, poller, signals, began)
    try:
        return supervisor.run()
    except Exception:  # noqa: BLE001 - a bug in kforge-run must not cost the run: it goes on, without a requeue
        import traceback

        traceback.print_exc()
        return supervisor.only_forward()
    finally:
        supervisor.clean_up()


class Supervisor:
    """The loop around one attempt, from when its child has been started.

    Args:
        began: when nothing of the run was there yet (s since the boot).
    """

    def __init__(self, launched: Launched, poller: select.poll, signals: CapturedSignals, began: float) -> None:
        self._launched = launched
        self._child = launched.child
        self._policy = launched.policy
        self._control = launched.meeting.control
        self._receivers = launched.meeting.receivers
        self._folder = launched.meeting.folder
        self._controller = launched.controller
        self._early_notice = launched.early_notice
        self._chronicle = launched.chronicle
        folder_writer = self._folder.writer if self._folder is not None else None
        self._writers = [*self._chronicle.writers(), *([folder_writer] if folder_writer is not None else [])]
        self._poller = poller
        self._signals = signals
        self._tree = tree.Tree(launched.helpers, None if launched.in_our_group else launched.child.pid, began)
        settings = launched.settings
        self._advice = Advice(
            self._chronicle,
            self._child.pid,
            looks=launched.meeting.site is not None,
            job_id=launched.where.job_id,
            requeue=settings.requeue,
            timeout=settings.timeout,
        )
        self._stops = Stops()
        #: By which tasks of ours are known that are not below us; None: there may be others on other nodes.
        self._node_wide_folder = None
        if self._folder is not None and os.environ.get("SLURM_JOB_NUM_NODES", "1") == "1":
            self._node_wide_folder = self._folder.path
        #: Read, but not handed on yet.
        self._received = launched.first_facts.signals
        self._answered = launched.first_facts.answers
        #: When something of this module itself is due (s, monotonic).
        self._warm_up_at = time.monotonic() + _WARM_UP_AFTER
        self._kill_again_at = math.inf
        self._exit_status: int | None = None
        #: Writes what the log's reader does not, which has ended before us; None: it lives, or there was none.
        self._stand_in: Writer | None = None
        self._reads_log = False

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
        own = (self._warm_up_at, self._kill_again_at, self._advice.due)
        due = [self._policy.due, self._controller.due if self._controller else None, *own]
        now = self._stops.before_sleep()
        if self._policy.deadline is not None:
            due.append(now + HEARTBEAT)
        wait = min((moment for moment in due if moment is not None), default=math.inf) - now
        # Rounded up: waking before anything is due would mean waking again. A month ahead is woken for, too.
        milliseconds = math.ceil(min(max(wait, 0.0) * 1000, _LONGEST_POLL))
        self._poller.poll(None if wait == math.inf else milliseconds)
        self._stops.after_sleep(wait)

    def _events(self) -> Iterator[words.Event]:
        """Yield what has happened, in an order that keeps causes before effects."""
        # Who was there before a notice was sent is known before it is delivered: so the signals are read first.
        self._received += self._signals.read()
        yield from self._news()
        yield from self._receivers_news()
        yield from self._signalled()
        if self._early_notice is not None:
            yield from self._early_notice.news()
        if self._controller is not None:
            before, self._answered = self._answered, []
            yield from self._answers(before)
            self._controller.read()
        for writer in self._writers:
            writer.read()
        self._stand_in_for_log_reader()
        self._chronicle.look_after_journal()
        for pid in reaping.ended_children():
            yield from self._ended(pid)
        yield from self._due_now(time.monotonic())

    def _news(self) -> Iterator[words.Event]:
        if self._control is None:
            return
        for news in self._control.news():
            if isinstance(news, StatusText):
                self._chronicle.tell(facts.Status(news.pid, news.text))
            elif isinstance(news, Unusable):
                ignored = f"control socket: {news.why} from pid {news.pid} ignored"
                self._chronicle.tell(facts.Remark(ignored, detail=True))
            else:
                if isinstance(news, words.Registered):
                    self._advice.look_no_more()
                yield news

    def _receivers_news(self) -> Iterator[words.Event]:
        for event in self._receivers.news():
            if isinstance(event, words.Armed):
                self._advice.process_is_armed()
            yield event

    def _signalled(self) -> Iterator[words.Event]:
        """Yield what the signals that were read mean."""
        while self._received:
            one = self._received[0]
            if one.signum in (signal.SIGTERM, signal.SIGUSR1):
                self._note_signal()
            if one.signum == signal.SIGCONT:
                yield words.Continued(self._stops.continued())
            if one.signum != signal.SIGCHLD:
                child_alive = self._child.status is None and not reaping.has_ended(self._child.pid)
                yield words.Signalled(one.signum, one.sender, self._child_has(one), child_alive)
            if one.signum == signal.SIGTSTP and self._stops.stop():
                yield words.Continued(self._stops.continued())
            # Only now: what a bug of ours keeps from being handled is passed on all the same.
            del self._received[0]
        self._stops.none_is_left()

    def _note_signal(self) -> None:
        """Let armed processes know that a signal that they may have as well is Slurm's, to everybody."""
        if self._folder is not None:
            self._folder.mark(contract.SIGNALLED_FILE)
        self._not_the_run()  # from here on Slurm may end who reads our log

    def _child_has(self, one: Received) -> bool:
        """Return whether a signal went to our whole process group, and so to the child as well."""
        if not self._launched.in_our_group:
            return False
        if one.signum != signal.SIGHUP:
            return one.from_kernel
        # When the terminal hangs up, the kernel tells the session's leader alone. A shell tells its jobs, and by its
        # end the kernel tells the foreground.
        leader = os.getsid(0)
        return leader != os.getpid() and (one.from_kernel or one.pid == leader)

    def _ended(self, pid: int) -> Iterator[words.Event]:
        """Reap one of our children that has ended."""
        if pid == self._child.pid:
            # What it said last counts for how it ended.
            yield from self._news()
            yield from self._receivers_news()
            self._child.reap()
            if self._early_notice is not None:
                self._early_notice.end()
            assert self._child.status is not None
            yield words.ChildExited(self._child.status, self._tree.is_empty())
        elif any(writer.ended(pid) for writer in self._writers):
            pass
        elif self._early_notice is not None and self._early_notice.owns(pid):
            yield from self._early_notice.ended()
            self._say_why_no_step_listens()
        elif self._controller is not None and pid in self._launched.helpers:
            yield from self._answers(self._controller.ended(pid))
        else:
            os.waitpid(pid, 0)
            self._replace_log_reader()
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
        if self._warm_up_at <= now:
            self._warm_up_at = math.inf
            _warm_up()
        if self._advice.due <= now:
            self._look_at_child(now)
        if self._kill_again_at <= now:
            self._tree.kill()
            self._kill_again_at = now + _KILL_AGAIN

    def _look_at_child(self, now: float) -> None:
        if self._child.status is None:
            self._advice.look(now, last=self._policy.deadline is not None)
        else:
            self._advice.look_no_more()

    def _answers(self, answers: list[slurm.Answer]) -> Iterator[words.Event]:
        """Yield what the policy needs to know of Slurm's answers, and have the rest warned of."""
        assert self._controller is not None
        for answer in answers:
            match answer:
                case slurm.NoScontrol(why):
                    self._advice.no_scontrol(why)
                case slurm.BatchScript():
                    asked = surroundings.asked_signal(answer.text)
                    self._advice.script_read(asked)
                    if asked is not None and asked.is_term:
                        yield words.TermAsked(asked.lead)
                case slurm.SiteFacts(site):
                    self._advice.site_read(site)
                    self._controller.ask_script()
                    if answer.early_notice_helps:
                        self._listen()
                    yield words.SiteRead(site)
                case words.JobRead():
                    if (history := self._chronicle.history) is not None:
                        yield words.HistoryRead(history)
                    self._advice.job_read(answer)
                    yield answer
                case words.RequeueAnswered():
                    yield answer
                case _:
                    words.never(answer)

    def _listen(self) -> None:
        """Have our own small step listen for a preemption, unless there is nothing left to stop."""
        if self._early_notice is not None and self._child.status is None:
            self._early_notice.listen()
            self._say_why_no_step_listens()

    def _say_why_no_step_listens(self) -> None:
        # When the job is about to end, no step can be had, and none is needed.
        if self._early_notice is not None and self._early_notice.trouble is not None and self._policy.deadline is None:
            self._advice.no_step_listens(self._early_notice.trouble)

    def _carry_out(self, actions: list[words.Action]) -> None:
        for action in actions:
            event = self._perform(action)
            if event is not None:
                self._carry_out(self._policy.handle(event, time.monotonic()))

    def _perform(self, action: words.Action) -> words.Delivered | words.TreeRead | words.LinesRead | None:
        now = time.monotonic()
        match action:
            case words.Deliver():
                return self._deliver(action, now)
            case words.Look():
                seen = snapshot.read(self._not_the_run(), self._node_wide_folder)
                if not seen and self._child.status is None and not proc.stat("self"):
                    seen = (snapshot.unseen(self._child.pid),)
                return words.TreeRead(seen)
            case words.ReadLines(whos):
                return words.LinesRead({} if self._control is None else self._control.page.read(whos))
            case words.Ask(whos, word):
                if self._control is not None:
                    self._control.page.ask(whos, word)
            case words.LetOn(who, ticket):
                if self._control is not None:
                    self._control.page.let_on(who, ticket)
            case words.Probe(whos):
                self._receivers.ask(whos)
            case words.Seek(whos):
                self._receivers.tell(whos, ledger.WORD, again=False)
            case words.Signal(whos, by, again):
                self._receivers.tell(whos, by, again)
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
                self._chronicle.flush()
                for connection in self._cooperative():
                    if connection.stacks is not None:
                        connection.process.send(connection.stacks)
            case words.Terminate():
                if self._folder is not None:
                    self._folder.mark(contract.TERMINATE_FILE)
                self._tree.terminate({who.pid for who in action.spared})
            case words.Kill():
                self._tree.kill()
                self._kill_again_at = now + _KILL_AGAIN
            case words.TellOuter():
                if self._launched.outer is not None:
                    self._launched.outer.finished()
            case words.Exit():
                self._exit_status = action.status
            case _:
                self._chronicle.tell(action)
        return None

    def _deliver(self, action: words.Deliver, now: float) -> words.Delivered:
        cooperative, rules = [connection.process for connection in self._cooperative()], self._launched.rules
        if action.again:
            return delivery.deliver_again(self._child, cooperative, rules, now)
        self._write_notice(action.signum, None)
        self._receivers.listen()
        self._advice.notice_came(now)
        return delivery.deliver(action.signum, self._child, cooperative, rules)

    def _not_the_run(self) -> set[int]:
        """Return which children of ours are no part of the run: our own helpers, and who reads our log."""
        not_the_run = set(self._launched.helpers)
        if set(tree.children()) - not_the_run - {self._child.pid}:
            not_the_run |= {int(reader.partition(".")[0]) for reader in self._tree.log_readers()}
        return not_the_run

    def _cooperative(self) -> list[Connection]:
        return self._control.cooperative if self._control is not None else []

    def _tell(self, told: words.Tell) -> None:
        if self._control is not None:
            self._control.tell(_notice(told), told.to)
        if told.to is None:
            self._write_notice(told.signum, told.reason)

    def _write_notice(self, signum: int, reason: words.Reason | None) -> None:
        from ..bootstrap import wire

        if self._folder is not None:
            self._folder.write_notice(wire.encode(wire.Notice(signum, reason)))

    # --- the log's reader ------------------------------------------------------------------------

    def _replace_log_reader(self) -> None:
        """Do its work if it has ended: a program that still saves would die of its next line, or wait for ever."""
        unread = self._tree.unread
        if self._stand_in is None and unread is not None and unread.is_file and not self._tree.log_readers():
            self._stand_in = Writer(unread.write, self._poller, self._launched.helpers, keep=unread.descriptors)
            self._writers.append(self._stand_in)

    def _stand_in_for_log_reader(self) -> None:
        """Take a part from the pipe when the last is written: what hangs is not to fill our memory."""
        unread, writer = self._tree.unread, self._stand_in
        if unread is None or unread.pipe is None or writer is None:
            return
        if not writer.busy and (block := unread.read()):
            writer.put(block)
        if writer.busy == self._reads_log:
            self._reads_log = not writer.busy
            if self._reads_log:
                self._poller.register(unread.pipe, select.POLLIN)
            else:
                self._poller.unregister(unread.pipe)

    # --- if kforge-run has a bug -----------------------------------------------------------------

    def only_forward(self) -> int:
        """Pass signals on and wait for the child, with as little code as possible; return its exit status."""
        self._chronicle.warn("a bug in kforge-run, see above: signals are only passed on, and nothing is requeued")
        self._chronicle.flush()
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
        return tables.shell_status(self._child.status)

    # --- the end ---------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Leave nothing behind, and name what could not be ended."""
        if self._controller is not None:
            self._controller.close()
        if self._early_notice is not None:
            self._early_notice.close()
        if not self._tree.is_empty():
            for survivor in self._tree.survivors():
                self._chronicle.warn(f"could not be killed: {survivor}")
        self._launched.meeting.close()
        if self._tree.unread is not None:
            self._see_log_off(self._tree.unread)
        else:
            self._chronicle.close()
        if self._controller is not None:
            reaping.reap_all()

    def _see_log_off(self, unread: Unread) -> None:
        """Let who reads our log write down all that was said, and end it only if it does not end then."""
        deadline = self._policy.deadline
        patience = _DRAIN if deadline is None else min(max(deadline - time.monotonic(), LAST_PATIENCE), _DRAIN)
        until = time.monotonic() + patience
        self._write_unread(unread)  # or there may be no room for what we still have to say
        self._chronicle.close(patience)
        unread.let_go()
        if self._stand_in is None:
            reaping.reap_all(max(until - time.monotonic(), LAST_PATIENCE))
            self._tree.kill_log_readers()
            reaping.reap_all()
            self._replace_log_reader()
        self._write_unread(unread)
        if self._stand_in is not None:
            self._stand_in.give_up()

    def _write_unread(self, unread: Unread) -> None:
        if self._stand_in is not None:
            while block := unread.read():
                self._stand_in.put(block)
            wait_for([self._stand_in], LAST_PATIENCE)


def _warm_up() -> None:
    """Import what is needed later: by then a folder on Python's path may hang, and a notice not wait for 2 ms."""
    import json  # noqa: F401
    import traceback  # noqa: F401

    from ..bootstrap import wire  # noqa: F401

    tree.warm_up()
    time.strptime("2000", "%Y")  # imports what it needs


def _notice(told: words.Tell) -> wire.Notice:
    """Return the message of a notice; how long is left counts from the moment it is sent."""
    from ..bootstrap import wire

    now = time.monotonic()
    seconds_left = None if told.deadline is None else max(0.0, told.deadline - now)
    forced_exit_in = None if told.forced_exit is None else max(0.0, told.forced_exit - now)
    return wire.Notice(told.signum, told.reason, seconds_left, forced_exit_in)
