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

from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1
from typing import Literal

from . import facts, tables
from .conclusion import Conclusion, Step
from .escalation import Escalation
from .inquiry import Inquiry
from .ledger import Ledger
from .timers import Timer, Timers
from .words import (
    UNSAVED,
    Action,
    Answered,
    Armed,
    ChildExited,
    Continued,
    Deliver,
    Delivered,
    Event,
    Finished,
    ForcedExit,
    Forward,
    Gone,
    Heard,
    HistoryRead,
    Job,
    JobRead,
    Joined,
    Kill,
    Left,
    LinesRead,
    Look,
    MoreTime,
    Noticed,
    Phase,
    Polled,
    Reason,
    Registered,
    RequeueAnswered,
    Rules,
    Signalled,
    Site,
    SiteRead,
    StepEnded,
    Tell,
    TermAsked,
    Terminate,
    TimePassed,
    TreeEmpty,
    TreeRead,
    never,
    signal_name,
)
from .worlds import Worlds

#: How often the notice is repeated to such an srun (s): a guess.
SRUN_REPEAT = 1.0
#: A child that died of a signal that is a notice may have got it a moment before us (s, a guess): Slurm signals every
#: process.
NOTICE_FOLLOWS = 1.0
#: Time between two lines that tell how much time is left (s): a guess.
PROGRESS_EVERY = 10.0

#: srun aborts the whole step on these (slurm-facts, "Who receives what").
ABORTS_SRUN = frozenset({SIGHUP, SIGQUIT, SIGTERM})


class Policy:
    """Decides for one attempt of a run.

    Args:
        rules: what is fixed at the start.
        site: what the cluster gives, until `SiteRead` tells better.
        end: when Slurm ends the job (s, monotonic), as far as known before it is asked.
    """

    def __init__(self, rules: Rules, site: Site | None = None, end: float | None = None) -> None:
        self._rules = rules
        self._phase: Phase = "run"
        self._timers = Timers()
        self._ledger = Ledger(self._timers, rules.notify)
        self._worlds = Worlds(self._timers, sees_all=rules.place != "step")
        self._inquiry = Inquiry(rules, site or Site(), end, self._timers)
        self._escalation = Escalation(rules, self._inquiry, self._timers)
        self._conclusion = Conclusion(rules, self._inquiry, self._escalation, self._ledger, self._worlds, self._timers)

    # --- what the loop sees ----------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When to send `TimePassed` if nothing else happens (s, monotonic); None: never."""
        return self._timers.next

    @property
    def deadline(self) -> float | None:
        """When this attempt is over (s, monotonic); None: nothing told it to stop."""
        return self._escalation.deadline

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
                self._inquiry.site_read(event.site)
                return self._plan(now)
            case TermAsked():
                return self._inquiry.term_asked(event.lead, now)
            case HistoryRead():
                self._conclusion.history_read(event.history)
                return []
            case JobRead():
                return self._job_read(event, now)
            case StepEnded():
                return self._inquiry.step_ended(now) if self._is_unsaved else []
            case RequeueAnswered():
                return self._go(self._conclusion.requeue_answered(event, now))
            case ChildExited():
                return self._child_exited(event, now)
            case TreeEmpty():
                return self._start_to_decide(now) if self._phase in ("outlived", "sweep") else []
            case Armed():
                return [facts.Armed(event.who.pid, event.program), *self._look_soon(now)]
            case Registered():
                return [*self._escalation.tell(event.who), *self._ledger.registered(event)]
            case TreeRead():
                return self._tree_read(event, now)
            case Answered():
                return self._ledger.answered(event)
            case Heard():
                return self._ledger.heard(event, now)
            case Joined():
                return self._worlds.joined(event, now)
            case Noticed():
                return self._worlds.noticed(event.who, self._final_at(now), now) if self._is_unsaved else []
            case Left():
                return self._worlds.left(event.who)
            case LinesRead():
                return self._worlds.read(event, now) if self._is_unsaved else []
            case Polled():
                if event.stop:
                    self._worlds.told(event.who)
                return self._ledger.polled(event, now, self._inquiry.after_notice(now))
            case Finished():
                finished = self._ledger.finished(event, now, self._inquiry.after_notice(now))
                return finished + self._worlds.finished(event.who) + self._sweep_if_nothing_saves(now)
            case Gone():
                gone = self._ledger.gone(event, now)
                self._worlds.lost(event.who)
                return gone + self._look_soon(now) + self._sweep_if_nothing_saves(now)
            case ForcedExit():
                return [facts.ForcedExit(event.who.pid)]
            case MoreTime():
                return self._escalation.more_time(event, now, self._is_unsaved)
            case _:
                return never(event)

    def already_done(self, job: Job, now: float) -> list[Action]:
        """Return how to end without running anything: the run has completed before."""
        return self._go(self._conclusion.done_before(job, now))

    # --- phases ------------------------------------------------------------------------------------

    @property
    def _is_unsaved(self) -> bool:
        return self._phase in UNSAVED

    def _go(self, step: Step) -> list[Action]:
        self._phase, actions = step
        return actions

    def _child_exited(self, event: ChildExited, now: float) -> list[Action]:
        self._conclusion.status = event.status
        if self._phase != "run":
            return []  # it had been given up after SIGKILL, and went after all
        actions = self._conclusion.child_ended(now)
        if event.tree_empty:
            return actions + self._start_to_decide(now)
        if not self._may_save or Timer.ABANDON in self._timers:
            return actions + self._sweep(now)
        # Not the child, but what is below it holds the run: the stages go on as they were.
        self._phase = "outlived"
        if not self._ledger.saving:
            if self._inquiry.notice is None:
                self._timers.set(Timer.TERMINATE, now + NOTICE_FOLLOWS)
                self._timers.set(Timer.KILL, now + NOTICE_FOLLOWS + self._rules.term_grace)
            return actions
        actions.append(facts.StillSaving(tuple(who.pid for who in self._ledger.saving)))
        if Timer.KILL not in self._timers:
            self._timers.set(Timer.KILL, now + tables.MANUAL_WINDOW)
            actions.append(Terminate())
        return actions

    @property
    def _may_save(self) -> bool:
        """Whether what is below the child may hold the run, or will when the notice comes that the child died of."""
        notice_follows = self._conclusion.status in tables.DIED_OF_A_NOTICE and self._inquiry.notice is None
        return bool(self._ledger.saving) or self._ledger.is_undecided or notice_follows

    def _sweep_if_nothing_saves(self, now: float) -> list[Action]:
        return self._sweep(now) if self._phase == "outlived" and not self._may_save else []

    def _sweep(self, now: float) -> list[Action]:
        """Ask what the child left behind to end, and kill it after a while."""
        self._phase = "sweep"
        self._timers.swept()
        if Timer.ABANDON in self._timers:
            return [Kill()]
        at = now + self._rules.term_grace
        self._timers.set(Timer.KILL, min(self._timers[Timer.KILL], at) if Timer.KILL in self._timers else at)
        return [facts.Sweeping(), Terminate()]

    def _start_to_decide(self, now: float) -> list[Action]:
        self._phase = "decide"
        return self._go(self._conclusion.begin(now))

    # --- the notice ----------------------------------------------------------------------------------

    def _signalled(self, event: Signalled, now: float) -> list[Action]:
        if self._phase == "verify":
            return []  # after a requeue Slurm sends this attempt SIGTERM within milliseconds
        signum, notice = event.signum, self._inquiry.notice
        if signum not in (SIGTERM, SIGUSR1, SIGINT):
            return self._forward(event)
        if notice is None or (self._inquiry.is_interrupt and signum != SIGINT):
            return self._first_notice(event, now)
        if signum == SIGINT:
            return self._forward(event)
        if signum == SIGUSR1:
            return []
        said = self._inquiry.terminated_too(event, now)
        return [*said, *self._inquiry.understand(now), *self._plan(now)]

    def _first_notice(self, event: Signalled, now: float, reason: Reason | None = None) -> list[Action]:
        """Begin a shutdown.

        Args:
            reason: as Slurm has said just now of a signal that only the job's steps got; None: it came to us.
        """
        # Ctrl-C is a word between a person and the program: no window opens, nothing is killed for it.
        window = event.signum != SIGINT or not event.child_has_it or self._rules.timeout is not None
        said = self._inquiry.begin(event, now, window, reason)
        if event.signum == SIGINT:
            handed_on = self._forward(event)
        else:
            # Also where the child has ended: a shell may have died of the signal before us, and what it ran may save.
            handed_on = [Deliver(event.signum), *self._ledger.begin(event.signum, now)] if self._is_unsaved else []
        if self._is_unsaved and window:
            self._timers.set(Timer.PROGRESS, now + PROGRESS_EVERY)
        understood = self._inquiry.understand(now) if reason is None else self._inquiry.set_reason(reason)
        plan = self._plan(now)
        # The signal before the message: told first, a quick program has saved, finished and put its handlers back
        # when the signal comes, and dies of it.
        told = [action for action in plan if isinstance(action, Tell)]
        others = [action for action in plan if action not in told]
        meeting = self._worlds.begin(self._final_at(now), now) if self._is_unsaved and window else []
        return [*said, *handed_on, *told, *understood, *others, *meeting]

    def _final_at(self, now: float) -> float:
        """Return when the final stage is (s, monotonic)."""
        return self._timers[Timer.TERMINATE] if Timer.TERMINATE in self._timers else now + tables.MANUAL_WINDOW

    def _forward(self, event: Signalled) -> list[Action]:
        name = signal_name(event.signum)
        if not event.child_alive or event.child_has_it:
            return []
        if self._rules.child_is_srun and event.signum == SIGINT:
            return [Deliver(SIGUSR1)]
        if self._rules.child_is_srun and event.signum in ABORTS_SRUN:
            return [facts.KeptFromSrun(name, event.sender)]
        return [Forward(event.signum), facts.PassedOn(name, event.sender)]

    def _delivered(self, event: Delivered, now: float) -> list[Action]:
        if event.srun_started is not None and now - event.srun_started < tables.SRUN_SETTLES:
            self._timers.set(Timer.REPEAT_TO_SRUN, now + SRUN_REPEAT)
        return [facts.HandedOn(event.targets, again=False)] if event.targets else []

    def _tree_read(self, event: TreeRead, now: float) -> list[Action]:
        if not self._is_unsaved:
            return []
        told = self._ledger.read(event, self._final_at(now), now)
        self._end_what_hears_nothing(now)
        return told + self._sweep_if_nothing_saves(now)

    def _look_soon(self, now: float) -> list[Action]:
        return self._ledger.look_soon(now) if self._is_unsaved else []

    def _end_what_hears_nothing(self, now: float) -> None:
        """Do not have a person wait for the end of what cannot save, and will not come back."""
        notice = self._inquiry.notice
        asked = notice is not None and notice.signum == SIGTERM and self._inquiry.reason in tables.ENDED_BY_A_PERSON
        if asked and self._ledger.nobody_hears and Timer.TERMINATE in self._timers:
            self._timers.set(Timer.TERMINATE, now)
            self._timers.set(Timer.KILL, min(self._timers[Timer.KILL], now + self._rules.term_grace))

    # --- what Slurm says -----------------------------------------------------------------------------

    def _job_read(self, event: JobRead, now: float) -> list[Action]:
        job, inquiry = event.job, self._inquiry
        if job is not None:
            inquiry.learn(job, now)
        if self._phase == "decide":
            if job is None:
                return inquiry.ask_again(event, Timer.CONCLUDE, now)
            return self._go(self._conclusion.conclude(job, now))
        if self._phase == "verify":
            if job is None:
                return inquiry.ask_again(event, Timer.VERIFY, now)
            return self._go(self._conclusion.verify(job, now))
        if inquiry.notice is None:
            inquiry.ask_for_facts_again(event, now)
        if inquiry.notice is None or inquiry.is_interrupt:
            return self._explain_step(event, now) if self._is_unsaved else []
        explained = inquiry.explain(event, now)
        return explained + self._plan(now) if job is not None or explained else []

    def _explain_step(self, read: JobRead, now: float) -> list[Action]:
        """Take the end of our own small step for a notice, if Slurm says that the job is being preempted."""
        if not self._inquiry.is_preemption(read):
            return self._inquiry.explain_step(read, now)
        told = Signalled(SIGTERM, "slurmstepd, to the job's steps", False, self._phase == "run")
        return self._first_notice(told, now, "preempted")

    # --- time --------------------------------------------------------------------------------------

    def _plan(self, now: float) -> list[Action]:
        before = self._escalation.deadline
        actions = self._escalation.plan(now, self._is_unsaved)
        if self._escalation.deadline != before:
            self._conclusion.deadline_moved(now)
        return actions

    def _continued(self, event: Continued, now: float) -> list[Action]:
        """Count only the time in which the child could run, and let Slurm tell the new end before any stage."""
        actions: list[Action] = []
        stopped = event.stopped_for
        if stopped > 0:
            actions.append(facts.Continued(stopped))
            for part in (self._inquiry, self._ledger, self._worlds, self._conclusion):
                part.suspended(stopped)
            self._escalation.suspended(stopped, now)
        # A stop that went unnoticed did not outlast anything due, but Slurm may have moved the end.
        if self._rules.place == "batch" and (self._is_unsaved or self._phase == "sweep"):
            actions += self._inquiry.ask(now)
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
                told, spared = self._ledger.final(now)
                # The mark comes before the word: who gets it now is to know that it is the last one.
                return [*self._escalation.terminate(spared), *told]
            case Timer.KILL:
                return self._escalation.kill(now, self._is_unsaved)
            case Timer.ABANDON:
                return self._start_to_decide(now)
            case Timer.PROGRESS:
                return self._tell_progress(now)
            case Timer.ASK:
                return self._inquiry.ask_at_once(now)
            case Timer.REPEAT_TO_SRUN:
                return [] if self._ledger.cooperation.registered else [Deliver(SIGUSR1, again=True)]
            case Timer.REPEAT:
                return self._ledger.repeat(now)
            case Timer.SEEK:
                return self._ledger.seek(now)
            case Timer.MEET:
                return self._worlds.meet()
            case Timer.LOOK:
                return [Look()]
            case Timer.CONCLUDE:
                # While a requeue is under way its answer decides; scontrol's own patience is limited.
                return self._go(self._conclusion.conclude(None, now)) if self._phase == "decide" else []
            case Timer.VERIFY:
                return self._go(self._conclusion.unconfirmed(now))
            case _:
                return never(timer)

    def _tell_progress(self, now: float) -> list[Action]:
        deadline = self._escalation.deadline
        if deadline is None:
            return []
        self._timers.set(Timer.PROGRESS, now + PROGRESS_EVERY)
        return [facts.Waiting(_awaited(self._ledger.cooperation), max(deadline - now, 0))]


def _awaited(seen: tables.Cooperation) -> Literal["finish", "first poll", "end"]:
    if seen.stop_polled:
        return "finish"
    return "first poll" if seen.registered else "end"
