"""The worlds of an attempt: which ranks stop together, what they have agreed on, and who of them has not saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ...bootstrap import page
from . import facts
from .agreement import Agreement, Asked
from .timers import Timer, Timers
from .words import Action, Ask, Identity, Joined, LetOn, Line, LinesRead, ReadLines

#: How often the ranks' lines are looked at while they come together: at first, and after how long (s) how much more
#: seldom. Guesses.
LOOK_EVERY = 0.002
LOOK_LESS_AFTER, LOOK_LESS = 1.0, 0.01

#: How far a rank has come: it trains, it was told to stop by its poll, it has saved, it has come to its end without
#: being told, it has ended otherwise.
State = Literal["trains", "told", "saved", "left", "lost"]
_LIVING: tuple[State, ...] = ("trains", "told")


class _Member(NamedTuple):
    rank: int
    #: When it joined, and how far its count was (None: not seen yet).
    since: float
    began_at: int | None = None
    state: State = "trains"


class _World:
    def __init__(self, number: int, key: str, size: int) -> None:
        self.number, self.key, self.size = number, key, size
        self.members: dict[Identity, _Member] = {}
        #: When whoever still runs is ended (s, monotonic); None: there is no notice.
        self.until: float | None = None
        #: None: there is no notice, or nobody has been seen since.
        self.agreement: Agreement | None = None

    @property
    def living(self) -> tuple[Identity, ...]:
        """Who can still come to a poll."""
        return tuple(who for who, member in self.members.items() if member.state in _LIVING)

    @property
    def is_meeting(self) -> bool:
        """Whether its ranks come together just now."""
        return self.until is not None and bool(self.living) and (self.agreement is None or not self.agreement.is_over)

    def has_rank(self, rank: int) -> bool:
        return any(member.rank == rank and member.state in _LIVING for member in self.members.values())


class Worlds:
    """All worlds.

    Args:
        sees_all: no other kforge-run looks after ranks of these worlds.
    """

    def __init__(self, timers: Timers, sees_all: bool) -> None:
        self._timers, self._sees_all = timers, sees_all
        self._worlds: list[_World] = []
        #: When whoever still runs is ended (s, monotonic), and since when that is so; None: there is no notice.
        self._until: float | None = None
        self._began = 0.0

    @property
    def lost_ranks(self) -> tuple[tuple[int, int], ...]:
        """Who was told to stop with others and has not saved: rank and pid."""
        stopped = [world for world in self._worlds if world.agreement is not None and world.agreement.how is not None]
        lost = [(who, member) for world in stopped for who, member in world.members.items() if member.state == "lost"]
        return tuple(sorted((member.rank, who.pid) for who, member in lost))

    # --- who is there ------------------------------------------------------------------------------

    def joined(self, event: Joined, now: float) -> list[Action]:
        """Put a rank into its world."""
        world = self._world_for(event)
        world.members[event.who] = _Member(event.rank, now)
        world.until = world.until if world.until is not None else self._until
        actions: list[Action] = [facts.Joined(event.who.pid, event.rank, world.size, world.number)]
        if world.agreement is not None:
            actions.append(Ask((event.who,), world.agreement.word))
        return [*actions, ReadLines((event.who,))]

    def _world_for(self, event: Joined) -> _World:
        """Return the world of a rank: where the same one lives already, it is another one at the same address."""
        for world in self._worlds:
            is_it = (world.key, world.size) == (event.world, event.size)
            if is_it and (event.who in world.members or not world.has_rank(event.rank)):
                return world
        self._worlds.append(_World(len(self._worlds) + 1, event.world, event.size))
        return self._worlds[-1]

    def told(self, who: Identity) -> None:
        """Note that a poll has told a rank to stop."""
        self._note(who, "told")

    def finished(self, who: Identity) -> list[Action]:
        """Note that a rank has saved."""
        return self._go_on_without(self._note(who, "saved"))

    def left(self, who: Identity) -> list[Action]:
        """Note that a rank has come to its end by itself."""
        return self._go_on_without(self._note(who, "left"))

    def lost(self, who: Identity) -> None:
        """Note that a rank has gone, if it has not said why."""
        self._note(who, "lost")

    def _note(self, who: Identity, state: State) -> list[_World]:
        """Note how far a rank has come, and return its worlds."""
        worlds = [world for world in self._worlds if who in world.members]
        for world in worlds:
            member = world.members[who]
            if member.state in _LIVING:
                # Only one rank may be the one that says so.
                has_saved = member.state == "told" and state == "left"
                world.members[who] = member._replace(state="saved" if has_saved else state)
        return worlds

    def _go_on_without(self, worlds: list[_World]) -> list[Action]:
        """Let those go on who wait for a rank that has come to its end: so will they, as a rule."""
        actions: list[Action] = []
        for world in worlds:
            if world.is_meeting and world.agreement is not None:
                actions += [*self._carry_out(world, world.agreement.release()), facts.RanksGoOn(world.number)]
        return actions

    # --- a notice ----------------------------------------------------------------------------------

    def begin(self, until: float, now: float) -> list[Action]:
        """Have the ranks of every world come together.

        Args:
            until: when whoever still runs is ended (s, monotonic).
        """
        self._until, self._began = until, now
        for world in self._worlds:
            world.until = until
        return self.meet()

    def noticed(self, who: Identity, until: float, now: float) -> list[Action]:
        """Have the world of a rank come together that has got a notice, while we have none."""
        for world in self._worlds:
            if who in world.members and world.until is None:
                world.until, self._began = until, now
        return self.meet()

    def meet(self) -> list[Action]:
        """Look at the ranks that come together."""
        whos = tuple(who for world in self._worlds if world.is_meeting for who in world.living)
        return [ReadLines(whos)] if whos else []

    def read(self, event: LinesRead, now: float) -> list[Action]:
        """Take a look at the ranks for what they say."""
        actions: list[Action] = []
        for world in self._worlds:
            lines = {who: event.lines[who] for who in world.living if who in event.lines}
            for who, line in lines.items():
                member = world.members[who]
                if member.began_at is None:
                    world.members[who] = member._replace(began_at=line.polls)
            if not world.is_meeting or len(lines) < len(world.living):
                continue
            if world.agreement is None:
                assert world.until is not None, "it is meeting"
                world.agreement = Agreement(now, max(world.until - now, 0.0), _step(world, lines, now))
            missing = world.size - len(world.members) if self._sees_all else 0
            actions += self._carry_out(world, world.agreement.look(lines, missing, now))
        if any(world.is_meeting for world in self._worlds):
            often = LOOK_EVERY if now < self._began + LOOK_LESS_AFTER else LOOK_LESS
            self._timers.set(Timer.MEET, now + often)
        return actions

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self._began += seconds
        self._until = None if self._until is None else self._until + seconds
        for world in self._worlds:
            world.until = None if world.until is None else world.until + seconds
            if world.agreement is not None:
                world.agreement.suspended(seconds)

    def _carry_out(self, world: _World, asked: Asked) -> list[Action]:
        actions: list[Action] = []
        if asked.word is not None:
            actions.append(Ask(world.living, asked.word))
        actions += [LetOn(who, ticket) for who, ticket in asked.let.items()]
        if asked.how is not None:
            at = page.at_of(asked.word or 0) % page.GENERATION
            ranks = sorted(world.members[who].rank for who in world.living)
            actions.append(facts.Agreed(world.number, ranks, asked.how, at))
        return actions


def _step(world: _World, lines: Mapping[Identity, Line], now: float) -> float:
    """Return how long a step takes (s); 0: it is not known."""
    steps = [0.0]
    for who, line in lines.items():
        member = world.members[who]
        polls = line.polls - (line.polls if member.began_at is None else member.began_at)
        steps.append((now - member.since) / polls if polls > 0 else 0.0)
    return max(steps)
