"""How long the run has after a notice, and what is done to whoever needs longer."""

from __future__ import annotations

from . import facts, tables
from .inquiry import Inquiry
from .timers import Timer, Timers
from .words import Action, DumpStacks, Identity, Kill, MoreTime, Reason, Rules, Tell, Terminate

#: How long the stages wait after a suspension for Slurm to tell the new end (s): a guess.
HOLD_AFTER_STOP = 2.0
#: From giving up on Slurm to the deadline, when time is plenty (s): a guess.
LAST_WORD = 1.0
#: How long a process that got SIGKILL may take to go (s): one in uninterruptible sleep may never. A guess.
KILL_WINDOW = 10.0


class Escalation:
    """The deadline, and the stages before it.

    Args:
        rules: what is fixed at the start.
        inquiry: the notice and its reason, and what the cluster gives.
        timers: for the stages.

    Attributes:
        deadline: when this attempt is over (s, monotonic); None: nothing told it to stop.
        killed: what may have saved got SIGKILL.
    """

    def __init__(self, rules: Rules, inquiry: Inquiry, timers: Timers) -> None:
        self._rules = rules
        self._inquiry = inquiry
        self._timers = timers
        self.deadline: float | None = None
        self.killed = False
        #: While a SIGTERM is not understood the deadline is a guess. What is known only comes nearer.
        self._known_deadline: float | None = None
        self._stages: tables.Stages | None = None
        self._wanted_until: float | None = None
        #: As cooperative processes know it.
        self._told: Tell | None = None
        self._told_reason: Reason | None = None

    # --- the plan ----------------------------------------------------------------------------------

    def plan(self, now: float, unsaved: bool) -> list[Action]:
        """Set the deadline and the stages by what is known now, and tell it if they changed.

        Args:
            unsaved: whether the run may have something to save.
        """
        notice, rules, reason = self._inquiry.notice, self._rules, self._inquiry.reason
        if notice is None or not notice.opens_window:
            return []
        deadline = self._earliest_end(notice, now)
        stages = self._spread(notice, deadline)
        if (stages, deadline, reason) == (self._stages, self.deadline, self._told_reason):
            return []
        opened = self._stages is None
        moved = self.deadline is None or abs(deadline - self.deadline) >= 1 or self._told_reason != reason
        self._stages, self.deadline, self._told_reason = stages, deadline, reason
        if unsaved:
            # A stage that is done stays done.
            for stage, at in ((Timer.TERMINATE, stages.terminate), (Timer.KILL, stages.kill)):
                if opened or stage in self._timers:
                    self._timers.set(stage, at)
        actions: list[Action] = []
        if not self._inquiry.is_interrupt:
            self._told = Tell(notice.signum, reason, deadline, stages.forced_exit)
            actions.append(self._told)
        if moved and reason is not None:
            comes_back = rules.place == "batch" and reason in ("time_limit", "preempted")
            actions.append(facts.TimeLeft(deadline - now, comes_back))
        return actions

    def _earliest_end(self, notice: tables.Notice, now: float) -> float:
        inquiry, rules = self._inquiry, self._rules
        end = inquiry.known.end if inquiry.known.end is not None and inquiry.known.end > now else None
        deadline = tables.deadline(notice, inquiry.reason, inquiry.still_runs, end, rules, inquiry.site)
        if self._known_deadline is not None:
            deadline = min(deadline, self._known_deadline)
        if rules.place != "batch" or inquiry.still_runs:
            self._known_deadline = deadline
        return deadline

    def _spread(self, notice: tables.Notice, deadline: float) -> tables.Stages:
        grace = self._rules.term_grace
        if self._rules.has_outer:
            # Whoever is above us must find this step ended when its own stages begin.
            deadline = tables.stages(notice.at, deadline, grace).forced_exit
        return tables.stages(notice.at, deadline, grace, self._wanted_until)

    def tell(self, who: Identity) -> list[Action]:
        """Tell a process that comes late what the others know."""
        return [] if self._told is None else [self._told._replace(to=who)]

    def more_time(self, event: MoreTime, now: float, unsaved: bool) -> list[Action]:
        """Give a save as much of the time as there is, as long as the final SIGTERM has not been sent."""
        if Timer.TERMINATE not in self._timers:
            return []
        self._wanted_until = max(self._wanted_until or now, now + event.seconds)
        told = self.plan(now, unsaved)
        granted = max(self._timers[Timer.TERMINATE] - now, 0)
        return [*told, facts.MoreTimeAsked(event.who.pid, event.seconds, granted)]

    def last_word(self, now: float) -> float | None:
        """Return when to stop waiting (s, monotonic), so that the user reads what became of the run; None: never."""
        return None if self.deadline is None else self.deadline - min(LAST_WORD, (self.deadline - now) * 0.1)

    # --- the stages --------------------------------------------------------------------------------

    def terminate(self, spared: frozenset[Identity]) -> list[Action]:
        """Have stacks dumped, and everything below sent SIGTERM but who acts on the notice, and what belongs to it."""
        return [facts.StageBegan("terminate"), DumpStacks(), Terminate(spared)]

    def kill(self, now: float, unsaved: bool) -> list[Action]:
        """Have everything below killed, and given up if that does not help."""
        self.killed = unsaved
        wait = KILL_WINDOW if self.deadline is None else max((self.deadline - now) / 2, 0.1)
        self._timers.set(Timer.ABANDON, now + min(KILL_WINDOW, wait))
        return [facts.StageBegan("kill"), Kill()]

    # --- a suspension ------------------------------------------------------------------------------

    def suspended(self, seconds: float, now: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        if self.deadline is None:
            return
        self.deadline += seconds
        self._known_deadline = None
        if self._wanted_until is not None:
            self._wanted_until += seconds
        self._timers.suspended(seconds, now + HOLD_AFTER_STOP)
