"""The messages between processes: what each says, and the one encoder, decoder and set of limits for all of them.

A packet is one message: a JSON object in UTF-8 with a ``verb`` and the message's fields. What carries it is not known
here. Who receives it ignores fields it does not know, for the sender may be of another version, and answers what it
cannot read with nothing at all. Standard library only, Python 3.8.
"""

from __future__ import annotations

import signal
from typing import Any, NamedTuple, Union

#: The longest packet that is sent or read, in bytes.
MAX_MESSAGE = 4096
#: Longest text in a message (characters). It surely fits, for JSON takes up to 12 bytes for one.
LONGEST_TEXT = 300
#: More seconds than these are these: 30 years. It leaves out infinity, which not everybody's JSON knows.
LONGEST_TIME = 1e9
LARGEST_NUMBER = 2**31

# --- up ------------------------------------------------------------------------------------------


class Registered(NamedTuple):
    """A handler registered."""

    #: A path of which the end is kept, where its name is.
    program: str
    #: The handler's own limit (s); 0: no forced exit.
    timeout: float
    #: The real-time signal on which the process dumps every thread's stack; None: it does not.
    stacks: int | None = None
    #: It is an inner kforge-run.
    is_launcher: bool = False


class Polled(NamedTuple):
    """Sent at the first poll, and at the first poll that returned True."""

    #: What it returned.
    stop: bool


class Joined(NamedTuple):
    """A rank has found out with which others it has to stop together."""

    #: Tells the world from every other one of the job.
    world: str
    rank: int
    #: How many ranks it has; 0: not known.
    size: int


class Noticed(NamedTuple):
    """A rank of a world has got a notice, and waits for the others."""


class Left(NamedTuple):
    """A process that was not told to stop has come to its end, or handles notices no more."""


class Finished(NamedTuple):
    """Graceful shutdown is complete."""


class MoreTime(NamedTuple):
    """The save needs so many seconds, counted from now."""

    seconds: float


class ForcedExit(NamedTuple):
    """The process ends itself: its shutdown has taken too long."""


class Status(NamedTuple):
    """A text for the launcher's log, of which the beginning is kept."""

    text: str


# --- down ----------------------------------------------------------------------------------------


class Notice(NamedTuple):
    """Stop. Sent again when any of it changes; also a file, for who registers later, without the times."""

    signal: int
    #: None: not known yet.
    reason: str | None = None
    #: Until the deadline (s); None: there is none.
    seconds_left: float | None = None
    #: Until the process should force its own exit (s); None: no limit.
    forced_exit_in: float | None = None


class Page(NamedTuple):
    """The answer to a registration: the page comes along as a descriptor (unix(7), SCM_RIGHTS); or there is none."""

    #: Which line is the process's.
    line: int = 0


Message = Union[Registered, Joined, Noticed, Left, Polled, Finished, MoreTime, ForcedExit, Status, Notice, Page]

# --- packets -------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """Return a message as a packet, cut to what is read of it.

    Raises:
        ValueError: no receiver would read it; the message says why.
    """
    import json

    verb = next(verb for verb, kind in _KINDS.items() if kind is type(message))
    return json.dumps({"verb": verb, **_read(type(message), message._asdict())._asdict()}).encode()


def decode(packet: bytes) -> Message:
    """Return the message that a packet is, whoever has sent it.

    Raises:
        ValueError: it is none; the message says why, in one printable line.
    """
    import json

    if len(packet) > MAX_MESSAGE:
        raise ValueError(f"longer than {MAX_MESSAGE} bytes")
    try:
        fields = json.loads(packet)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no object")
    verb = fields.get("verb")
    if not isinstance(verb, str) or verb not in _KINDS:
        raise ValueError("of an unknown kind")
    return _read(_KINDS[verb], fields)


def _read(kind: type[Message], fields: dict[str, Any]) -> Message:
    """Return a message of the fields that it knows, each checked and cut."""
    known: dict[str, Any] = {}
    for name in kind._fields:
        if name in fields:
            try:
                known[name] = _FIELDS[name](fields[name])
            except ValueError as error:
                raise ValueError(f"{name} is {error}") from None
        elif name not in kind._field_defaults:
            raise ValueError(f"{name} is missing")
    return kind(**known)


def _beginning(value: Any) -> str:
    return _line(_text(value)[:LONGEST_TEXT])


def _end(value: Any) -> str:
    return _line(_text(value)[-LONGEST_TEXT:])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _seconds(value: Any) -> float:
    # NaN, which Python's JSON knows, is not >= 0.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError("no number of seconds")
    return float(min(value, LONGEST_TIME))


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_NUMBER:
        raise ValueError("no number")
    return value


def _signal(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in list(signal.Signals):
        raise ValueError("no signal that has a name")
    return signal.Signals(value)


def _stacks(value: Any) -> int | None:
    """Return a signal that surely means nothing else. For a wrong one, no registration is lost."""
    return value if isinstance(value, int) and signal.SIGRTMIN < value <= signal.SIGRTMAX else None


def _reason(value: Any) -> str | None:
    return None if value is None else _beginning(value)


def _limit(value: Any) -> float | None:
    return None if value is None else _seconds(value)


#: The messages by their verbs.
_KINDS: dict[str, type[Message]] = {
    "registered": Registered,
    "joined": Joined,
    "noticed": Noticed,
    "left": Left,
    "polled": Polled,
    "finished": Finished,
    "more_time": MoreTime,
    "forced_exit": ForcedExit,
    "status": Status,
    "notice": Notice,
    "page": Page,
}
#: What each field may be, in whichever message.
_FIELDS = {
    "program": _end,
    "timeout": _seconds,
    "stacks": _stacks,
    "is_launcher": _truth,
    "world": _end,
    "rank": _number,
    "size": _number,
    "line": _number,
    "stop": _truth,
    "seconds": _seconds,
    "text": _beginning,
    "signal": _signal,
    "reason": _reason,
    "seconds_left": _limit,
    "forced_exit_in": _limit,
}
