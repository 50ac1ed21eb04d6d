"""A World for the policy: a child, a Slurm and a clock that answer every action as the real ones would.

Hypothesis draws a plan; the World plays it until kforge-run has ended, or Slurm has killed it. What it saw is kept for
the checks of test_policy_world.py. `python -m tests.unit.world` prints what a thousand stories did.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections import Counter
from collections.abc import Callable
from signal import SIGINT, SIGKILL, SIGTERM, SIGUSR1
from typing import Literal, NamedTuple, TypeVar

from kempnerforge.launcher.policy import facts, words
from kempnerforge.launcher.policy.machine import Policy
from kempnerforge.launcher.policy.words import (
    Answer,
    Answered,
    Armed,
    Ask,
    AskSlurm,
    ChildExited,
    Continued,
    Deliver,
    Delivered,
    DumpStacks,
    Exit,
    Finished,
    Forward,
    Gone,
    Heard,
    Identity,
    Job,
    JobRead,
    Kill,
    LetOn,
    Listen,
    Look,
    MoreTime,
    Polled,
    Probe,
    ReadLines,
    Registered,
    Requeue,
    RequeueAnswered,
    Rules,
    Seek,
    Seen,
    Signal,
    Signalled,
    Site,
    SiteRead,
    StepEnded,
    Tell,
    TellOuter,
    Terminate,
    TimePassed,
    TreeEmpty,
    TreeRead,
    never,
)
from kempnerforge.launcher.telling.wording import line_of

START = 1000.0
#: The direct child; the process that does the work, which may be the same; a Python between the two; and what uploads
#: the checkpoint when that has ended.
SHELL = Identity("n1", 4, 40)
WORKER = Identity("n1", 5, 50)
WRAPPER = Identity("n1", 6, 60)
UPLOAD = Identity("n1", 7, 70)
#: When a program starts that is not there at first (s after the start).
STAGED = 10.0
#: A word that comes so soon after another is the same (s), as in inject/notice.py.
SAME_WORD = 4.0
#: No story is longer than this (s): the longest work, suspension, window and questions one after another.
LONGEST = 20_000.0

F = TypeVar("F")
Kind = Literal["cooperative", "handler", "plain", "deaf", "shell", "family", "stubborn", "staging", "upload"]
#: They act on kforge-run's word, and save.
WITH_HANDLER: tuple[Kind, ...] = ("handler", "family", "stubborn", "staging", "upload")
Occasion = Literal["none", "preempt", "preempt for good", "cancel", "requeue", "usr1", "term", "int"]
Reply = Literal["accepted", "answer lost", "refused twice", "refused for ever", "unconfirmed"]


class Child(NamedTuple):
    """What runs.

    A handler saves when it is told, what is plain ends of it, and what is deaf only SIGKILL ends. A shell dies of
    Slurm's own signals, and a cooperative process below it goes on. A family is a Python, the child, that waits for one
    with a handler; whoever tells the outer one first loses the run. Who is stubborn acts on the second word only. Of
    the last two the child is a shell: with staging, one with a handler starts after a while, and an upload starts when
    one with a handler has saved and ended.
    """

    kind: Kind = "cooperative"
    works: float = 500.0
    status: int = 0
    step: float = 1.0
    saves: float = 2.0
    asks: bool = False
    leaves: Literal["nothing", "polite", "deaf"] = "nothing"
    #: How long it takes to notice that it is told; None: it is in a C call and never does.
    notices: float | None = 0.001
    #: In uninterruptible sleep: SIGKILL does not end it.
    undying: bool = False


class Cluster(NamedTuple):
    """What Slurm and people do."""

    limit: float = 3600.0
    #: Of --signal (s); 0: it is not given.
    lead: float = 0.0
    kill_wait: float = 30.0
    grace: float = 60.0
    occasion: Occasion = "none"
    at: float = 50.0
    answers_after: float = 0.05
    #: When the controller does not answer: from, and for how long.
    outage: tuple[float, float] | None = None
    requeue: Reply = "accepted"
    requeueable: bool = True
    #: When everything of the job is stopped, and for how long.
    suspended: tuple[float, float] | None = None
    #: Our own small step hears of a preemption.
    early_notice: bool = False


class Watched(Policy):
    """A policy whose every step from one phase to the next is seen."""

    def __init__(self, rules: Rules, site: Site) -> None:
        self.steps: set[tuple[str, str]] = set()
        super().__init__(rules, site)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_phase" and value != getattr(self, name, value):
            self.steps.add((self._phase, str(value)))
        super().__setattr__(name, value)


class World:
    """Plays one story.

    Attributes:
        seen: every action with its time (s, monotonic).
    """

    def __init__(self, child: Child, cluster: Cluster, rules: Rules) -> None:
        self.child, self.cluster, self.rules = child, cluster, rules
        self.site = Site(cluster.kill_wait, cluster.grace)
        self.policy = Watched(rules, self.site)
        self.now = START
        self.job = Job("RUNNING", 0, START + cluster.limit, None, False, False, cluster.requeueable, "7", START - 10)
        self.seen: list[tuple[float, words.Action]] = []
        self.deadlines: list[tuple[float, float]] = []
        self.accepted = 0
        self.refusals = 0
        #: Slurm starts the job again, by its own doing.
        self.comes_back = False
        self.cancelled_at: float | None = None
        self.noticed_at: float | None = None
        #: When the worker has saved, and when it has gone.
        self.saved_at: float | None = None
        self.gone_at: float | None = None
        #: How the direct child ended, and when.
        self.ended: int | None = None
        self.ended_at: float | None = None
        self.by_itself = False
        self.killed_by_slurm = False
        self.exit: Exit | None = None
        self._child_lives = True
        self._worker_lives = child.kind != "staging"
        self._uploads = False
        self._left_lives = child.leaves != "nothing"
        self._told = False
        #: The outer one of a family was told before the inner one had gone, or an upload while it had time.
        self.told_too_early = False
        #: When each was told, but for repeats to who may have missed it.
        self.tellings: dict[Identity, list[float]] = {}
        #: When the worker has noticed a word that is not the same as the one before.
        self.words: list[float] = []
        self._question = 0
        #: The controller has accepted a requeue, and does not answer any more.
        self._is_lost = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    # --- playing -----------------------------------------------------------------------------------

    def play(self) -> World:
        """Play the story to its end."""
        self._begin()
        while self.exit is None and not self.killed_by_slurm:
            due = self.policy.due
            at = self._queue[0][0] if self._queue else None
            assert due is not None or at is not None, "nobody would ever wake kforge-run"
            if at is None or (due is not None and due < at):
                assert due is not None
                self.now = max(self.now, due)
                self._send(TimePassed())
            else:
                at, _, act = heapq.heappop(self._queue)
                self.now = max(self.now, at)
                act()
            assert self.now < START + LONGEST, "the story never ends"
        return self

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, act))

    def _begin(self) -> None:
        cluster, child = self.cluster, self.child
        if child.kind in ("cooperative", "shell"):
            self._send(Registered("train.py", WORKER, 600.0))
        if self.rules.place == "batch":
            self._send(SiteRead(self.site))
        self._ask()
        if child.kind == "staging":
            self._at(START + STAGED, self._starts)
        self._at(START + child.works, self._ends_by_itself)
        if child.kind in ("cooperative", "shell"):
            self._at(START + child.step, self._polls)
        if self.rules.place != "outside":
            if cluster.lead:
                self._at(START + cluster.limit - cluster.lead, lambda: self._signal(SIGUSR1))
            self._at(START + cluster.limit, self._time_limit)
        if cluster.occasion in ("usr1", "term", "int") or self.rules.place != "outside":
            self._at(START + cluster.at, self._occasion)
        if cluster.suspended is not None:
            self._at(START + cluster.suspended[0], self._suspended)

    def _send(self, event: words.Event) -> None:
        actions = self.policy.handle(event, self.now)
        if self.policy.deadline is not None:
            self.deadlines.append((self.now, self.policy.deadline))
        for action in actions:
            assert self.exit is None, "nothing happens after the end"
            self.seen.append((self.now, action))
            self._do(action)

    def _do(self, action: words.Action) -> None:
        match action:
            case Deliver():
                if not action.again and self.child.kind in ("cooperative", "shell"):
                    self._hear()
                self._at(self.now, lambda: self._send(Delivered("the child", None)))
            case Look():
                self._at(self.now, lambda: self._send(TreeRead(self._tree())))
            case Probe(whos):
                for who in whos:
                    self._at(self.now + 0.002, functools.partial(self._answers, who))
            case Signal():
                self._signalled(action)
            case Seek():
                assert self.child.notices is not None, "it has said that it hears"
                self._at(self.now + self.child.notices, self._notices)
            case Forward():
                self._hit(action.signum)
            case AskSlurm():
                self._ask()
            case Requeue():
                self._at(self.now + self.cluster.answers_after, self._requeue)
            case Terminate():
                self._hit(SIGTERM, everything=True, spared=action.spared)
            case Kill():
                self._at(self.now + 0.01, self._killed)
            case Exit():
                self.exit = action
            case Tell() | TellOuter() | Listen() | DumpStacks() | ReadLines() | Ask() | LetOn():
                pass
            case _:
                line_of(action)  # each fact can be told

    # --- the child ---------------------------------------------------------------------------------

    def _tree(self) -> tuple[Seen, ...]:
        """Return what /proc shows."""
        age = self.now - START + 1
        kind = self.child.kind
        seen = []
        above = 1
        if self._child_lives and kind in ("shell", "staging", "upload"):
            seen.append(Seen(SHELL, above, "wrapper", "bash", ("bash",), waits_for_children=True))
            above = SHELL.pid
        if self._child_lives and kind == "family":
            wrapper = Seen(WRAPPER, above, "program", "wrap.py", ("wrap.py",), armed=True, used=0.1, age=age)
            seen.append(wrapper._replace(waits_for_children=True))
            above = WRAPPER.pid
        if self._worker_lives and kind == "deaf":
            seen.append(Seen(WORKER, above, "deaf", "train", ("train",)))
        elif self._worker_lives:
            arguments = ("train.py",)
            seen.append(Seen(WORKER, above, "program", "train.py", arguments, armed=True, used=age * 0.9, age=age))
        if self._uploads:
            seen.append(Seen(UPLOAD, above, "program", "upload.py", ("upload.py",), armed=True))
        catches = frozenset({int(SIGTERM)})
        return tuple(one._replace(caught=catches) if one.armed else one for one in seen)

    def _starts(self) -> None:
        """Have the program start that has waited for its data."""
        if self._child_lives:
            self._worker_lives = True
            self._send(Armed("train.py", WORKER))

    def _answers(self, who: Identity) -> None:
        if who == WORKER and self.child.notices is None:
            return
        self._send(Answered(who, Answer(awaited=frozenset({WORKER.pid}) if who == WRAPPER else frozenset())))

    def _signalled(self, action: Signal) -> None:
        """Have processes get kforge-run's word."""
        terminates = bool(self.times(Terminate))
        for who in action.whos:
            if not action.again:
                self.tellings.setdefault(who, []).append(self.now)
            if not terminates and ((who == WRAPPER and self._worker_lives) or who == UPLOAD):
                self.told_too_early = True
            if who == UPLOAD:
                self._at(self.now + 0.001, self._uploaded)
            if who == WORKER and self.child.notices is not None:
                self._at(self.now + self.child.notices, self._notices)

    def _notices(self) -> None:
        if not self._worker_lives:
            return
        self._send(Heard(WORKER, "k"))
        if not self.words or self.now - self.words[-1] >= SAME_WORD:
            self.words.append(self.now)
        if self.child.kind != "stubborn" or len(self.words) > 1:
            self._hear()

    def _hear(self) -> None:
        """Do what whoever is told does."""
        if self.child.kind == "plain" and self._child_lives:
            self._at(self.now + 0.001, lambda: self._child_ends(-SIGINT))
        if self._worker_lives and self.child.kind in WITH_HANDLER and not self._told:
            self._at(self.now, self._saves)
        self._told = True

    def _hit(self, signum: int, *, everything: bool = False, spared: frozenset[Identity] = frozenset()) -> None:
        """Have a signal come to the child, or to all that is not spared."""
        kind = self.child.kind
        if everything and self._left_lives and self.child.leaves == "polite":
            self._at(self.now + 0.1, self._left_ends)
        if everything and WORKER not in spared and kind in ("shell", *WITH_HANDLER) and self._worker_lives:
            self._hear()  # at this stage, whoever is armed takes SIGTERM for the word
        if everything and self._uploads and UPLOAD not in spared:
            self._at(self.now + 0.001, self._uploaded)
        if self._child_lives and (
            kind == "plain" or (kind in ("shell", "staging", "upload") and SHELL not in spared and everything)
        ):
            self._at(self.now + 0.001, lambda: self._child_ends(-signum))

    def _polls(self) -> None:
        if not self._worker_lives or self.saved_at is not None:
            return
        self._send(Polled(WORKER, self._told))
        if self._told and self._worker_lives:
            self._saves()
        else:
            self._at(self.now + self.child.step, self._polls)

    def _saves(self) -> None:
        if self.child.asks:
            self._send(MoreTime(WORKER, self.child.saves))
        self._at(self.now + self.child.saves, self._saved)

    def _saved(self) -> None:
        if not self._worker_lives:
            return
        self.saved_at = self.now
        if self.child.kind in ("cooperative", "shell"):
            self._send(Finished(WORKER))
        self._at(self.now + 0.01, lambda: self._worker_ends(0))

    def _ends_by_itself(self) -> None:
        if self._worker_lives and not (self._told and self.child.kind != "deaf"):
            self.by_itself = True
            self._worker_ends(self.child.status)

    def _worker_ends(self, status: int) -> None:
        if not self._worker_lives:
            return
        self._worker_lives = False
        self.gone_at = self.now
        self._send(Gone(WORKER))
        if self._child_lives and self.child.kind == "upload" and self.saved_at is not None:
            self._uploads = True
            self._at(self.now + self.child.saves, self._uploaded)
            self._send(Armed("upload.py", UPLOAD))
        elif self._child_lives:
            self._child_ends(status)
        else:
            self._look_for_an_empty_tree()

    def _uploaded(self) -> None:
        """Have the upload end, whether it is complete or not."""
        if not self._uploads:
            return
        self._uploads = False
        self._send(Gone(UPLOAD))
        if self._child_lives:
            self._child_ends(0)
        else:
            self._look_for_an_empty_tree()

    def _child_ends(self, status: int) -> None:
        if not self._child_lives:
            return
        self._child_lives = False
        if self.child.kind != "shell" and self._worker_lives:
            self._worker_lives = False
            self.gone_at = self.now
            self._send(Gone(WORKER))
        self.ended, self.ended_at = status, self.now
        self._send(ChildExited(status, self._is_empty()))

    def _left_ends(self) -> None:
        if self._left_lives:
            self._left_lives = False
            self._look_for_an_empty_tree()

    def _is_empty(self) -> bool:
        return not (self._child_lives or self._worker_lives or self._left_lives or self._uploads)

    def _look_for_an_empty_tree(self) -> None:
        if self._is_empty():
            self._send(TreeEmpty())

    def _killed(self) -> None:
        if self.child.undying:
            return
        self._left_lives = self._uploads = False
        was_alive, self._worker_lives = self._worker_lives, False
        if was_alive:
            self._send(Gone(WORKER))
        if self._child_lives:
            self._child_ends(-SIGKILL)
        else:
            self._look_for_an_empty_tree()

    # --- Slurm -------------------------------------------------------------------------------------

    def _signal(self, signum: int) -> None:
        if self.noticed_at is None:
            self.noticed_at = self.now
        if self.child.kind == "shell" and signum == SIGTERM:
            self._at(self.now + 0.001, lambda: self._child_ends(-signum))
        self._send(Signalled(signum, "slurmstepd", False, self._child_lives))

    def _ask(self) -> None:
        if self.rules.place != "batch":
            return
        self._question += 1
        question = self._question

        def answer() -> None:
            # A new question has dropped this one.
            if question == self._question:
                self._send(JobRead(None, "no answer") if self._is_out() else JobRead(self.job))

        self._at(self.now + (10.0 if self._is_out() else self.cluster.answers_after), answer)

    def _is_out(self) -> bool:
        outage = self.cluster.outage
        return self._is_lost or (outage is not None and outage[0] <= self.now - START < outage[0] + outage[1])

    def _requeue(self) -> None:
        answer = self.cluster.requeue
        if self._is_out():
            self._send(RequeueAnswered(False, False, "no answer"))
        elif answer == "refused for ever":
            self._send(RequeueAnswered(False, True, "disabled"))
        elif answer == "refused twice" and self.refusals < 2:
            self.refusals += 1
            self._send(RequeueAnswered(False, False, "try again later"))
        elif self.cancelled_at is not None or self.comes_back:
            self._send(RequeueAnswered(False, False, "it is completing"))
        else:
            self.accepted += 1
            self._is_lost = answer == "unconfirmed"
            self.job = self.job._replace(state="COMPLETING", restarts=self.job.restarts + 1, timed_out=False)
            self._at(self.now + 0.02, lambda: self._signal(SIGTERM))
            self._at(self.now + 0.02 + self.cluster.kill_wait, self._slurm_kills)
            self._send(RequeueAnswered(answer != "answer lost", False, "a lost answer"))

    def _ends_the_job(self, changed: Job) -> None:
        """Have Slurm end the job: SIGTERM, and SIGKILL when KillWait is over."""
        if self.accepted or self.job.state != "RUNNING":
            return
        self.job = changed._replace(state="COMPLETING", end=self.now)
        self._signal(SIGTERM)
        self._at(self.now + self.cluster.kill_wait, self._slurm_kills)

    def _time_limit(self) -> None:
        self._ends_the_job(self.job._replace(timed_out=True))

    def _slurm_kills(self) -> None:
        self.killed_by_slurm = self.exit is None

    def _occasion(self) -> None:
        """Have happen what the plan wants to happen to the job."""
        match self.cluster.occasion:
            case "none":
                pass
            case "preempt" | "preempt for good":
                if self.job.state != "RUNNING":
                    return
                over = self.now + self.cluster.grace
                self.job = self.job._replace(preempted_at=self.now, end=over)
                self._at(over, self._grace_is_over)
                if self.rules.place == "step":
                    self._signal(SIGTERM)
                elif self.cluster.early_notice:
                    self._send(StepEnded())
            case "cancel":
                if not self.accepted and self.job.state == "RUNNING":
                    self.cancelled_at = self.now
                self._ends_the_job(self.job)
            case "requeue":
                if not self.accepted and self.job.state == "RUNNING":
                    self.comes_back = True
                self._ends_the_job(self.job._replace(restarts=self.job.restarts + 1))
            case "usr1":
                self._signal(SIGUSR1)
            case "term":
                self._signal(SIGTERM)
            case "int":
                self._signal(SIGINT)
            case _:
                never(self.cluster.occasion)

    def _grace_is_over(self) -> None:
        if self.cluster.occasion == "preempt for good":
            self._ends_the_job(self.job._replace(preempted_at=self.now))
        elif not self.accepted and self.job.state == "RUNNING":
            self.comes_back = True
            self._ends_the_job(self.job._replace(restarts=self.job.restarts + 1))

    def _suspended(self) -> None:
        """Stop everything below Slurm for a while, and count that for nobody."""
        assert self.cluster.suspended is not None
        seconds = self.cluster.suspended[1]
        if self.job.state != "RUNNING":
            return
        self._queue = [(at + seconds, count, act) for at, count, act in self._queue]
        heapq.heapify(self._queue)
        end = None if self.job.end is None else self.job.end + seconds
        self.job = self.job._replace(suspended=True, end=end)
        self.now += seconds
        self._send(Continued(seconds))

    # --- what it came to ---------------------------------------------------------------------------

    def times(self, kind: type) -> list[float]:
        """When actions of a kind were asked for."""
        return [at for at, action in self.seen if isinstance(action, kind)]

    def told(self, kind: type[F]) -> list[F]:
        """Return the facts of a kind, in their order."""
        return [action for _, action in self.seen if isinstance(action, kind)]

    @property
    def told_at(self) -> float | None:
        """When the notice that counts was taken for one: a SIGTERM behind a Ctrl-C is a new one."""
        notices = self.times(facts.NoticeCame)
        return notices[-1] if notices else None

    @property
    def end(self) -> facts.Ended:
        (end,) = self.told(facts.Ended)
        return end

    @property
    def goes_on(self) -> bool:
        """Whether the job is started again."""
        return self.comes_back or self.accepted > 0


def draw(source: random.Random) -> tuple[Child, Cluster, Rules]:
    """Draw a plan."""
    child = Child(
        source.choice(
            [
                "cooperative",
                "cooperative",
                "handler",
                "plain",
                "deaf",
                "shell",
                "family",
                "stubborn",
                "staging",
                "upload",
            ]
        ),
        source.choice([20.0, 100.0, 4000.0]),
        source.choice([0, 0, 1]),
        source.choice([0.2, 5.0]),
        source.choice([0.0, 2.0, 15.0, 200.0]),
        source.random() < 0.3,
        source.choice(["nothing", "nothing", "polite", "deaf"]),
        source.choice([0.001, 0.001, 0.3, None]),
        source.random() < 0.05,
    )
    cluster = Cluster(
        source.choice([60.0, 600.0, 3600.0]),
        source.choice([0.0, 0.0, 20.0, 50.0]),
        source.choice([8.0, 30.0]),
        source.choice([0.0, 30.0, 120.0]),
        source.choice(["none", "preempt", "preempt for good", "cancel", "requeue", "usr1", "term", "int"]),
        source.choice([1.0, 30.0, 59.9, 62.0]),
        source.choice([0.01, 0.05, 1.5]),
        source.choice([None, None, None, (0.0, 5.0), (25.0, 20.0), (0.0, 10_000.0)]),
        source.choice(["accepted", "accepted", "answer lost", "refused twice", "refused for ever", "unconfirmed"]),
        source.random() < 0.9,
        source.choice([None, None, None, (31.0, 40.0), (10.0, 500.0)]),
        source.random() < 0.5,
    )
    rules = Rules(
        place=source.choice(["batch", "batch", "batch", "step", "outside"]),
        requeue=source.random() < 0.9,
        max_requeues=source.choice([None, None, 0]),
        retry_failures=source.choice([0, 1]),
        timeout=source.choice([None, None, 5.0, 100.0]),
        term_grace=source.choice([0.0, 3.0, 10.0]),
        job_id="7",
    )
    return child, cluster, rules


def main() -> None:
    counts: Counter[str] = Counter()
    for seed in range(1000):
        world = World(*draw(random.Random(seed))).play()
        counts[f"place: {world.rules.place}"] += 1
        counts["killed by Slurm"] += world.killed_by_slurm
        counts["noticed"] += world.noticed_at is not None
        counts["requeued by kforge-run"] += world.accepted
        counts["requeued by Slurm"] += world.comes_back
        counts["suspended"] += bool(world.times(Tell)) and world.job.suspended
        counts["told by kforge-run's word"] += bool(world.times(Signal))
        counts["asked what they are"] += bool(world.times(Probe))
        final = min(world.times(Terminate), default=float("inf"))
        for who, times in world.tellings.items():
            counts["told: a newcomer"] += who == UPLOAD or (who == WORKER and world.child.kind == "staging")
            counts["told: by a second interrupt"] += len(times) > 1 and times[1] < final
            counts["told: as a last chance"] += final in times
            counts["told: after the final stage"] += times[0] > final
        counts["told: again, because it had not noticed"] += any(
            isinstance(action, Signal) and action.again for _, action in world.seen
        )
        counts["worked on after the notice: an upload"] += world.child.kind == "upload" and world.saved_at is not None
        counts["killed by kforge-run"] += bool(world.times(Kill))
        counts["asked Slurm after the child's end"] += len(world.times(AskSlurm)) > 1
        if world.exit is not None:
            counts[f"outcome: {world.end.outcome}"] += 1
            counts[f"reason: {world.end.reason}"] += 1
        for before, after in world.policy.steps:
            counts[f"{before} → {after}"] += 1
    for what, count in sorted(counts.items()):
        print(f"{count:5} {what}")


if __name__ == "__main__":
    main()
