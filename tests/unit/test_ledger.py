"""When each is told: at once, in turn, again and in the end."""

from __future__ import annotations

import itertools
from collections import Counter
from signal import SIGINT, SIGTERM, SIGUSR1
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.policy import facts
from kempnerforge.launcher.policy.ledger import (
    ANSWERS_WITHIN,
    IDLE_FOR,
    LOOK_EVERY,
    LOOK_SOON,
    NO_TIME,
    PATIENCE,
    SECOND_AFTER,
    SEEK_EVERY,
    SEEKS_FOR,
    SETTLES_WITHIN,
    WORD,
    Ledger,
)
from kempnerforge.launcher.policy.timers import Timer, Timers
from kempnerforge.launcher.policy.words import (
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
    Role,
    Seek,
    Seen,
    Signal,
    TreeRead,
)

START = 1000.0
#: From the notice to the final stage, if nothing else is said (s).
WINDOW = 90.0
CATCHES = frozenset({int(SIGTERM)})


class Telling(NamedTuple):
    """Who was told, when (s after the notice), by what, and whether it was a repeat for who may have missed it."""

    at: float
    names: str
    by: int = WORD
    again: bool = False


class Notice:
    """A notice in a tree of processes, with a clock of its own.

    Each process is called by a letter, which its pid comes from, and uses as much of a processor as it is said to.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self.timers = Timers()
        self.ledger = Ledger(self.timers)
        self.now = START
        self.until = START + window
        self.actions: list[tuple[float, Action]] = []
        self.spared = frozenset[str]()
        self._tree: dict[str, Seen] = {}
        self._busy: dict[str, float] = {}
        self._suspended = 0.0
        self._answers: dict[str, Answer] = {}

    # --- what is below -------------------------------------------------------------------------------

    def has(self, name: str, parent: str = "", *, busy: float = 0.0, used: float = 0.0, **more: object) -> Notice:
        """Have a process be there: an armed Python, if nothing else is said."""
        above = who(parent).pid if parent else 1
        is_armed = more.get("role", "program") == "program"
        seen = Seen(who(name), above, "program", name, (name,), armed=is_armed, used=used, age=100.0, caught=CATCHES)
        self._tree[name] = seen._replace(**more)  # type: ignore[arg-type]
        self._busy[name] = busy
        return self

    def becomes(self, name: str, *, busy: float | None = None, **more: object) -> Notice:
        self._tree[name] = self._tree[name]._replace(**more)  # type: ignore[arg-type]
        self._busy[name] = self._busy[name] if busy is None else busy
        return self

    def starts(self, name: str, parent: str = "", **more: object) -> Notice:
        self.has(name, parent, **more)  # type: ignore[arg-type]
        self._do(self.ledger.look_soon(self.now))
        return self

    def ends(self, *names: str) -> Notice:
        """Have processes end, and that be told."""
        for name in names:
            del self._tree[name]
            self._do(self.ledger.gone(Gone(who(name)), self.now))
        self._do(self.ledger.look_soon(self.now))
        return self

    # --- what happens --------------------------------------------------------------------------------

    def comes(self, signum: int = SIGUSR1) -> Notice:
        self._do(self.ledger.begin(signum, self.now))
        return self

    def says(self, name: str, answer: Answer | None = None, *, awaits: str = "") -> Notice:
        """Have a process answer now, and whenever it is asked."""
        awaited = frozenset(who(other).pid for other in awaits)
        self._answers[name] = (answer or Answer())._replace(awaited=awaited)
        self._answers_now(name)
        return self

    def _answers_now(self, name: str) -> None:
        self._do(self.ledger.answered(Answered(who(name), self._answers[name])))

    def hears(self, name: str, door: str = "k") -> Notice:
        self._do(self.ledger.heard(Heard(who(name), door), self.now))
        return self

    def registers(self, name: str) -> Notice:
        self._do(self.ledger.registered(Registered(name, who(name), 600.0)))
        return self

    def passes(self, seconds: float) -> Notice:
        until = self.now + seconds
        while self.timers.next is not None and self.timers.next <= until:
            self.now = max(self.now, self.timers.next)
            for timer in self.timers.in_order():
                if self.timers.take(timer, self.now):
                    self._do(self._ring(timer))
        self.now = until
        return self

    def _ring(self, timer: Timer) -> list[Action]:
        if timer is Timer.LOOK:
            return [Look()]
        return self.ledger.seek(self.now) if timer is Timer.SEEK else self.ledger.repeat(self.now)

    def is_suspended(self, seconds: float) -> Notice:
        """Have nothing run for a while."""
        self.now += seconds
        self.until += seconds
        self._suspended += seconds
        self.ledger.suspended(seconds)
        return self

    def comes_to_the_end(self) -> Notice:
        """Have the final stage begin."""
        actions, spared = self.ledger.final(self.now)
        self._do(actions)
        self.spared = frozenset(name for name in self._tree if who(name) in spared)
        return self

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            self.actions.append((self.now, action))
            if isinstance(action, Look):
                self._do(self.ledger.read(TreeRead(self._seen()), self.until, self.now))
            elif isinstance(action, Probe):
                for name in [name for name in self._answers if who(name) in action.whos]:
                    self._answers_now(name)

    def _seen(self) -> tuple[Seen, ...]:
        passed = self.now - START - self._suspended
        return tuple(one._replace(used=one.used + self._busy[name] * passed) for name, one in self._tree.items())

    # --- what came of it -----------------------------------------------------------------------------

    @property
    def tellings(self) -> list[Telling]:
        return [
            Telling(round(at - START, 3), "".join(chr(one.pid) for one in action.whos), action.by, action.again)
            for at, action in self.actions
            if isinstance(action, Signal)
        ]

    @property
    def told(self) -> dict[str, float]:
        """When each was first told (s after the notice)."""
        return {name: telling.at for telling in reversed(self.tellings) for name in telling.names}

    def times(self, kind: type[Action]) -> list[float]:
        return [round(at - START, 3) for at, action in self.actions if isinstance(action, kind)]


def who(name: str) -> Identity:
    return Identity("n1", ord(name), ord(name))


def wrapped(window: float = WINDOW, **outer: object) -> Notice:
    """Return an idle Python `w` with a trainer `t` below it, both asked, and both with their answers."""
    notice = Notice(window).has("w", **outer).has("t", "w", busy=0.9, used=50.0)  # type: ignore[arg-type]
    return notice.comes().says("w").says("t")


# --- who does not answer ---------------------------------------------------------------------------------


def test_who_has_begun_to_wait_for_a_signal_when_the_word_came_gets_the_signal() -> None:
    notice = Notice().has("t").comes()
    assert notice.tellings == [Telling(0.0, "t")]
    notice.becomes("t", waits_for_signal=True).passes(3.0)
    signals = [telling for telling in notice.tellings if telling.by != WORD]
    assert len(signals) == 1 and signals[0][1:] == ("t", SIGUSR1, False) and signals[0].at <= 1.1
    assert not [telling for telling in notice.tellings if telling.at > signals[0].at]


# --- at the notice -----------------------------------------------------------------------------------------


def test_a_lone_program_is_told_at_once() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s", busy=1.0).comes()
    assert notice.tellings == [Telling(0.0, "t")] and not notice.times(Probe)


def test_nothing_is_done_without_a_notice() -> None:
    notice = Notice().has("t").registers("r").passes(100)
    notice._do(notice.ledger.read(TreeRead(notice._seen()), notice.until, notice.now))
    notice.starts("u").ends("u").hears("t").comes_to_the_end()
    assert not notice.tellings and not notice.times(Look) and not notice.spared
    assert not notice.ledger.nobody_hears and not notice.ledger.is_undecided


@pytest.mark.parametrize(("window", "settles"), [(90.0, 0.25), (5.0, 0.25), (4.4, 0.22)])
def test_programs_below_others_are_asked_and_looked_at_for_a_moment(window: float, settles: float) -> None:
    notice = wrapped(window)
    assert notice.times(Probe) == [0.0] and not notice.tellings and notice.ledger.is_undecided
    notice.passes(settles - 0.001)
    assert not notice.tellings, "the answers are there, but not how busy each is"
    assert notice.passes(0.001).tellings == [Telling(settles, "t")] and not notice.ledger.is_undecided


@pytest.mark.parametrize(("window", "within"), [(90.0, ANSWERS_WITHIN), (6.0, 1.2)])
def test_an_answer_that_does_not_come_is_waited_for_a_little(window: float, within: float) -> None:
    notice = Notice(window).has("w").has("t", "w", busy=0.9, used=50.0).comes().says("t")
    assert not notice.passes(within - 0.05).tellings
    assert notice.passes(SETTLES_WITHIN).told.keys() == {"t"}


def test_who_starts_while_it_is_looked_into_is_asked_too() -> None:
    notice = wrapped().starts("u", "t").passes(0.3)
    asked = [action.whos for _, action in notice.actions if isinstance(action, Probe)]
    assert asked[0] == (who("w"), who("t")) and asked[1] == (*asked[0], who("u")) and not notice.tellings
    assert notice.says("u", Answer(helps=True)).passes(SETTLES_WITHIN).told.keys() == {"t"}


def test_what_is_done_in_passing_does_not_count() -> None:
    """A `with` that is there at one question and not at the next."""
    notice = Notice().has("p", busy=0.9).has("c", "p", busy=0.9, used=50.0, waits_for_children=False).comes()
    notice.says("p", Answer(names_door=True), awaits="c").says("c", Answer(inside_try=True)).passes(0.2)
    assert not notice.tellings and len(notice.times(Probe)) == 2
    notice.says("c", Answer()).passes(0.1)
    assert set(notice.told) == {"p"}


def test_who_has_not_had_its_turn_is_asked_again() -> None:
    """On a loaded machine it is still where it was when it was asked first."""
    notice = Notice().has("p", busy=0.9).has("c", "p", busy=0.9, used=50.0).comes()
    notice.says("p", Answer(names_door=True), awaits="c").says("c", Answer(inside_try=True, held_up=True))
    assert not notice.passes(SETTLES_WITHIN * 3).tellings
    assert set(notice.says("c", Answer()).passes(SETTLES_WITHIN).told) == {"p"}


def test_only_the_armed_can_be_asked() -> None:
    notice = Notice().has("w", armed=False, caught=frozenset({int(SIGINT)})).has("t", "w", used=9.0, busy=1.0).comes()
    assert [action for _, action in notice.actions if isinstance(action, Probe)] == [Probe((who("t"),))]
    nobody = Notice().has("w", armed=False).has("t", "w", armed=False, used=9.0, busy=1.0).comes()
    assert not nobody.times(Probe)
    assert nobody.passes(SETTLES_WITHIN).told == {"t": SETTLES_WITHIN}


def test_who_works_decides_and_not_only_who_has_worked() -> None:
    """Of two that answer alike, a parent that is busy holds the work, and one that is idle waits for it."""
    notice = Notice().has("p", busy=0.9, used=1.0).has("c", "p", busy=0.9, used=50.0).comes().says("p").says("c")
    assert set(notice.passes(1).told) == {"p"}
    assert set(wrapped().passes(1).told) == {"t"}


def test_what_is_answered_counts() -> None:
    notice = Notice().has("p").has("c", "p", busy=0.9, used=50.0).comes()
    notice.says("p").says("c", Answer(helps=True, mp_child=True))
    assert set(notice.passes(1).told) == {"p"}


@pytest.mark.parametrize(("window", "asks"), [(NO_TIME - 0.1, False), (NO_TIME, True)])
def test_without_time_nobody_is_asked_and_nobody_waits(window: float, asks: bool) -> None:
    notice = wrapped(window)
    assert bool(notice.times(Probe)) == asks
    assert notice.tellings == ([] if asks else [Telling(0.0, "wt")])


def test_whoever_has_a_way_of_its_own_is_left_to_it() -> None:
    notice = Notice().has("t", busy=1.0).has("s", role="srun").has("k", role="launcher").registers("t").comes()
    assert not notice.passes(30).tellings and not notice.ledger.told
    assert not notice.ledger.nobody_hears


def test_members_of_a_world_are_told_in_one_go() -> None:
    notice = Notice().has("p", busy=0.9, ranks="0,")
    notice.has("a", "p", busy=0.9, ranks="1,").has("b", "p", busy=0.9, ranks="2,").comes()
    for name in "pab":
        notice.says(name)
    assert notice.passes(0.3).tellings == [Telling(0.25, "pab")]


@pytest.mark.parametrize(
    ("more", "by"),
    [
        ({}, WORD),
        ({"armed": False, "caught": frozenset({2, 10, 15})}, SIGTERM),
        ({"armed": False, "caught": frozenset({2, 10})}, SIGINT),
        ({"armed": False, "caught": frozenset({10})}, None),
        ({"armed": False, "caught": frozenset[int](), "blocked": frozenset({2, 15})}, None),
        ({"waits_for_signal": True}, SIGUSR1),
        ({"armed": False, "waits_for_signal": True, "caught": frozenset({2})}, SIGINT),
        ({"role": "foreign", "caught": frozenset({2, 15})}, SIGTERM),
        ({"role": "foreign", "caught": frozenset({2})}, SIGINT),
        ({"role": "foreign", "caught": frozenset[int](), "blocked": frozenset({15})}, SIGTERM),
        ({"role": "foreign", "caught": frozenset[int](), "blocked": frozenset({2})}, SIGINT),
    ],
)
def test_the_way_by_which_each_is_told(more: dict[str, object], by: int | None) -> None:
    notice = Notice().has("t", **more).comes()  # type: ignore[arg-type]
    assert [telling.by for telling in notice.tellings] == ([] if by is None else [by])


def test_who_waits_for_signals_gets_the_one_that_came() -> None:
    assert Notice().has("t", waits_for_signal=True).comes(SIGTERM).tellings == [Telling(0.0, "t", SIGTERM)]


def test_two_ways_are_two_signals_and_one_line() -> None:
    notice = Notice().has("a").has("b", armed=False).comes()
    assert notice.tellings == [Telling(0.0, "a"), Telling(0.0, "b", SIGTERM)]
    said = [action for _, action in notice.actions if isinstance(action, facts.HandedOn)]
    assert said == [facts.HandedOn(f"a (pid {ord('a')}), b (pid {ord('b')}) as SIGTERM", again=False)]


def test_of_many_the_first_are_named() -> None:
    notice = Notice()
    for name in "abcdefghij":
        notice.has(name)
    (said,) = (action for _, action in notice.comes().actions if isinstance(action, facts.HandedOn))
    assert said.receivers.count("pid") == 8 and said.receivers.endswith(" and 2 more")


def test_who_has_no_door_yet_is_told_when_it_has_one() -> None:
    """A Python in its first milliseconds would die of any signal."""
    notice = Notice().has("t", armed=False, caught=frozenset()).comes()
    assert not notice.tellings and not notice.ledger.nobody_hears
    notice.passes(0.02).becomes("t", armed=True)
    notice._do(notice.ledger.look_soon(notice.now))
    assert notice.passes(1).tellings[0] == Telling(0.02 + LOOK_SOON, "t")


@pytest.mark.parametrize("role", ["wrapper", "deaf", "helper"])
def test_where_nobody_hears_that_is_known(role: Role) -> None:
    notice = Notice().has("x", role=role, armed=False)
    assert not notice.ledger.nobody_hears
    assert notice.comes().ledger.nobody_hears
    assert not notice.registers("x").ledger.nobody_hears


@pytest.mark.parametrize("role", ["srun", "launcher"])
def test_who_has_a_way_of_its_own_hears(role: Role) -> None:
    notice = Notice().has("s", role="wrapper").has("r", "s", role=role).comes()
    assert not notice.ledger.nobody_hears
    assert notice.ends("r").passes(1).ledger.nobody_hears


# --- in turn -----------------------------------------------------------------------------------------------


def test_an_outer_one_is_told_when_the_inner_one_has_gone_and_it_has_been_idle() -> None:
    notice = wrapped().passes(10).hears("t").passes(10).ends("t").passes(0)
    assert set(notice.told) == {"t"} and who("w") in notice.ledger.saving
    notice.passes(IDLE_FOR)
    assert set(notice.told) == {"t"}
    notice.passes(LOOK_EVERY)
    assert 20 + IDLE_FOR <= notice.told["w"] <= 20 + IDLE_FOR + LOOK_EVERY


def test_an_outer_one_that_goes_on_working_is_told_when_patience_is_over() -> None:
    notice = wrapped().passes(10).hears("t").becomes("w", busy=0.5).ends("t").passes(PATIENCE)
    assert "w" not in notice.told, "it may upload what has been saved"
    assert notice.passes(LOOK_EVERY).told["w"] >= 10 + PATIENCE


def test_an_outer_one_that_writes_is_not_idle() -> None:
    notice = wrapped().passes(10).hears("t").becomes("w", in_kernel=True).ends("t").passes(PATIENCE - 1)
    assert "w" not in notice.told


def test_an_outer_one_that_has_started_something_else_is_not_idle() -> None:
    notice = wrapped().passes(10).hears("t").ends("t").starts("u", "w", role="deaf").passes(PATIENCE - 1)
    assert "w" not in notice.told
    helped = wrapped().has("h", "w", role="deaf")
    assert "w" in helped.passes(10).hears("t").ends("t").passes(IDLE_FOR + LOOK_EVERY).told, "that was there before"


def test_an_inner_one_that_does_not_act_keeps_nobody_waiting_for_long() -> None:
    notice = wrapped().passes(1).becomes("t", busy=0.0).hears("t").passes(PATIENCE - 0.1)
    assert "w" not in notice.told
    notice.passes(2 * LOOK_EVERY)
    assert 1 + PATIENCE <= notice.told["w"] <= 1 + PATIENCE + 2 * LOOK_EVERY


def test_patience_is_a_part_of_the_window() -> None:
    notice = wrapped(20.0).passes(0.25).becomes("t", busy=0.0).hears("t").passes(7)
    assert 5 <= notice.told["w"] <= 7


def test_an_inner_one_that_acts_keeps_the_outer_one_waiting() -> None:
    assert "w" not in wrapped().passes(1).hears("t").passes(80).told
    writes = wrapped().passes(1).hears("t").becomes("t", busy=0.0, in_kernel=True)
    assert "w" not in writes.passes(80).told


def test_a_registered_one_has_a_limit_of_its_own() -> None:
    notice = Notice().has("w").has("t", "w", used=9.0).registers("t").comes().passes(80)
    assert not notice.tellings
    notice._do(notice.ledger.finished(Finished(who("t")), notice.now, 80.0))
    assert set(notice.ends("t").passes(4).told) == {"w"}


def test_who_registers_while_others_wait_has_a_limit_of_its_own() -> None:
    notice = wrapped().passes(1).hears("t", "-").registers("t").becomes("t", busy=0.0).passes(80)
    assert "w" not in notice.told


def test_in_the_middle_one_waits_for_its_turn_and_keeps_the_outermost_waiting() -> None:
    notice = Notice().has("o").has("m", "o", used=1.0).has("t", "m", busy=0.9, used=50.0).comes()
    for name in "omt":
        notice.says(name)
    notice.passes(1).hears("t").passes(40)
    assert set(notice.told) == {"t"}
    notice.ends("t").passes(4).hears("m").becomes("m", busy=0.5)
    assert set(notice.told) == {"t", "m"}
    assert set(notice.passes(20).told) == {"t", "m"}
    assert set(notice.ends("m").passes(4).told) == {"t", "m", "o"}


def test_in_the_middle_one_that_was_told_and_does_not_act_keeps_nobody_waiting_for_long() -> None:
    notice = Notice().has("o").has("m", "o", used=1.0).has("t", "m", busy=0.9, used=50.0).comes()
    for name in "omt":
        notice.says(name)
    notice.passes(1).hears("t").becomes("t", busy=0.0).passes(2 * PATIENCE + 5)
    assert PATIENCE <= notice.told["m"] <= PATIENCE + 3
    assert notice.told["m"] + PATIENCE <= notice.told["o"] <= notice.told["m"] + PATIENCE + 3


def test_a_proven_wrapper_is_told_in_the_end_only() -> None:
    notice = wrapped(waits_for_children=True).passes(1).hears("t").passes(10).ends("t").passes(60)
    assert set(notice.told) == {"t"} and notice.ledger.saving == (who("w"),)
    notice.comes_to_the_end()
    assert notice.told["w"] == 71.0 and notice.spared == {"w"}


def test_a_second_ctrl_c_is_not_a_turn() -> None:
    """Whoever has gone before its turn is told nothing, and whoever was told has had its turn."""
    notice = wrapped().passes(0.25).hears("t").ends("w").ends("t").passes(50)
    assert notice.tellings == [Telling(0.25, "t")]


# --- newcomers -----------------------------------------------------------------------------------------------


def test_a_newcomer_works_until_the_final_stage() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s").comes().hears("t").passes(5)
    notice.ends("t").starts("u", "s").passes(60)
    assert set(notice.told) == {"t"} and who("u") not in notice.ledger.saving
    assert notice.comes_to_the_end().told["u"] == 65.0
    assert notice.spared == {"s", "u"}


def test_a_newcomer_is_told_at_once_if_nobody_was() -> None:
    notice = Notice().has("s", role="wrapper").has("c", "s", role="deaf").comes().passes(5)
    assert not notice.tellings and notice.ledger.nobody_hears
    notice.starts("t", "s").passes(LOOK_SOON)
    assert notice.told == {"t": 5 + LOOK_SOON} and not notice.ledger.nobody_hears


def test_newcomers_that_wait_for_each_other_are_told_in_turn() -> None:
    notice = Notice().has("s", role="wrapper").comes().passes(5)
    notice.has("w", "s", waits_for_children=True).starts("t", "w", used=1.0).passes(10)
    assert set(notice.told) == {"t"}


@pytest.mark.parametrize("way", ["registered", "finished", "srun", "launcher"])
def test_a_newcomer_beside_one_that_was_told_by_its_own_way_works_on(way: str) -> None:
    notice = Notice().has("s", role="wrapper")
    if way in ("srun", "launcher"):
        notice.has("r", "s", role=way).comes().ends("r")
    else:
        notice.has("r", "s").registers("r").comes()
    if way == "finished":
        notice._do(notice.ledger.finished(Finished(who("r")), notice.now, 1.0))
        notice.ends("r")
    assert not notice.starts("u", "s").passes(20).tellings
    assert set(notice.comes_to_the_end().told) == {"u"}


def test_a_newcomer_after_the_final_stage_is_told_at_once() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s").comes().hears("t").passes(50).comes_to_the_end()
    notice.starts("u", "s").passes(LOOK_SOON)
    assert notice.told["u"] == 50 + LOOK_SOON


def test_who_has_unregistered_and_lives_is_a_newcomer() -> None:
    notice = Notice().has("r").registers("r").comes().passes(1)
    notice._do(notice.ledger.gone(Gone(who("r")), notice.now))
    assert not notice.passes(30).tellings
    assert set(notice.comes_to_the_end().told) == {"r"}


def test_who_was_told_and_has_unregistered_is_not_taken_for_gone() -> None:
    notice = Notice().has("r").comes().hears("r").registers("r").passes(1)
    notice._do(notice.ledger.gone(Gone(who("r")), notice.now))
    notice._do(notice.ledger.look_soon(notice.now))
    assert notice.passes(1).ledger.saving == (who("r"),)


# --- until it is heard -----------------------------------------------------------------------------------------


def test_the_word_is_repeated_until_it_is_acknowledged() -> None:
    notice = Notice().has("t").comes().passes(4)
    times = [telling.at for telling in notice.tellings]
    assert [at for at in times if at in (0.0, 0.1, 0.6, 2.6)] == [0.0, 0.1, 0.6, 2.6]
    assert all(telling.again for telling in notice.tellings[1:])
    count = len(notice.hears("t").tellings)
    assert len(notice.passes(3).tellings) == count


def test_the_word_is_repeated_only_to_who_may_have_missed_it() -> None:
    notice = Notice().has("a").has("b").has("c").has("d", armed=False).comes().hears("a").ends("b").passes(0.1)
    assert notice.tellings[2:] == [Telling(0.1, "c", again=True)]


def test_who_is_told_later_is_told_again_too() -> None:
    notice = wrapped().passes(10).hears("t").ends("t").passes(4)
    at = notice.told["w"]
    after = [telling.at for telling in notice.tellings if telling.names == "w" and telling.again]
    assert after[0] == pytest.approx(at + 0.1)


def test_each_door_is_told_of_once() -> None:
    notice = Notice().has("t").comes().hears("t", "-").hears("t", "-").hears("t", "u").hears("x")
    notice._do(notice.ledger.heard(Heard(who("t"), "", ended=True), notice.now))
    assert [action.door for _, action in notice.actions if isinstance(action, facts.Heard)] == ["-", "u"]
    (row,) = notice.ledger.told
    assert (row.door, row.ended_well) == ("u", True)


@pytest.mark.parametrize(("window", "after"), [(90.0, 30.0), (12.0, SECOND_AFTER)])
def test_who_goes_on_is_interrupted_once_more(window: float, after: float) -> None:
    notice = Notice(window).has("t", busy=1.0).comes().hears("t").passes(after - 0.1)
    assert len(notice.tellings) == 1
    notice.passes(60)
    _first, second = notice.tellings
    assert after <= second.at <= after + LOOK_EVERY and not second.again, "it may be busy"
    assert [action.again for _, action in notice.actions if isinstance(action, facts.HandedOn)] == [False, True]


def test_a_second_interrupt_is_tried_at_odd_moments_until_the_process_says_that_it_has_met_the_place() -> None:
    notice = Notice(12.0).has("t", busy=1.0).comes().hears("t").passes(SECOND_AFTER + LOOK_EVERY + 1)
    tries = notice.times(Seek)
    assert len({round(after - before, 3) for before, after in itertools.pairwise(tries)}) == len(SEEK_EVERY)
    assert len(notice.hears("t").passes(SEEKS_FOR).times(Seek)) == len(tries)


@pytest.mark.parametrize("ends", [False, True])
def test_no_place_is_looked_for_for_ever(ends: bool) -> None:
    notice = Notice(12.0).has("t", busy=1.0).comes().hears("t").passes(SECOND_AFTER + LOOK_EVERY + 1)
    tries = notice.times(Seek)
    if ends:
        notice.ends("t")
    notice.passes(30)
    assert notice.times(Seek)[-1] <= (tries[-1] if ends else tries[0] + SEEKS_FOR)


def test_who_has_not_acknowledged_is_not_interrupted_twice() -> None:
    notice = Notice().has("t").has("d", armed=False).comes().passes(80)
    assert [telling.names for telling in notice.tellings if not telling.again] == ["t", "d"]


# --- the end -----------------------------------------------------------------------------------------------


def test_everybody_has_a_last_chance() -> None:
    notice = wrapped(waits_for_children=True).passes(0.25).hears("t").passes(1.75).comes_to_the_end()
    assert notice.tellings[1:] == [Telling(2.0, "w"), Telling(2.0, "t")]
    assert notice.spared == {"w", "t"}


def test_the_last_chance_is_no_second_one() -> None:
    notice = Notice().has("t").has("d", armed=False).comes().hears("t").passes(20).comes_to_the_end()
    assert notice.tellings[2:] == [Telling(20.0, "t")], "a second Ctrl-C makes others quit"
    assert len(notice.passes(60).tellings) == 3, "and it was the last one"


def test_the_final_stage_may_come_before_it_is_decided_who_is_told() -> None:
    notice = wrapped().passes(0.1).comes_to_the_end()
    assert notice.tellings == [Telling(0.1, "wt")] and notice.spared == {"w", "t"}
    assert not notice.ledger.is_undecided


def test_who_acts_and_what_belongs_to_it_is_spared() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s").has("h", "t", role="helper", armed=False)
    notice.has("x", "s", role="deaf", caught=frozenset()).has("f", "s", role="foreign")
    notice.comes().hears("t").passes(5).comes_to_the_end()
    assert notice.spared == {"s", "t", "h", "x"}


def test_a_registered_one_is_spared() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s").has("f", "s", role="foreign").registers("t").comes()
    assert notice.comes_to_the_end().spared == {"s", "t"}


def test_who_cannot_hear_is_not_spared_unless_somebody_acts() -> None:
    notice = Notice().has("s", role="wrapper").has("t", "s", armed=False, caught=frozenset()).comes()
    assert not notice.comes_to_the_end().spared


def test_who_still_waits_for_a_signal_gets_another_one() -> None:
    notice = Notice().has("a", waits_for_signal=True).has("b").comes().passes(5)
    assert notice.comes_to_the_end().spared == {"b"}


def test_who_has_gone_is_neither_told_nor_spared() -> None:
    notice = wrapped().passes(0.25).hears("t").ends("w").passes(1).ends("t").comes_to_the_end()
    assert len(notice.tellings) == 1 and not notice.spared and not notice.ledger.saving


def test_a_process_that_nobody_has_seen_end_has_gone_when_it_is_not_there() -> None:
    notice = Notice().has("t").comes().hears("t")
    del notice._tree["t"]
    assert not notice.passes(LOOK_EVERY).ledger.saving


# --- a suspension ------------------------------------------------------------------------------------------


def test_a_suspension_counts_in_nothing() -> None:
    notice = Notice().has("t", busy=1.0).comes().hears("t").passes(10)
    notice.is_suspended(100)
    notice.passes(19)
    assert len(notice.tellings) == 1
    assert len(notice.passes(3).tellings) == 2


def test_a_suspension_makes_nobody_impatient() -> None:
    notice = wrapped().passes(1).hears("t").becomes("t", busy=0.0).passes(5)
    notice.is_suspended(100)
    assert "w" not in notice.passes(3).told
    assert "w" in notice.passes(5).told
    gone = wrapped().passes(1).hears("t").becomes("w", busy=0.5).passes(5).ends("t").passes(1)
    gone.is_suspended(100)
    assert "w" not in gone.passes(5).told


def test_a_suspension_before_the_first_look_is_no_look() -> None:
    notice = Notice().has("w").has("t", "w", used=9.0)
    notice.is_suspended(10)
    assert notice.comes().times(Probe) == [10.0]


def test_a_suspension_makes_nobody_look_idle() -> None:
    notice = Notice().has("p", busy=0.9, used=1.0).has("c", "p", busy=0.9, used=50.0).comes().says("p").says("c")
    assert set(notice.passes(0.2).is_suspended(10).passes(1).told) == {"p"}


def test_a_suspension_moves_what_was_reported() -> None:
    ledger = Notice().ledger
    ledger.polled(Polled(who("r"), True), 1.0, None)
    ledger.registered(Registered("r", who("r"), 600.0))
    ledger.finished(Finished(who("r")), 2.0, None)
    ledger.suspended(10)
    assert (ledger.first_poll, ledger.finish) == (11.0, 12.0)


# --- in any tree -------------------------------------------------------------------------------------------

NAMES = "abcdef"
roles = st.sampled_from(["program", "program", "program", "cooperative", "launcher", "wrapper", "helper", "foreign"])
steps = st.one_of(
    st.tuples(st.just("passes"), st.sampled_from([0.05, 0.3, 1.0, 7.0, 20.0])),
    st.tuples(
        st.sampled_from(["ends", "hears", "says", "registers", "starts", "waits", "arms"]), st.sampled_from(NAMES)
    ),
)
people = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(["", *NAMES]),
    roles,
    st.sampled_from([0.0, 0.0, 0.9]),
    st.sampled_from([0.0, 10.0]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(people, max_size=6), st.lists(steps, max_size=25), st.sampled_from([2.0, 20.0, 600.0]))
def test_of_any_tree(tree: list[tuple], happens: list[tuple], window: float) -> None:  # type: ignore[type-arg]
    notice = Notice(window)

    def starts(name: str, parent: str, role: Role, busy: float, used: float, waits: bool, armed: bool) -> None:
        has_it = armed and role == "program"
        above = "" if parent == name else parent
        notice.has(name, above, busy=busy, used=used, role=role, armed=has_it, waits_for_children=waits)

    people_by_name = {one[0]: one for one in tree}
    for one in tree:
        starts(*one)
    notice.comes()
    for what, value in happens:
        if what == "passes":
            notice.passes(value)
        elif what == "starts" and value not in notice._tree:
            starts(*people_by_name.get(value, (value, "", "program", 0.0, 0.0, False, True)))
            notice._do(notice.ledger.look_soon(notice.now))
        elif value not in notice._tree:
            continue
        elif what == "ends":
            notice.ends(value)
        elif what == "waits":
            notice.becomes(value, waits_for_children=True)
        elif what == "arms" and notice._tree[value].role == "program":
            notice.becomes(value, armed=True)
        elif what in ("hears", "says", "registers"):
            getattr(notice, what)(value)
    _is_told_once(notice)
    notice.passes(LOOK_EVERY).comes_to_the_end()
    registered = {chr(one.pid) for one in notice.ledger.saving if one in notice.ledger._registered}
    for name, one in notice._tree.items():
        if one.role in ("wrapper", "launcher", "cooperative") or (one.role == "helper" and not _may_be_awaited(notice)):
            assert name not in notice.told, "it has its own way, or no work"
        elif one.role == "program" and one.armed and name not in registered and _is_outermost(notice, one):
            assert name in notice.told, "it had no chance"
    told = {chr(row.who.pid) for row in notice.ledger.told}
    assert (told | registered) & notice._tree.keys() <= notice.spared, "who acts is terminated"
    event(f"{len(notice.told)} told, {len(notice.told) - len(told & notice._tree.keys())} of them gone")


def _is_told_once(notice: Notice) -> None:
    """Check that nobody is told twice, but as a repeat, or after a while because it goes on."""
    last = dict[str, float]()
    counts = Counter[str]()
    for telling in notice.tellings:
        for name in telling.names:
            counts[name] += not telling.again
            if counts[name] == 2 and not telling.again:
                assert telling.at - last[name] >= SECOND_AFTER
            last.setdefault(name, telling.at)
    assert all(count <= 2 for count in counts.values())


def _may_be_awaited(notice: Notice) -> bool:
    return any(one.waits_for_children for one in notice._tree.values())


def _is_outermost(notice: Notice, one: Seen) -> bool:
    """Whether no other program is above, that this one may work for."""
    by_pid = {other.who.pid: other for other in notice._tree.values()}
    above = by_pid.get(one.parent)
    passed = {one.who}
    while above is not None and above.who not in passed:
        passed.add(above.who)
        if above.role not in ("wrapper", "foreign"):
            return False
        above = by_pid.get(above.parent)
    return above is None
