"""Facts: what has happened to a run, as typed values.

The policy emits them, and whoever knows something else that the user should know. `wording.py` makes lines for the log
of them, `journal.py` lines for the journal, and whoever reads a journal reads facts: this file is the journal's schema.
Old journals stay readable: a fact keeps its name, a new field has a default, and a field that cannot be read counts as
left out.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

#: More than any number in a journal: counts, statuses, seconds.
_LARGEST = 1e15

# --- facts with a line in the journal ------------------------------------------------------------


class Started(NamedTuple):
    """An attempt has begun."""

    command: list[str] = []  # noqa: RUF012 - it is never changed
    version: str = ""
    place: str = ""
    #: Of the job.
    name: str = ""
    #: What Slurm calls an array's task, ARRAY_TASK; empty: it is none.
    array_task: str = ""
    node: str = ""


class NotStarted(NamedTuple):
    """The command cannot be executed."""

    why: str = ""


class Warned(NamedTuple):
    """Something around the run may lose it."""

    text: str = ""


class Armed(NamedTuple):
    """The bootstrap has installed its handlers in a process, which has not registered."""

    pid: int | None = None
    program: str = ""


class Registered(NamedTuple):
    """A process has a handler of ours, or is a kforge-run."""

    pid: int | None = None
    program: str = ""
    #: Its own limit (s), 0: none.
    timeout: float | None = None
    #: It is an inner kforge-run.
    is_launcher: bool = False


class Joined(NamedTuple):
    """A rank stops together with others."""

    pid: int | None = None
    rank: int | None = None
    #: How many they are; 0: it is not known.
    size: int = 0
    #: Which of the attempt's worlds it is.
    world: int = 0


class Agreed(NamedTuple):
    """The ranks of a world stop at one step."""

    world: int = 0
    ranks: list[int] = []  # noqa: RUF012 - it is never changed
    #: `together` at the same poll, `held` at one step, or `at once` because there was no more time.
    how: str = ""
    #: The number of the poll; 0: it is not one number.
    poll: int = 0


class RanksGoOn(NamedTuple):
    """One of the ranks has come to its end without having been told: the others are not told to stop either."""

    world: int = 0


class RanksLost(NamedTuple):
    """Ranks that were told to stop have ended without having saved."""

    ranks: list[int] = []  # noqa: RUF012 - it is never changed
    pids: list[int] = []  # noqa: RUF012 - it is never changed


class Polled(NamedTuple):
    """A process has polled for the first time, or was first told by a poll to stop."""

    pid: int | None = None
    stop: bool | None = None
    #: No other one in the attempt was told so before.
    first: bool = False
    #: How long after the notice (s); None: there was none.
    after: float | None = None


class Finished(NamedTuple):
    """A process has saved."""

    pid: int | None = None
    #: How long after the notice (s); None: there was none.
    after: float | None = None


class ForcedExit(NamedTuple):
    """A process ends itself: its own shutdown has taken too long."""

    pid: int | None = None


class Status(NamedTuple):
    """What a process says of itself."""

    pid: int | None = None
    text: str = ""


class NoticeCame(NamedTuple):
    """Something told the run to stop."""

    signal: str = ""
    sender: str = ""


class ReasonFound(NamedTuple):
    reason: str = ""


class SlurmIsSilent(NamedTuple):
    """Slurm does not answer, or (True) not understandably."""

    why: str = ""
    answered: bool = False


class KeptFromSrun(NamedTuple):
    """A signal was not passed on: srun would kill its tasks."""

    signal: str = ""
    sender: str = ""


class StepWasEnded(NamedTuple):
    """A person has ended our own small step."""

    #: It is started once more.
    again: bool = False


class Continued(NamedTuple):
    """Everything was stopped, and goes on."""

    stopped_for: float = 0.0


class StageBegan(NamedTuple):
    """A stage of the escalation: `terminate` or `kill`."""

    stage: str = ""


class ChildEnded(NamedTuple):
    #: Its exit status, or minus the signal it died of.
    status: int | None = None
    #: How long after the notice (s); None: there was none.
    after: float | None = None


class RequeueAsked(NamedTuple):
    because: str = ""
    #: As Slurm calls it.
    job: str = ""


class RequeueFailed(NamedTuple):
    """It is tried again."""

    why: str = ""


class Ended(NamedTuple):
    """The attempt is over."""

    outcome: str | None = None
    reason: str | None = None
    requeued: bool = False
    because: str = ""
    #: kforge-run's own exit status.
    status: int | None = None
    #: The job's Restarts while it ran; None: never read.
    restarts: int | None = None
    #: A step was completed; None: no process reports polls.
    progress: bool | None = None
    #: It failed without a notice, and was requeued by `--retry-failures`.
    retried: bool = False
    #: From the notice to the child's end, without suspensions (s); None: no notice, or it had to be killed.
    shutdown: float | None = None
    #: From the end of it all to the deadline (s).
    slack: float | None = None


# --- facts for the log alone ---------------------------------------------------------------------


class SignalledToo(NamedTuple):
    """Another signal came that belongs to the same notice."""

    signal: str
    sender: str


class PassedOn(NamedTuple):
    """A signal was passed on to the child as it is."""

    signal: str
    sender: str


class HandedOn(NamedTuple):
    """Who got the notice."""

    receivers: str = ""
    again: bool = False


class Heard(NamedTuple):
    """A program acts on the notice."""

    pid: int | None = None
    program: str = ""
    #: By which door, as `inject/doors.py` names them.
    door: str = ""
    #: It is the first to do so by this door.
    first: bool = False


class TimeLeft(NamedTuple):
    #: Until the deadline (s).
    seconds: float
    requeue: bool


class Waiting(NamedTuple):
    until: Literal["finish", "first poll", "end"]
    #: Until the deadline (s).
    seconds: float


class MoreTimeAsked(NamedTuple):
    pid: int
    seconds: float
    #: How much of it there is (s).
    granted: float


class StillSaving(NamedTuple):
    """The child has ended, and what it ran has not."""

    pids: tuple[int, ...]


class Sweeping(NamedTuple):
    """What the child left behind is ended."""


class WasDoneBefore(NamedTuple):
    """The run had completed in an earlier attempt: nothing is run."""


class Decided(NamedTuple):
    """Whether the job is requeued."""

    requeued: bool
    because: str
    #: How the child ended, where there was no notice; None: there was one, or it could not be killed.
    child: int | None


class NotRequeued(NamedTuple):
    """The run could go on, and a person has to say so."""

    because: str
    job: str


class ShutDown(NamedTuple):
    """A whole shutdown in one line."""

    outcome: str
    #: Nothing ran that has a handler of ours: it ended well after the notice, and that is all there is to know.
    assumed: bool
    signal: str
    #: What happened when (s after the notice).
    moments: tuple[tuple[str, float], ...]
    #: Until the deadline (s); None: there was none.
    to_spare: float | None


class Remark(NamedTuple):
    """Something worth to know, already in words."""

    text: str
    detail: bool = False


Journaled = (
    Started
    | NotStarted
    | Warned
    | Armed
    | Registered
    | Joined
    | Agreed
    | RanksGoOn
    | RanksLost
    | Polled
    | Finished
    | ForcedExit
    | Status
    | NoticeCame
    | HandedOn
    | Heard
    | ReasonFound
    | SlurmIsSilent
    | KeptFromSrun
    | StepWasEnded
    | Continued
    | StageBegan
    | ChildEnded
    | RequeueAsked
    | RequeueFailed
    | Ended
)
Fact = (
    Journaled
    | SignalledToo
    | PassedOn
    | TimeLeft
    | Waiting
    | MoreTimeAsked
    | StillSaving
    | Sweeping
    | WasDoneBefore
    | Decided
    | NotRequeued
    | ShutDown
    | Remark
)

# --- the journal's schema ------------------------------------------------------------------------

#: Under which name a fact stands in a journal.
EVENTS: dict[type[Journaled], str] = {
    Started: "start",
    NotStarted: "not started",
    Warned: "warning",
    Armed: "armed",
    Registered: "registered",
    Joined: "joined",
    Agreed: "agreed",
    RanksGoOn: "ranks go on",
    RanksLost: "ranks lost",
    Polled: "polled",
    Finished: "finished",
    ForcedExit: "forced exit",
    Status: "status",
    NoticeCame: "notice",
    HandedOn: "delivered",
    Heard: "heard",
    ReasonFound: "reason",
    SlurmIsSilent: "no answer",
    KeptFromSrun: "kept from srun",
    StepWasEnded: "step ended",
    Continued: "continued",
    StageBegan: "stage",
    ChildEnded: "exit",
    RequeueAsked: "requeue",
    RequeueFailed: "requeue failed",
    Ended: "end",
}


def line_of(fact: Journaled) -> dict[str, Any]:
    """Return what a line of a journal tells of a fact."""
    return {"event": EVENTS[type(fact)], **fact._asdict()}


def read(line: dict[str, Any], strict: bool = False) -> Journaled | None:
    """Return the fact that a line of a journal tells; None: this version knows no such fact.

    Args:
        line: as JSON gave it.
        strict: a field that cannot be read is an error, and does not count as left out.

    Raises:
        ValueError: there is one.
    """
    kind = _KINDS.get(line["event"]) if isinstance(line.get("event"), str) else None
    if kind is None:
        return None
    fields = {}
    for name, hint in _hints(kind).items():
        told = line.get(name)
        value = _field(told, hint)
        if value is not None:
            fields[name] = value
        elif strict and told is not None:
            raise ValueError(f"{name} of a {kind.__name__} cannot be read")
    return kind(**fields)


_KINDS = {name: kind for kind, name in EVENTS.items()}
#: The type of each field, without the None that stands for "not known".
_HINTS: dict[type[Journaled], dict[str, str]] = {}


def _hints(kind: type[Journaled]) -> dict[str, str]:
    if kind not in _HINTS:
        # As they are written above; what typing makes of them takes longer than a long journal has time for.
        hints = {name: str(getattr(hint, "__forward_arg__", hint)) for name, hint in kind.__annotations__.items()}
        _HINTS[kind] = {name: hint.removesuffix(" | None") for name, hint in hints.items()}
    return _HINTS[kind]


def _field(value: Any, hint: str) -> Any:
    """Return a field's value; None: it is none of its type."""
    match hint:
        case "str":
            return value if isinstance(value, str) else None
        case "bool":
            return value if isinstance(value, bool) else None
        case "int":
            number = as_number(value)
            return None if number is None or number != int(number) else int(number)
        case "float":
            return as_number(value)
        case "list[int]":
            return [number for number in value if type(number) is int] if isinstance(value, list) else None
        case "list[str]":
            return [word for word in value if isinstance(word, str)] if isinstance(value, list) else None
        case _:
            raise TypeError(f"a journal has no {hint}")


def as_number(value: Any) -> float | None:
    """Return a number of a journal; None: it is none, or no sane one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_LARGEST <= value <= _LARGEST else None  # not one of NaN, Infinity, 10**400
