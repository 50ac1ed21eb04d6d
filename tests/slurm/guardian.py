"""The process above every daemon of a sandbox: it starts them, and ends them whatever happens to its owner.

It is a program of its own (``python -I guardian.py``, with one end of a socket pair as its standard input). Everything
that a sandbox runs is below it, orphans included, because it is a child subreaper. It serves requests, one JSON object
a line, until the last connection is closed, which the kernel does for an owner that was SIGKILLed. Then it kills what
is below it, removes the sandbox's folder and exits. Whoever waits for that reads its connection up to the end.

It needs the standard library only, so that it also runs for a user who cannot see this project's environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
#: In the environment of each command run for a sandbox, with the sandbox's folder as its value.
MARK = "SANDBOX"
#: In the folder: where others connect who want to share the sandbox.
SOCKET = "guardian"
#: They come from terminals and from tests' time-outs; the sandbox ends when nobody is connected any more.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def descendants(ancestor: int) -> list[int]:
    """Every process below ``ancestor``, zombies included."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        try:
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        # "PID (NAME) STATE PARENT …", where NAME may hold any character, parentheses too
        parent = int(status.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [ancestor]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def environment_of(pid: int) -> dict[str, str]:
    """The environment with which ``pid`` was started; empty if it is gone, a zombie, or somebody else's."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    entries = (entry.partition("=") for entry in os.fsdecode(content).split("\0"))
    return {name: value for name, separator, value in entries if separator}


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Guardian:
    """Serves the connections to one sandbox.

    Args:
        root: The sandbox's folder.
        owner: The connection of whoever started it.
    """

    def __init__(self, root: Path, owner: socket.socket) -> None:
        self.root = root
        self.daemons: dict[int, str] = {}
        self.ended: dict[str, int] = {}
        self.reserved: list[socket.socket] = []
        self.cgroups: list[Path] = []
        self.connections: set[socket.socket] = set()
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(root / SOCKET))
        self.listener.listen()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        # An orphan that has ended must not stay a zombie: Slurm would wait for it.
        self.wakeup, write_end = socket.socketpair()
        self.wakeup.setblocking(False)
        write_end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end.detach(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.wake)
        self.add(owner)

    def serve(self) -> None:
        while self.connections:
            for key, _ in self.selector.select():
                key.data()
        self.listener.close()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        self.add(connection)

    def add(self, connection: socket.socket) -> None:
        self.connections.add(connection)
        # A request is one line, and its reply is read before the next is sent: nothing waits unseen in a buffer.
        lines = connection.makefile("rw")

        def answer() -> None:
            try:
                line = lines.readline()
                if line:
                    lines.write(json.dumps(self.perform(json.loads(line))) + "\n")
                    lines.flush()
                    return
            except ConnectionError:
                pass  # killed between its request and our reply
            self.selector.unregister(connection)
            self.connections.remove(connection)
            if self.connections:
                lines.close()
                connection.close()
            else:
                # Closed by our exit, which tells who waits for it that everything is gone.
                self.last = connection

        self.selector.register(connection, selectors.EVENT_READ, answer)

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        actions: dict[str, Callable[..., object]] = {
            "own_cgroups": self.own_cgroups,
            "reserve": self.reserve,
            "start": self.start,
            "signal": self.signal,
            "status": self.status,
        }
        try:
            action = actions[request.pop("do")]
            return {"reply": action(**request)}
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to who asked
            return {"error": f"{type(error).__name__}: {error}"}

    def reserve(self, count: int) -> list[int]:
        """Ports that no other program is given while this one lives.

        A socket that is bound but does not listen keeps a port from everybody who does not name it. Set after the
        bind, SO_REUSEADDR lets in the daemons, which set it too; set before, it would let in a second sandbox.
        """
        ports = []
        for _ in range(count):
            bound = socket.socket()
            bound.bind(("0.0.0.0", 0))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.reserved.append(bound)
            ports.append(int(bound.getsockname()[1]))
        return ports

    def own_cgroups(self, paths: list[str]) -> None:
        """Take over freezers that Slurm will make: they are removed in the end, with all below."""
        self.cgroups += map(Path, paths)

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> int:
        log = str(self.root / "log" / f"{name}.out")
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, write, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # What is ignored here would be ignored in every job too: IGNORED by us, SIGPIPE and SIGXFSZ by Python.
            setsigdef=[*IGNORED, signal.SIGPIPE, signal.SIGXFSZ],
            setsigmask=[],
        )
        self.daemons[pid] = name
        self.ended.pop(name, None)
        return pid

    def signal(self, name: str, number: int) -> None:
        for pid in [pid for pid, daemon in self.daemons.items() if daemon == name]:
            os.kill(pid, number)

    def status(self) -> dict[str, int | None]:
        """Each daemon's exit status, negative for a signal's number, or None while it runs."""
        return {**self.ended, **dict.fromkeys(self.daemons.values())}

    def wake(self) -> None:
        self.wakeup.recv(4096)
        self.reap()

    def reap(self) -> bool:
        """Reap what has ended below us, and return whether anything is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid in self.daemons:
                    self.ended[self.daemons.pop(pid)] = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return False

    def clear(self) -> None:
        """Kill everything that belongs to the sandbox, and return when it is gone."""
        while True:
            # Not below us: what a test ran itself, srun for instance, and has left behind.
            outside = [pid for pid in processes() if environment_of(pid).get(MARK) == str(self.root)]
            for pid in {*descendants(os.getpid()), *outside}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it has ended since
            self.thaw()
            if not self.reap() and not outside:
                break
            # What was forked meanwhile is found in the next round; nothing tells us when those outside have ended.
            time.sleep(0.01)
        for folder in self.cgroup_folders():
            folder.rmdir()

    def thaw(self) -> None:
        """Let go on what Slurm has suspended: until then it does not die of SIGKILL either."""
        for folder in self.cgroup_folders():
            for name, thawed in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                try:
                    with open(folder / name, "r+") as file:  # which makes none
                        file.write(thawed)
                except FileNotFoundError:
                    pass  # another generation's, or slurmd has removed the folder, with nothing in it

    def cgroup_folders(self) -> list[Path]:
        """Every cgroup of the sandbox's nodes, those below first."""
        return [Path(path) for root in self.cgroups for path, _, _ in os.walk(root, topdown=False)]


def main() -> None:
    owner = socket.socket(fileno=os.dup(0))
    owner.set_inheritable(False)
    # The owner's parent may count its children, and may run in a terminal: be nobody's child, in a session of our own.
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    # Short, for the sockets in it (108 characters at most), and never below a $TMPDIR that the nodes cannot see.
    root = Path(tempfile.mkdtemp(prefix="sandbox-", dir=sys.argv[1]))
    try:
        root.chmod(0o755)  # munged's socket must be reachable for the job's users
        (root / "log").mkdir()
        # Held open, the owner's standard output would keep whoever reads it waiting for us.
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(root / "log" / "guardian.out", os.O_WRONLY | os.O_CREAT, 0o644)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        guardian = Guardian(root, owner)
        owner.sendall(f"{json.dumps({'root': str(root), 'pid': os.getpid()})}\n".encode())
        try:
            guardian.serve()
        finally:
            guardian.clear()
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
