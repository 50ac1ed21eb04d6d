"""Nothing that comes over the control socket does more than cost a line in the log."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.process.launch import Launch, Launched, program

CHECKPOINTED = 85

REGISTERED = {"verb": "registered", "program": "p", "timeout": 60, "stacks": None}


def packet(**fields: object) -> bytes:
    return json.dumps(fields).encode()


#: One of each kind; what else is no message, tests/unit/test_wire.py knows.
RUDE = {
    "not UTF-8": b"\xff\xfe\x00",
    "a whole one and a half": packet(**REGISTERED) + b'{"ver',
    "too long": packet(**{**REGISTERED, "program": "x" * 5000}),
    "far too long": b'{"verb": "status", "text": "' + b"x" * 60_000 + b'"}',
    "deep": b"[" * 4000,
    "a list": b"[1]",
    "an unknown verb": packet(verb="requeue"),
    "fields missing": packet(verb="registered"),
    "program is no line": packet(**{**REGISTERED, "program": "a\n\x1b[31mkforge-run: error\ud800"}),
    "timeout is NaN": b'{"verb": "registered", "program": "p", "timeout": NaN, "stacks": null}',
    "seconds is negative": packet(verb="more_time", seconds=-5),
    "our own verb": packet(verb="notice", signal=9, reason="cancelled", seconds_left=0, forced_exit_in=0),
}


def still_works(run: Launched) -> None:
    """Check that a later process registers, is told, and that its end is understood."""
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    assert all(line.isprintable() for line in run.own_lines)


def test_what_cannot_be_understood_is_ignored(launch: Launch) -> None:
    run = launch(*program("be_rude", *(rude.hex() for rude in RUDE.values())), options=("-v",))
    still_works(run)
    assert len(RUDE) / 2 < sum("ignored" in line for line in run.own_lines) <= 2 * len(RUDE)


def test_an_empty_packet_ends_nothing_but_its_connection(launch: Launch) -> None:
    run = launch(*program("be_rude", "", packet(**REGISTERED).hex()))
    still_works(run)


@pytest.mark.parametrize("stacks", ["9", "-1", "65", "true", '"SIGKILL"'])
def test_a_process_may_not_name_a_signal_that_kills_it(launch: Launch, stacks: str) -> None:
    run = launch(*program("name_signal", stacks), options=("--timeout", "1.5", "--term-grace", "5"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["SIGUSR1"]
    run.ends(128 + signal.SIGKILL)


def test_a_thousand_connections_of_one_process(launch: Launch) -> None:
    run = launch(*program("connect_often", 1000), shell="ulimit -Sn 256")  # so that they could take all there are
    run.says("connected")
    still_works(run)


def test_hundreds_of_handlers_one_after_the_other(launch: Launch) -> None:
    still_works(launch(*program("register_often", 300)))


def test_thousands_of_messages(launch: Launch) -> None:
    run = launch(*program("report_often", 3000), options=("-v", "--journal", "journal"))
    still_works(run)
    assert 5 <= sum("message " in line for line in run.own_lines) < 100
    assert len(launch.journal(launch.folder / "journal")) < 200


def test_who_registers_after_the_notice_finds_it_in_two_places(launch: Launch) -> None:
    """The message comes over the socket, and the file tells a process that looks before it comes."""
    run = launch(*program("register_late"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("message", "notice", int(signal.SIGUSR1), "manual", True)
    run.says("file", int(signal.SIGUSR1), "manual")
    run.ends(9)


def test_what_a_process_said_before_it_ended_counts(launch: Launch) -> None:
    """It leaves our last message unread, which makes the kernel report an error before it hands over its own."""
    run = launch(*program("end_without_reading"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(CHECKPOINTED)
    assert "first poll by pid" in run.log and "finished" in run.log


def test_of_long_texts_the_log_has_what_is_documented(launch: Launch) -> None:
    """All 300 characters of a status, and of a program's path the end, where its name is."""
    folder = launch.folder / ("long" * 40) / ("path" * 40)
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(
        "from kempnerforge.resilience import ShutdownHandler\n"
        "handler = ShutdownHandler()\n"
        "handler.register()\n"
        "handler.status('x' * 299 + '!' + 'y')\n"
    )
    run = launch(sys.executable, str(folder / "train.py"), options=("-v",))
    run.ends(0)
    assert f": {'x' * 299}!\n" in run.log
    assert "/train.py (pid" in next(line for line in run.own_lines if line.endswith("has a ShutdownHandler"))


@pytest.mark.parametrize("when", ["before", "after", "saving", "before+after+saving"])
@pytest.mark.parametrize("signums", [(signal.SIGUSR1,), (signal.SIGUSR1, signal.SIGTERM)], ids=["once", "twice"])
def test_a_program_that_closes_every_descriptor(launch: Launch, when: str, signums: tuple[int, ...]) -> None:
    """It stays cooperative: it is told once more who it is, and its `finish()` counts."""
    journals = launch.folder / "journals"
    run = launch(*program("close_all", when), options=("-v", "--journal", str(journals)))
    run.says("ready")
    run.send(*signums)
    run.says("stop")
    run.ends(CHECKPOINTED)
    end = launch.journal(journals)[-1]
    assert (end["event"], end["outcome"], end["progress"]) == ("end", "checkpointed", True)
    assert "assumed" not in run.log
