"""The ledger: who below has the notice, by which door, what became of it, and whose turn is next.

A notice is worked off. It is given to everybody whose turn it is, again to who does not acknowledge it, and in the end
to everybody who holds work; nothing that it does may kill.
"""

from __future__ import annotations

from signal import SIGINT, SIGTERM, SIGUSR1
from typing import NamedTuple

from . import facts
from .tables import Cooperation
from .timers import Timer, Timers
from .turns import Turn, at_once, needs_answers, turns
from .words import (
    Action,
    Answer,
    Answered,
    Finished,
    Gone,
    Heard,
    Identity,
    Look,
    Polled,
    Probe,
    Registered,
    Seen,
    Signal,
    TreeRead,
)

#: How long the tree is looked at where it is not plain who holds work (s), and which part of the window at most.
#: Guesses.
SETTLES_WITHIN, SETTLES_PART = 0.25, 0.05
#: How often the tree is looked at while a notice stands (s): a guess.
LOOK_EVERY = 1.0
#: How soon after something has happened in it (s): a guess.
LOOK_SOON = 0.05
#: With less than this left, nobody is asked and nobody waits for another (s): a guess.
NO_TIME = 4.0
#: When the word is repeated to who has not noticed (s). Python may enter a system call just when the first has come,
#: and sees it only when that ends or the next signal comes. The times are guesses.
REPEAT_AFTER = (0.1, 0.5, 2.0)
#: When who was interrupted and goes on is interrupted once more: the least (s), and the part of the window.
SECOND_AFTER, SECOND_PART = 5.0, 1 / 3
#: How long an outer one has to be idle when all inner ones have gone (s); and for how long, at most, inner ones that
#: do nothing keep it waiting (s, part of the window). Guesses.
IDLE_FOR = 2.0
PATIENCE, PATIENCE_PART = 10.0, 1 / 4
#: They are told by `Deliver`.
OWN_WAYS = ("cooperative", "launcher", "srun")
#: Less of a processor than this is nothing. A guess.
IDLE = 0.01


class Row(NamedTuple):
    """One receiver."""

    who: Identity
    program: str
    turn: Turn = Turn()
    #: When it was told (s, monotonic), first and last; None: not yet.
    told_at: float | None = None
    last_told_at: float | None = None
    #: By which way.
    by: int = 0
    #: By which door it acts, as it says; None: it has said nothing.
    door: str | None = None
    #: It has come to a regular end; None: it is not known.
    ended_well: bool | None = None
    #: When it was seen to have ended (s, monotonic); None: it lives.
    gone_at: float | None = None
    #: When it was last seen to do something (s, monotonic).
    busy_at: float = 0.0


class Ledger:
    """All receivers of the notice.

    Args:
        timers: for what is due later.

    Attributes:
        cooperation: what those with a handler reported.
        first_poll: when one was first told to stop by its poll (s, monotonic); None: not yet.
        finish: when the first one had saved (s, monotonic); None: not yet.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.cooperation = Cooperation()
        self.first_poll: float | None = None
        self.finish: float | None = None
        #: How many handlers are registered and neither finished nor gone.
        self._registered: dict[Identity, int] = {}
        self._rows: dict[Identity, Row] = {}
        self._answers: dict[Identity, Answer] = {}
        self._asked: frozenset[Identity] = frozenset()
        self._seen: tuple[Seen, ...] = ()
        self._seen_at = 0.0
        self._busy: dict[Identity, float] = {}
        #: When the notice came (s, monotonic), and how long it was then to the final stage (s); None: no notice.
        self._began: float | None = None
        self._window = 0.0
        self._settled = False
        self._repeats = 0
        self._is_final = False

    # --- what is known -----------------------------------------------------------------------------

    @property
    def saving(self) -> tuple[Identity, ...]:
        """Who may still save."""
        told = [row.who for row in self._rows.values() if row.told_at is not None and row.gone_at is None]
        return tuple(dict.fromkeys([*self._registered, *told]))

    @property
    def nobody_hears(self) -> bool:
        """Whether it is known that nothing below can hear a notice, or could yet."""
        return self._settled and not self._registered and not self._rows

    @property
    def told(self) -> tuple[Row, ...]:
        """Who was told otherwise than by a handler of ours."""
        return tuple(row for row in self._rows.values() if row.told_at is not None)

    # --- who cooperates ----------------------------------------------------------------------------

    def registered(self, event: Registered) -> list[Action]:
        """Count a handler."""
        self._registered[event.who] = self._registered.get(event.who, 0) + 1
        if not event.is_launcher:
            self.cooperation = self.cooperation._replace(registered=True)
        return [facts.Registered(event.who.pid, event.program, event.timeout, event.is_launcher)]

    def polled(self, event: Polled, now: float, after: float | None) -> list[Action]:
        """Note a poll.

        Args:
            after: how long after the notice (s); None: there is none.
        """
        seen = self.cooperation
        self.cooperation = seen._replace(polled=True, stop_polled=seen.stop_polled or event.stop)
        first = event.stop and self.first_poll is None
        if first:
            self.first_poll = now
        return [facts.Polled(event.who.pid, event.stop, first, after)]

    def finished(self, event: Finished, now: float, after: float | None) -> list[Action]:
        """Note that a process has saved."""
        self._unregister(event.who)
        self.cooperation = self.cooperation._replace(finished=True)
        self.finish = self.finish or now
        return [facts.Finished(event.who.pid, after)]

    def gone(self, event: Gone, now: float) -> list[Action]:
        """Note that a process has ended, or its handler is unregistered."""
        self._unregister(event.who)
        if event.who in self._rows:
            row = self._rows[event.who]
            self._rows[event.who] = row._replace(gone_at=row.gone_at or now)
        return self._look_soon(now)

    def _unregister(self, who: Identity) -> None:
        self._registered[who] = self._registered.get(who, 0) - 1
        if self._registered[who] <= 0:
            del self._registered[who]

    # --- a notice ----------------------------------------------------------------------------------

    def begin(self, now: float) -> list[Action]:
        """Start to work a notice off."""
        self._began = now
        return [Look()]

    def read(self, event: TreeRead, until: float, now: float) -> list[Action]:
        """Take a look at the tree for what it is.

        Args:
            until: when the final stage is (s, monotonic).
        """
        if self._began is None:
            return []
        self._window = max(until - self._began, 0.0)
        first = self._seen_at == 0.0
        before = {one.who: one.used for one in self._seen}
        passed = max(now - self._seen_at, 1e-3)
        if not first:
            self._busy = {one.who: (one.used - before[one.who]) / passed for one in event.seen if one.who in before}
        seen = tuple(self._as_registered(one) for one in event.seen)
        self._seen, self._seen_at = seen, now
        self._timers.set(Timer.LOOK, now + LOOK_EVERY)
        by_who = {one.who: one for one in seen}
        for row in list(self._rows.values()):
            one = by_who.get(row.who)
            if one is None:
                self._rows[row.who] = row._replace(gone_at=row.gone_at or now)
            elif one.in_kernel or self._busy.get(row.who, 1.0) >= IDLE:
                self._rows[row.who] = row._replace(busy_at=now)
        if self._settled:
            return self._go_on(now)
        left = until - now
        if left < NO_TIME:
            return self._settle(at_once(seen), now)
        if first and needs_answers(seen):
            self._asked = frozenset(one.who for one in seen if one.armed)
            self._timers.set(Timer.LOOK, now + min(SETTLES_WITHIN, left * SETTLES_PART))
            return [Probe(tuple(self._asked))] if self._asked else []
        return self._settle(turns(seen, self._answers, self._busy), now)

    def _as_registered(self, one: Seen) -> Seen:
        return one._replace(role="cooperative") if one.who in self._registered and one.role != "launcher" else one

    def answered(self, event: Answered) -> list[Action]:
        """Note what a process says it is and does."""
        self._answers[event.who] = event.answer
        return []

    def appeared(self, now: float) -> list[Action]:
        """Look soon: a program has started."""
        return self._look_soon(now)

    def heard(self, event: Heard, now: float) -> list[Action]:
        """Note that a process has noticed, or has come to its end."""
        row = self._rows.get(event.who)
        if row is None:
            return []
        if event.ended:
            self._rows[event.who] = row._replace(ended_well=True)
            return []
        self._rows[event.who] = row._replace(door=event.door, busy_at=now)
        return [facts.Heard(event.who.pid, row.program, event.door)] if row.door is None else []

    def _look_soon(self, now: float) -> list[Action]:
        if self._began is not None and self._settled:
            at = now + LOOK_SOON
            self._timers.set(Timer.LOOK, min(self._timers[Timer.LOOK], at) if Timer.LOOK in self._timers else at)
        return []

    # --- whose turn it is --------------------------------------------------------------------------

    def _settle(self, found: dict[Identity, Turn], now: float) -> list[Action]:
        by_who = {one.who: one for one in self._seen}
        for who, turn in found.items():
            if by_who[who].role not in OWN_WAYS and who not in self._rows:
                self._rows[who] = Row(who, by_who[who].program, turn, busy_at=now)
        self._settled = True
        return self._tell([row for row in self._rows.values() if not row.turn.after], now)

    def _go_on(self, now: float) -> list[Action]:
        """Tell whose turn has come, and who has come."""
        found = turns(self._seen, self._answers, self._busy)
        anybody = bool(self.told) or bool(self._registered) or self.cooperation.finished
        by_who = {one.who: one for one in self._seen}
        due: list[Row] = []
        for who in found:
            if who not in self._rows and by_who[who].role not in OWN_WAYS:
                # It may be the upload of what was saved: it works on until the final stage.
                self._rows[who] = Row(who, by_who[who].program, found[who], busy_at=now)
                if not anybody or self._is_final:
                    due.append(self._rows[who])
        due += [row for row in self._rows.values() if row.turn.after and self._is_due(row, now)]
        return [*self._tell(due, now), *self._interrupt_again(now), *self._repeat(now)]

    def _is_due(self, row: Row, now: float) -> bool:
        if row.told_at is not None or row.gone_at is not None or row.turn.waits:
            return False
        inner = [self._rows[who] for who in row.turn.after if who in self._rows]
        there = {one.who for one in self._seen}
        if all(who not in there for who in row.turn.after):
            gone_for = now - max((one.gone_at or now for one in inner), default=now)
            is_new = any(one.who not in self._rows for one in self._seen if one.parent == row.who.pid)
            return not is_new and min(now - row.busy_at, gone_for) >= IDLE_FOR
        patience = min(PATIENCE, self._window * PATIENCE_PART)
        acts = any(now - one.busy_at < patience for one in inner) or any(
            who in self._registered for who in row.turn.after
        )
        return bool(inner) and not acts

    def _interrupt_again(self, now: float) -> list[Action]:
        """Give the word once more to who has had it for long, and may go on as if it had not: it knows."""
        after = max(SECOND_AFTER, self._window * SECOND_PART)
        due = [
            row
            for row in self.told
            if row.gone_at is None and row.door is not None and row.last_told_at == row.told_at
            if row.told_at is not None and now - row.told_at >= after
        ]
        return self._tell(due, now, again=True)

    def repeat(self, now: float) -> list[Action]:
        """Give the word again to who has not acknowledged it."""
        self._repeats += 1
        if self._repeats < len(REPEAT_AFTER):
            self._timers.set(Timer.REPEAT, now + REPEAT_AFTER[self._repeats])
        return self._repeat(now)

    def _repeat(self, now: float) -> list[Action]:
        late = [
            row.who
            for row in self.told
            if row.by == WORD
            and row.door is None
            and row.gone_at is None
            and now - (row.told_at or now) >= REPEAT_AFTER[0]
        ]
        return [Signal(tuple(late), WORD, again=True)] if late else []

    def final(self, now: float) -> tuple[list[Action], frozenset[Identity]]:
        """Give everybody their last chance; return also who is not to get SIGTERM: who acts, and what belongs to it."""
        self._is_final = True
        untold = [row for row in self._rows.values() if row.told_at is None and row.gone_at is None]
        told = {row.who for row in self.told if row.gone_at is None}
        actions = self._tell(untold, now)
        actions += self._tell([row for row in self.told if row.who in told and row.by == WORD], now, again=True)
        return actions, self._spared(told | {row.who for row in untold} | set(self._registered))

    def _spared(self, acting: set[Identity]) -> frozenset[Identity]:
        """Return who acts, what they wait for or have started, and who waits for them."""
        by_pid = {one.who.pid: one for one in self._seen}
        spared = set(acting)
        for one in self._seen:
            above: Seen | None = one
            line: list[Identity] = []
            while above is not None:
                line.append(above.who)
                above = by_pid.get(above.parent)
            if any(who in acting for who in line):
                # Below one that acts; or, for one that acts itself, all that is above it.
                spared.add(one.who)
                if one.who in acting:
                    spared.update(line)
        return frozenset(spared)

    def _tell(self, rows: list[Row], now: float, again: bool = False) -> list[Action]:
        by_who = {one.who: one for one in self._seen}
        ways: dict[int, list[Identity]] = {}
        names: list[str] = []
        for row in rows:
            one = by_who.get(row.who)
            way = 0 if one is None else _way(one)
            if way == 0:
                continue
            ways.setdefault(way, []).append(row.who)
            first = row.told_at if row.told_at is not None else now
            self._rows[row.who] = row._replace(told_at=first, last_told_at=now, by=way, busy_at=now)
            names.append(f"{row.program} (pid {row.who.pid}){_WAYS.get(way, '')}")
        if not ways:
            return []
        if not again:
            self._repeats = 0
            self._timers.set(Timer.REPEAT, now + REPEAT_AFTER[0])
        signals: list[Action] = [Signal(tuple(whos), way) for way, whos in ways.items()]
        return [*signals, facts.HandedOn(_listed(names), again)]

    # --- a suspension ------------------------------------------------------------------------------

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self.first_poll = _later(self.first_poll, seconds)
        self.finish = _later(self.finish, seconds)
        self._began = _later(self._began, seconds)
        self._seen_at += seconds
        for who, row in self._rows.items():
            told, last = _later(row.told_at, seconds), _later(row.last_told_at, seconds)
            self._rows[who] = row._replace(told_at=told, last_told_at=last, busy_at=row.busy_at + seconds)


def _later(at: float | None, seconds: float) -> float | None:
    return None if at is None else at + seconds


#: kforge-run's own signal, to who is armed.
WORD = -1
_WAYS = {int(signum): f" as {signum.name}" for signum in (SIGINT, SIGTERM, SIGUSR1)}
#: Receivers that are named in the log; a node may have more ranks than a line has room. A guess.
_MOST_NAMED = 8


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _way(one: Seen) -> int:
    """Return how a process is told; 0: it has no door."""
    for signum in (SIGUSR1, SIGTERM):
        if one.waits_for_signal and signum in one.blocked:
            return signum
    if one.armed:
        return WORD
    for signum in (SIGTERM, SIGINT):
        if signum in one.caught or (one.role == "foreign" and signum in one.blocked):
            return signum
    return 0
