"""Every message survives the way there, and nothing else that comes is taken for one."""

from __future__ import annotations

import json
import math
import random
import signal
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.bootstrap import wire
from kempnerforge.bootstrap.wire import Finished, MoreTime, Notice, Polled, Registered, Status

REAL_TIME = signal.SIGRTMIN + 1

line = st.text(max_size=wire.LONGEST_TEXT).map(lambda text: "".join(filter(str.isprintable, text)))
seconds = st.floats(0, wire.LONGEST_TIME)
#: All that is sent as it is.
messages: st.SearchStrategy[wire.Message] = st.one_of(
    st.builds(Registered, line, seconds, st.none() | st.integers(REAL_TIME, signal.SIGRTMAX), st.booleans()),
    st.builds(Polled, st.booleans()),
    st.just(Finished()),
    st.builds(MoreTime, seconds),
    st.builds(Status, line),
    st.builds(Notice, st.sampled_from(signal.Signals), st.none() | line, st.none() | seconds, st.none() | seconds),
)


def packet(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def understood(content: bytes) -> wire.Message | None:
    """Return what a packet says, None if it says nothing: there is no third way."""
    try:
        return wire.decode(content)
    except ValueError as error:
        why = str(error)
    assert why.isprintable()
    return None


# --- what is said is understood ----------------------------------------------------------------------


@given(messages)
def test_every_message_survives_the_way_there(message: wire.Message) -> None:
    sent = wire.encode(message)
    received = wire.decode(sent)
    assert (type(received), received) == (type(message), message)
    assert len(sent) <= wire.MAX_MESSAGE


@given(st.text() | st.integers(0, 4000).map(lambda length: "\U0001f600" * length))
def test_whatever_a_text_it_is_one_line_that_fits(text: str) -> None:
    for message in Registered(text, 0), Status(text), Notice(signal.SIGTERM, text):
        sent = wire.encode(message)
        assert len(sent) <= wire.MAX_MESSAGE
        for value in wire.decode(sent):
            assert not isinstance(value, str) or (value.isprintable() and len(value) <= wire.LONGEST_TEXT)


def test_the_format_is_what_older_versions_speak() -> None:
    """A training environment may have a version of its own."""
    said = {message: json.loads(wire.encode(message)) for message in (Registered("p", 9.5, REAL_TIME), Polled(True))}
    assert list(said.values()) == [
        {"verb": "registered", "program": "p", "timeout": 9.5, "stacks": REAL_TIME, "is_launcher": False},
        {"verb": "polled", "stop": True},
    ]
    assert json.loads(wire.encode(Finished())) == {"verb": "finished"}
    assert json.loads(wire.encode(MoreTime(3))) == {"verb": "more_time", "seconds": 3}
    assert json.loads(wire.encode(Status("s"))) == {"verb": "status", "text": "s"}
    notice = {"verb": "notice", "signal": 10, "reason": "manual", "seconds_left": 2, "forced_exit_in": None}
    assert json.loads(wire.encode(Notice(signal.SIGUSR1, "manual", 2))) == notice


def test_what_an_older_version_leaves_out_or_a_later_one_adds_is_no_harm() -> None:
    assert wire.decode(packet(verb="registered", program="p", timeout=1)) == Registered("p", 1)
    assert wire.decode(packet(verb="notice", signal=15)) == Notice(signal.SIGTERM)
    assert wire.decode(packet(verb="finished", ranks=[{"rank": 1}])) == Finished()


def test_a_number_of_seconds_has_a_limit_and_no_message_is_lost_for_it() -> None:
    for much in math.inf, threading.TIMEOUT_MAX, 10**400, wire.LONGEST_TIME + 1:
        assert wire.decode(wire.encode(MoreTime(much))) == MoreTime(wire.LONGEST_TIME)
    assert wire.decode(b'{"verb": "more_time", "seconds": 1e999}') == MoreTime(wire.LONGEST_TIME)


def test_of_a_program_the_end_is_kept_and_of_a_status_the_beginning() -> None:
    long = "a" * wire.LONGEST_TEXT
    assert wire.decode(wire.encode(Registered(f"/{long}/train.py", 0))) == Registered(f"/{long}/train.py"[-300:], 0)
    assert wire.decode(wire.encode(Status(f"!{long}"))) == Status(f"!{long}"[:300])


@pytest.mark.parametrize("stacks", [9, -1, 0, 65, REAL_TIME - 1, True, "SIGKILL", 40.0, [40], None])
def test_a_signal_that_may_not_dump_stacks_costs_no_registration(stacks: object) -> None:
    """Not SIGKILL, nor any other that has a meaning."""
    said = wire.decode(packet(verb="registered", program="p", timeout=1, stacks=stacks))
    assert said == Registered("p", 1, None)


@pytest.mark.parametrize("message", [MoreTime(math.nan), MoreTime(-1), Notice(0), Status(7)])  # type: ignore[arg-type]
def test_what_nobody_would_read_is_not_sent(message: wire.Message) -> None:
    with pytest.raises(ValueError, match=" is no "):
        wire.encode(message)


# --- what is not said is not understood --------------------------------------------------------------

NOTICE: dict[str, Any] = {"verb": "notice", "signal": 15, "reason": "wrong", "forced_exit_in": 0}
REGISTERED: dict[str, Any] = {"verb": "registered", "program": "p", "timeout": 60}
WRONG_SIGNALS: tuple[Any, ...] = (None, 0, 9999, 10**400, REAL_TIME, 15.0, "TERM", [15], {}, True)
WRONG_SECONDS: tuple[Any, ...] = ("1", [], math.nan, -1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"rubbish", "Expecting value"),
        (b'{"verb": "finis', "Unterminated"),
        (packet(verb="finished") + b'{"ver', "Extra data"),
        (packet(verb="finished", padding="x" * wire.MAX_MESSAGE), "longer than 4096 bytes"),
        (b"[" * 4000, "nested too deeply|Expecting value"),
        (b'{"verb":' * 500, "nested too deeply|Expecting value"),
        (b"[1]", "no object"),
        (b'"verb"', "no object"),
        (b"7", "no object"),
        (b"null", "no object"),
        (b"{}", "of an unknown kind"),
        (packet(verb="requeue"), "of an unknown kind"),
        (packet(verb={"registered": 1}), "of an unknown kind"),
        (packet(verb="registered"), "program is missing"),
        (packet(verb="polled"), "stop is missing"),
        (packet(**{**REGISTERED, "program": 7}), "program is no text"),
        (packet(**{**REGISTERED, "timeout": "60"}), "timeout is no number"),
        (packet(**{**REGISTERED, "timeout": math.nan}), "timeout is no number"),
        (packet(**{**REGISTERED, "is_launcher": 1}), "is_launcher is neither"),
        (packet(verb="more_time", seconds=-5), "seconds is no number"),
        (packet(verb="more_time", seconds=-math.inf), "seconds is no number"),
        (packet(verb="more_time", seconds=True), "seconds is no number"),
        (packet(verb="more_time", seconds=None), "seconds is no number"),
        (packet(verb="polled", stop="yes"), "stop is neither"),
        (packet(verb="status", text=["a"]), "text is no text"),
        *((packet(**{**NOTICE, "signal": wrong}), "signal is no") for wrong in WRONG_SIGNALS),
        *((packet(**{**NOTICE, "forced_exit_in": wrong}), "forced_exit_in is no") for wrong in WRONG_SECONDS),
        (packet(**{**NOTICE, "reason": 1}), "reason is no text"),
    ],
)
def test_what_is_no_message(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        wire.decode(content)
    assert str(raised.value).isprintable()


@given(st.binary())
def test_any_bytes_are_a_message_or_not(content: bytes) -> None:
    understood(content)


@given(messages, st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_damaged_message_is_a_message_or_not(message: wire.Message, chance: random.Random, times: int) -> None:
    content = bytearray(wire.encode(message))
    for _ in range(times):
        at = chance.randrange(len(content) + 1)
        content[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    understood(bytes(content))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(messages, st.data())
def test_a_field_may_be_anything(message: wire.Message, data: st.DataObject) -> None:
    fields = json.loads(wire.encode(message))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(anything)
    said = understood(packet(**fields))
    assert said is None or wire.decode(wire.encode(said)) == said
