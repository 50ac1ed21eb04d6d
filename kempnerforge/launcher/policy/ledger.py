"""The ledger: who below has the notice, by which door, what became of it, and whose turn is next.

A notice is worked off. It is given to everybody whose turn it is, again to who does not acknowledge it, and in the end
to everybody who holds work; nothing that it does may kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGINT, SIGTERM, SIGUSR1
from typing import NamedTuple

from . import facts
from .tables import Cooperation
from .timers import Timer, Timers
from .turns import OWN_WAYS, Turn, at_once, needs_answers, not_to_be_terminated, turns
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
    Seek,
    Seen,
    Signal,
    TreeRead,
)

#: How long the tree is looked at where it is not plain who holds work (s), and which part of the window at most.
#: Guesses.
SETTLES_WITHIN, SETTLES_PART = 0.25, 0.05
#: How often each is asked: what a process does in passing is not what it does. A guess.
ASKED_TIMES = 2
#: How long answers are waited for that have not come by then (s), and which part of the window at most. On a loaded
#: machine a process may not have its turn for a while. Guesses.
ANSWERS_WITHIN, ANSWERS_PART = 2.0, 0.25
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
#: For how long the place is looked for at which it is (s), with how much between two tries (s, for each that seeks).
#: Guesses; what works at the rhythm of a clock must not always be met at the same place.
SEEKS_FOR = 6.0
SEEK_EVERY = (0.007, 0.011, 0.013)
#: How long an outer one has to be idle when all inner ones have gone (s); and for how long, at most, inner ones that
#: do nothing keep it waiting (s, part of the window). Guesses.
IDLE_FOR = 2.0
PATIENCE, PATIENCE_PART = 10.0, 1 / 4
#: Less of a processor than this is nothing. A guess.
IDLE = 0.01
#: Of who has come when others had been told: it may be the upload of what they have saved.
IN_THE_END = Turn(waits=True)


class Row(NamedTuple):
    """One receiver."""

    who: Identity
    program: str
    turn: Turn = Turn()
    #: When it was first told (s, monotonic); None: not yet.
    told_at: float | None = None
    #: It was told once more because it went on, or because it was the last chance.
    told_twice: bool = False
    #: Until when it is tried again and again to interrupt it elsewhere (s, monotonic).
    seeks_until: float = 0.0
    #: By which signal, or `WORD`; 0: not yet.
    by: int = 0
    #: By which door it acts, as it says; None: it has said nothing.
    door: str | None = None
    #: It has come to a regular end; None: it is not known.
    ended_well: bool | None = None
    #: When it was seen to have ended (s, monotonic); None: it lives.
    gone_at: float | None = None
    #: When it was last seen to do something, and when there last was somebody whose turn comes before (s, monotonic).
    busy_at: float = 0.0
    waited_at: float = 0.0

    @property
    def acted_at(self) -> float:
        """When it was last seen to do what it is to do (s, monotonic)."""
        return max(self.busy_at, self.waited_at)


class Ledger:
    """All receivers of the notice.

    Args:
        timers: for what is due later.
        notify: by which signal the user wants whoever holds the work to be told; None: by the best that it hears.

    Attributes:
        cooperation: what those with a handler reported.
        first_poll: when one was first told to stop by its poll (s, monotonic); None: not yet.
        finish: when the first one had saved (s, monotonic); None: not yet.
    """

    def __init__(self, timers: Timers, notify: int | None = None) -> None:
        self._timers, self._notify = timers, notify
        self.cooperation = Cooperation()
        self.first_poll: float | None = None
        self.finish: float | None = None
        #: How many handlers are registered and neither finished nor gone.
        self._registered: dict[Identity, int] = {}
        self._rows: dict[Identity, Row] = {}
        #: What is known of who was asked, and how often it has answered after it had its turn.
        self._answers: dict[Identity, Answer] = {}
        self._answered: dict[Identity, int] = {}
        self._seen: tuple[Seen, ...] = ()
        #: Which share of a processor each used between the last two looks; and until it is decided who is told, since
        #: the first one. That was then (s, monotonic; None: nobody has looked yet), and each had used so much (s).
        self._busy: dict[Identity, float] = {}
        self._measured_at: float | None = None
        self._used: dict[Identity, float] = {}
        #: When the notice came (s, monotonic), and how long it was then to the final stage (s); None: no notice.
        self._began: float | None = None
        self._window = 0.0
        #: As which signal.
        self._came = 0
        #: Who was there when it was decided who is told; None: it is not yet.
        self._settled: frozenset[Identity] | None = None
        #: Somebody had a way of its own to be told.
        self._delivered = False
        self._repeats = 0
        self._tries = 0
        self._is_final = False

    # --- what is known -----------------------------------------------------------------------------

    @property
    def saving(self) -> tuple[Identity, ...]:
        """Who may still save, or has its turn when others have."""
        acting = [
            row.who
            for row in self._rows.values()
            if row.gone_at is None and (row.told_at is not None or row.turn.after)
        ]
        return tuple(dict.fromkeys([*self._registered, *acting]))

    @property
    def is_undecided(self) -> bool:
        """Whether there is a notice, and it is still looked into who is told."""
        return self._began is not None and self._settled is None

    @property
    def nobody_hears(self) -> bool:
        """Whether it is known that nothing below can hear a notice, or could yet."""
        # Who ignores SIGTERM may do so to save in peace, as a shell's trap does.
        may_hear = any(one.role in OWN_WAYS or SIGTERM in one.ignored for one in self._seen)
        hears = self._registered or self._rows or may_hear
        return self._settled is not None and not hears

    @property
    def ended_well(self) -> bool | None:
        """Whether all who were told have come to a regular end; False: none of them has; None: it is not known."""
        # Who could not say that it has noticed, could not say that either.
        ends = [row.ended_well is True for row in self.told if row.by == WORD and row.door is not None]
        if not ends or len(ends) < len(self.told):
            return None
        return all(ends) or (None if any(ends) else False)

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
        return []

    def _unregister(self, who: Identity) -> None:
        self._registered[who] = self._registered.get(who, 0) - 1
        if self._registered[who] <= 0:
            del self._registered[who]

    # --- a notice ----------------------------------------------------------------------------------

    def begin(self, signum: int, now: float) -> list[Action]:
        """Start to work a notice off that came as a signal."""
        self._began, self._came = now, signum
        return [Look()]

    def read(self, event: TreeRead, until: float, now: float) -> list[Action]:
        """Take a look at the tree for what it is.

        Args:
            until: when the final stage is (s, monotonic).
        """
        if self._began is None:
            return []
        self._window = max(until - self._began, 0.0)
        self._take_in(event.seen, now)
        self._timers.set(Timer.LOOK, now + LOOK_EVERY)
        if self._settled is not None:
            return self._go_on(now)
        left = until - now
        if left < NO_TIME:
            return self._settle(at_once(self._seen), now)
        passed = now - self._began
        settles_in = min(SETTLES_WITHIN, self._window * SETTLES_PART)
        # That much time is needed to see who works: as a rule the answers are there long before.
        is_due = passed >= settles_in and (self._has_answers or passed >= min(ANSWERS_WITHIN, left * ANSWERS_PART))
        if is_due or not needs_answers(self._seen):
            return self._settle(turns(self._seen, self._answers, self._busy), now)
        self._timers.set(Timer.LOOK, now + settles_in / 2)
        armed = tuple(one.who for one in self._seen if one.armed)
        return [Probe(armed)] if armed else []

    @property
    def _has_answers(self) -> bool:
        """Whether everybody has answered who can."""
        return all(self._answered.get(one.who, 0) >= ASKED_TIMES for one in self._seen if one.armed)

    def _take_in(self, seen: tuple[Seen, ...], now: float) -> None:
        """Note who is there and how busy, and who has gone."""
        if self._measured_at is not None:
            passed = max(now - self._measured_at, 1e-3)
            used = self._used
            self._busy = {one.who: (one.used - used[one.who]) / passed for one in seen if one.who in used}
        if self._measured_at is None or self._settled is not None:
            self._measured_at, self._used = now, {one.who: one.used for one in seen}
        before = {one.who for one in self._seen}
        self._seen = tuple(self._as_registered(one) for one in seen)
        there = {one.who: one for one in self._seen}
        for row in list(self._rows.values()):
            one = there.get(row.who)
            if one is None:
                self._rows[row.who] = row._replace(gone_at=row.gone_at or now)
                continue
            is_busy = one.in_kernel or self._busy.get(row.who, 1.0) >= IDLE
            waits = row.told_at is None and any(who in before for who in row.turn.after)
            self._rows[row.who] = row._replace(
                gone_at=None,
                busy_at=now if is_busy else row.busy_at,
                waited_at=now if waits else row.waited_at,
            )

    def _as_registered(self, one: Seen) -> Seen:
        return one._replace(role="cooperative") if one.who in self._registered and one.role != "launcher" else one

    def answered(self, event: Answered) -> list[Action]:
        """Note what a process says it is and does."""
        before = self._answers.get(event.who)
        inside_try = event.answer.inside_try and (before is None or before.inside_try)
        self._answers[event.who] = event.answer._replace(inside_try=inside_try)
        if not event.answer.held_up:
            self._answered[event.who] = self._answered.get(event.who, 0) + 1
        return []

    def heard(self, event: Heard, now: float) -> list[Action]:
        """Note that a process has noticed, or has come to its end."""
        row = self._rows.get(event.who)
        if row is None:
            return []
        if event.ended:
            self._rows[event.who] = row._replace(ended_well=True)
            return []
        first = not any(other.door == event.door for other in self._rows.values())
        self._rows[event.who] = row._replace(door=event.door, busy_at=now, seeks_until=0.0)
        return [facts.Heard(event.who.pid, row.program, event.door, first)] if event.door != row.door else []

    def look_soon(self, now: float) -> list[Action]:
        """Look at the tree: a program has started, or one has ended."""
        if self._settled is not None:
            at = now + LOOK_SOON
            self._timers.set(Timer.LOOK, min(self._timers[Timer.LOOK], at) if Timer.LOOK in self._timers else at)
        return []

    # --- whose turn it is --------------------------------------------------------------------------

    def _settle(self, found: dict[Identity, Turn], now: float) -> list[Action]:
        self._enter(found, now)
        self._settled = frozenset(one.who for one in self._seen)
        return self._tell_who_is_due(now)

    def _go_on(self, now: float) -> list[Action]:
        """Tell whose turn has come, who has come, and again who goes on or has not noticed."""
        self._enter(turns(self._seen, self._answers, self._busy), now)
        return [*self._tell_who_is_due(now), *self._interrupt_again(now), *self._repeat(now)]

    def _enter(self, found: dict[Identity, Turn], now: float) -> None:
        """Make a row for everybody who has none."""
        told = self.told or self._registered or self.cooperation.finished or self._delivered
        comes_late = bool(self._settled is not None and told)
        for one in self._seen:
            if one.who not in found or one.who in self._rows:
                continue
            if one.role in OWN_WAYS:
                self._delivered = True
            else:
                turn = IN_THE_END if comes_late else found[one.who]
                self._rows[one.who] = Row(one.who, one.program, turn, busy_at=now, waited_at=now)

    def _tell_who_is_due(self, now: float) -> list[Action]:
        return self._tell([row for row in self._rows.values() if self._is_due(row, now)], now)

    def _is_due(self, row: Row, now: float) -> bool:
        if row.told_at is not None or row.gone_at is not None:
            return False
        if self._is_final or row.turn == Turn():
            return True
        if row.turn.waits:
            return False
        patience = min(PATIENCE, self._window * PATIENCE_PART)
        inner = row.turn.after & {one.who for one in self._seen}
        if not inner:
            is_idle = not self._has_started_others(row) and now - row.acted_at >= IDLE_FOR
            return is_idle or now - row.waited_at >= patience
        if not inner <= self._rows.keys() - self._registered.keys():
            return False  # a handler has a time limit of its own
        return all(now - self._rows[who].acted_at >= patience for who in inner)

    def _has_started_others(self, row: Row) -> bool:
        return any(one.parent == row.who.pid and one.who not in (self._settled or ()) for one in self._seen)

    def _interrupt_again(self, now: float) -> list[Action]:
        """Give the word once more to who has had it for long, and may go on as if it had not: it knows."""
        after = max(SECOND_AFTER, self._window * SECOND_PART)
        due = [
            row
            for row in self.told
            if row.gone_at is None and row.door is not None and not row.told_twice
            if row.told_at is not None and now - row.told_at >= after
        ]
        actions = self._tell(due, now, again=True)
        for row in due:
            self._rows[row.who] = self._rows[row.who]._replace(seeks_until=now + SEEKS_FOR)
            self._timers.set(Timer.SEEK, now + SEEK_EVERY[0])
        return actions

    def seek(self, now: float) -> list[Action]:
        """Give the word at odd moments to who has not said that this was the right one.

        The process itself cannot choose them: its threads only have their turn while the main thread sleeps.
        """
        seeking = tuple(row.who for row in self.told if row.gone_at is None and row.seeks_until > now)
        if not seeking:
            return []
        self._tries += 1
        self._timers.set(Timer.SEEK, now + SEEK_EVERY[self._tries % len(SEEK_EVERY)] * len(seeking))
        return [Seek(seeking)]

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
        # The word came just before it began to wait for signals, and wakes nobody up there.
        waiting = {one.who for one in self._seen if one.waits_for_signal}.intersection(late)
        for who in waiting:
            self._rows[who] = self._rows[who]._replace(by=self._came)
        late = [who for who in late if who not in waiting]
        actions: list[Action] = [Signal(tuple(late), WORD, again=True)] if late else []
        return [*actions, Signal(tuple(sorted(waiting)), self._came)] if waiting else actions

    def final(self, now: float) -> tuple[list[Action], frozenset[Identity]]:
        """Give everybody their last chance; return also who is not to get SIGTERM: who acts, and what belongs to it."""
        if self._began is None:
            return [], frozenset()
        self._is_final = True
        before = [row for row in self.told if row.gone_at is None and row.by == WORD]
        first = self._settle(at_once(self._seen), now) if self._settled is None else self._tell_who_is_due(now)
        actions = first + self._tell(before, now, again=True)
        # Who still waits for a signal has not taken the one that it was told by for what it is.
        waiting = {one.who for one in self._seen if one.waits_for_signal}
        acting = {row.who for row in self.told if row.gone_at is None} - waiting | set(self._registered)
        return actions, not_to_be_terminated(self._seen, acting)

    def _tell(self, rows: list[Row], now: float, again: bool = False) -> list[Action]:
        by_who = {one.who: one for one in self._seen}
        ways: dict[int, list[Identity]] = {}
        names: list[str] = []
        for row in rows:
            one = by_who.get(row.who)
            way = 0 if one is None else _way(one, self._came, self._notify)
            if way == 0:
                continue
            ways.setdefault(way, []).append(row.who)
            first = row.told_at if row.told_at is not None else now
            self._rows[row.who] = row._replace(told_at=first, told_twice=again, by=way, busy_at=now)
            names.append(f"{row.program} (pid {row.who.pid}){_WAYS.get(way, '')}")
        if not ways:
            return []
        if not again:
            self._repeats = 0
            self._timers.set(Timer.REPEAT, now + REPEAT_AFTER[0])
        signals: list[Action] = [Signal(tuple(whos), way) for way, whos in ways.items()]
        return [*signals, facts.HandedOn(listed(names), again)]

    # --- a suspension ------------------------------------------------------------------------------

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self.first_poll = _later(self.first_poll, seconds)
        self.finish = _later(self.finish, seconds)
        self._began = _later(self._began, seconds)
        self._measured_at = _later(self._measured_at, seconds)
        for who, row in self._rows.items():
            self._rows[who] = row._replace(
                told_at=_later(row.told_at, seconds),
                busy_at=row.busy_at + seconds,
                waited_at=row.waited_at + seconds,
            )


def _later(at: float | None, seconds: float) -> float | None:
    return None if at is None else at + seconds


#: kforge-run's own signal, to who is armed.
WORD = -1
_WAYS = {int(signum): f" as {signum.name}" for signum in (SIGINT, SIGTERM, SIGUSR1)}
#: Receivers that are named in the log; a node may have more ranks than a line has room. A guess.
_MOST_NAMED = 8


def listed(names: Sequence[str], most: int = _MOST_NAMED, separator: str = ", ") -> str:
    """Return who was told, for a person."""
    more = len(names) - most
    return separator.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _way(one: Seen, came: int, wanted: int | None) -> int:
    """Return how a process is told; 0: it has no door.

    Args:
        came: the signal that we got.
        wanted: by which the user wants it to be told; None: by the best. Who is armed knows it, too.
    """
    if one.armed and one.waits_for_signal:
        return came  # while it waits, the kernel does not show for which
    if one.armed:
        return WORD
    ways = (came, SIGUSR1, SIGTERM) if one.role == "script" else (wanted or SIGTERM, SIGTERM, SIGINT)
    for signum in ways:
        if signum in one.caught or (one.role == "foreign" and signum in one.blocked):
            return signum
    return 0
