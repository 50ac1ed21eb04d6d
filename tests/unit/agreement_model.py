"""A model checker of the ranks' agreement: it goes through every interleaving of kforge-run and a few ranks' few steps.

The program is in lock-step: a collective, a poll or more, and again; the ranks' counts of polls may be offset. Each
rank has a line in the page, with its own copy of the word: kforge-run writes one line after the other, and looks only
then. Each load and store of consequence is a step of its own, and a store of POLLS may stay in the processor's store
buffer, as on x86, while the rank goes on. kforge-run loses its patience, and takes a pause for over, at any moment: the
worst case.

To another node words travel as messages, which arrive at any later moment, in order; and what its ranks have stored may
be known later, too. kforge-run may die at any moment, even with half of the copies written; a rank then takes over.

What is wrong: a rank got True in a step that another has left; and a doomed state, from which it cannot come to a good
end. A deadlock is one. A good end: all got True in one step, by the same count if nobody had to be held for it; or all
have reached their end.

`python -m tests.unit.agreement_model` goes through the larger settings (a few minutes).
"""

from __future__ import annotations

import functools
import itertools
import time
from array import array
from collections.abc import Iterator
from typing import Generic, Literal, NamedTuple, TypeVar

#: What a word asks for, in its lowest two bits. A message of the kind LETS has the ticket that is let through instead.
LETS, HOLD, AT, STOP = range(4)
KINDS = ("LETS", "HOLD", "AT", "STOP")

Mutant = Literal[
    "no ticket",  # who is let through and has not left yet counts as held
    "any word heard",  # who waits under an older word counts as here
    "no heard",  # who waits at its last poll counts as here: WAITS alone
    "HEARD last",  # kforge-run reads HEARD after the other slots of the line
    "at once",  # STOP follows the freeze: nobody has to arrive
    "past above",  # only `polls > S` has got past S
    "LET of the page",  # kforge-run reads who is let through where the message has yet to arrive
    "own word",  # who takes over looks at its own copy of the word only
]
T = TypeVar("T")


class Setting(NamedTuple):
    """What to go through."""

    #: How many polls each rank counts before the first step.
    offsets: tuple[int, ...]
    #: After so many the program ends.
    steps: int
    #: How many polls follow a step's collective.
    polls: int = 1
    #: How many messages to a rank can be on their way; 0: kforge-run writes into its line.
    delay: int = 0
    #: Whether what a rank has stored is known later.
    late_reports: bool = False
    #: Whether a store of POLLS may stay in the store buffer.
    buffers: bool = True
    #: Whether kforge-run may lose its patience, and hold everybody.
    patience_ends: bool = True
    #: What the one does that takes over when kforge-run dies. "at once": AT stands, else freeze and STOP; "anew": it
    #: begins the agreement anew. A STOP stands. None: kforge-run lives.
    take_over: Literal["at once", "anew"] | None = None
    mutant: Mutant | None = None


class Line(NamedTuple):
    """What a rank tells in its line of the page."""

    polls: int = 0
    waits: int = 0
    ticket: int = 0
    heard: int = 0


class Rank(NamedTuple):
    """A rank, and what kforge-run keeps of it."""

    offset: int
    #: How often it has polled, the present time included.
    polled: int = 0
    #: It is between two polls, in a collective if that is next; has stored POLLS, and will load the word; is in `meet`,
    #: about to load the word, or to obey the one that it has loaded; got True; or has come to its end.
    at: Literal["between", "poll", "meet", "obey", "true", "end"] = "between"
    loaded: int = 0
    #: POLLS is still in the store buffer.
    pending: bool = False
    line: Line = Line()
    word: int = 0
    let: int = 0

    #: Messages on their way to it, the line that is known of it, and the ticket that kforge-run has let through.
    messages: tuple[int, ...] = ()
    report: Line = Line()
    let_through: int = 0

    @property
    def poll(self) -> int:
        return self.polled + self.offset

    def stores(self, **slots: int) -> Rank:
        return self._replace(line=self.line._replace(**slots))


class Launcher(NamedTuple):
    """kforge-run, or the rank that has taken over: what it does, and at whose line it does it next."""

    phase: Literal["freeze", "count", "hold", "stop"]
    does: Literal["writes", "looks", "lets", "takes over"]
    word: int
    has_taken_over: bool = False
    member: int = 0
    #: What it has read first of this line: whether the rank is here (for "HEARD last": the other slots).
    half: bool | Line | None = None
    #: Of the lines before: what S would have to be; at which count all wait (-1: none is read, None: they do not); who
    #: is held.
    past: int = 0
    met: int | None = -1
    held: tuple[int, ...] = ()


def new_word(kind: int, at: int, before: int) -> int:
    """Return the word that follows another."""
    serial = (before >> 2 & 63) + 1
    return at << 8 | serial << 2 | kind


class Protocol:
    """The steps that a rank and kforge-run can take: each reads and writes one rank's line only."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._last = len(setting.offsets) - 1

    def of_rank(self, rank: Rank, together: bool) -> Iterator[Rank]:
        """Yield what a rank can become; `together`: whether nobody has yet to come to where it is."""
        if rank.pending:
            yield rank.stores(polls=rank.poll)._replace(pending=False)
        if rank.messages:
            first, *others = rank.messages
            rest = rank._replace(messages=tuple(others))
            yield rest._replace(let=first >> 8) if first & 3 == LETS else rest._replace(word=first)
        if self._setting.late_reports and rank.report != rank.line:
            yield rank._replace(report=rank.line)
        if rank.at == "between" and not rank.pending and (together or rank.polled % self._setting.polls):
            begun = rank._replace(polled=rank.polled + 1)
            yield begun.stores(polls=begun.poll)._replace(at="poll")
            if not rank.word and self._setting.buffers:
                # It loads the word before its store is seen. (Had there been a word, `meet` would load it once more.)
                yield self._goes_on(begun._replace(pending=True))
        elif rank.at == "poll" and not rank.word:
            yield self._goes_on(rank)
        elif rank.at == "poll":
            yield rank.stores(ticket=rank.line.ticket + 1, waits=rank.poll)._replace(at="meet")
        elif rank.at == "meet" and (rank.word != rank.line.heard or rank.let == rank.line.ticket):
            # (Otherwise it would come back to where it is.)
            yield rank._replace(at="obey", loaded=rank.word)
        elif rank.at == "obey":
            yield self._obeys(rank, rank.loaded & 3, rank.loaded >> 8)

    def _obeys(self, rank: Rank, kind: int, at: int) -> Rank:
        leaves = rank.stores(heard=0)._replace(loaded=0)
        if kind == STOP and rank.poll >= at:
            return leaves._replace(at="true")
        if kind == STOP or (kind == AT and rank.poll < at) or (kind == HOLD and rank.let == rank.line.ticket):
            return self._goes_on(leaves)
        return rank.stores(heard=rank.loaded)._replace(at="meet", loaded=0)

    def _goes_on(self, rank: Rank) -> Rank:
        is_last = rank.polled == self._setting.steps * self._setting.polls
        return rank._replace(at="end" if is_last else "between")

    def left(self, rank: Rank) -> int:
        """Return the last step that a rank has left: all its polls were False."""
        return (rank.polled - (rank.at not in ("between", "end"))) // self._setting.polls

    def stopped(self, rank: Rank) -> int:
        """Return the step in which a rank got True; one after the last: it has not."""
        return self.left(rank) + 1 if rank.at == "true" else self._setting.steps + 1

    def of_launcher(self, now: Launcher, rank: Rank) -> Iterator[tuple[Launcher, Rank]]:
        """Yield what kforge-run can become, and the rank at whose line it is."""
        if now.phase == "stop" and now.does == "looks":
            return
        if self._setting.take_over and not now.has_taken_over:
            yield Launcher("freeze", "takes over", 0, has_taken_over=True), rank
        if now.does == "writes":
            yield from ((self._next(now), told) for told in self._tell(rank, now.word))
        elif now.does == "lets" and now.member not in now.held:
            yield self._next(now), rank
        elif now.does == "lets":
            ticket = self._known(rank).ticket
            let = rank._replace(let_through=ticket)
            yield from ((self._next(now), told) for told in self._tell(let, ticket << 8 | LETS))
        elif now.does == "takes over":
            newest = max(now.word, rank.word, key=lambda word: word >> 2 & 63)  # (so few words are told apart)
            if self._setting.mutant == "own word":
                newest = rank.word  # the last rank is the one that takes over
            read = now._replace(word=newest)
            yield self._heir(read) if now.member == self._last else self._next(read), rank
        elif now.half is None:
            known = self._known(rank)
            is_mutant = self._setting.mutant == "HEARD last"
            yield now._replace(half=known._replace(heard=0) if is_mutant else self._is_here(now, known)), rank
        else:
            seen = self._look(now, rank)
            if now.member == self._last:
                yield from ((decided, rank) for decided in self._decide(seen))
            else:
                yield self._next(seen), rank

    def _tell(self, rank: Rank, message: int) -> Iterator[Rank]:
        """Yield the rank with a message in its line, or on its way; nothing if there are too many on their way."""
        if len(rank.messages) < self._setting.delay:
            yield rank._replace(messages=(*rank.messages, message))
        elif self._setting.delay == 0:
            yield rank._replace(let=message >> 8) if message & 3 == LETS else rank._replace(word=message)

    def _next(self, now: Launcher) -> Launcher:
        """It goes to the next line, or begins to look."""
        if now.member < self._last:
            return now._replace(member=now.member + 1, half=None)
        return self._looks(now)

    def _looks(self, now: Launcher) -> Launcher:
        return Launcher(now.phase, "looks", now.word, now.has_taken_over, past=now.word >> 8)

    def _writes(
        self, now: Launcher, phase: Literal["freeze", "count", "hold", "stop"], kind: int, at: int = 0
    ) -> Launcher:
        return Launcher(phase, "writes", new_word(kind, at, now.word), now.has_taken_over)

    def _known(self, rank: Rank) -> Line:
        return rank.report if self._setting.late_reports else rank.line

    def _is_here(self, now: Launcher, line: Line) -> bool:
        if self._setting.mutant == "any word heard":
            return line.heard != 0
        return line.heard == now.word

    def _look(self, now: Launcher, rank: Rank) -> Launcher:
        """It has read a line."""
        mutant, line, here = self._setting.mutant, self._known(rank), now.half
        if isinstance(now.half, Line):
            line, here = now.half, self._is_here(now, line)
        if mutant == "no heard":
            here = line.waits == line.polls > 0
        if now.phase == "freeze":
            return now._replace(past=max(now.past, line.polls + (not here)))
        if now.phase == "count" and here:
            return now._replace(past=max(now.past, line.waits), met=line.waits if now.met in (-1, line.waits) else None)
        if now.phase == "count":
            at = now.word >> 8
            has_got_past = line.polls > at if mutant == "past above" else line.polls >= at
            return now._replace(past=max(now.past, line.polls + 1) if has_got_past else now.past, met=None)
        let_through = rank.let if mutant == "LET of the page" else rank.let_through
        if here and (let_through != line.ticket or mutant == "no ticket"):
            return now._replace(held=(*now.held, now.member))
        return now

    def _decide(self, seen: Launcher) -> Iterator[Launcher]:
        """It has read all lines: yield what it can do."""
        at_once = self._setting.mutant == "at once" or (seen.has_taken_over and self._setting.take_over == "at once")
        if seen.phase == "freeze":
            yield self._writes(seen, "stop", STOP, seen.past) if at_once else self._writes(seen, "count", AT, seen.past)
        elif seen.phase == "count" and seen.met is not None:
            yield self._writes(seen, "stop", STOP, seen.met)
        elif seen.phase == "hold" and len(seen.held) == self._last + 1:
            yield self._writes(seen, "stop", STOP)
        elif seen.phase == "hold":
            yield self._looks(seen)
            yield self._looks(seen)._replace(does="lets", held=seen.held)
        else:
            yield self._looks(seen)
            if seen.past > seen.word >> 8:
                yield self._writes(seen, "count", AT, seen.past)
            if self._setting.patience_ends:
                yield self._writes(seen, "hold", HOLD)

    def _heir(self, read: Launcher) -> Launcher:
        """It has read what kforge-run wrote last, and takes over."""
        kind, at = read.word & 3, read.word >> 8
        if kind == STOP or (kind == AT and self._setting.take_over == "at once"):
            return self._writes(read, "stop", STOP, at)
        return self._writes(read, "freeze", HOLD)


class State(NamedTuple):
    """All ranks, and kforge-run."""

    ranks: tuple[Rank, ...]
    launcher: Launcher


class Found(NamedTuple):
    """What there is in a setting; a way is a shortest one from the start, and is empty if nothing is wrong."""

    states: int
    #: The way to a disagreement: the search has ended there.
    disagreement: list[State]
    #: How many states are doomed, and the way to the nearest.
    doomed: int
    doom: list[State]

    @property
    def wrong(self) -> list[State]:
        return self.disagreement or self.doom


class Numbered(Generic[T]):
    """Things, and the number that each got when it was first seen: numbers are compared faster."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, thing: T) -> int:
        number = self._numbers.setdefault(thing, len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number


class Search:
    """All states of a setting, those that are nearest to the start first."""

    def __init__(self, setting: Setting) -> None:
        self._steps = setting.steps
        self._may_differ = setting.patience_ends
        self._protocol = Protocol(setting)
        self._ranks: Numbered[Rank] = Numbered()
        self._launchers: Numbered[Launcher] = Numbered()
        #: The number of each rank, then that of kforge-run.
        self._states: Numbered[tuple[int, ...]] = Numbered()
        begin = [self._ranks.number(Rank(offset, line=Line(offset), report=Line(offset))) for offset in setting.offsets]
        self._states.number((*begin, self._launchers.number(Launcher("freeze", "writes", new_word(HOLD, 0, 0)))))
        #: Of each state: from which it was seen first.
        self._origins = array("I", [0])
        #: What follows the first state, the second …; and where each of these ends.
        self._nexts = array("I")
        self._ends = array("I", [0])
        #: Of each state: whether it is a good end, or can become one.
        self._hopeful = bytearray()

    def run(self) -> Found:
        wrong = self._forwards()
        if wrong is not None:
            return Found(len(self._hopeful), self._way(wrong), 0, [])
        self._backwards()
        doomed = self._hopeful.count(0)
        doom = self._way(self._hopeful.index(0)) if doomed else []
        return Found(len(self._hopeful), [], doomed, doom)

    def _forwards(self) -> int | None:
        """Find all states; return the first that is a disagreement."""
        ranks, launchers = self._ranks, self._launchers

        @functools.cache
        def of_rank(rank: int, together: bool) -> list[int]:
            return [ranks.number(new) for new in self._protocol.of_rank(ranks.things[rank], together)]

        @functools.cache
        def of_launcher(launcher: int, rank: int) -> list[tuple[int, int]]:
            new = self._protocol.of_launcher(launchers.things[launcher], ranks.things[rank])
            return [(launchers.number(changed), ranks.number(touched)) for changed, touched in new]

        @functools.cache
        def left_and_stopped(rank: int) -> tuple[int, int]:
            return self._protocol.left(ranks.things[rank]), self._protocol.stopped(ranks.things[rank])

        @functools.cache
        def member_of(launcher: int) -> int:
            return launchers.things[launcher].member

        number_of, origins, nexts = self._states.number, self._origins, self._nexts
        for origin, state in enumerate(self._states.things):  # which grows
            *members, launcher = state
            left, stopped = zip(*map(left_and_stopped, members), strict=True)
            least, stop = min(left), min(stopped)
            all_stopped = stop == max(stopped) <= self._steps
            self._hopeful.append(least == self._steps or (all_stopped and self._is_good(members)))
            if max(left) >= stop:
                return origin
            for index, rank in enumerate(members):
                for new in of_rank(rank, left[index] == least):
                    nexts.append(number_of((*state[:index], new, *state[index + 1 :])))
            index = member_of(launcher)
            for changed, touched in of_launcher(launcher, members[index]):
                nexts.append(number_of((*state[:index], touched, *state[index + 1 : -1], changed)))
            self._ends.append(len(nexts))
            origins.extend([origin] * (len(self._states.things) - len(origins)))
        return None

    def _is_good(self, members: list[int]) -> bool:
        """Return whether ranks that got True in one step did so as they have to."""
        return self._may_differ or len({self._ranks.things[rank].poll for rank in members}) == 1

    def _backwards(self) -> None:
        """Find from where a good end can be reached."""
        hopeful, nexts, ends = self._hopeful, self._nexts, self._ends
        before = -1
        while before != (before := hopeful.count(1)):
            for number in reversed(range(len(hopeful))):
                if not hopeful[number] and any(map(hopeful.__getitem__, nexts[ends[number] : ends[number + 1]])):
                    hopeful[number] = True

    def _way(self, number: int) -> list[State]:
        numbers = [number]
        while numbers[-1]:
            numbers.append(self._origins[numbers[-1]])
        return [
            State(tuple(self._ranks.things[rank] for rank in members), self._launchers.things[launcher])
            for *members, launcher in (self._states.things[at] for at in reversed(numbers))
        ]


def explore(setting: Setting) -> Found:
    return Search(setting).run()


def story(way: list[State]) -> str:
    """Tell what each step of a way changes, a line a step."""
    return "\n".join(
        "; ".join(
            f"{name}: {_changes(old, new)}" for name, old, new in zip(names, before, after, strict=True) if old != new
        )
        for names, before, after in ((_names(old), _parts(old), _parts(new)) for old, new in itertools.pairwise(way))
    )


def _names(state: State) -> list[str]:
    return [*(f"rank {index}" for index in range(len(state.ranks))), "kforge-run"]


def _parts(state: State) -> list[Rank | Launcher]:
    return [*state.ranks, state.launcher]


def _changes(old: Rank | Launcher | Line, new: Rank | Launcher | Line) -> str:
    changes = []
    for name, was, now in zip(old._fields, old, new, strict=True):
        if isinstance(was, Line) and isinstance(now, Line):
            changes += [_changes(was, now)] if was != now else []
        elif was != now:
            changes.append(f"{name} {_shown(name, was)} → {_shown(name, now)}")
    return ", ".join(changes)


def _shown(name: str, value: object) -> str:
    if name in ("word", "loaded", "heard") and isinstance(value, int):
        return f"{KINDS[value & 3]} {value >> 8}" if value else "none"
    return str(value)


def title(setting: Setting) -> str:
    """Return what is not as usual in a setting."""
    usual = Setting(setting.offsets, setting.steps)
    others = zip(setting._fields, setting, usual, strict=True)
    unusual = [f"{name}={value}" for name, value, as_usual in others if value != as_usual]
    return " ".join([f"offsets={setting.offsets} steps={setting.steps}", *unusual])


#: Each takes up to a minute.
LARGER = (
    *(Setting(offsets, 4) for offsets in ((0, 0), (1, 0), (0, 3), (3, 0))),
    *(Setting((0, 0), 2, polls=2, patience_ends=patience_ends) for patience_ends in (False, True)),
    *(Setting(offsets, 2) for offsets in ((0, 0, 0), (1, 0, 0), (2, 0, 1))),
    *(Setting(offsets, 2, delay=3) for offsets in ((0, 0), (1, 0), (0, 2))),
    *(Setting(offsets, 1, delay=2, late_reports=True) for offsets in ((0, 0), (1, 0), (0, 2))),
    *(Setting(offsets, 2, take_over="anew") for offsets in ((0, 0), (1, 0), (0, 2))),
    Setting((0, 0, 0), 1, buffers=False, take_over="at once"),
)


def main() -> None:
    for setting in LARGER:
        begun = time.monotonic()
        found = explore(setting)
        bad = "disagreement" if found.disagreement else "none"
        took = f"{time.monotonic() - begun:.0f} s"
        print(f"{title(setting)}: states {found.states}, bad {bad}, doomed {found.doomed}, {took}", flush=True)
        if found.wrong:
            print(story(found.wrong))


if __name__ == "__main__":
    main()
