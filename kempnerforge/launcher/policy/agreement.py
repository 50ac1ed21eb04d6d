"""How the ranks of one world come to stop at the same step (docs/many-ranks.md, which also has the evidence).

First all are held at their next poll for a moment (freeze), which tells how far each is. Then all are asked to come to
the same poll, the highest of any (count). If patience ends before they are there, because their polls do not go with
each other, all are held wherever they are, and those are let through one poll for whom nothing moves (hold): what all
are held at is one step in every program whose ranks wait for each other between two polls. Nobody stops before that; at
the end of the budget all stop at once.

Pure: it is told the time and what the ranks have written, and says what to write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from ...bootstrap import page
from .words import Identity, Line

#: How long the ranks may take to see that they are to wait (s): a guess.
FREEZE = 0.002
#: How long a rank has to be seen beyond the poll before that is raised (s): a look may be older than it seems. A guess.
PERSISTS = 0.1
#: How long nothing must move until those held are let through (s), and by how much that grows when others are held
#: then: two sets could alternate for ever. Guesses.
PAUSE, PAUSE_GROWS = 0.03, 1.5
#: Ranks are waited for as long as so many steps take, so long at least (s), and for such a part of the time that is
#: left at most. Guesses.
PATIENCE_STEPS, LEAST_PATIENCE, PATIENCE_PART = 3.0, 1.0, 0.25
#: When all stop wherever they are: a part of the time that is left. A guess.
BUDGET_PART = 0.5
#: By so many polls at most ranks differ that go with each other.
EVEN = 2
#: Who has polled once at most when another one has so often is not in the loop: only one rank polls, or some do.
POLLS_ONCE, OTHERS_POLL = 1, 10

How = Literal["together", "held", "at once"]


class Asked(NamedTuple):
    """What is to be written."""

    #: The word of every member; None: it stays as it is.
    word: int | None = None
    #: Whose waiting ends without a stop, and as their how many-th.
    let: Mapping[Identity, int] = {}
    #: The ranks have agreed.
    how: How | None = None


NOTHING = Asked()


class Agreement:
    """One world with a notice.

    Args:
        now: the time (s, monotonic), as everywhere here.
        window: how long it is until whoever still runs is ended (s).
        step: how long a step takes, as far as is known (s).
    """

    def __init__(self, now: float, window: float, step: float) -> None:
        self._began = now
        budget, patience = window * BUDGET_PART, max(PATIENCE_STEPS * step, LEAST_PATIENCE)
        self._ends_at = now + budget
        # To hold takes a few steps more.
        can_hold = PATIENCE_STEPS * step < budget
        self._holds_at = now + min(patience, window * PATIENCE_PART) if can_hold else math.inf
        self._phase: Literal["new", "freeze", "count", "hold", "done"] = "new"
        self._serial = 0
        self._at = 0
        self._was_even = False
        #: Since when a rank has been seen beyond the poll; None: it is not.
        self._beyond_since: float | None = None
        #: What was seen last in "hold", and since when; who was let through last, and how long nothing may move.
        self._seen: object = None
        self._still_since = now
        self._let_before: frozenset[Identity] = frozenset()
        #: Which wait of each was ended last. Not as the page has it: what is on its way there counts already.
        self._let: dict[Identity, int] = {}
        self._pause = PAUSE
        #: What stands.
        self.word = 0
        self.how: How | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be agreed on."""
        return self._phase == "done"

    def look(self, lines: Mapping[Identity, Line], missing: int, now: float) -> Asked:
        """Return what to do.

        Args:
            lines: of all members that live.
            missing: how many have not polled yet, that belong to them.
        """
        is_early = all(_polls(line) <= OTHERS_POLL for line in lines.values())
        members = lines if is_early else {who: line for who, line in lines.items() if _polls(line) > POLLS_ONCE}
        if self._phase == "done" or not members:
            return NOTHING
        here = {who: line.waits for who, line in members.items() if line.heard == self.word != 0}
        if now >= self._ends_at and self._phase != "new":
            return self._stop("at once", self._at if self._was_even else 0)
        if self._phase == "new":
            self._phase = "freeze"
            return self._ask(page.HOLD)
        if self._phase == "freeze":
            return self._frozen(members, here, now)
        if self._phase == "count":
            return self._count(members, here, is_early and missing > 0, now)
        return self._hold(members, here, now)

    def _frozen(self, members: Mapping[Identity, Line], here: Mapping[Identity, int], now: float) -> Asked:
        if now < self._began + FREEZE:
            return NOTHING
        # Who is not held yet may be on its way to the next poll.
        counts = [line.polls + (who not in here) for who, line in members.items()]
        self._was_even = max(counts) - min(counts) <= EVEN
        self._phase = "count"
        return self._ask(page.AT, max(counts))

    def _count(
        self, members: Mapping[Identity, Line], here: Mapping[Identity, int], others_may_come: bool, now: float
    ) -> Asked:
        counts = set(here.values())
        if len(here) == len(members) and len(counts) == 1 and not others_may_come:
            return self._stop("together", counts.pop())
        if now >= self._holds_at:
            self._phase, self._still_since = "hold", now
            return self._ask(page.HOLD)
        passed = [line.polls + 1 for who, line in members.items() if who not in here and line.polls >= self._at]
        beyond = max([self._at, *counts, *passed])
        if beyond == self._at:
            self._beyond_since = None
        elif self._beyond_since is None:
            self._beyond_since = now
        elif now - self._beyond_since >= PERSISTS:
            self._beyond_since = None
            return self._ask(page.AT, beyond)
        return NOTHING

    def _hold(self, members: Mapping[Identity, Line], here: Mapping[Identity, int], now: float) -> Asked:
        held = frozenset(who for who in here if self._let.get(who) != members[who].ticket)
        seen = (held, {who: line.polls for who, line in members.items()})
        if seen != self._seen:
            self._seen, self._still_since = seen, now
            return NOTHING
        if now - self._still_since < self._pause:
            return NOTHING
        if len(held) == len(members):
            return self._stop("held", 0)
        if held != self._let_before:
            self._let_before = held
            self._pause *= PAUSE_GROWS
        self._still_since = now
        let = {who: members[who].ticket for who in held}
        self._let.update(let)
        return Asked(let=let)

    def _stop(self, how: How, at: int) -> Asked:
        self._phase, self.how = "done", how
        return self._ask(page.STOP, at)._replace(how=how)

    def release(self) -> Asked:
        """Let all go on for good: one of them has come to its end without a stop, and the others will."""
        self._phase = "done"
        return self._ask(page.AT, page.NEVER)

    def suspended(self, seconds: float) -> None:
        """Leave a time in which nothing could run (s) out of every count."""
        self._began += seconds
        self._holds_at += seconds
        self._ends_at += seconds
        self._still_since += seconds
        self._beyond_since = None

    def _ask(self, kind: int, at: int = 0) -> Asked:
        self._serial += 1
        self._at = at
        self.word = page.word(kind, at, self._serial % page.SERIAL_OF_RANKS)
        return Asked(self.word)


def _polls(line: Line) -> int:
    return line.polls % page.GENERATION
