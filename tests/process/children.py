"""The child programs: each says `ready`, and then what happens to it.

Run as `python children.py NAME ARGUMENT...`; an argument of `main` is handed to the function of that name.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

#: Ends `listen`: the last one that a process gets of all that are pending.
LAST = signal.SIGRTMAX - 1


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def name_of(signum: int) -> str:
    return signal.Signals(signum).name if signum in list(signal.Signals) else f"SIGRTMIN+{signum - signal.SIGRTMIN}"


def listen(status: str = "9", quietly: bool = False) -> None:
    """Say every signal that comes, and end with a status after LAST."""
    signums = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    if not quietly:
        say("ready")
    while True:
        signum = signal.sigwaitinfo(signums).si_signo
        if signum == LAST:
            sys.exit(int(status))
        if signum not in (signal.SIGCONT, signal.SIGCHLD):
            say(name_of(signum))


def ignore(*names: str) -> None:
    """Ignore some signals for ever."""
    for name in names:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    say("ready")
    while True:
        signal.pause()


def cooperate(status: str = "0", saving: str = "0") -> None:
    """Poll a ShutdownHandler until it says stop, then save for some seconds."""
    from kempnerforge.resilience import ShutdownHandler

    with ShutdownHandler(timeout_sec=60) as handler:
        say("ready")
        while not handler.should_shutdown():
            time.sleep(0.001)
        assert handler.signal_received is not None
        say("stop", handler.signal_received.name)
        time.sleep(float(saving))
        handler.finish()
    sys.exit(int(status))


def close_all(when: str) -> None:
    """Cooperate, and close every descriptor that is not known: before, after, while the run is saved, or twice."""
    from kempnerforge.resilience import ShutdownHandler

    def close(moment: str) -> None:
        if moment in when.split("+"):
            os.closerange(3, 4096)

    close("before")
    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
    close("after")
    say("ready")
    while not handler.should_shutdown():
        time.sleep(0.001)
    say("stop")
    close("saving")
    handler.finish()


def listen_above_a_rank(status: str = "9") -> None:
    """Have a child that cooperates, and say every signal that comes to this process itself."""
    pid = os.fork()
    if pid == 0:
        cooperate()
    listen(status, quietly=True)


def stop_quietly(status: str = "0") -> None:
    """Let Ctrl-Z stop this process as usual, and end once it goes on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    say("ready")
    signal.sigwait({signal.SIGCONT})
    say("continued")
    sys.exit(int(status))


def shell(terminal: str, *command: str) -> None:
    """Run a command in the foreground of a terminal like an interactive shell, and continue it once it is stopped.

    When the terminal hangs up, tell the command.
    """
    tty = os.open(terminal, os.O_RDWR)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(tty, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvp(command[0], command)
    signal.signal(signal.SIGHUP, lambda *_: os.killpg(pid, signal.SIGHUP))
    while os.WIFSTOPPED(wait_status := os.waitpid(pid, os.WUNTRACED)[1]):
        say("stopped by", name_of(os.WSTOPSIG(wait_status)))
        os.killpg(pid, signal.SIGCONT)
    sys.exit(os.waitstatus_to_exitcode(wait_status))


# --- on the control socket ---------------------------------------------------------------------------


def connect() -> socket.socket:
    """Connect as the contract says."""
    import socket

    from kempnerforge.bootstrap import contract

    folder = os.open(contract.control_folder() or "", os.O_PATH)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(contract.socket_address(folder))
    os.close(folder)
    return connection


def be_rude(*packets: str) -> None:
    """Send packets (in hexadecimal digits) on one connection each and on a common one, then cooperate."""
    common = connect()
    connections = [common]
    for packet in packets:
        connections.append(connect())
        for connection in connections[-1], common:
            try:
                connection.send(bytes.fromhex(packet))
            except BrokenPipeError:
                pass  # cut off
    _cooperate_instead()


def connect_often(count: str) -> None:
    """Open many connections, keep them all, and register on each one that is not cut off."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    registered = b'{"verb": "registered", "program": "one of many", "timeout": 60, "stacks": null}'
    connections = []
    for _ in range(int(count)):
        connections.append(connect())
        try:
            connections[-1].send(registered)
        except BrokenPipeError:
            pass
    say("connected")
    _cooperate_instead()


def report_often(count: str) -> None:
    """Send as many messages as it takes, each as soon as there is room."""
    connection = connect()
    for number in range(int(count)):
        connection.send(b'{"verb": "status", "text": "message %d"}' % number)
        connection.send(b'{"verb": "more_time", "seconds": 1}')
        connection.send(b"rubbish")
    _cooperate_instead()


def register_often(count: str) -> None:
    """Register, finish, and again, in one process."""
    from kempnerforge.resilience import ShutdownHandler

    for _ in range(int(count)):
        with ShutdownHandler() as handler:
            handler.should_shutdown()
    cooperate()


def name_signal(stacks: str) -> None:
    """Register with such a signal for stack dumps, and say every signal that comes."""
    connection = connect()
    connection.send(b'{"verb": "registered", "program": "p", "timeout": 60, "stacks": %s}' % stacks.encode())
    listen()


def register_late() -> None:
    """Register after the notice, and say what it is told and what it finds."""
    import json

    from kempnerforge.bootstrap import contract, wire

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    say("ready")
    signal.sigwait({signal.SIGUSR1})
    connection = connect()
    connection.send(b'{"verb": "registered", "program": "late", "timeout": 60, "stacks": null}')
    assert json.loads(connection.recv(wire.MAX_MESSAGE))["verb"] == "page"
    told = json.loads(connection.recv(wire.MAX_MESSAGE))
    say("message", told["verb"], told["signal"], told["reason"], 500 < told["forced_exit_in"] < told["seconds_left"])
    with open(os.path.join(contract.control_folder() or "", contract.NOTICE_FILE)) as file:
        found = json.load(file)
    say("file", found["signal"], found["reason"])
    sys.exit(9)


def end_without_reading() -> None:
    """Report all that there is to report, and go without a look at what came."""
    import select

    connection = connect()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    connection.send(b'{"verb": "registered", "program": "hasty", "timeout": 60, "stacks": null}')
    say("ready")
    signal.sigwait({signal.SIGUSR1})
    select.select([connection], [], [])
    for message in (b'{"verb": "polled", "stop": true}', b'{"verb": "finished"}'):
        connection.send(message)
    connection.close()
    sys.exit(0)


def _cooperate_instead() -> None:
    """Keep all connections, and have another process cooperate."""
    notices = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, notices)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, notices)
        os.execv(sys.executable, [sys.executable, __file__, "cooperate"])
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


# --- at the end of their time ------------------------------------------------------------------------


def get_stuck() -> None:
    """Register, and then hold the GIL for ever: a mutex locked twice, out of which no signal gets it."""
    import ctypes

    from kempnerforge.resilience import ShutdownHandler

    ShutdownHandler(timeout_sec=60).register()
    say("ready")
    mutex, library = ctypes.create_string_buffer(256), ctypes.PyDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def save_slowly(saving: str, asking: str) -> None:
    """Take some seconds to save, and ask for some first; 0: do not ask."""
    from kempnerforge.resilience import ShutdownHandler

    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
    say("ready")
    while not handler.should_shutdown():
        time.sleep(0.001)
    if float(asking):
        handler.ask_for_time(float(asking))
    say("saving")
    time.sleep(float(saving))
    say("saved")
    handler.finish()


def leave(count: str, status: str, *kinds: str) -> None:
    """Leave some processes behind, of each kind in turn."""
    came, started = os.pipe()
    for number in range(int(count)):
        if os.fork() == 0:
            os.close(came)
            _stay(kinds[number % len(kinds)], started)
    os.close(started)
    for _ in range(int(count)):
        assert os.read(came, 1)
    # Whoever said that it is there stops right after.
    while _stopped() < sum(kinds[number % len(kinds)] == "stopped" for number in range(int(count))):
        time.sleep(0.001)
    say("ready")
    os._exit(int(status))


def _stopped() -> int:
    """Count the stopped processes in this one's session."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                state, _parent, _group, session = stat.read().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        found += state == "T" and int(session) == os.getsid(0)
    return found


def _stay(kind: str, started: int) -> None:
    if kind in ("session", "deaf"):
        os.setsid()
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind in ("orphan", "chain") and os.fork() != 0:
        os._exit(0)
    if kind == "orphan":
        os.setsid()
    os.write(started, b"x")
    os.close(started)
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    while kind == "chain":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() != 0:
            os._exit(0)
        time.sleep(0.001)
    while True:
        signal.pause()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
