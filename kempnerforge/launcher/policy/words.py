"""The words of the policy: facts, events that go in, actions that come out.

All of them are named tuples: immutable, comparable, and four times cheaper to define at start-up than frozen
dataclasses. Every time is in seconds on the monotonic clock unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from signal import Signals
from typing import Literal, NamedTuple, NoReturn

from .facts import Fact

#: Where kforge-run runs: as the batch process, as a task of a job step, or outside of either.
Place = Literal["batch", "step", "outside"]

#: Who the tasks are of an srun that is our direct child: kforge-runs, programs without one, or not known.
Tasks = Literal["ours", "strangers", "unknown"]

#: Why we were told to stop.
Reason = Literal["time_limit", "preempted", "requeued", "cancelled", "manual", "interrupt", "unknown"]

#: How the child ended.
Outcome = Literal["completed", "checkpointed", "interrupted", "forced", "failed"]

#: Where an attempt stands: see machine.py.
Phase = Literal["run", "outlived", "sweep", "decide", "verify", "done"]
#: Phases in which the run may have something to save.
UNSAVED: tuple[Phase, ...] = ("run", "outlived")

#: "checkpointed, run me again": HTCondor's exit status for a self-checkpointing job.
CHECKPOINTED_STATUS = 85
#: What stands for it where the site has Slurm requeue after 85: EX_TEMPFAIL, "try again later" (sysexits.h), and others
#: that no program is known to end with.
CHECKPOINTED_ELSE = (75, 86, 87)

# --- what is known ---------------------------------------------------------------------------------


class Rules(NamedTuple):
    """What is fixed when kforge-run starts."""

    place: Place = "outside"
    #: False: ``--no-requeue``.
    requeue: bool = True
    #: None: no limit.
    max_requeues: int | None = None
    retry_failures: int = 0
    #: Longest shutdown allowed by the user (s), None: only Slurm's own limits.
    timeout: float | None = None
    #: Time between SIGTERM and SIGKILL (s).
    term_grace: float = 10.0
    #: The signal by which whoever holds the work is told, where it catches that; None: by the best way.
    notify: int | None = None
    #: The command is ``srun``, which must never get SIGTERM, SIGHUP or SIGQUIT as a request.
    child_is_srun: bool = False
    #: Of such a command: who its tasks are.
    tasks: Tasks = "unknown"
    #: How many of ours there are, if all of them run on our own node, where they register; 0: not all, or not known.
    tasks_here: int = 0
    #: srun kills all tasks when one exits non-zero: inner kforge-runs end 0 instead of 85.
    kill_on_bad_exit: bool = False
    #: A kforge-run above this one (of a step) escalates and requeues, so this one must be done earlier.
    has_outer: bool = False
    #: The job as a person would name it to ``scontrol requeue`` while its record is unread.
    job_id: str = ""


class EarlierAttempt(NamedTuple):
    """How an earlier attempt of this run ended, as the journal tells it."""

    #: ``Restarts`` of the job while it ran; None: never read.
    restarts: int | None
    #: It completed a step; None: unknown.
    progress: bool | None
    #: It failed without a notice and was requeued by ``--retry-failures``.
    retried: bool
    #: From the notice to the child's end (s); None: there was no notice, or it had to be killed.
    shutdown: float | None = None
    #: When the run completed in it, or was found completed; None: neither.
    completed_at: float | None = None


#: Earlier attempts, oldest first. They may belong to an older job of the same number.
History = tuple[EarlierAttempt, ...]


class Site(NamedTuple):
    """What the cluster gives a job: seconds from SIGTERM to SIGKILL, and of grace before a preemption."""

    kill_wait: float = 30.0
    #: None: unknown.
    grace_time: float | None = None
    #: Exit statuses after which Slurm requeues a job whatever anybody wants (RequeueExit, RequeueExitHold).
    requeue_exits: frozenset[int] = frozenset()


class Job(NamedTuple):
    """One reading of the job's record."""

    state: str
    restarts: int
    #: When Slurm ends it; None: unlimited or unknown.
    end: float | None
    #: When it was chosen for preemption; None: it was not.
    preempted_at: float | None
    #: ``Reason=TimeLimit``.
    timed_out: bool
    #: It has been suspended at some time.
    suspended: bool
    requeueable: bool
    #: What ``scontrol requeue`` wants: array-aware, and a heterogeneous job's leader.
    requeue_id: str
    #: When it was submitted, or requeued since; None: unknown.
    submitted: float | None = None


class Identity(NamedTuple):
    """A process: a pid alone is another one's later, or on another node."""

    #: As Slurm calls it.
    node: str
    pid: int
    #: Field 22 of /proc/PID/stat (clock ticks since the boot); 0: /proc hides it.
    start: int


#: What a process is by its command line and its dispositions. A wrapper runs others, a helper works for another one, a
#: foreign one is no Python and hears SIGTERM or SIGINT, a script is a shell that traps SIGTERM or SIGUSR1, a deaf one
#: hears nothing.
Role = Literal["program", "cooperative", "launcher", "srun", "wrapper", "helper", "foreign", "script", "deaf"]


class Seen(NamedTuple):
    """A process below us, as /proc shows it at a moment."""

    who: Identity
    #: pid of its parent.
    parent: int
    role: Role
    #: What it runs, for the log.
    program: str = "?"
    #: Its command line.
    arguments: tuple[str, ...] = ()
    #: What tells one rank from another: with the same value, it is of the same rank.
    ranks: str = ""
    #: The bootstrap is in it.
    armed: bool = False
    #: Processor time that it has used (s), and how old it is (s).
    used: float = 0.0
    age: float = 0.0
    #: It sleeps in wait(2).
    waits_for_children: bool = False
    #: It sleeps in sigwait(3): no other signal wakes its program up.
    waits_for_signal: bool = False
    #: It is in uninterruptible sleep: most likely it writes or reads.
    in_kernel: bool = False
    caught: frozenset[int] = frozenset()
    #: By its main thread.
    blocked: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()
    #: The pipes that its standard output and error are.
    output: frozenset[str] = frozenset()
    #: All pipes that it has open.
    pipes: frozenset[str] = frozenset()
    accelerator: bool = False


class Answer(NamedTuple):
    """What an armed process says of itself when it is asked."""

    #: It helps another one.
    helps: bool = False
    #: multiprocessing has started it, to help or not.
    mp_child: bool = False
    #: It names KeyboardInterrupt where it is now.
    names_door: bool = False
    #: It has a handler of its own for SIGUSR1 or SIGTERM.
    has_handler: bool = False
    #: It has a try or a with there.
    inside_try: bool = False
    has_tensors: bool = False
    #: It has hardly had a processor since it was asked before: it cannot be elsewhere.
    held_up: bool = False
    #: pids that it waits for.
    awaited: frozenset[int] = frozenset()


class Line(NamedTuple):
    """What a rank has written into its line of the page."""

    polls: int = 0
    waits: int = 0
    ticket: int = 0
    heard: int = 0


# --- events --------------------------------------------------------------------------------------


class Signalled(NamedTuple):
    signum: int
    #: Who sent it, for the log.
    sender: str
    #: The terminal sent it, to the child too.
    child_has_it: bool
    #: False: the child had ended before this came.
    child_alive: bool


class Delivered(NamedTuple):
    #: Who was signalled, for the log; empty: nobody.
    targets: str
    #: An srun below us that started at this time may have swallowed the signal; None: there is none.
    srun_started: float | None


class TreeRead(NamedTuple):
    """All processes below us."""

    seen: tuple[Seen, ...]


class Answered(NamedTuple):
    """An armed process says what it is."""

    who: Identity
    answer: Answer


class Heard(NamedTuple):
    """An armed process has noticed that it is told."""

    who: Identity
    #: By which door it acts, as `inject/doors.py` names them.
    door: str
    #: It has come to a regular end.
    ended: bool = False


class Continued(NamedTuple):
    """SIGCONT came: this process may have been stopped, and with it everything below."""

    stopped_for: float


class Armed(NamedTuple):
    """The bootstrap is in a process that has started."""

    program: str
    who: Identity


class Registered(NamedTuple):
    program: str
    who: Identity
    timeout: float
    #: It is an inner kforge-run, which stands for whatever it runs.
    is_launcher: bool = False


class Joined(NamedTuple):
    """A rank tells with which others it has to stop together."""

    who: Identity
    #: Tells the world from others.
    world: str
    rank: int
    #: 0: it is not known.
    size: int


class Noticed(NamedTuple):
    """A rank has got a notice itself."""

    who: Identity


class Left(NamedTuple):
    """A process that was not told to stop has come to its end, or handles notices no more."""

    who: Identity


class LinesRead(NamedTuple):
    lines: Mapping[Identity, Line]


class Polled(NamedTuple):
    who: Identity
    stop: bool


class Finished(NamedTuple):
    who: Identity


class Gone(NamedTuple):
    """A process has ended that was registered or told, or its handler is unregistered."""

    who: Identity


class ForcedExit(NamedTuple):
    """A process ends itself: its own shutdown has taken too long."""

    who: Identity


class MoreTime(NamedTuple):
    """The save needs this many seconds from now."""

    who: Identity
    seconds: float


class ChildExited(NamedTuple):
    """The direct child ended: its exit status, or minus the signal it died of."""

    status: int
    #: Nothing else is left below us.
    tree_empty: bool


class TreeEmpty(NamedTuple):
    """Nothing is left below us."""


class SiteRead(NamedTuple):
    site: Site


class TermAsked(NamedTuple):
    """The job has asked Slurm for a SIGTERM so long before its end (s): its script says so."""

    lead: float


class HistoryRead(NamedTuple):
    history: History


class JobRead(NamedTuple):
    #: None: Slurm did not answer, or not understandably.
    job: Job | None
    error: str = ""
    #: It did answer: what cannot be understood now will not be later either.
    answered: bool = False


class RequeueAnswered(NamedTuple):
    ok: bool
    #: Slurm will not change its mind.
    final: bool
    text: str


class StepEnded(NamedTuple):
    """Our own small step has ended (`early_notice`), as all steps do when a preemption's grace begins, or by hand."""


class TimePassed(NamedTuple):
    """Nothing happened, but something may be due."""


Event = (
    Signalled
    | Delivered
    | TreeRead
    | Answered
    | Heard
    | Continued
    | Armed
    | Registered
    | Joined
    | Noticed
    | Left
    | LinesRead
    | Polled
    | Finished
    | Gone
    | MoreTime
    | ForcedExit
    | ChildExited
    | TreeEmpty
    | SiteRead
    | TermAsked
    | HistoryRead
    | JobRead
    | RequeueAnswered
    | StepEnded
    | TimePassed
)

# --- actions -------------------------------------------------------------------------------------


class Deliver(NamedTuple):
    """Let the notice stand, and hand it to who has a way of its own: cooperative processes, and srun."""

    signum: int
    #: Only once more to a young srun, which may have missed it.
    again: bool = False


class Look(NamedTuple):
    """See who is below us."""


class Probe(NamedTuple):
    """Ask armed processes what they are."""

    whos: tuple[Identity, ...]


class Signal(NamedTuple):
    """Tell processes by one way."""

    whos: tuple[Identity, ...]
    #: A signal, or `ledger.WORD`.
    by: int
    #: Only who sleeps as if nothing had come.
    again: bool = False


class Seek(NamedTuple):
    """Give armed processes the word, wherever they are just now: they look for a place to be interrupted at."""

    whos: tuple[Identity, ...]


class Forward(NamedTuple):
    """Pass a signal on to the direct child as it is."""

    signum: int


class Tell(NamedTuple):
    """Tell cooperative processes what is known of the notice."""

    signum: int
    reason: Reason | None
    deadline: float | None
    forced_exit: float | None
    #: Only this one, which has come later; None: all.
    to: Identity | None = None


class ReadLines(NamedTuple):
    """See how far ranks are."""

    whos: tuple[Identity, ...]


class Ask(NamedTuple):
    """Have ranks wait, go on or stop: write a word of `page` into their lines."""

    whos: tuple[Identity, ...]
    word: int


class LetOn(NamedTuple):
    """Let a rank that waits go on to its next poll."""

    who: Identity
    #: Which of its waits this is about.
    ticket: int


class TellOuter(NamedTuple):
    """Tell the kforge-run above this one that what runs here has saved."""


class AskSlurm(NamedTuple):
    """Read the job's record."""


class Listen(NamedTuple):
    """Start our own small step once more: it was not for a preemption that it has ended."""


class DumpStacks(NamedTuple):
    """Have every process that announced it dump its stacks into the log."""


class Terminate(NamedTuple):
    """SIGTERM and SIGCONT to everything below us."""

    #: But not to these: they act on the notice, or belong to who does.
    spared: frozenset[Identity] = frozenset()


class Kill(NamedTuple):
    """SIGKILL to everything below us."""


class Requeue(NamedTuple):
    job_id: str


class Exit(NamedTuple):
    status: int


Action = (
    Deliver
    | Look
    | Probe
    | Signal
    | Seek
    | Forward
    | Tell
    | ReadLines
    | Ask
    | LetOn
    | TellOuter
    | AskSlurm
    | Listen
    | DumpStacks
    | Terminate
    | Kill
    | Requeue
    | Exit
    | Fact
)


def signal_name(signum: int) -> str:
    """Return a signal's name; of the real-time signals only the first and the last have one."""
    try:
        return Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def never(unhandled: NoReturn) -> NoReturn:
    """Stand where no value gets, as mypy proves: what is not handled by name before is an error of types."""
    raise AssertionError(f"unhandled: {unhandled!r}")
