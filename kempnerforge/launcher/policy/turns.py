"""Who is told first, who later and who never: decided at the notice, by all that is known of the tree.

There is no rule by name alone: a wrapper is who provably waits for what it has started, and a helper is who works for
another one. See docs/notice.md, "Who is told".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from signal import SIGTERM
from typing import Literal, NamedTuple

from .words import Answer, Identity, Seen

#: A process works that uses so much of a processor; or so much since it started, and a little now. Guesses.
_WORKS, _STILL_WORKS = 0.2, 0.05
#: A rank 0 has used so much of what one of its children has; who only waits for them has used less. A guess.
_LIKE_A_RANK = 0.5
#: They are told by `Deliver`.
OWN_WAYS = ("cooperative", "launcher", "srun")


class Turn(NamedTuple):
    """When a process is told: when all of these have gone, and at once if there are none."""

    after: frozenset[Identity] = frozenset()
    #: It waits for them, as it says itself or the kernel does: it is told in the end.
    waits: bool = False


class _Tree:
    """Who is above and below whom.

    A process is below its parent only where that comes before it in the snapshot: while one is read processes end, and
    their numbers are given to others, but no loop can come of that.
    """

    def __init__(
        self,
        seen: Sequence[Seen],
        answers: Mapping[Identity, Answer] | None = None,
        busy: Mapping[Identity, float] | None = None,
    ) -> None:
        self._answers, self._busy = answers or {}, busy or {}
        self._above: dict[Identity, Seen] = {}
        self._below: dict[Identity, list[Seen]] = {}
        self.tops: list[Seen] = []
        by_pid: dict[int, Seen] = {}
        for one in seen:
            if one.who in self._below:
                continue  # it was moved while the tree was read, and met again
            above = by_pid.get(one.parent)
            if above is None:
                self.tops.append(one)
            else:
                self._above[one.who] = above
                self._below[above.who].append(one)
            self._below[one.who] = []
            by_pid[one.who.pid] = one

    def below(self, one: Seen) -> list[Seen]:
        return self._below[one.who]

    def everybody(self, one: Seen) -> Iterator[Seen]:
        """Yield a process and all below it."""
        yield one
        for other in self.below(one):
            yield from self.everybody(other)

    def line(self, one: Seen) -> Iterator[Seen]:
        """Yield a process and all above it, the nearest first."""
        above: Seen | None = one
        while above is not None:
            yield above
            above = self._above.get(above.who)

    def role(self, one: Seen) -> str:
        """Return what a process is, by its own answer where there is one."""
        answer, above = self._answers.get(one.who), self._above.get(one.who)
        if one.role not in ("program", "helper"):
            return one.role
        if answer is not None and one.role == "helper" and not answer.mp_child:
            return "wrapper"  # multiprocessing's fork server, from which others come
        if answer is not None:
            return "helper" if answer.helps else "program"
        if above is not None and (one.role == "helper" or _is_fork(one, above)):
            # Whether it helps cannot be told, unless it is waited for.
            return "program" if self._says_it_waits(above, {one.who.pid}) else "helper"
        return one.role

    def programs(self, tops: Sequence[Seen]) -> Iterator[Seen]:
        """Yield the nearest programs at or below, through wrappers and not through helpers."""
        for one in tops:
            role = self.role(one)
            if role == "program" or role in OWN_WAYS:
                yield one
            elif role != "helper":
                yield from self.programs(self.below(one))

    def foreign(self, tops: Sequence[Seen]) -> Iterator[Seen]:
        """Yield the nearest that are no Pythons and hear a signal, but for those that wait for another one."""
        for one in tops:
            inner = list(self.foreign(self.below(one)))
            if one.role in ("foreign", "script") and not (inner and one.waits_for_children):
                yield one
            else:
                yield from inner

    def relation(self, one: Seen, other: Seen) -> Literal["first", "together", "never"]:
        """Return when a program below another one is told, as seen from that."""
        waits, works = self.waits(one, other), self._works(one)
        if self.role(other) in OWN_WAYS:
            return "together" if works and not waits else "first"
        if one.ranks != other.ranks and other.ranks.strip(","):
            is_peer = works or _runs_the_same(one, other)
            return "together" if is_peer and not waits else "first"
        answer, inner = self._answers.get(one.who), self._answers.get(other.who)
        used, is_mp_child = self._used(other), inner is not None and inner.mp_child
        if waits:
            has_forked_itself = _is_fork(other, one) and used < one.used and not is_mp_child
            return "never" if has_forked_itself or self._only_serves(one, answer, inner) else "first"
        if is_mp_child and (works or one.used >= _LIKE_A_RANK * used):
            return "together"
        if works:
            names_door = inner is not None and inner.names_door
            return "together" if names_door and self._works(other) else "never"
        if answer is not None and not (_trains(one, answer) or _has_door(answer)):
            return "first" if used > one.used or self._works(other) else "never"
        if answer is not None and inner is not None and not _may_save(inner):
            return "never"
        return "first" if used > one.used else "never"

    def _only_serves(self, one: Seen, answer: Answer | None, inner: Answer | None) -> bool:
        """Return whether what a process waits for is a part of its work: an evaluation, say, that Ctrl-C would end."""
        if answer is None or inner is None or _has_door(inner) or inner.mp_child:
            return False
        trains = _trains(one, answer)
        return (answer.names_door and not inner.inside_try) or (_has_door(answer) and trains)

    def waits(self, one: Seen, other: Seen) -> bool:
        """Return whether a process waits for another one below it, by all evidence there is."""
        path = {between.who.pid for between in self.line(other)} - {above.who.pid for above in self.line(one)}
        if self._says_it_waits(one, path):
            return True
        # What both write to is no pipe between them.
        return bool(other.output & (one.pipes - one.output)) and (one.used < self._used(other) or not self._works(one))

    def _says_it_waits(self, one: Seen, path: set[int]) -> bool:
        answer = self._answers.get(one.who)
        # The kernel tells that it waits, and only the process itself for whom.
        return bool(answer.awaited & path) if answer is not None and answer.awaited else one.waits_for_children

    def _works(self, one: Seen) -> bool:
        busy = self._busy.get(one.who, 0.0)
        share = one.used / one.age if one.age > 0 else 0.0
        return one.accelerator or busy >= _WORKS or (share >= _WORKS and busy >= _STILL_WORKS)

    def _used(self, one: Seen) -> float:
        """Return the processor time of a process and all below it (s)."""
        return sum(other.used for other in self.everybody(one))


def _trains(one: Seen, answer: Answer) -> bool:
    return one.accelerator or answer.has_tensors


def _has_door(answer: Answer) -> bool:
    return answer.names_door or answer.has_handler


def _may_save(answer: Answer) -> bool:
    """Return whether anything tells that a process does more than die when it is told."""
    return _has_door(answer) or answer.inside_try or answer.has_tensors


def _is_fork(one: Seen, above: Seen) -> bool:
    """Return whether a process looks as if it had never run another program: as its parent does."""
    return (one.arguments, one.ranks) == (above.arguments, above.ranks)


def _runs_the_same(one: Seen, other: Seen) -> bool:
    """Return whether two run the same script, one of them by a longer path, or the same of anything else."""
    if one.program.startswith("-"):
        return one.arguments == other.arguments
    shorter, longer = sorted((one.program, other.program), key=len)
    return shorter == longer or longer.endswith("/" + shorter)


def turns(
    seen: Sequence[Seen], answers: Mapping[Identity, Answer], busy: Mapping[Identity, float]
) -> dict[Identity, Turn]:
    """Return the turn of everybody who holds work, or may hold some; who is not in it is not told.

    Args:
        seen: everything below kforge-run, parents first.
        answers: of those that could be asked.
        busy: which share of a processor each uses just now (0 to 1, or more with threads).
    """
    tree = _Tree(seen, answers, busy)
    found: dict[Identity, Turn] = {}
    for one in tree.programs(tree.tops):
        _settle(tree, one, found)
    return found or {one.who: Turn() for one in tree.foreign(tree.tops)}


def _settle(tree: _Tree, one: Seen, found: dict[Identity, Turn]) -> None:
    if tree.role(one) in OWN_WAYS:
        found[one.who] = Turn()  # it looks after what is below
        return
    before: set[Identity] = set()
    waits = False
    for other in tree.programs(tree.below(one)):
        relation = tree.relation(one, other)
        if relation == "never":
            continue
        if relation == "first":
            before.add(other.who)
            waits = waits or tree.waits(one, other)
        _settle(tree, other, found)
    found[one.who] = Turn(frozenset(before), waits)


def needs_answers(seen: Sequence[Seen]) -> bool:
    """Return whether programs are below others, so that it has to be found out which of them hold work."""
    tree = _Tree(seen)
    return any(
        other.role in ("program", "helper")
        for one in seen
        if one.role == "program"
        for other in tree.everybody(one)
        if other.who != one.who
    )


def at_once(seen: Sequence[Seen]) -> dict[Identity, Turn]:
    """Return the turns where no time is left to find any out: everybody's, but a wrapper's or a helper's."""
    tree = _Tree(seen)
    found: dict[Identity, Turn] = {}
    for one in seen:
        if one.role == "program":
            waits_for = {other.who for other in tree.programs(tree.below(one)) if tree.waits(one, other)}
            found[one.who] = Turn(frozenset(waits_for), bool(waits_for))
        elif one.role in OWN_WAYS:
            found[one.who] = Turn()
    return found or turns(seen, {}, {})


def not_to_be_terminated(seen: Sequence[Seen], acting: Collection[Identity]) -> frozenset[Identity]:
    """Return who is spared from SIGTERM while some act: these, whom they wait for, and who waits for them.

    What would only die of it is spared, too: it may be what they write to.
    """
    if not acting:
        return frozenset()
    tree = _Tree(seen)
    spared = set(acting) | {one.who for one in seen if SIGTERM not in one.caught | one.blocked}
    for one in seen:
        line = [above.who for above in tree.line(one)]
        if one.who in acting:
            spared.update(line)
        elif any(above in acting for above in line):
            spared.add(one.who)
    return frozenset(spared)
