"""Everything below kforge-run: who is there, and the sweep.

kforge-run is a child subreaper, so nothing that starts below it gets away: neither a session of its own nor a double
fork changes that. psutil lists it, and is imported only when there is something to sweep. Whatever keeps it from being
imported (PYTHONPATH may lead to another Python's), the sweep goes on: /proc tells the same.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ...bootstrap import proc, programs

if TYPE_CHECKING:
    from .log_readers import Unread

#: In the name of the kernel's function in which a process sleeps that waits for signals (sigwaitinfo(2)).
SIGNAL_WAIT = "sigtimedwait"
#: Passes over the tree to catch what is forked while it is killed; more would mean it forks faster than we kill.
#: A guess.
_PASSES = 10
#: The inode of the PID namespace that the machine started with: PROC_PID_INIT_INO in linux/proc_ns.h.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
#: What the letters of those states mean that can outlive SIGKILL for a while (proc_pid_stat(5)).
_STATES = {"D": "in uninterruptible sleep", "R": "running", "S": "sleeping", "T": "stopped", "t": "traced"}
#: How long to go after what forks faster than that, before the loop has its turn again (s): a guess.
_CHASE = 0.02


class Process(NamedTuple):
    """A process below us as /proc shows it at this moment."""

    pid: int
    name: str
    #: Start time (s, on the monotonic clock of this boot).
    started: float


class Tree:
    """The processes below this one.

    Args:
        helpers: pids of our own children that are no part of the run (a running scontrol); asked at each use.
        group: the child's own process group, which is all that can be signalled where there is no /proc.
        began: when nothing of the run was there yet (s since the boot); what is older may be the log's reader.
    """

    def __init__(self, helpers: Collection[int], group: int | None = None, began: float = 0.0) -> None:
        self._helpers = helpers
        self._group = group
        self._began = began
        #: Who reads our log, by pid and start; None: nobody has looked for them yet.
        self._log_readers: list[str] | None = None
        #: What they leave unread; None: there is none, or nobody has looked for them yet.
        self.unread: Unread | None = None
        #: Already killed, by pid and start, so that no pass sends SIGKILL twice to the same process.
        self._killed: set[str] = set()

    def is_empty(self) -> bool:
        """Return whether nothing of the run is left below us: no process, no zombie."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._log_readers = []  # nor will there ever be one
            return True
        others = {*self._helpers, *map(_pid, self.log_readers())}
        if not others:
            return False
        # psutil takes as long to import as a short command takes to run.
        below_us = set(children())
        return below_us <= others if below_us else not self._below_us()

    def log_readers(self) -> list[str]:
        """Return which children of ours read our log, as `proc.identity` names them."""
        if self._log_readers is None:
            from . import log_readers  # not at the start, where nobody needs it

            self._log_readers = log_readers.find(children(), self._began)
            for reader in self._log_readers[:1]:
                try:
                    self.unread = log_readers.Unread(reader)
                except OSError:
                    self._log_readers = []  # it has just ended, or we have no descriptors left
        return [one for one in self._log_readers if proc.identity(_pid(one)) == one]

    def kill_log_readers(self) -> None:
        """Send SIGKILL to who reads our log, and to all below."""
        for reader in self.log_readers():
            for process in list(walk(_pid(reader))):
                if one := proc.identity(process.pid):
                    _send(one, signal.SIGKILL)

    def terminate(self, spared: Collection[int] = ()) -> None:
        """Ask everything below us to end: SIGTERM, and SIGCONT for what is stopped.

        Args:
            spared: pids of those that are left alone.
        """
        for one in self._living():
            if _pid(one) not in spared:
                _send(one, signal.SIGTERM)
            _send(one, signal.SIGCONT)
        if not spared:
            self._send_blindly(signal.SIGTERM, signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to everything below us that has not got it yet."""
        for _pass in range(_PASSES):
            alive = [one for one in self._living() if one not in self._killed]
            if not alive:
                self._send_blindly(signal.SIGKILL)
                return
            for one in alive:
                _send(one, signal.SIGKILL)
            self._killed.update(alive)
        self._chase()

    def _chase(self) -> None:
        """Kill what forks and ends faster than we can look: with its parent gone, it is a child of our own.

        A child that is not reaped keeps its pid, so this hits no other process.
        """
        hit = {*self._helpers, *map(_pid, self.log_readers())}
        until = time.monotonic() + _CHASE
        while time.monotonic() < until:
            new = set(children()).difference(hit)
            for pid in new:
                os.kill(pid, signal.SIGKILL)
            hit |= new

    def _send_blindly(self, *signums: int) -> None:
        """Signal the child's group where something is left and /proc does not show what.

        As long as a process is in it, no other group gets its number.
        """
        if self._group is not None and not os.path.exists("/proc/self") and not self.is_empty():
            for signum in signums:
                try:
                    os.killpg(self._group, signum)
                except OSError:
                    return  # what is left has left it

    def survivors(self) -> list[str]:
        """Return who is still below us, for the log."""
        named = []
        for pid in self._below_us():
            fields = proc.stat(pid)
            if not fields and os.path.exists(f"/proc/{pid}"):
                named.append(f"pid {pid}, which is another user's")
            elif fields and (state := fields[proc.STATE]) not in proc.ENDED:
                named.append(f"{fields[proc.NAME]} (pid {pid}, {_STATES.get(state, state)})")
        return named

    def _living(self) -> list[str]:
        """Return who below us can be signalled, as `proc.identity` names it."""
        return [one for pid in self._below_us() if (one := proc.identity(pid))]

    def _below_us(self) -> list[int]:
        below = _listed_by_psutil()
        if below is None:
            below = _listed_by_proc()
        spared = {process.pid for reader in self.log_readers() for process in walk(_pid(reader))}
        below = [pid for pid in below if pid not in spared]
        if not self._helpers:
            return below
        # A helper leads a group of its own: whatever a site's scontrol script has started belongs to it.
        return [pid for pid in below if _group_of(pid) not in self._helpers]


def warm_up() -> None:
    """Import what the sweep needs: later a folder on Python's path may hang."""
    from . import log_readers  # noqa: F401

    _listed_by_psutil()


def _listed_by_psutil() -> list[int] | None:
    """Return the pids below us; None: psutil cannot tell. It tells nothing where hidepid=1 denies it a single stat."""
    try:
        # It takes as long to import as a short command takes to run.
        import psutil

        return [process.pid for process in psutil.Process().children(recursive=True)]
    except Exception:  # noqa: BLE001 - another Python's psutil, or a broken one, fails as it likes
        return None


def _listed_by_proc() -> list[int]:
    """Return the pids below us by everyone's parent, as far as /proc shows them."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    found: dict[int, list[int]] = {}
    for pid in pids:
        if (above := parent(pid)) is not None:
            found.setdefault(above, []).append(pid)
    below: list[int] = []
    parents = [os.getpid()]
    while parents:
        here = found.pop(parents.pop(), [])
        below += here
        parents += here
    return below


def children() -> list[int]:
    """Return our own children, with those that we have adopted; empty where the kernel does not tell (proc(5))."""
    return proc.children(os.getpid())


def _pid(identified: str) -> int:
    """Return the pid of a process that `proc.identity` named so."""
    return int(identified.partition(".")[0])


def _send(identified: str, signum: int) -> None:
    """Signal the process that `proc.identity` named so, and none that has got its pid since."""
    pid = _pid(identified)
    try:
        if proc.identity(pid) == identified:
            os.kill(pid, signum)
    except OSError:
        pass  # it ended meanwhile, or is another user's (set-uid)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def walk(pid: int, *, past: Collection[str] = ()) -> Iterator[Process]:
    """Yield a process and, parents first, all below it.

    Costs two reads for a childless process: quick enough to look while a signal waits to be delivered. Where the kernel
    does not tell children (proc_tid_children(5)) only the process itself is yielded.

    Args:
        past: names of processes below which not to look.
    """
    fields = proc.stat(pid)
    if not fields:
        return
    name = fields[proc.NAME]
    yield Process(pid, name, int(fields[proc.STARTED]) / os.sysconf("SC_CLK_TCK"))
    if name not in past:
        for child in proc.children(pid):
            yield from walk(child, past=past)


def started(pid: int) -> int:
    """Return when a process started (clock ticks since the boot); 0: it has ended and is reaped, or is hidden."""
    fields = proc.stat(pid)
    return int(fields[proc.STARTED]) if fields else 0


def parent(pid: int) -> int | None:
    """Return the pid above a process; None: it has ended, or is hidden."""
    fields = proc.stat(pid)
    return int(fields[proc.PARENT]) if fields else None


def renumbered() -> dict[str, str]:
    """Return `PID.START` of all processes below us in PID namespaces of their own, by what it is in there.

    The start is the same in all of them.
    """
    found = {}
    for process in walk(os.getpid()):
        inside = proc.status(process.pid, "NSpid")[-1:]
        outside = proc.identity(process.pid)
        if inside and outside and int(inside[0]) != process.pid:
            found[f"{inside[0]}.{outside.partition('.')[2]}"] = outside
    return found


def sleeps_in(pid: int) -> str:
    """Return the kernel's function in which the main thread sleeps (proc_pid_wchan(5)); empty: it runs, or hides it."""
    return proc.read(f"/proc/{pid}/wchan").removeprefix("0")


def was_given(pid: int, variable: str) -> bool | None:
    """Return whether a process was started with a variable in its environment; None where it is hidden."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return f"\0{variable}=".encode() in b"\0" + environment.read()
    except OSError:
        return None


def cgroups() -> str:
    """Return the cgroups of this process, a line for each hierarchy (cgroups(7))."""
    return proc.read("/proc/self/cgroup")


def in_pid_namespace() -> bool:
    """Return whether this process is in another PID namespace than the machine's first (pid_namespaces(7))."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE
    except OSError:
        return False


def program(pid: int) -> str:
    """Return what a Python process runs, for the log: its script, its module, or `-c`."""
    return programs.name_of(proc.command_line(pid)) or "?"
