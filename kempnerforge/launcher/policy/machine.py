"""The state machine of one attempt: events in, actions out, and the time at which it wants to be asked again.

    run      ──▶ outlived, sweep, decide
    outlived ──▶ sweep, decide
    sweep    ──▶ decide
    decide   ──▶ verify, done
    verify   ──▶ decide, done

Run: the child runs. Sweep: it has ended, and what it left behind is ended. Decide: Slurm is asked once more, and the
run is requeued or not. Verify: Slurm has accepted the requeue, and is asked whether it did it. The World of the tests
sees all of these arrows, and no other.

Outlived: the child has ended (a shell that died of the notice, say), but a cooperative process below still saves.
A notice may come in any phase: it opens the window up to the deadline, and never changes the phase.
"""

from __future__ import annotations

import math
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, Signals
from typing import Literal, NamedTuple

from . import tables
from .timers import Timer, Timers
from .words import (
    CHECKPOINTED_STATUS,
    Action,
    Armed,
    AskSlurm,
    ChildExited,
    Continued,
    Deliver,
    Delivered,
    DumpStacks,
    Event,
    Exit,
    Finished,
    Forward,
    Gone,
    History,
    HistoryRead,
    Identity,
    Job,
    JobRead,
    Kill,
    Listen,
    MoreTime,
    Outcome,
    Polled,
    Reason,
    Record,
    Registered,
    Requeue,
    RequeueAnswered,
    Rules,
    Say,
    Signalled,
    Site,
    SiteRead,
    StepEnded,
    Tell,
    Terminate,
    TimePassed,
    TreeEmpty,
    never,
)

#: How often the notice is repeated to such an srun (s).
SRUN_REPEAT = 1.0
#: When the notice is repeated to armed processes (s). Python may enter a system call just when the first has come, and
#: sees it only when that ends or the next signal comes.
ARMED_REPEAT = 0.1
#: A child that died of a signal that is a notice may have got it a moment before us (s): Slurm signals every process.
NOTICE_FOLLOWS = 1.0
#: How often Slurm is asked again when it did not answer (s).
ASK_AGAIN = 1.0
#: How often our own small step is started once more.
LISTEN_AGAIN = 1
#: How often Slurm is asked again for the job's facts while nothing presses (s).
FACTS_AGAIN = 30.0
#: How long the stages wait after a suspension for Slurm to tell the new end (s).
HOLD_AFTER_STOP = 2.0
#: How long to wait for Slurm where no deadline presses (s): to look at the job, and to requeue it.
LOOK_WINDOW = 5.0
REQUEUE_WINDOW = 60.0
#: The least that is left for the last questions when a deadline has passed (s).
LAST_WINDOW = 2.0
#: From giving up on Slurm to the deadline, when time is plenty (s).
LAST_WORD = 1.0
#: How long a process that got SIGKILL may take to go (s): one in uninterruptible sleep may never.
KILL_WINDOW = 10.0
#: Time between two lines that tell how much time is left (s).
PROGRESS_EVERY = 10.0
#: The wait before the second try to requeue (s); doubles each time.
RETRY_AFTER = 0.5
#: SIGTERMs closer together than this come from one event, and are told once (s).
SAME_EVENT = 1.0

#: srun aborts the whole step on these (slurm-facts, "Who receives what").
ABORTS_SRUN = frozenset({SIGHUP, SIGQUIT, SIGTERM})

Phase = Literal["run", "outlived", "sweep", "decide", "verify", "done"]
#: Phases in which the run may have something to save.
UNSAVED: tuple[Phase, ...] = ("run", "outlived")


class Timeline(NamedTuple):
    """When each part of a shutdown was first seen, for the last line."""

    first_poll: float | None = None
    finish: float | None = None
    exit: float | None = None


class Policy:
    """Decides for one attempt of a run.

    Args:
        rules: what is fixed at the start.
        site: what the cluster gives, until `SiteRead` tells better.
        end: when Slurm ends the job (s, monotonic), as far as known before it is asked.
    """

    def __init__(self, rules: Rules, site: Site | None = None, end: float | None = None) -> None:
        self._rules = rules
        self._history: History | None = None
        self._site = site or Site()
        self._known = tables.Known(end=end, grace_time=self._site.grace_time)
        self._job: Job | None = None
        self._phase: Phase = "run"
        self._notice: tables.Notice | None = None
        self._reason: Reason | None = None
        self._told_reason: Reason | None = None
        self._deadline: float | None = None
        # While a SIGTERM is not understood the deadline is a guess. What is known only comes nearer.
        self._known_deadline: float | None = None
        self._still_runs = False
        self._stages: tables.Stages | None = None
        self._wanted_until: float | None = None
        self._cooperation = tables.Cooperation()
        #: What may still save: how many handlers, by process, are registered and neither finished nor gone. An armed
        #: process counts from when it got the notice until it is gone.
        self._saving: dict[Identity, int] = {}
        #: Armed and not gone.
        self._armed: set[Identity] = set()
        self._timeline = Timeline()
        self._status: int | None = None
        self._died_of_a_notice = False
        self._outcome: Outcome = "failed"
        self._killed = False
        self._was_delivered = False
        self._said_no_answer = False
        self._asked_at = self._said_term_at = -math.inf
        #: When our own small step ended, and Slurm has not told why; None: it has, or the step listens.
        self._step_ended_at: float | None = None
        self._listens_left = LISTEN_AGAIN
        self._tries = 0
        self._timers = Timers()

    # --- what the loop sees ----------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When to send `TimePassed` if nothing else happens (s, monotonic); None: never."""
        return self._timers.next

    @property
    def deadline(self) -> float | None:
        """When this attempt is over (s, monotonic); None: nothing told it to stop."""
        return self._deadline

    def handle(self, event: Event, now: float) -> list[Action]:
        """Return what to do about an event that happened at `now` (s, monotonic)."""
        if self._phase == "done":
            return []
        match event:
            case Signalled():
                return self._signalled(event, now)
            case TimePassed():
                return self._time_passed(now)
            case Delivered():
                return self._delivered(event, now)
            case Continued():
                return self._continued(event, now)
            case SiteRead():
                self._site = event.site
                self._known = self._known._replace(grace_time=event.site.grace_time)
                return self._plan(now)
            case HistoryRead():
                self._history = event.history
                return []
            case JobRead():
                return self._job_read(event, now)
            case StepEnded():
                return self._step_ended(now)
            case RequeueAnswered():
                return self._requeue_answered(event, now)
            case ChildExited():
                return self._child_exited(event, now)
            case TreeEmpty():
                return self._tree_empty(now)
            case Armed():
                return self._process_armed(event)
            case Registered():
                return self._process_registered(event)
            case Polled():
                return self._process_polled(event, now)
            case Finished():
                return self._process_finished(event, now)
            case Gone():
                return self._process_gone(event, now)
            case MoreTime():
                return self._more_time(event, now)
            case _:
                return never(event)

    def already_done(self, job: Job, now: float) -> list[Action]:
        """Return how to end without running anything (`tables.is_done`).

        To end with 0 is what lets Slurm, and whoever waits for the job, call it completed: forbidding Slurm the requeue
        would leave it PREEMPTED.
        """
        self._job, self._known = job, self._known._replace(restarts=job.restarts)
        self._outcome, self._status = "completed", 0
        why = "the run has completed, and Slurm has started it once more because it had been preempted: nothing is run"
        return [Say("info", why), *self._done(False, "it had completed", now)]

    # --- notice and reason -----------------------------------------------------------------------

    def _signalled(self, event: Signalled, now: float) -> list[Action]:
        if self._phase == "verify":
            return []  # after a requeue Slurm sends this attempt SIGTERM within milliseconds
        signum, notice = event.signum, self._notice
        if signum not in (SIGTERM, SIGUSR1, SIGINT):
            return self._forward(event)
        if notice is None or (notice.signum == SIGINT and signum != SIGINT):
            return self._first_notice(event, now)
        if signum == SIGINT:
            return self._forward(event)
        if signum == SIGUSR1:
            return []
        # KillWait counts from the first that Slurm has not explained yet.
        unexplained = notice.last_term is not None and self._rules.place == "batch" and not self._still_runs
        last_term = notice.last_term if unexplained else now
        self._notice = notice._replace(first_term=notice.first_term or now, last_term=last_term)
        self._still_runs = False
        said = [Say("info", f"SIGTERM too, from {event.sender}")] if now - self._said_term_at > SAME_EVENT else []
        self._said_term_at = now
        return [*said, *self._understand(now), *self._plan(now)]

    def _first_notice(self, event: Signalled, now: float, reason: Reason | None = None) -> list[Action]:
        """Begin a shutdown.

        Args:
            reason: as Slurm has said just now of a signal that only the job's steps got; None: it came to us.
        """
        signum, name = event.signum, Signals(event.signum).name
        self._still_runs = reason is not None
        # Of the time between Slurm's own SIGTERM to us and its SIGKILL, nothing has passed yet.
        term = now if signum == SIGTERM and reason is None else None
        # Ctrl-C is a word between a person and the program: no window opens, nothing is killed for it.
        window = signum != SIGINT or not event.child_has_it or self._rules.timeout is not None
        self._notice = tables.Notice(signum, event.sender, now, event.child_alive, window, term, term)
        said: list[Action] = [
            Say("info", f"notice: {name} from {event.sender}"),
            Record("notice", {"signal": name, "sender": event.sender}),
        ]
        if signum == SIGINT:
            handed_on = self._forward(event)
        else:
            # A shell may have died of the signal before us, and what it ran still saves.
            somebody = event.child_alive or self._armed or self._saving
            handed_on = [Deliver(signum)] if somebody and self._phase in UNSAVED else []
        if self._phase in UNSAVED and window:
            self._timers.set(Timer.PROGRESS, now + PROGRESS_EVERY)
        understood = self._understand(now) if reason is None else self._set_reason(reason)
        plan = self._plan(now)
        # The signal before the message: told first, a quick program has saved, finished and put its handlers back
        # when the signal comes, and dies of it.
        told = [action for action in plan if isinstance(action, Tell)]
        return [*handed_on, *told, *said, *understood, *(action for action in plan if action not in told)]

    def _step_ended(self, now: float) -> list[Action]:
        """Have Slurm asked why: at a preemption all steps get SIGTERM, but by a person's scancel, too."""
        notice = self._notice
        if self._phase not in UNSAVED:
            return []
        if notice is None or notice.signum == SIGINT:
            self._step_ended_at = now
        elif notice.last_term is not None:
            return []  # it came to us as well, and Slurm was asked
        return self._ask(now)

    def _explain_step(self, read: JobRead, now: float) -> list[Action]:
        """Take the end of our own small step for a notice, if Slurm says that the job is being preempted."""
        assert self._step_ended_at is not None
        if read.job is None and not read.answered and now < self._step_ended_at + (self._known.grace_time or 0):
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            return []
        self._step_ended_at = None
        if read.job is None:
            return []
        if tables.in_grace(read.job):
            told = Signalled(SIGTERM, "slurmstepd, to the job's steps", False, self._phase == "run")
            return self._first_notice(told, now, "preempted")
        if read.job.state not in tables.RUNNING_STATES:
            return []  # whatever ends the job is told to us as well
        self._listens_left -= 1
        told_by = "kforge-notice, a step of kforge-run's, was ended by hand: "
        if self._listens_left >= 0:
            return [Say("detail", f"{told_by}it is started once more"), Listen()]
        return [Say("warning", f"{told_by}a preemption is noticed only when its grace is over")]

    def _forward(self, event: Signalled) -> list[Action]:
        name = name_of(event.signum)
        if not event.child_alive or event.child_has_it:
            return []
        if self._rules.child_is_srun and event.signum == SIGINT:
            return [Deliver(SIGUSR1)]
        if self._rules.child_is_srun and event.signum in ABORTS_SRUN:
            return [Say("warning", f"{name} from {event.sender} is not passed on: srun would kill its tasks")]
        return [Forward(event.signum), Say("detail", f"{name} from {event.sender} passed on")]

    def _delivered(self, event: Delivered, now: float) -> list[Action]:
        first, self._was_delivered = not self._was_delivered, True
        for who in event.armed:
            self._saving[who] = self._saving.get(who, 0) + 1
            self._timers.set(Timer.REPEAT_TO_ARMED, now + ARMED_REPEAT)
        if event.srun_started is not None and now - event.srun_started < tables.SRUN_SETTLES:
            self._timers.set(Timer.REPEAT_TO_SRUN, now + SRUN_REPEAT)
        return [Say("info" if first else "detail", f"delivered to {event.targets}")]

    def _understand(self, now: float) -> list[Action]:
        """Find the reason, or have Slurm asked for it."""
        assert self._notice is not None
        signum = self._notice.signum
        if self._rules.place == "batch" and signum != SIGINT:
            return self._ask(now)
        return self._set_reason(tables.reason_without_slurm(signum, self._rules.place, self._known.end, now))

    def _ask(self, now: float) -> list[Action]:
        """Have the job read, but not again and again while signals pour in: a new question drops the last."""
        if now - self._asked_at < SAME_EVENT:
            self._timers.set(Timer.ASK, self._asked_at + SAME_EVENT)
            return []
        self._timers.drop(Timer.ASK)
        self._asked_at = now
        return [AskSlurm()]

    def _set_reason(self, reason: Reason) -> list[Action]:
        if reason == self._reason:
            return []
        self._reason = reason
        return [Say("info", f"reason: {reason.replace('_', ' ')}"), Record("reason", {"reason": reason})]

    def _job_read(self, event: JobRead, now: float) -> list[Action]:
        job = event.job
        if job is not None:
            self._learn(job, now)
        if self._phase == "decide":
            return self._look_again(Timer.CONCLUDE, event, now) if job is None else self._conclude(job, now)
        if self._phase == "verify":
            return self._look_again(Timer.VERIFY, event, now) if job is None else self._verify(job, now)
        notice = self._notice
        if notice is None and (job is None or self._known.restarts is None):
            # Without it a cancellation cannot be told later from a requeue, or from the time limit.
            self._timers.set(Timer.ASK, now + FACTS_AGAIN)
        if notice is None or notice.signum == SIGINT:
            return [] if self._step_ended_at is None or self._phase not in UNSAVED else self._explain_step(event, now)
        if job is None:
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            if self._reason is not None:
                return []
            return [*self._say_no_answer(event), *self._set_reason("unknown"), *self._plan(now)]
        reason = tables.reason_from_job(job, self._known, notice.signum, now)
        if job.state not in tables.KNOWN_STATES and reason == "unknown":
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
            reason = self._reason or reason
        return self._set_reason(reason) + self._plan(now)

    def _learn(self, job: Job, now: float) -> None:
        """Keep what later readings are compared with."""
        self._job = job
        if job.state not in tables.KNOWN_STATES:
            return
        self._still_runs = job.state in tables.RUNNING_STATES
        if not self._still_runs:
            return
        end = job.end
        if end is not None and end + tables.CLOCK_SLACK <= now:
            # It runs on past its end (OverTimeLimit, or Slurm has not looked yet): the clock proves nothing any more.
            end = None
        elif end is not None and self._notice is None:
            # Somebody may extend the limit meanwhile. Past the old end a cancellation would look timed out.
            self._timers.set(Timer.ASK, end + tables.CLOCK_SLACK)
        restarts = job.restarts if self._known.restarts is None else self._known.restarts
        self._known = self._known._replace(restarts=restarts, end=end)

    # --- deadline and escalation -----------------------------------------------------------------

    def _plan(self, now: float) -> list[Action]:
        """Set the deadline and the stages by what is known now, and tell it if they changed."""
        notice, rules = self._notice, self._rules
        if notice is None or not notice.opens_window:
            return []
        end = self._known.end if self._known.end is not None and self._known.end > now else None
        deadline = tables.deadline(notice, self._reason, self._still_runs, end, rules, self._site)
        if self._known_deadline is not None:
            deadline = min(deadline, self._known_deadline)
        if rules.place != "batch" or (self._still_runs and self._reason not in (None, "unknown")):
            self._known_deadline = deadline
        plan = tables.stages(notice.at, deadline, rules.term_grace)
        if rules.has_outer:
            # Whoever is above us must find this step ended when its own stages begin.
            plan = tables.stages(notice.at, plan.forced_exit, rules.term_grace, self._wanted_until)
        elif self._wanted_until is not None:
            plan = tables.stages(notice.at, deadline, rules.term_grace, self._wanted_until)
        if (plan, deadline, self._reason) == (self._stages, self._deadline, self._told_reason):
            return []
        opened = self._stages is None
        moved = self._deadline is None or abs(deadline - self._deadline) >= 1 or self._told_reason != self._reason
        self._stages, self._deadline = plan, deadline
        if self._phase in UNSAVED:
            # A stage that is done stays done.
            for stage, at in ((Timer.TERMINATE, plan.terminate), (Timer.KILL, plan.kill)):
                if opened or stage in self._timers:
                    self._timers.set(stage, at)
        if Timer.CONCLUDE in self._timers:
            self._timers.set(Timer.CONCLUDE, self._last_moment(now))
        # Ctrl-C raises KeyboardInterrupt in the program; it is no request to checkpoint at the next step.
        interrupt = notice.signum == SIGINT
        actions: list[Action] = [] if interrupt else [Tell(notice.signum, self._reason, deadline, plan.forced_exit)]
        self._told_reason = self._reason
        if moved and self._reason is not None:
            comes_back = rules.place == "batch" and self._reason in ("time_limit", "preempted")
            what = "save, end and requeue" if comes_back else "save and end"
            actions.append(Say("info", f"{deadline - now:.0f} s left to {what}"))
        return actions

    def _continued(self, event: Continued, now: float) -> list[Action]:
        """Count only the time in which the child could run, and let Slurm tell the new end before any stage."""
        actions: list[Action] = []
        stopped = event.stopped_for
        if stopped > 0:
            actions.append(Say("info", f"continued after {stopped:.0f} s"))
            actions.append(Record("continued", {"stopped_for": round(stopped, 3)}))
        if self._known.end is not None:
            self._known = self._known._replace(end=self._known.end + stopped)
        if stopped > 0 and self._notice is not None and self._deadline is not None:
            terms = [None if t is None else t + stopped for t in (self._notice.first_term, self._notice.last_term)]
            at = self._notice.at + stopped
            self._notice = self._notice._replace(at=at, first_term=terms[0], last_term=terms[1])
            self._timeline = Timeline(*(None if moment is None else moment + stopped for moment in self._timeline))
            self._deadline += stopped
            self._known_deadline = None
            if self._wanted_until is not None:
                self._wanted_until += stopped
            self._timers.suspended(stopped, now + HOLD_AFTER_STOP)
        # A stop that went unnoticed did not outlast anything due, but Slurm may have moved the end.
        if self._rules.place == "batch" and self._phase in (*UNSAVED, "sweep"):
            actions += self._ask(now)
        return actions

    def _time_passed(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for timer in self._timers.in_order():
            if self._timers.take(timer, now):
                actions += self._ring(timer, now)
        return actions

    def _ring(self, timer: Timer, now: float) -> list[Action]:
        match timer:
            case Timer.TERMINATE:
                told = Say("warning", "still running: stack dump and SIGTERM")
                return [told, Record("stage", {"stage": "terminate"}), DumpStacks(), Terminate()]
            case Timer.KILL:
                return self._kill(now)
            case Timer.ABANDON:
                return self._start_to_decide(now)
            case Timer.PROGRESS:
                return self._tell_progress(now)
            case Timer.ASK:
                self._asked_at = now
                return [AskSlurm()]
            case Timer.REPEAT_TO_SRUN:
                missed = self._phase in UNSAVED and not self._cooperation.registered and self._notice is not None
                return [Deliver(SIGUSR1, again=True)] if missed else []
            case Timer.REPEAT_TO_ARMED:
                notice = self._notice if self._phase in UNSAVED else None
                return [] if notice is None else [Deliver(notice.signum, again=True)]
            case Timer.CONCLUDE:
                # While a requeue is under way its answer decides; scontrol's own patience is limited.
                return self._conclude(None, now) if self._phase == "decide" else []
            case Timer.VERIFY:
                return self._done(True, "the requeue was accepted, but Slurm did not confirm it", now)
            case _:
                return never(timer)

    def _kill(self, now: float) -> list[Action]:
        self._killed = self._phase in UNSAVED
        wait = KILL_WINDOW if self._deadline is None else max((self._deadline - now) / 2, 0.1)
        self._timers.set(Timer.ABANDON, now + min(KILL_WINDOW, wait))
        return [Say("warning", "still running: SIGKILL"), Record("stage", {"stage": "kill"}), Kill()]

    def _tell_progress(self, now: float) -> list[Action]:
        if self._phase not in UNSAVED or self._deadline is None:
            return []
        self._timers.set(Timer.PROGRESS, now + PROGRESS_EVERY)
        seen = self._cooperation
        doing = "to finish" if seen.stop_polled else "for its first poll" if seen.registered else "for the child to end"
        return [Say("info", f"waiting {doing}: {max(self._deadline - now, 0):.0f} s left")]

    # --- what cooperative processes report -------------------------------------------------------

    def _process_armed(self, event: Armed) -> list[Action]:
        self._armed.add(event.who)
        record = {"pid": event.who.pid, "program": event.program}
        return [Record("armed", record), Say("detail", f"armed: {event.program} (pid {event.who.pid})")]

    def _process_registered(self, event: Registered) -> list[Action]:
        self._saving[event.who] = self._saving.get(event.who, 0) + 1
        if not event.is_launcher:
            self._cooperation = self._cooperation._replace(registered=True)
        record = {"pid": event.who.pid, "program": event.program, "timeout": event.timeout}
        return [Record("registered", record), Say("detail", f"cooperative: {event.program} (pid {event.who.pid})")]

    def _process_polled(self, event: Polled, now: float) -> list[Action]:
        seen = self._cooperation
        self._cooperation = seen._replace(polled=True, stop_polled=seen.stop_polled or event.stop)
        actions: list[Action] = [Record("polled", {"pid": event.who.pid, "stop": event.stop})]
        if event.stop and self._timeline.first_poll is None:
            self._timeline = self._timeline._replace(first_poll=now)
            actions.append(Say("info", f"first poll by pid {event.who.pid}{self._after(now)}: saving"))
        return actions

    def _process_finished(self, event: Finished, now: float) -> list[Action]:
        self._saves_no_more(event.who)
        self._cooperation = self._cooperation._replace(finished=True)
        self._timeline = self._timeline._replace(finish=self._timeline.finish or now)
        told: list[Action] = [Record("finished", {"pid": event.who.pid})]
        told.append(Say("info", f"pid {event.who.pid} finished{self._after(now)}"))
        return told + self._sweep_if_nothing_saves(now)

    def _process_gone(self, event: Gone, now: float) -> list[Action]:
        self._armed.discard(event.who)
        self._saves_no_more(event.who)
        return self._sweep_if_nothing_saves(now)

    def _saves_no_more(self, who: Identity) -> None:
        """Count one handler, or one armed process that had the notice, less."""
        self._saving[who] = self._saving.get(who, 0) - 1
        if self._saving[who] <= 0:
            del self._saving[who]

    def _sweep_if_nothing_saves(self, now: float) -> list[Action]:
        return self._sweep(now) if self._phase == "outlived" and not self._may_save else []

    def _after(self, now: float) -> str:
        return "" if self._notice is None else f", {now - self._notice.at:.1f} s after the notice"

    def _more_time(self, event: MoreTime, now: float) -> list[Action]:
        if Timer.TERMINATE not in self._timers:
            return []
        self._wanted_until = max(self._wanted_until or now, now + event.seconds)
        told = self._plan(now)
        granted = max(self._timers[Timer.TERMINATE] - now, 0)
        enough = "granted" if granted >= event.seconds else f"{granted:.0f} s are all there is"
        return [*told, Say("info", f"pid {event.who.pid} asks for {event.seconds:.0f} s to save: {enough}")]

    # --- the end of the child --------------------------------------------------------------------

    @property
    def _may_save(self) -> bool:
        """Whether what is below the child may hold the run, or will when the notice comes that the child died of."""
        return bool(self._saving) or (bool(self._armed) and self._died_of_a_notice and self._notice is None)

    def _child_exited(self, event: ChildExited, now: float) -> list[Action]:
        self._status = event.status
        if self._phase != "run":
            return []  # it had been given up after SIGKILL, and went after all
        self._timeline = self._timeline._replace(exit=now)
        actions: list[Action] = [Record("exit", {"status": event.status})]
        if self._notice is not None:
            actions.append(Say("info", f"the child {describe(event.status)}{self._after(now)}"))
        if event.tree_empty:
            return actions + self._start_to_decide(now)
        self._died_of_a_notice = event.status in tables.DIED_OF_A_NOTICE
        if not self._may_save or Timer.ABANDON in self._timers:
            return actions + self._sweep(now)
        # Not the child, but what is below it holds the run: the stages go on as they were.
        self._phase = "outlived"
        if not self._saving:
            self._timers.set(Timer.TERMINATE, now + NOTICE_FOLLOWS)
            self._timers.set(Timer.KILL, now + NOTICE_FOLLOWS + self._rules.term_grace)
            return actions
        actions.append(Say("info", f"what it ran still saves: pid {', '.join(str(who.pid) for who in self._saving)}"))
        if Timer.TERMINATE not in self._timers and Timer.KILL not in self._timers:
            self._timers.set(Timer.KILL, now + tables.MANUAL_WINDOW)
            actions.append(Terminate())
        return actions

    def _sweep(self, now: float) -> list[Action]:
        """Ask what the child left behind to end, and kill it after a while."""
        self._phase = "sweep"
        self._timers.swept()
        if Timer.ABANDON in self._timers:
            return [Kill()]
        at = now + self._rules.term_grace
        self._timers.set(Timer.KILL, min(self._timers[Timer.KILL], at) if Timer.KILL in self._timers else at)
        return [Say("detail", "sweeping what is left behind"), Terminate()]

    def _tree_empty(self, now: float) -> list[Action]:
        return self._start_to_decide(now) if self._phase in ("outlived", "sweep") else []

    def _start_to_decide(self, now: float) -> list[Action]:
        self._phase = "decide"
        self._timers.decided()
        if self._rules.place != "batch" or not self._rules.requeue or self._reason == "interrupt":
            return self._conclude(None, now)
        self._timers.set(Timer.CONCLUDE, self._last_moment(now))
        return [AskSlurm()]

    def _last_moment(self, now: float) -> float:
        """Return how long Slurm may take to answer in the end."""
        if self._deadline is not None:
            return max(self._before(self._deadline, now), now + LAST_WINDOW)
        failed = self._status != 0 and self._rules.retry_failures > 0
        worth = failed or self._status == CHECKPOINTED_STATUS or self._cooperation.finished
        return now + (REQUEUE_WINDOW if worth else LOOK_WINDOW)

    @staticmethod
    def _before(deadline: float, now: float) -> float:
        """Return when to stop waiting, so early that somebody reads what became of the run."""
        return deadline - min(LAST_WORD, (deadline - now) * 0.1)

    def _say_no_answer(self, read: JobRead) -> list[Action]:
        first, self._said_no_answer = not self._said_no_answer, True
        what = "Slurm's answer cannot be read" if read.answered else "Slurm does not answer"
        return [Say("warning", f"{what} ({read.error}): asking again until the deadline")] if first else []

    def _look_again(self, until: Timer, read: JobRead, now: float) -> list[Action]:
        if until in self._timers and self._timers[until] > now + ASK_AGAIN:
            self._timers.set(Timer.ASK, now + ASK_AGAIN)
        return self._say_no_answer(read)

    # --- decision and requeue --------------------------------------------------------------------

    def _conclude(self, job: Job | None, now: float) -> list[Action]:
        actions = self._last_reason(job, now)
        if self._reason == "requeued" and self._tries:
            return actions + self._done(True, "requeued", now)
        notice = self._notice
        signum, delivered = (None, False) if notice is None else (notice.signum, notice.delivered)
        ending = tables.Ending(self._status, self._killed, self._cooperation, signum, delivered, self._reason)
        if job is not None and self._reason is None and tables.preempted_unnoticed(job, ending, self._rules):
            actions += self._set_reason("preempted")
            ending = ending._replace(reason="preempted")
        outcome = tables.outcome_of(ending, self._rules)
        decision = tables.decide(outcome, ending, self._rules, self._history, job)
        self._outcome = outcome
        if decision.requeue and job is not None:
            self._phase = "verify"
            self._tries += 1
            record = Record("requeue", {"because": decision.because, "job": job.requeue_id})
            return [*actions, record, Requeue(job.requeue_id)]
        return actions + self._done(False, decision.because, now)

    def _last_reason(self, job: Job | None, now: float) -> list[Action]:
        """Let the last reading of the job correct the reason: what its owner did meanwhile counts most."""
        notice = self._notice
        if notice is not None and notice.signum == SIGINT:
            return self._set_reason("interrupt")
        if job is None:
            return self._set_reason("unknown") if notice is not None and self._reason is None else []
        if notice is None and (job.state in tables.RUNNING_STATES or job.state not in tables.KNOWN_STATES):
            return []
        signum = SIGTERM if notice is None else notice.signum
        reason = tables.reason_from_job(job, self._known, signum, now)
        if self._reason in (None, "unknown") or reason in ("cancelled", "requeued"):
            return self._set_reason(reason)
        return []

    def _requeue_answered(self, event: RequeueAnswered, now: float) -> list[Action]:
        if event.ok:
            latest = now + LOOK_WINDOW
            if self._deadline is not None:
                latest = min(latest, max(self._before(self._deadline, now), now))
            self._timers.set(Timer.VERIFY, latest)
            return [AskSlurm()]
        return self._requeue_failed(event.text, event.final, now)

    def _verify(self, job: Job, now: float) -> list[Action]:
        if job.state in tables.WAITING_STATES or self._known.restarts is None or job.restarts > self._known.restarts:
            return self._done(True, "requeued", now)
        if job.state not in tables.KNOWN_STATES:
            return self._look_again(Timer.VERIFY, JobRead(None, f"JobState={job.state}", answered=True), now)
        return self._requeue_failed("it was accepted, but the job's Restarts did not change", False, now)

    def _requeue_failed(self, text: str, final: bool, now: float) -> list[Action]:
        self._timers.drop(Timer.VERIFY)
        wait = RETRY_AFTER * 2 ** (self._tries - 1)
        if final or Timer.CONCLUDE not in self._timers or now + wait >= self._timers[Timer.CONCLUDE]:
            return self._done(False, f"the requeue failed: {text}", now)
        self._phase = "decide"
        self._timers.set(Timer.ASK, now + wait)
        return [Say("warning", f"the requeue failed: {text}: trying again")]

    def _done(self, requeued: bool, because: str, now: float) -> list[Action]:
        self._phase = "done"
        self._timers.decided()
        status = tables.exit_status(self._outcome, self._status, requeued, self._rules, self._site)
        actions: list[Action] = [
            Record(
                "end",
                {
                    "outcome": self._outcome,
                    "reason": self._reason,
                    "requeued": requeued,
                    "because": because,
                    "status": status,
                    "restarts": self._known.restarts,
                    "progress": self._cooperation.made_progress,
                    "retried": requeued and self._outcome == "failed",
                    "shutdown": self._shutdown,
                    "slack": None if self._deadline is None else round(self._deadline - now, 3),
                },
            )
        ]
        wanted_but_failed = not requeued and self._tries > 0
        if not requeued and (wanted_but_failed or self._worth_a_hint):
            job_id = self._rules.job_id if self._job is None else self._job.requeue_id
            actions.append(Say("warning", f"not requeued: {because}; to run it again: scontrol requeue {job_id}"))
        elif self._notice is not None or requeued or (self._rules.place == "batch" and self._outcome == "failed"):
            ended = "" if self._notice is not None or self._status is None else f"the child {describe(self._status)}; "
            actions.append(Say("info", ended + (because if requeued else f"not requeued: {because}")))
        if self._notice is not None:
            actions.append(Say("summary", self._summary(self._notice, requeued, now)))
        return [*actions, Exit(status)]

    @property
    def _shutdown(self) -> float | None:
        """From the notice to the child's end (s), if it came to one by itself."""
        if self._notice is None or self._timeline.exit is None or self._killed:
            return None
        return round(self._timeline.exit - self._notice.at, 3)

    @property
    def _worth_a_hint(self) -> bool:
        """Whether the run could go on, but only a person can know that it should."""
        return self._rules.place == "batch" and self._reason == "unknown" and self._outcome != "completed"

    def _summary(self, notice: tables.Notice, requeued: bool, now: float) -> str:
        """Return the shutdown in one line."""
        line = self._timeline
        moments = (("first poll", line.first_poll), ("finish", line.finish), ("exit", line.exit))
        parts = [Signals(notice.signum).name]
        # Slurm may have told the program a moment before us.
        parts += [f"{name} {max(at - notice.at, 0):+.1f} s" for name, at in moments if at is not None]
        if requeued:
            parts.append(f"requeued {now - notice.at:+.1f} s")
        slack = "" if self._deadline is None else f", {self._deadline - now:.1f} s to spare"
        assumed = " (assumed: nothing that cooperates ran)" if self._assumed_checkpoint else ""
        return f"{self._outcome}{assumed}: {' → '.join(parts)}{slack}"

    @property
    def _assumed_checkpoint(self) -> bool:
        return self._outcome == "checkpointed" and self._status == 0 and not self._cooperation.registered


def name_of(signum: int) -> str:
    """Return a signal's name; of the real-time signals only the first and the last have one."""
    try:
        return Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def describe(status: int) -> str:
    """Return a child's end in words: its exit status, or minus the signal it died of."""
    if status >= 0:
        return f"exited with {status}"
    return f"died of {name_of(-status)}"
