"""ShutdownHandler under a launcher, which these tests play: a listening socket in a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.bootstrap import contract, wire
from tests.process.handling import Run, wait_for_sleep
from tests.process.launch import PATIENCE, status_of, takes_at_least, wait_until


class FakeLauncher:
    """Speaks the contract, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(contract.PRIVATE_MODE)
        self.variable = contract.control_address(str(folder))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = os.open(folder, os.O_PATH)
        self.listener.bind(contract.socket_address(fd))
        os.close(fd)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.connection: socket.socket | None = None

    def accept(self) -> dict[str, Any]:
        """Return what the child that registers says."""
        if self.connection is not None:
            self.connection.close()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(PATIENCE)
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.connection is not None
        packet = self.connection.recv(2 * wire.MAX_MESSAGE)
        assert len(packet) <= wire.MAX_MESSAGE
        message = json.loads(packet) if packet else {"verb": "the end"}
        assert isinstance(message, dict)
        return message

    def tell(self, signum: int = signal.SIGTERM, **fields: Any) -> None:
        message = {"verb": "notice", "signal": signum, "reason": None, "seconds_left": None, **fields}
        self.say(json.dumps(message).encode())

    def say(self, packet: bytes) -> None:
        assert self.connection is not None
        self.connection.send(packet)

    def fill_backlog(self) -> None:
        self.listener.listen(0)
        fd = os.open(self.folder, os.O_PATH)
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.connect(contract.socket_address(fd))
        os.close(fd)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.listener.close()


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[FakeLauncher]:
    folder = tmp_path / ("long" * 40)  # longer than a Unix socket's address
    folder.mkdir()
    launcher = FakeLauncher(folder)
    yield launcher
    launcher.close()


REGISTER = """
handler = ShutdownHandler(timeout_sec=60)
handler.register()
say("ready")
"""


def test_what_is_reported(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        """
        from kempnerforge.resilience.dispositions import is_caught
        handler = ShutdownHandler(timeout_sec=60)
        files = open_files()
        handler.register()
        for _ in range(3):
            handler.should_shutdown()
        handler.status("a" * 9999)
        handler.status("\\U0001f600" * 9999)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(3):
            handler.should_shutdown()
        handler.ask_for_time(33)
        handler.finish()
        say(open_files() == files, is_caught(signal.SIGRTMAX - 1))
        """,
        KFORGE_CONTROL=launcher.variable,
    )
    message = launcher.accept()
    assert message.pop("program").endswith("child.py")
    assert message == {"verb": "registered", "timeout": 60.0, "stacks": signal.SIGRTMAX - 1, "is_launcher": False}
    assert launcher.hear() == {"verb": "polled", "stop": False}
    assert launcher.hear() == {"verb": "status", "text": "a" * 300}
    assert launcher.hear() == {"verb": "status", "text": "\U0001f600" * 300}
    assert launcher.hear() == {"verb": "polled", "stop": True}
    assert launcher.hear() == {"verb": "more_time", "seconds": 33.0}
    assert launcher.hear() == {"verb": "finished"}
    assert launcher.hear() == {"verb": "the end"}
    child.says(True, False)
    child.ends()


def test_a_notice_and_what_changes_it(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        REGISTER
        + """
wait_until(handler.should_shutdown)
say(repr(handler.signal_received), handler.reason, 9 < handler.remaining() <= 10)
wait_until(lambda: handler.remaining() > 19)
say(repr(handler.signal_received), handler.reason, handler.remaining() <= 20)
wait_until(lambda: handler.remaining() > 59)
say(handler.remaining() <= 60)
""",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    launcher.tell(signal.SIGUSR1, forced_exit_in=10, news_of_a_later_version=1)
    child.says(repr(signal.SIGUSR1), None, True)
    launcher.tell(signal.SIGTERM, reason="preempted", forced_exit_in=20)
    child.says(repr(signal.SIGUSR1), "preempted", True)
    launcher.tell(signal.SIGTERM, forced_exit_in=3000)  # never later than our own
    child.says(True)
    child.ends()


def test_a_notice_from_before(run: Run, launcher: FakeLauncher) -> None:
    notice = wire.Notice(signal.SIGUSR1, "time_limit")
    (launcher.folder / contract.NOTICE_FILE).write_bytes(wire.encode(notice))
    child = run(
        REGISTER + "say(handler.should_shutdown(), repr(handler.signal_received), handler.reason)",
        KFORGE_CONTROL=launcher.variable,
    )
    child.says("ready")
    child.says(True, repr(signal.SIGUSR1), "time_limit")
    launcher.accept()
    assert launcher.hear() == {"verb": "polled", "stop": True}
    child.ends()


def test_who_looks_at_shutdown_requested_has_polled(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        REGISTER + "wait_until(lambda: handler.shutdown_requested)\nsay('saw it')",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    launcher.tell(signal.SIGUSR1)
    child.says("saw it")
    assert launcher.hear() == {"verb": "polled", "stop": True}
    child.ends()


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"])
def test_the_forced_exit_falls_when_the_launcher_says(run: Run, launcher: FakeLauncher, library: str) -> None:
    child = run(
        REGISTER
        + f"""
signal.set_wakeup_fd(-1)  # the socket is enough
if {library == "PyDLL"}:
    wait_until(handler.should_shutdown)
stuck(ctypes.{library}(None))
""",
        KFORGE_CONTROL=launcher.variable,
    )
    stacks = launcher.accept()["stacks"]
    child.says("ready")
    if library == "CDLL":
        wait_for_sleep(child.pid)
        with takes_at_least(0.5):
            launcher.tell(forced_exit_in=0.5)
            child.ends(1)
    else:
        # With the GIL held it is the launcher that ends it; the stacks it can have.
        launcher.tell(forced_exit_in=0.5)
        wait_for_sleep(child.pid)
        child.send(stacks)
        wait_until(lambda: "in stuck" in child.log)
    assert "in stuck" in child.log


def test_our_own_limit_holds_with_the_gil_held(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        """
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        wait_until(handler.should_shutdown)
        stuck(ctypes.PyDLL(None))
        """,
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    with takes_at_least(0.5):
        launcher.tell(forced_exit_in=100)
        child.ends(1)


def test_a_stop_longer_than_the_time_left_ends_no_save(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        REGISTER
        + """
wait_until(handler.should_shutdown)
time.sleep(0.3)  # only a slice of the watcher, once begun, can be seen to be too long
say("stop me")
while handler.should_shutdown():
    time.sleep(0.01)
""",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    launcher.tell(forced_exit_in=1.2)
    child.says("stop me")
    child.send(signal.SIGSTOP)
    time.sleep(1.8)  # the stop itself
    with takes_at_least(0.3):
        child.send(signal.SIGCONT)
        child.ends(1)
    assert "longer than 1.2 s" in child.log


def test_without_a_forced_exit_the_launcher_sets_none(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        """
        handler = ShutdownHandler(timeout_sec=0)
        handler.register()
        wait_until(handler.should_shutdown)
        say(handler.remaining())
        time.sleep(0.3)
        """,
        KFORGE_CONTROL=launcher.variable,
    )
    assert launcher.accept()["timeout"] == 0
    launcher.tell(forced_exit_in=0.1)
    child.says(None)
    child.ends()


@pytest.mark.parametrize("unread", [False, True])
def test_a_launcher_that_is_killed_is_a_notice(run: Run, launcher: FakeLauncher, unread: bool) -> None:
    child = run(
        REGISTER
        + """
say(handler.should_shutdown())
wait_until(handler.should_shutdown)
say(repr(handler.signal_received), handler.reason, 59 < handler.remaining() <= 60)
handler.ask_for_time(5)
handler.finish()
""",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    child.says(False)
    if not unread:
        launcher.hear()
    launcher.close()
    child.says(repr(signal.SIGTERM), "launcher_lost", True)
    child.ends()


def test_rubbish_changes_nothing(run: Run, launcher: FakeLauncher) -> None:
    child = run(REGISTER + "wait_until(handler.should_shutdown)\nsay(handler.reason)", KFORGE_CONTROL=launcher.variable)
    launcher.accept()
    child.says("ready")
    notice = {"verb": "notice", "signal": 15, "reason": "wrong", "forced_exit_in": 0}
    for packet in [
        b"\xff\xfe",
        b"[" * 4000,
        b"{}",
        b'{"verb": "dance"}',
        b'{"verb": "polled", "stop": true}',
        b"x" * 9999,
        json.dumps({**notice, "padding": "x" * 4096}).encode(),
        json.dumps({**notice, "signal": 9999}).encode(),
        json.dumps({**notice, "forced_exit_in": float("nan")}).encode(),
    ]:
        launcher.say(packet)
    assert launcher.hear() == {"verb": "polled", "stop": False}
    assert child.process.poll() is None
    launcher.tell(reason="right")
    child.says("right")
    child.ends()
    assert child.log == ""


@pytest.mark.parametrize(
    "trouble",
    [
        "no folder",
        "nobody listens",
        "other node",
        "other job",
        "no colon",
        "empty",
        "a file",
        "full",
        "bad notice",
        "fifo",
    ],
)
def test_where_something_is_wrong_it_works_alone(run: Run, launcher: FakeLauncher, trouble: str) -> None:
    variable = launcher.variable
    if trouble == "no folder":
        variable += "/gone"
    elif trouble == "nobody listens":
        launcher.listener.close()
    elif trouble == "other node":
        variable = "elsewhere" + variable
    elif trouble == "other job":
        variable = contract.control_address(str(launcher.folder)).replace("::", ":7:")
    elif trouble == "no colon":
        variable = contract.node_name()
    elif trouble == "empty":
        variable = ""
    elif trouble == "a file":
        variable += "/" + contract.SOCKET_FILE
    elif trouble == "full":
        launcher.fill_backlog()
    elif trouble == "bad notice":
        (launcher.folder / contract.NOTICE_FILE).write_bytes(b'{"verb": "notice", "signal": 15, \xff')
    elif trouble == "fifo":
        os.mkfifo(launcher.folder / contract.NOTICE_FILE)
    child = run(
        """
        handler = ShutdownHandler()
        handler.register()
        say(handler.should_shutdown())
        os.kill(os.getpid(), signal.SIGTERM)
        say(handler.should_shutdown(), handler.reason)
        handler.status("hello")
        handler.finish()
        """,
        KFORGE_CONTROL=variable,
        **({"SLURM_JOB_ID": "8"} if trouble == "other job" else {}),
    )
    child.says(False)
    child.says(True, None)
    child.ends()
    assert child.log == ""
    if trouble == "other node":
        launcher.listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            launcher.listener.accept()


def test_a_launcher_that_does_not_read_holds_nobody_up(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        REGISTER
        + """
for _ in range(20000):
    handler.status("x" * 300)
say("still here")
handler.finish()
""",
        KFORGE_CONTROL=launcher.variable,
    )
    child.says("ready")
    child.says("still here")
    child.ends()


def test_a_forked_child_does_not_keep_the_connection(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        REGISTER
        + """
from kempnerforge.resilience.dispositions import is_caught
if os.fork() == 0:
    say(os.getpid(), is_caught(signal.SIGRTMAX - 1))
signal.pause()
""",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    worker, stacks = child.line().split()
    assert stacks == "False"
    child.send(signal.SIGKILL)
    child.ends(-signal.SIGKILL)
    assert launcher.hear() == {"verb": "the end"}
    assert status_of(int(worker))["State"].startswith("S"), "it has ended, and with it the connection in any case"


def test_two_handlers_two_connections(run: Run, launcher: FakeLauncher) -> None:
    child = run(
        """
        first, second = ShutdownHandler(timeout_sec=1), ShutdownHandler(timeout_sec=2)
        first.register()
        second.register()
        first.finish()
        say("ready")
        wait_until(second.should_shutdown)
        say(first.shutdown_requested, second.reason)
        """,
        KFORGE_CONTROL=launcher.variable,
    )
    first = launcher.accept()
    assert launcher.hear() == {"verb": "finished"}
    assert launcher.connection is not None
    launcher.connection.close()
    second = launcher.accept()
    assert (first["timeout"], second["timeout"]) == (1, 2) and first["stacks"] != second["stacks"]
    child.says("ready")
    launcher.tell(reason="manual")
    child.says(False, "manual")
    child.ends()


# --- a program that closes every descriptor it does not know -------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_it_registers_anew(run: Run, launcher: FakeLauncher, times: int) -> None:
    child = run(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})"
        + REGISTER
        + f"""
for _ in range({times}):
    os.closerange(3, 4096)
    say("closed")
    signal.sigwait({{signal.SIGUSR2}})
wait_until(handler.should_shutdown)
say(repr(handler.signal_received), handler.reason, 9 < handler.remaining() <= 10)
handler.finish()
say(signal.set_wakeup_fd(-1), len(threading.enumerate()), max(open_files()))
""",
        KFORGE_CONTROL=launcher.variable,
    )
    first = launcher.accept()
    child.says("ready")
    for _ in range(times):
        child.says("closed")
        assert launcher.hear() == {"verb": "the end"}
        assert launcher.accept() == first
        os.kill(child.pid, signal.SIGUSR2)
    launcher.tell(signal.SIGUSR1, reason="preempted", forced_exit_in=10)
    child.says(repr(signal.SIGUSR1), "preempted", True)
    said = [launcher.hear()]
    while said[-1] != {"verb": "the end"}:
        said.append(launcher.hear())
    assert said[-3:] == [{"verb": "polled", "stop": True}, {"verb": "finished"}, {"verb": "the end"}]
    child.says(-1, 1, 2)
    child.ends()


def test_what_has_its_numbers_then_is_left_alone(run: Run, launcher: FakeLauncher) -> None:
    """Nothing is written to it, read from it, or closed."""
    child = run(
        REGISTER
        + """
import socket, tempfile
def opened_instead():
    os.closerange(3, 4096)
    files = [tempfile.TemporaryFile() for _ in range(20)]
    pipes = [os.pipe() for _ in range(20)]
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]
    for _, writer in pipes:
        os.write(writer, b"kept")
    for one, _ in pairs:
        one.send(b"kept")
    return files, pipes, pairs
files, pipes, pairs = opened_instead()
say("closed")
wait_until(handler.should_shutdown)
handler.status("text")
handler.finish()
say({os.fstat(file.fileno()).st_size for file in files})
say({os.read(reader, 10) for reader, _ in pipes})
say({other.recv(10) for _, other in pairs})
for one, _ in pairs:
    try:
        one.recv(10, socket.MSG_DONTWAIT)
        say("read something")
    except BlockingIOError:
        pass
""",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    child.says("closed")
    os.kill(child.pid, signal.SIGUSR1)
    child.says({0})
    child.says({b"kept"})
    child.says({b"kept"})
    assert child.rest() == []
    assert child.wait() == 0
