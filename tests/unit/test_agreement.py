"""How ranks come to one step, told by what they write (`policy/agreement.py`), and which ranks belong together."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import event, given, settings

from kempnerforge.bootstrap import page
from kempnerforge.launcher.policy import agreement, facts
from kempnerforge.launcher.policy.agreement import Agreement
from kempnerforge.launcher.policy.timers import Timer, Timers
from kempnerforge.launcher.policy.words import (
    Action,
    Ask,
    Identity,
    Joined,
    LetOn,
    Line,
    LinesRead,
    ReadLines,
)
from kempnerforge.launcher.policy.worlds import LOOK_EVERY, Worlds

START = 1000.0
WINDOW = 100.0
#: How long a store takes at most until others see it, and how long a rank in its poll sleeps (s).
STORE, NAP = 0.0005, 0.002
#: What a rank does: it works for so long (s), or waits for all others there, or polls.
Steps = Iterator[tuple[str, float]]
Program = Callable[[int, random.Random], Steps]


class Ranks:
    """Ranks of one world in a time of their own, as `resilience/rank.py` and a program make them."""

    def __init__(self, size: int, program: Program, seed: int, window: float = WINDOW) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.window = window
        self.whos = [Identity("n1", rank + 1, rank + 1) for rank in range(size)]
        self.lines = {who: [0] * page.WORDS for who in self.whos}
        self._programs = [program(rank, self.random) for rank in range(size)]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._arrived: Counter[float] = Counter()
        self._waiting: dict[float, list[int]] = {}
        #: At which collective each was when it was told to stop.
        self.stopped: dict[int, int] = {}
        self.ended: set[int] = set()
        self._collectives = [0] * size
        self._words: dict[Identity, tuple[int, int]] = {}
        self.agreement: Agreement | None = None
        self.how: str | None = None
        for rank in range(size):
            self._later(0.0, lambda rank=rank: self._goes_on(rank))  # type: ignore[misc]

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now + seconds, self._number, what))

    # --- a rank ------------------------------------------------------------------------------------

    def _goes_on(self, rank: int) -> None:
        step = next(self._programs[rank], None)
        if step is None:
            self.ended.add(rank)
        elif step[0] == "works":
            self._later(step[1], lambda: self._goes_on(rank))
        elif step[0] == "meets":
            self._collectives[rank] += 1
            key = self._collectives[rank]
            self._waiting.setdefault(key, []).append(rank)
            if len(self._waiting[key]) == len(self.whos):
                for other in self._waiting.pop(key):
                    self._later(self.random.random() * STORE, lambda other=other: self._goes_on(other))  # type: ignore[misc]
        else:
            self._polls(rank)

    def _polls(self, rank: int) -> None:
        line = self.lines[self.whos[rank]]
        count = line[page.POLLS] + 1
        # Others see the store only a little later, and the word is read before that.
        self._later(self.random.random() * STORE, lambda: self._is_seen(rank, count))
        if not line[page.WORD]:
            self._later(0.0, lambda: self._goes_on(rank))
            return
        line[page.TICKET] += 1
        line[page.POLLS] = line[page.WAITS] = count
        self._looks(rank, count)

    def _is_seen(self, rank: int, count: int) -> None:
        line = self.lines[self.whos[rank]]
        line[page.POLLS] = max(line[page.POLLS], count)

    def _looks(self, rank: int, count: int) -> None:
        line = self.lines[self.whos[rank]]
        word = line[page.WORD]
        kind, at = page.kind_of(word), page.at_of(word)
        if kind == page.STOP and count >= at:
            line[page.HEARD] = 0
            self.stopped[rank] = self._collectives[rank]
        elif kind == page.STOP or (kind == page.AT and count < at) or line[page.LET] == line[page.TICKET]:
            line[page.HEARD] = 0
            self._later(0.0, lambda: self._goes_on(rank))
        else:
            line[page.HEARD] = word
            self._later(NAP * self.random.random(), lambda: self._looks(rank, count))

    # --- kforge-run --------------------------------------------------------------------------------

    def read(self) -> dict[Identity, Line]:
        slots = (page.POLLS, page.WAITS, page.TICKET, page.HEARD)
        return {
            who: Line(*(line[slot] for slot in slots))
            for rank, (who, line) in enumerate(self.lines.items())
            if rank not in self.ended
        }

    def notice(self, after: float) -> Ranks:
        def look() -> None:
            if self.agreement is None:
                self.agreement = Agreement(self.now, self.window, 0.0)
            asked = self.agreement.look(self.read(), 0, self.now)
            if asked.word is not None:
                for line in self.lines.values():
                    # One after the other.
                    delay = self.random.random() * STORE
                    self._later(delay, lambda line=line, word=asked.word: line.__setitem__(page.WORD, word))  # type: ignore[misc]
            for who, ticket in asked.let.items():
                self.lines[who][page.LET] = ticket
            self.how = asked.how or self.how
            if not self.agreement.is_over:
                self._later(LOOK_EVERY, look)

        self._later(after, look)
        return self

    def run(self, seconds: float = WINDOW) -> Ranks:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until and len(self.stopped) + len(self.ended) < len(self.whos):
            self.now, _, what = heapq.heappop(self._due)
            what()
        return self

    @property
    def stop_at_one_step(self) -> bool:
        return len(self.stopped) == len(self.whos) and len(set(self.stopped.values())) == 1


def trains(step: float = 0.01, polls_before: tuple[int, ...] = (), late: tuple[float, ...] = ()) -> Program:
    """Return a program of steps that all take together, with a poll after each.

    Args:
        step: how long a step takes at most (s).
        polls_before: how often each rank has polled before the first step.
        late: how late each rank comes to its poll (s).
    """

    def program(rank: int, random: random.Random) -> Steps:
        for _ in range(polls_before[rank] if rank < len(polls_before) else 0):
            yield "polls", 0.0
        while True:
            yield "works", random.random() * step
            yield "meets", 0.0
            if rank < len(late):
                yield "works", late[rank]
            yield "polls", 0.0

    return program


def evaluates(rank: int, random: random.Random) -> Steps:
    """Rank 0 polls alone now and then."""
    for step in range(10**6):
        yield "works", random.random() * 0.01
        yield "meets", 0.0
        if rank == 0 and step % 10 == 9:
            for _ in range(5):
                yield "works", 0.002
                yield "polls", 0.0
        yield "polls", 0.0


@pytest.mark.parametrize("seed", range(20))
def test_ranks_that_poll_alike_stop_together_at_once(seed: int) -> None:
    ranks = Ranks(4, trains(), seed).notice(0.3).run()
    assert ranks.stop_at_one_step and ranks.how == "together"
    assert ranks.now < START + 0.3 + 0.1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "program",
    [trains(polls_before=(1,)), trains(polls_before=(3, 0, 1, 0), late=(0.15,)), trains(late=(0.0, 0.4)), evaluates],
    ids=["polled once more", "polled more and late", "late", "evaluates alone"],
)
def test_ranks_that_poll_unevenly_stop_at_one_step(program: Program, seed: int) -> None:
    ranks = Ranks(4, program, seed).notice(0.3).run()
    assert ranks.stop_at_one_step and ranks.how in ("together", "held")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6),
    st.lists(st.integers(0, 4), max_size=6),
    st.lists(st.sampled_from([0.0, 0.001, 0.02, 0.2]), max_size=6),
    st.sampled_from([0.001, 0.01, 0.1]),
    st.integers(0, 10**6),
)
def test_whatever_ranks_do_they_stop_at_one_step(
    size: int, before: list[int], late: list[float], step: float, seed: int
) -> None:
    ranks = Ranks(size, trains(step, tuple(before), tuple(late)), seed).notice(0.3).run()
    event(f"{ranks.how}")
    assert ranks.stop_at_one_step, ranks.stopped


def test_at_the_end_of_the_budget_all_stop_wherever_they_are() -> None:
    """One is stuck: the others get what is left of the time."""

    def program(rank: int, random: random.Random) -> Steps:
        for step in range(10**6):
            yield "works", random.random() * 0.01
            yield "polls", 0.0
            if rank == 0 and step == 1:
                yield "works", 10**6

    ranks = Ranks(3, program, 1, window=10.0).notice(2.0).run(60)
    assert ranks.how == "at once" and set(ranks.stopped) == {1, 2}
    assert START + 2 + 5 <= ranks.now <= START + 60


def test_who_polled_only_once_is_not_waited_for() -> None:
    def program(rank: int, random: random.Random) -> Steps:
        if rank == 1:
            yield "polls", 0.0
        while True:
            yield "works", random.random() * 0.01
            yield "meets", 0.0
            if rank == 0:
                yield "polls", 0.0

    ranks = Ranks(2, program, 1).notice(1.0).run(5)
    assert set(ranks.stopped) == {0} and ranks.how == "together"


# --- which ranks belong together ---------------------------------------------------------------------


class Node:
    """The worlds of a node, with what was written."""

    def __init__(self, sees_all: bool = True) -> None:
        self.timers = Timers()
        self.worlds = Worlds(self.timers, sees_all)
        self.now = START
        self.lines: dict[Identity, Line] = {}
        self.words: dict[Identity, int] = {}
        self.said: list[facts.Fact] = []

    def join(self, pid: int, rank: int, world: str = "w", size: int = 2, polls: int = 1) -> Identity:
        who = Identity("n1", pid, pid)
        self.lines[who] = Line(polls=polls)
        self.do(self.worlds.joined(Joined(who, world, rank, size), self.now))
        return who

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, ReadLines):
                lines = {who: self.lines[who] for who in action.whos}
                self.do(self.worlds.read(LinesRead(lines), self.now))
            elif isinstance(action, Ask):
                self.words.update(dict.fromkeys(action.whos, action.word))
            elif not isinstance(action, LetOn):
                self.said.append(action)  # type: ignore[arg-type]

    def notice(self) -> None:
        self.do(self.worlds.begin(self.now + WINDOW, self.now))

    def waits(self, who: Identity, count: int) -> None:
        """Have a rank wait in its poll."""
        self.lines[who] = Line(count, count, 1, self.words[who])

    def passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.timers.next) is not None and due <= until:
            self.now = max(due, self.now)
            if self.timers.take(Timer.MEET, self.now):
                self.do(self.worlds.meet())
        self.now = until

    def asks(self, who: Identity) -> tuple[int, int]:
        return page.kind_of(self.words.get(who, 0)), page.at_of(self.words.get(who, 0))


def test_two_worlds_stop_each_by_itself() -> None:
    node = Node()
    first, second = [node.join(pid, pid - 1) for pid in (1, 2)], [node.join(pid, pid - 3, "v") for pid in (3, 4)]
    node.notice()
    for who in first:
        node.waits(who, 7)
    node.passes(0.01)
    for who in first:
        node.waits(who, 7)
    node.passes(0.01)
    assert {node.asks(who) for who in first} == {(page.STOP, 7)}
    assert {node.asks(who)[0] for who in second} == {page.AT}
    assert [fact for fact in node.said if isinstance(fact, facts.Agreed)] == [facts.Agreed(1, [0, 1], "together", 7)]


def test_a_rank_that_is_claimed_twice_is_of_another_world() -> None:
    node = Node()
    whos = [node.join(pid, rank) for pid, rank in ((1, 0), (2, 0), (3, 1), (4, 1))]
    assert [fact.world for fact in node.said if isinstance(fact, facts.Joined)] == [1, 2, 1, 2]
    assert len(whos) == 4


def test_a_rank_that_is_started_again_takes_the_place_of_the_one_before() -> None:
    node = Node()
    old = node.join(1, 0)
    node.worlds.lost(old)
    node.join(2, 0)
    assert [fact.world for fact in node.said if isinstance(fact, facts.Joined)] == [1, 1]


def test_who_joins_when_there_is_a_notice_is_asked_as_well() -> None:
    node = Node()
    node.notice()
    assert not node.words
    one = node.join(1, 0)
    node.passes(0.01)
    other = node.join(2, 1)
    assert node.words[one] == node.words[other] != 0


def test_ranks_that_have_not_polled_yet_are_waited_for() -> None:
    node = Node()
    one = node.join(1, 0)
    node.notice()
    for _ in range(2):
        node.waits(one, 2)
        node.passes(0.01)
    assert node.asks(one)[0] == page.AT, "its world has two ranks"
    inner = Node(sees_all=False)
    one = inner.join(1, 0)
    inner.notice()
    for _ in range(2):
        inner.waits(one, 2)
        inner.passes(0.01)
    assert inner.asks(one) == (page.STOP, 2), "the other one may be below another kforge-run"


def test_when_one_has_come_to_its_end_the_others_go_on() -> None:
    node = Node()
    one, other = node.join(1, 0), node.join(2, 1)
    node.notice()
    node.waits(one, 9)
    node.do(node.worlds.left(other))
    assert node.asks(one) == (page.AT, page.NEVER) and facts.RanksGoOn(1) in node.said
    node.passes(1)
    assert node.asks(one) == (page.AT, page.NEVER) and node.timers.next is None


def test_who_is_lost_is_not_waited_for() -> None:
    node = Node()
    one, other = node.join(1, 0), node.join(2, 1)
    node.notice()
    node.worlds.lost(other)
    for _ in range(2):
        node.waits(one, 9)
        node.passes(0.01)
    assert node.asks(one) == (page.STOP, 9) and node.worlds.lost_ranks == ((1, 2),)


def test_who_was_told_and_has_come_to_a_regular_end_has_saved() -> None:
    """Only one rank may call finish()."""
    node = Node()
    whos = [node.join(1, 0), node.join(2, 1)]
    node.notice()
    for _ in range(2):
        for who in whos:
            node.waits(who, 9)
        node.passes(0.01)
    for who in whos:
        node.worlds.told(who)
    node.do(node.worlds.finished(whos[0]))
    node.do(node.worlds.left(whos[1]))
    for who in whos:
        node.worlds.lost(who)
    assert not node.worlds.lost_ranks


def test_a_notice_of_one_rank_reaches_its_world() -> None:
    node = Node()
    whos = [node.join(1, 0), node.join(2, 1)]
    stranger = node.join(3, 0, "v")
    node.do(node.worlds.noticed(whos[1], node.now + WINDOW, node.now))
    assert all(node.words.get(who) for who in whos) and not node.words.get(stranger)


def test_a_suspension_takes_nothing_of_the_patience() -> None:
    node = Node()
    one, _ = node.join(1, 0), node.join(2, 1)
    node.notice()
    node.now += 500
    node.worlds.suspended(500)
    node.passes(agreement.LEAST_PATIENCE / 2)
    assert node.asks(one)[0] == page.AT
    node.passes(agreement.LEAST_PATIENCE)
    assert node.asks(one)[0] == page.HOLD
