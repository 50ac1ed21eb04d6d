"""Who is told first, who later and who never: one row for each shape that a run may have."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGINT, SIGTERM
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.policy.turns import Turn, at_once, needs_answers, not_to_be_terminated, turns
from kempnerforge.launcher.policy.words import Answer, Identity, Role, Seen

#: Where processes have no other parent: kforge-run.
US = 1


class P(NamedTuple):
    """A process of a shape: what /proc shows of it, what it answers, and what is below it."""

    name: str
    below: tuple[P, ...] = ()
    role: Role = "program"
    #: Its command line; empty: of its name alone.
    line: str = ""
    ranks: str = ",,"
    used: float = 1.0
    age: float = 100.0
    #: Of a processor, now.
    busy: float = 0.0
    do_wait: bool = False
    accelerator: bool = False
    #: The pipes it writes to, and all that it holds.
    output: str = ""
    pipes: str = ""
    #: None: it does not answer.
    says: Answer | None = None
    #: Names of those it waits for, as it says.
    awaits: str = ""

    def over(self, *below: P) -> P:
        return self._replace(below=below)


class Shape(NamedTuple):
    """Processes below kforge-run, and whose turn is when, by their names."""

    what: str
    tops: tuple[P, ...]
    now: str
    #: As "outer: inner inner", with "!" behind a name that is told in the end only.
    later: tuple[str, ...] = ()


HERE = Answer()
NAMES = Answer(names_door=True)
HANDLES = Answer(has_handler=True)
TENSORS = Answer(has_tensors=True)
HELPS = Answer(helps=True, mp_child=True)
CHILD = Answer(mp_child=True)
TRIES = Answer(inside_try=True)

TRAINER = P("train.py", used=90, busy=0.9, says=HERE)
WRAPPER = P("wrap.py", used=0.1, says=HERE)
SHELL = P("bash", role="wrapper", do_wait=True)
#: Started by multiprocessing, by fork and by spawn.
FORKED = P("w", line="train.py", used=80, busy=0.8, age=90)
SPAWNED = P("w", line="-c from multiprocessing.spawn", role="helper", used=80, busy=0.8, age=90)
FORK_SERVER = P("server", role="helper", line="-c from multiprocessing.forkserver", says=HERE)
SERVICE = P("service", line="-m tracker.service", used=2, says=HERE)
FOREIGN = P("solver", role="foreign")
DEAF = P("sleep", role="deaf")


def named(one: P, *names: str) -> tuple[P, ...]:
    return tuple(one._replace(name=name) for name in names)


def ranks(*names: str, line: str = "train.py") -> tuple[P, ...]:
    """Return ranks that differ in what tells them apart."""
    return tuple(TRAINER._replace(name=name, line=line, ranks=f"{place},{place},") for place, name in enumerate(names))


WAITS_IN_WAIT = WRAPPER._replace(do_wait=True)
EVALUATION = P("eval.py", used=20, age=25, busy=1.0, says=HERE)
IN_AN_EVALUATION = TRAINER._replace(busy=0.0, do_wait=True, awaits="eval.py")

SHAPES = (
    # --- nothing to decide -------------------------------------------------------------------------
    Shape("nothing", (), ""),
    Shape("a lone program", (TRAINER,), "train.py"),
    Shape("a lone program that does not answer", (TRAINER._replace(says=None),), "train.py"),
    Shape("below a shell", (SHELL.over(TRAINER),), "train.py"),
    Shape("below shells and launchers", (SHELL.over(P("uv", (TRAINER,), "wrapper")),), "train.py"),
    Shape("with programs of others below it", (TRAINER.over(DEAF, FOREIGN),), "train.py"),
    Shape("programs side by side", (SHELL.over(*named(TRAINER, "a", "b")),), "a b"),
    Shape("a registered one", (SHELL.over(TRAINER._replace(role="cooperative")),), "train.py"),
    Shape("a registered one with data workers", (TRAINER._replace(role="cooperative").over(FORKED),), "train.py"),
    Shape("an inner kforge-run", (SHELL.over(P("kforge-run", role="launcher")),), "kforge-run"),
    Shape("an srun", (SHELL.over(P("srun", role="srun")),), "srun"),
    Shape("whose parent has died", (SHELL, TRAINER), "train.py"),
    # --- wrappers ----------------------------------------------------------------------------------
    Shape("polls", (WRAPPER.over(TRAINER),), "train.py", ("wrap.py: train.py",)),
    Shape("polls often", (WRAPPER._replace(busy=0.1).over(TRAINER),), "train.py", ("wrap.py: train.py",)),
    Shape("waits in wait(2)", (WAITS_IN_WAIT.over(TRAINER),), "train.py", ("wrap.py!: train.py",)),
    Shape(
        "waits in wait(2) of another language, and does not answer",
        (WAITS_IN_WAIT._replace(says=None).over(TRAINER),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "waits in a thread", (WRAPPER._replace(awaits="train.py").over(TRAINER),), "train.py", ("wrap.py!: train.py",)
    ),
    Shape(
        "joins",
        (WRAPPER._replace(do_wait=True, awaits="w").over(FORKED._replace(says=CHILD)),),
        "w",
        ("wrap.py!: w",),
    ),
    Shape(
        "reads its output",
        (WRAPPER._replace(pipes="p").over(TRAINER._replace(output="p")),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "reads its output through a shell",
        (WRAPPER._replace(pipes="p").over(SHELL._replace(output="p").over(TRAINER._replace(output="p"))),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "waits for the shell of a Python",
        (WRAPPER._replace(do_wait=True, awaits="bash").over(SHELL.over(TRAINER)),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "nested",
        (
            SHELL._replace(name="outer bash").over(
                WAITS_IN_WAIT._replace(name="outer", awaits="bash").over(
                    SHELL.over(WAITS_IN_WAIT._replace(name="inner", awaits="train.py").over(TRAINER))
                )
            ),
        ),
        "train.py",
        ("outer!: inner", "inner!: train.py"),
    ),
    Shape(
        "catches the notice itself, and runs one that saves",
        (WAITS_IN_WAIT._replace(says=HANDLES).over(TRAINER._replace(says=HANDLES)),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "names Ctrl-C, and runs one that does",
        (WAITS_IN_WAIT._replace(says=NAMES).over(TRAINER._replace(says=NAMES)),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "names Ctrl-C, and runs one that saves in a finally",
        (WAITS_IN_WAIT._replace(says=NAMES).over(TRAINER._replace(says=TRIES)),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "catches the notice, and runs one that saves nothing",
        (WAITS_IN_WAIT._replace(says=HANDLES).over(TRAINER),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "has prepared the data before",
        (WRAPPER._replace(used=300, age=400).over(TRAINER),),
        "train.py",
        ("wrap.py: train.py",),
    ),
    Shape("does not answer", (WRAPPER._replace(says=None).over(TRAINER),), "train.py", ("wrap.py: train.py",)),
    Shape(
        "nobody answers",
        (WRAPPER._replace(says=None).over(TRAINER._replace(says=None)),),
        "train.py",
        ("wrap.py: train.py",),
    ),
    Shape(
        "runs several",
        (WRAPPER.over(*named(TRAINER, "a", "b")),),
        "a b",
        ("wrap.py: a b",),
    ),
    Shape(
        "runs several, and waits for one",
        (WRAPPER._replace(awaits="a").over(*named(TRAINER, "a", "b")),),
        "a b",
        ("wrap.py!: a b",),
    ),
    Shape(
        "a registered one below an idle one",
        (WRAPPER.over(TRAINER._replace(role="cooperative")),),
        "train.py",
        ("wrap.py: train.py",),
    ),
    Shape(
        "waits for a registered one",
        (WAITS_IN_WAIT.over(TRAINER._replace(role="cooperative")),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape(
        "has a GPU open, and waits for a registered one",
        (WAITS_IN_WAIT._replace(accelerator=True).over(TRAINER._replace(role="cooperative")),),
        "train.py",
        ("wrap.py!: train.py",),
    ),
    Shape("works, and has started a registered one", (TRAINER.over(P("s", role="cooperative")),), "train.py s"),
    Shape(
        "waits for an srun", (WAITS_IN_WAIT.over(P("srun", role="srun")),), "srun", ("wrap.py!: srun",)
    ),
    Shape(
        "waits for an inner kforge-run",
        (WAITS_IN_WAIT.over(P("kforge-run", role="launcher")),),
        "kforge-run",
        ("wrap.py!: kforge-run",),
    ),
    # --- ranks ---------------------------------------------------------------------------------------
    Shape("ranks below an agent", (P("torchrun", ranks("r0", "r1"), "wrapper"),), "r0 r1"),
    Shape(
        "ranks below an agent, with data workers",
        (P("torchrun", tuple(one.over(*named(FORKED, f"w{one.name}")) for one in ranks("r0", "r1")), "wrapper"),),
        "r0 r1",
    ),
    Shape(
        "ranks below an agent that nobody knows",
        (WRAPPER.over(*ranks("r0", "r1")),),
        "r0 r1",
        ("wrap.py: r0 r1",),
    ),
    Shape(
        "ranks below one that waits for them",
        (WAITS_IN_WAIT.over(*ranks("r0", "r1")),),
        "r0 r1",
        ("wrap.py!: r0 r1",),
    ),
    Shape(
        "ranks below one that waits for them, and has a GPU open",
        (WAITS_IN_WAIT._replace(accelerator=True).over(*ranks("r0", "r1")),),
        "r0 r1",
        ("wrap.py!: r0 r1",),
    ),
    Shape(
        "rank 0 is the parent, by subprocess",
        (TRAINER._replace(name="r0").over(*ranks("r1", "r2")),),
        "r0 r1 r2",
    ),
    Shape(
        "rank 0 is the parent, by subprocess, and waits for the others in a collective",
        (
            TRAINER._replace(name="r0", line="train.py", busy=0.0).over(
                *ranks("r1", "r2", line="/home/me/train.py")
            ),
        ),
        "r0 r1 r2",
    ),
    Shape(
        "rank 0 is the parent, by subprocess, and all are in C",
        (
            TRAINER._replace(name="r0", line="train.py", busy=0.0, says=None).over(
                *(one._replace(says=None) for one in ranks("r1", "r2"))
            ),
        ),
        "r0 r1 r2",
    ),
    Shape(
        "rank 0 is the parent, and all are given as code",
        (TRAINER._replace(name="r0", line="-c code", busy=0.0).over(*ranks("r1", line="-c code")),),
        "r0 r1",
    ),
    Shape(
        "an agent given as other code",
        (WRAPPER._replace(line="-c agent").over(*ranks("r0", line="-c code")),),
        "r0",
        ("wrap.py: r0",),
    ),
    Shape(
        "rank 0 is the parent, by multiprocessing",
        (TRAINER._replace(name="r0").over(*named(FORKED._replace(says=CHILD), "r1", "r2")),),
        "r0 r1 r2",
    ),
    Shape(
        "rank 0 is the parent, by multiprocessing, and has used less so far",
        (TRAINER._replace(name="r0", used=10).over(*named(FORKED._replace(says=CHILD), "r1", "r2")),),
        "r0 r1 r2",
    ),
    Shape(
        "rank 0 is the parent, by multiprocessing with spawn, and waits for the others in a collective",
        (TRAINER._replace(name="r0", busy=0.01).over(*named(SPAWNED._replace(says=CHILD), "r1", "r2")),),
        "r0 r1 r2",
    ),
    Shape(
        "spawned ranks that are waited for",
        (WRAPPER._replace(awaits="r0 r1").over(*named(SPAWNED._replace(says=CHILD), "r0", "r1")),),
        "r0 r1",
        ("wrap.py!: r0 r1",),
    ),
    Shape(
        "spawned ranks that are waited for and do not answer",
        (WRAPPER._replace(awaits="r0 r1").over(*named(SPAWNED, "r0", "r1")),),
        "r0 r1",
        ("wrap.py!: r0 r1",),
    ),
    Shape(
        "ranks from a fork server",
        (
            WRAPPER._replace(awaits="r0 r1").over(
                FORK_SERVER.over(*named(SPAWNED._replace(says=CHILD), "r0", "r1"))
            ),
        ),
        "r0 r1",
        ("wrap.py!: r0 r1",),
    ),
    Shape(
        "data workers from a fork server",
        (
            TRAINER.over(
                FORK_SERVER.over(*named(SPAWNED._replace(says=HELPS), "w1", "w2"))
            ),
        ),
        "train.py",
    ),
    Shape(
        "forked ranks that are looked after",
        (WRAPPER.over(*named(FORKED._replace(says=CHILD), "r0", "r1")),),
        "r0 r1",
        ("wrap.py: r0 r1",),
    ),
    Shape(
        "a rank runs what has no rank",
        (ranks("r0")[0].over(SERVICE),),
        "r0",
    ),
    Shape(
        "a rank runs what has its own rank",
        (ranks("r0")[0].over(SERVICE._replace(ranks="0,0,")),),
        "r0",
    ),
    # --- helpers -------------------------------------------------------------------------------------
    Shape("data workers by fork", (TRAINER.over(*named(FORKED._replace(says=HELPS), "w1", "w2")),), "train.py"),
    Shape(
        "data workers by fork that work more than the trainer, and do not answer",
        (TRAINER._replace(used=10, busy=0.1).over(*named(FORKED._replace(busy=3.2), "w1", "w2")),),
        "train.py",
    ),
    Shape("data workers by spawn", (TRAINER.over(*named(SPAWNED._replace(says=HELPS), "w1", "w2")),), "train.py"),
    Shape(
        "data workers by spawn that do not answer, and a trainer that does not work",
        (TRAINER._replace(busy=0.0).over(*named(SPAWNED, "w1", "w2")),),
        "train.py",
    ),
    Shape(
        "data workers on a GPU's trainer that sleeps",
        (TRAINER._replace(accelerator=True, used=1, busy=0.0).over(*named(FORKED, "w1", "w2")),),
        "train.py",
    ),
    Shape(
        "a tracker's service that is busier than a GPU's trainer",
        (TRAINER._replace(accelerator=True, used=1, busy=0.0).over(SERVICE._replace(used=50)),),
        "train.py",
    ),
    Shape(
        "a pool's workers, and below each what it runs",
        (WRAPPER.over(FORKED._replace(says=HELPS).over(P("task.py", used=50, busy=1.0, says=NAMES))),),
        "wrap.py",
    ),
    Shape(
        "loky's workers, and its tracker",
        (TRAINER.over(SPAWNED._replace(line="-m loky.backend"), SPAWNED._replace(name="tracker", says=HERE)),),
        "train.py",
    ),
    Shape("a helper whose parent has died", (TRAINER, SPAWNED), "train.py"),
    Shape("a tracker's service, idle", (TRAINER.over(SERVICE),), "train.py"),
    Shape("a tracker's service, busy", (TRAINER.over(SERVICE._replace(busy=0.5)),), "train.py"),
    Shape(
        "a tracker's service, busy, below a trainer that reads",
        (TRAINER._replace(busy=0.0, says=TENSORS).over(SERVICE._replace(busy=0.5)),),
        "train.py",
    ),
    Shape("a tracker's service that does not answer", (TRAINER.over(SERVICE._replace(says=None)),), "train.py"),
    Shape(
        "a trainer reads what its data comes from",
        (TRAINER._replace(pipes="p").over(P("decode.py", output="p", used=50, busy=0.5, says=HERE)),),
        "train.py",
    ),
    # --- a trainer runs something else -----------------------------------------------------------------
    Shape("in an evaluation", (IN_AN_EVALUATION._replace(says=NAMES).over(EVALUATION),), "train.py"),
    Shape(
        "in an evaluation, with a handler and tensors",
        (IN_AN_EVALUATION._replace(says=HANDLES._replace(has_tensors=True)).over(EVALUATION),),
        "train.py",
    ),
    Shape(
        "in an evaluation with a try, and tensors",
        (IN_AN_EVALUATION._replace(says=NAMES._replace(has_tensors=True)).over(EVALUATION._replace(says=TRIES)),),
        "train.py",
    ),
    Shape(
        "in an evaluation with a try, on a GPU",
        (IN_AN_EVALUATION._replace(says=NAMES, accelerator=True).over(EVALUATION._replace(says=TRIES)),),
        "train.py",
    ),
    Shape(
        "in an evaluation, with data workers that do not answer",
        (IN_AN_EVALUATION._replace(says=NAMES).over(EVALUATION, *named(FORKED, "w1", "w2")),),
        "train.py",
    ),
    Shape(
        "in an evaluation that does not answer",
        (IN_AN_EVALUATION._replace(says=NAMES).over(EVALUATION._replace(says=None)),),
        "eval.py",
        ("train.py!: eval.py",),
    ),
    Shape(
        "names Ctrl-C, and waits for a child of multiprocessing",
        (TRAINER._replace(says=NAMES, busy=0.0, do_wait=True, awaits="w").over(FORKED._replace(says=CHILD)),),
        "w",
        ("train.py!: w",),
    ),
    Shape(
        "waits for a fork of itself, that writes the checkpoint",
        (TRAINER._replace(busy=0.0, do_wait=True).over(FORKED._replace(used=2)),),
        "train.py",
    ),
    Shape("beside an evaluation", (TRAINER.over(EVALUATION),), "train.py"),
    Shape(
        "asks now and then whether the evaluation is over",
        (TRAINER._replace(busy=0.0, says=NAMES).over(EVALUATION),),
        "train.py",
    ),
    Shape(
        "works, and has started another one that names Ctrl-C and works",
        (TRAINER.over(P("other.py", used=50, busy=0.9, says=NAMES)),),
        "train.py other.py",
    ),
    Shape(
        "works, and has started another one that names Ctrl-C and is idle",
        (TRAINER.over(P("other.py", used=50, says=NAMES)),),
        "train.py",
    ),
    # --- programs that are no Python ---------------------------------------------------------------------
    Shape("no Python", (SHELL.over(FOREIGN),), "solver"),
    Shape("no Python, and what it has started", (SHELL.over(FOREIGN.over(FOREIGN._replace(name="w"))),), "solver"),
    Shape(
        "no Python, and an unknown launcher that waits for it",
        (P("launch", (FOREIGN,), "foreign", do_wait=True),),
        "solver",
    ),
    Shape("no Python, and waits for what hears nothing", (P("launch", (DEAF,), "foreign", do_wait=True),), "launch"),
    Shape("no Python, and beside an srun", (SHELL.over(FOREIGN, P("srun", role="srun")),), "srun"),
    Shape("a Python runs one that is none", (WAITS_IN_WAIT.over(FOREIGN),), "wrap.py"),
    Shape("a Python beside one that is none", (SHELL.over(FOREIGN, TRAINER),), "train.py"),
    Shape("a Python below one that is none", (FOREIGN.over(TRAINER),), "train.py"),
    Shape("a Python below what hears nothing", (DEAF.over(TRAINER),), "train.py"),
    Shape("only what hears nothing", (SHELL.over(DEAF),), ""),
)  # fmt: skip


class Told(NamedTuple):
    """A shape as the ledger sees it."""

    seen: tuple[Seen, ...]
    answers: dict[Identity, Answer]
    busy: dict[Identity, float]

    def name(self, who: Identity) -> str:
        return next(one.program for one in self.seen if one.who == who)


def told(tops: tuple[P, ...]) -> Told:
    pids = {one.name: 10 + place for place, (one, _) in enumerate(_walk(tops))}
    assert len(pids) == len(list(_walk(tops))), "each has a name of its own"
    seen, answers, busy = [], {}, {}
    for one, parent in _walk(tops):
        who = Identity("n1", pids[one.name], 7)
        seen.append(
            Seen(
                who,
                US if parent is None else pids[parent.name],
                one.role,
                one.line.partition(" ")[0] or one.name,
                tuple((one.line or one.name).split()),
                one.ranks,
                one.says is not None,
                one.used,
                one.age,
                one.do_wait,
                output=frozenset(one.output.split()),
                pipes=frozenset(one.pipes.split()),
                accelerator=one.accelerator,
            )
        )
        busy[who] = one.busy
        if one.says is not None:
            answers[who] = one.says._replace(awaited=frozenset(pids[name] for name in one.awaits.split()))
    return Told(tuple(seen), answers, busy)


def _walk(tops: tuple[P, ...], parent: P | None = None) -> Iterator[tuple[P, P | None]]:
    for one in tops:
        yield one, parent
        yield from _walk(one.below, one)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.what)
def test_whose_turn_it_is(shape: Shape) -> None:
    tree = told(shape.tops)
    names = {one.who: name.name for one, (name, _) in zip(tree.seen, _walk(shape.tops), strict=True)}
    found = turns(*tree)
    now = {names[who] for who, turn in found.items() if not turn.after}
    later = {
        f"{names[who]}{'!' if turn.waits else ''}: {' '.join(sorted(names[inner] for inner in turn.after))}"
        for who, turn in found.items()
        if turn.after
    }
    assert (now, later) == (set(shape.now.split()), set(shape.later))


@pytest.mark.parametrize(
    ("tops", "needs"),
    [
        ((TRAINER,), False),
        ((SHELL.over(TRAINER),), False),
        ((SHELL.over(*named(TRAINER, "a", "b")),), False),
        ((TRAINER.over(DEAF, FOREIGN),), False),
        ((WAITS_IN_WAIT.over(TRAINER._replace(role="cooperative")),), False),
        ((TRAINER.over(FORKED),), True),
        ((TRAINER.over(SPAWNED),), True),
        ((WRAPPER.over(SHELL.over(TRAINER)),), True),
    ],
)
def test_who_has_to_be_asked(tops: tuple[P, ...], needs: bool) -> None:
    assert needs_answers(told(tops).seen) == needs


@pytest.mark.parametrize(
    ("tops", "now", "later"),
    [
        ((SHELL.over(TRAINER),), "train.py", ""),
        ((WRAPPER.over(TRAINER),), "wrap.py train.py", ""),
        ((WAITS_IN_WAIT.over(SHELL.over(TRAINER)),), "train.py", "wrap.py"),
        ((WRAPPER._replace(pipes="p").over(TRAINER._replace(output="p")),), "train.py", "wrap.py"),
        ((TRAINER.over(SPAWNED),), "train.py", ""),
        ((SHELL.over(P("srun", role="srun"), TRAINER),), "srun train.py", ""),
        ((SHELL.over(FOREIGN),), "solver", ""),
        ((SHELL.over(DEAF),), "", ""),
    ],
)
def test_without_time_everybody_is_told_but_who_waits(tops: tuple[P, ...], now: str, later: str) -> None:
    tree = told(tops)
    found = at_once(tree.seen)
    assert {tree.name(who) for who, turn in found.items() if turn == Turn()} == set(now.split())
    assert {tree.name(who) for who, turn in found.items() if turn.waits} == set(later.split())


def test_whoever_acts_is_not_terminated_nor_what_belongs_to_it() -> None:
    catches = frozenset({int(SIGTERM)})
    shape = SHELL.over(
        FOREIGN,
        DEAF,
        WRAPPER.over(TRAINER.over(*named(FORKED, "w")), SERVICE),
    )
    tree = told((shape,))
    seen = tuple(one._replace(caught=catches) if one.program != "sleep" else one for one in tree.seen)
    by_name = {name.name: one.who for one, (name, _) in zip(seen, _walk((shape,)), strict=True)}
    spared = not_to_be_terminated(seen, {by_name["train.py"]})
    assert {name for name, who in by_name.items() if who in spared} == {"bash", "wrap.py", "train.py", "w", "sleep"}
    assert not not_to_be_terminated(seen, ()), "where nobody acts, nobody is spared"


def test_who_takes_a_signal_by_sigwait_may_be_sent_it() -> None:
    (one,) = told((FOREIGN,)).seen
    other = Identity("n1", 99, 9)
    assert one.who in not_to_be_terminated([one._replace(caught=frozenset({int(SIGINT)}))], {other})
    assert one.who not in not_to_be_terminated([one._replace(blocked=frozenset({int(SIGTERM)}))], {other})


def test_where_processes_are_next_to_each_other_by_the_clock() -> None:
    """A process of no age has not worked for long, and one that has used as much as another is not below it."""
    tree = told((WRAPPER._replace(used=90, age=0, says=NAMES).over(TRAINER),))
    assert {tree.name(who) for who in turns(*tree)} == {"wrap.py"}


# --- a tree that changes while it is read ---------------------------------------------------------------

roles = st.sampled_from(["program", "cooperative", "launcher", "srun", "wrapper", "helper", "foreign", "deaf"])
identities = st.builds(Identity, st.just("n1"), st.integers(2, 7), st.integers(1, 2))
processes = st.builds(
    Seen,
    who=identities,
    parent=st.integers(1, 8),
    role=roles,
    program=st.sampled_from(["train.py", "/a/train.py", "-c"]),
    arguments=st.sampled_from([(), ("a",)]),
    ranks=st.sampled_from(["", ",,", "0,,", "1,,"]),
    used=st.sampled_from([0.0, 1.0, 50.0]),
    age=st.sampled_from([0.0, 60.0]),
    waits_for_children=st.booleans(),
    output=st.sampled_from([frozenset[str](), frozenset({"p"})]),
    pipes=st.sampled_from([frozenset[str](), frozenset({"p"})]),
    accelerator=st.booleans(),
)
answers = st.builds(
    Answer,
    *[st.booleans()] * 6,
    st.frozensets(st.integers(2, 7), max_size=2),
)


@settings(deadline=None)
@given(
    st.lists(processes, max_size=8),
    st.dictionaries(identities, answers),
    st.dictionaries(identities, st.sampled_from([0.0, 0.1, 1.0])),
)
def test_of_any_tree(seen: list[Seen], answers: dict[Identity, Answer], busy: dict[Identity, float]) -> None:
    """Parents may be missing or in a circle, and a pid may be there twice."""
    found = turns(seen, answers, busy)
    there = {one.who for one in seen}
    assert found.keys() <= there
    for who, turn in found.items():
        assert who not in turn.after and turn.after <= found.keys()
        assert turn.after or not turn.waits
    assert not found or any(not turn.after for turn in found.values()), "nobody would ever be told"
    roles_of = {one.who: {other.role for other in seen if other.who == one.who} for one in seen}
    assert all(
        roles_of[who] & {"helper"} == set() or answers.keys() & {who} or _awaited(seen, answers) for who in found
    )
    assert all(not roles_of[who] <= {"wrapper", "deaf"} for who in found)
    if any(one.role == "program" for one in seen):
        assert at_once(seen)
    needs_answers(seen)
    assert not_to_be_terminated(seen, list(there)[:1]) <= there


def _awaited(seen: list[Seen], answers: dict[Identity, Answer]) -> bool:
    """Whether anybody waits for another one: then that may be no helper."""
    return any(one.waits_for_children for one in seen) or any(answer.awaited for answer in answers.values())
