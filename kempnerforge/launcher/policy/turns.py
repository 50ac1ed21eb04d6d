"""Who is told first, who later and who never: decided at the notice, by all that is known of the tree.

There is no rule by name alone: a wrapper is who provably waits for what it has started, and a helper is who works for
another one. See docs/notice.md, "Who is told".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from .words import Answer, Identity, Seen

#: A process works that uses so much of a processor; or so much since it started, and a little now. Guesses.
_WORKS, _STILL_WORKS = 0.2, 0.05


class Turn(NamedTuple):
    """When a process is told: when all of these have gone, and at once if there are none."""

    after: frozenset[Identity] = frozenset()
    #: It waits for them, as it says itself or the kernel does.
    waits: bool = False


class _Tree:
    def __init__(
        self, seen: Sequence[Seen], answers: Mapping[Identity, Answer], busy: Mapping[Identity, float]
    ) -> None:
        self.answers, self.busy = answers, busy
        self._by_pid = {one.who.pid: one for one in seen}
        self._below: dict[int, list[Seen]] = {}
        for one in seen:
            self._below.setdefault(one.parent, []).append(one)
        self.tops = [one for one in seen if one.parent not in self._by_pid]

    def role(self, one: Seen) -> str:
        """Return what a process is, by its own answer where there is one."""
        answer = self.answers.get(one.who)
        if one.role not in ("program", "helper"):
            return one.role
        if answer is not None:
            return "helper" if answer.helps or (one.role == "helper" and not answer.mp_child) else "program"
        above = self._by_pid.get(one.parent)
        is_fork = above is not None and one.role == "program" and above.arguments == one.arguments
        if above is not None and (is_fork or one.role == "helper"):
            # Whether it helps cannot be told, unless it is waited for.
            return "program" if self._says_it_waits(above, {one.who.pid}) else "helper"
        return one.role

    def programs(self, tops: Sequence[Seen]) -> Iterator[Seen]:
        """Yield the nearest programs at or below, through wrappers and not through helpers."""
        for one in tops:
            role = self.role(one)
            if role in ("program", "cooperative", "launcher", "srun"):
                yield one
            elif role != "helper":
                yield from self.programs(self.below(one))

    def below(self, one: Seen) -> list[Seen]:
        return self._below.get(one.who.pid, [])

    def everybody(self, one: Seen) -> Iterator[Seen]:
        yield one
        for other in self.below(one):
            yield from self.everybody(other)

    def used(self, one: Seen) -> float:
        """Return the processor time of a process and all below it (s)."""
        return sum(other.used for other in self.everybody(one))

    def works(self, one: Seen) -> bool:
        busy = self.busy.get(one.who, 0.0)
        share = one.used / one.age if one.age > 0 else 0.0
        return one.accelerator or busy >= _WORKS or (share >= _WORKS and busy >= _STILL_WORKS)

    def waits(self, one: Seen, other: Seen) -> bool:
        """Return whether a process waits for another one below it, by all evidence there is."""
        path = {other.who.pid}
        above = self._by_pid.get(other.parent)
        while above is not None and above.who != one.who:
            path.add(above.who.pid)
            above = self._by_pid.get(above.parent)
        if self._says_it_waits(one, path):
            return True
        return bool(other.output & one.pipes) and one.used < self.used(other)

    def _says_it_waits(self, one: Seen, path: set[int]) -> bool:
        answer = self.answers.get(one.who)
        return one.waits_for_children or (answer is not None and bool(answer.awaited & path))

    def relation(self, one: Seen, other: Seen) -> Literal["first", "together", "never"]:
        """Return when a program below another one is told, as seen from that."""
        if self.role(other) in ("cooperative", "launcher", "srun"):
            return "first"
        waits, works = self.waits(one, other), self.works(one)
        answer, inner = self.answers.get(one.who), self.answers.get(other.who)
        is_child_of_mp = inner is not None and inner.mp_child
        if one.ranks != other.ranks:
            is_peer = works or one.arguments == other.arguments
            return "together" if is_peer and not waits else "first"
        if waits:
            # Whoever runs an evaluation to its end, say: Ctrl-C ends that, and it saves.
            helps = (
                answer is not None
                and answer.names_door
                and inner is not None
                and not (inner.names_door or inner.has_handler or inner.mp_child)
                and (not inner.inside_try or one.accelerator or answer.has_tensors)
            )
            return "never" if helps else "first"
        if works:
            is_peer = is_child_of_mp or (inner is not None and inner.names_door and self.works(other))
            return "together" if is_peer else "never"
        return "first" if self.used(other) > one.used else "never"


def turns(
    seen: Sequence[Seen], answers: Mapping[Identity, Answer], busy: Mapping[Identity, float]
) -> dict[Identity, Turn]:
    """Return the turn of everybody who holds work, or may hold some; who is not in it is not told.

    Args:
        seen: everything below kforge-run.
        answers: of those that could be asked.
        busy: which share of a processor each uses just now (0 to 1, or more with threads).
    """
    tree = _Tree(seen, answers, busy)
    found: dict[Identity, Turn] = {}
    for one in tree.programs(tree.tops):
        _settle(tree, one, found)
    if not found:
        for one in seen:
            if one.role == "foreign" and not any(other.role == "foreign" for other in tree.below(one)):
                found[one.who] = Turn()
    return found


def _settle(tree: _Tree, one: Seen, found: dict[Identity, Turn]) -> None:
    if tree.role(one) != "program":
        found[one.who] = Turn()  # it has its own way to be told, and looks after what is below
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
    tree = _Tree(seen, {}, {})
    pythons = {one.who.pid for one in seen if one.role in ("program", "helper")}
    return any(
        other.who.pid in pythons
        for one in seen
        if one.role == "program"
        for other in tree.everybody(one)
        if other is not one
    )


def at_once(seen: Sequence[Seen]) -> dict[Identity, Turn]:
    """Return the turns where no time is left to find any out: everybody's, but a wrapper's or a helper's."""
    found = {one.who: Turn() for one in seen if one.role in ("program", "cooperative", "launcher", "srun")}
    return found or turns(seen, {}, {})
