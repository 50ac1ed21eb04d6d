"""The receivers of a notice: what armed processes tell of themselves, how each is told, and that one has ended.

They have no connection to us. What is new they tell on a FIFO, and that one has ended its pidfd tells. No file is
looked for: the private folder's file system may hang.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Iterator

from ...bootstrap import contract, proc
from ..policy.ledger import WORD
from ..policy.words import Answer, Answered, Armed, Gone, Heard, Identity
from ..processes import tree
from ..processes.process import Process, is_descriptor_left

News = Armed | Answered | Heard | Gone

#: Read from the FIFO before the loop has its turn again (bytes): all that there is room for in it (pipe(7)).
_MOST_AT_A_TIME = 1 << 16
#: How often a start wakes us up before there is a notice: a job may start a million Pythons.
_WAKE_UPS = 2
#: As long as two numbers and a point can be.
_LONGEST_IDENTITY = 40


class Receivers:
    """All of them on this node.

    Args:
        folder_fd: the private folder; None: there is none, and nobody is armed.
        poller: gets the descriptors that tell what is new.

    Raises:
        OSError: the folder is not as it should be.
    """

    def __init__(self, folder_fd: int | None, poller: select.poll) -> None:
        self._poller = poller
        self._told: dict[Identity, Process] = {}
        #: Processes in PID namespaces of their own, by what they call themselves.
        self._renumbered: dict[str, Identity] = {}
        #: The beginning of a line of which the rest is not read yet.
        self._unread = b""
        self._wake_ups = _WAKE_UPS
        self._listens = False
        #: Of the pidfds of those; None: nobody was told yet.
        self._ended: select.epoll | None = None
        self._news: int | None = None
        if folder_fd is not None:
            # To write, too: without a writer it would be at its end, and so readable, for ever.
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            self._news = os.open(contract.NEWS_FIFO, flags, dir_fd=folder_fd)
            self._listen(True)

    # --- what they tell ----------------------------------------------------------------------------

    def news(self) -> Iterator[News]:
        """Yield who has started, what who was asked says, who has noticed and who has ended."""
        yield from self._read()
        ended = set() if self._ended is None else {descriptor for descriptor, _ in self._ended.poll(0)}
        for who, process in list(self._told.items()):
            # Without a pidfd (before Linux 5.3) we look when we are awake, as we are often during a shutdown.
            if process.pidfd in ended or (process.pidfd is None and not process.lives):
                self._forget(who)
                yield Gone(who)

    def listen(self) -> None:
        """Have every start wake us up from now on: there is a notice."""
        self._wake_ups = -1
        self._listen(True)

    def _listen(self, listens: bool) -> None:
        if listens != self._listens and self._news is not None:
            self._listens = listens
            if listens:
                self._poller.register(self._news, select.POLLIN)
            else:
                self._poller.unregister(self._news)

    def _read(self) -> Iterator[News]:
        """Read a part of the news: a process that tells too much must not hold up what the others wait for."""
        if self._news is None:
            return
        try:
            *lines, self._unread = (self._unread + os.read(self._news, _MOST_AT_A_TIME)).split(b"\n")
        except BlockingIOError:
            return
        self._unread = self._unread[:_MOST_AT_A_TIME]
        if self._wake_ups > 0:
            self._wake_ups -= 1
            self._listen(self._wake_ups > 0)
        renumbered: dict[str, str] = {}
        for line in lines:
            told, _, identity = line.decode("ascii", "replace").partition(" ")
            word, _, rest = told.partition(":")
            who = self._identify(identity, renumbered)
            if who is None:
                continue  # no armed process has written that
            if word == contract.ARMED_NEWS:
                if proc.identity(who.pid) == f"{who.pid}.{who.start}":
                    yield Armed(tree.program(who.pid), who)
            elif word == contract.SEEN_NEWS:
                yield Heard(who, rest)
            elif word == contract.DONE_NEWS:
                yield Heard(who, rest, ended=True)
            elif word == contract.ANSWER_NEWS:
                yield Answered(who, _answer(rest))

    def _identify(self, identity: str, renumbered: dict[str, str]) -> Identity | None:
        """Return who calls itself so; None: nobody can.

        Args:
            renumbered: filled with who is in PID namespaces below us, once for all that is read.
        """
        if identity in self._renumbered:
            return self._renumbered[identity]
        pid, _, start = identity.partition(".")
        if not (pid.isdigit() and start.isdigit()) or len(identity) > _LONGEST_IDENTITY:
            return None
        if proc.identity(int(pid)) != identity:
            if not renumbered:
                renumbered.update(tree.renumbered() or {"": ""})
            if identity in renumbered:
                pid, _, start = renumbered[identity].partition(".")
                self._renumbered[identity] = Identity(contract.node_name(), int(pid), int(start))
        return Identity(contract.node_name(), int(pid), int(start))

    # --- how they are told -------------------------------------------------------------------------

    def ask(self, whos: Iterable[Identity]) -> None:
        """Ask armed processes what they are."""
        for who in whos:
            process = Process(who)
            if process.lives and is_armed(who.pid):
                process.notify(contract.PROBE_SIGNAL)
            process.close()

    def tell(self, whos: Iterable[Identity], by: int, again: bool) -> None:
        """Signal processes, each only if it catches that now; what it would die of, it does not get.

        Args:
            by: a signal, or `ledger.WORD`.
            again: only who sleeps, for only that one may have missed it; and not who waits for signals itself.
        """
        is_blind = not proc.stat("self")
        for who in whos:
            process = self._told.get(who) or self._follow(who)
            if process is None:
                continue
            if is_blind:
                process.send(by)  # what it catches cannot be known
                continue
            if again:
                asleep = tree.sleeps_in(who.pid)
                if not asleep or tree.SIGNAL_WAIT in asleep:
                    continue
            if by == WORD:
                if is_armed(who.pid):
                    process.notify(contract.WORD_SIGNAL)
            elif by in proc.signal_set(who.pid, "SigBlk"):
                process.send(by)  # another thread may wait for it
            elif by in proc.signal_set(who.pid, "SigCgt"):
                process.notify(by)

    def _follow(self, who: Identity) -> Process | None:
        """Have its end told."""
        process = Process(who)
        # The descriptor came first: it cannot mean another process that has the number now.
        if not process.lives and proc.stat("self"):
            process.close()
            return None
        self._told[who] = process
        try:
            if process.pidfd is not None:
                self._watch(process.pidfd)
        except OSError:
            process.close()
        if process.pidfd is not None and not is_descriptor_left():
            # The last one is worth more to look at the process with, and to say why.
            self._unwatch(process)
        return process

    def _watch(self, pidfd: int) -> None:
        if self._ended is None:
            self._ended = select.epoll()
            self._poller.register(self._ended.fileno(), select.POLLIN)
        self._ended.register(pidfd, select.EPOLLIN)

    def _unwatch(self, process: Process) -> None:
        if process.pidfd is not None and self._ended is not None:
            self._ended.unregister(process.pidfd)
        process.close()

    def _forget(self, who: Identity) -> None:
        self._unwatch(self._told.pop(who))

    def close(self) -> None:
        for who in list(self._told):
            self._forget(who)
        self._listen(False)
        if self._ended is not None:
            self._poller.unregister(self._ended.fileno())
            self._ended.close()
        if self._news is not None:
            os.close(self._news)


def is_armed(pid: int) -> bool:
    """Return whether the bootstrap is in a process: by default its signals kill."""
    return proc.signal_set(pid, "SigCgt") >= contract.ARMED_SIGNALS


def _answer(text: str) -> Answer:
    letters, _, pids = text.partition(":")
    awaited = frozenset(int(pid) for pid in pids.split(",") if pid.isdigit())
    helps, mp_child, names, handler, inside_try, tensors, held_up = (one in letters for one in contract.ANSWER_LETTERS)
    return Answer(helps, mp_child, names, handler, inside_try, tensors, held_up, awaited)
