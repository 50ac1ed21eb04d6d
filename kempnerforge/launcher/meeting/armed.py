"""The armed processes: the main programs of ranks, which the bootstrap has listed in the private folder.

They have no connection to us. What is new they tell on a FIFO, and that one has ended its pidfd tells. No file is
looked for: the private folder's file system may hang.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

from ...bootstrap import contract, proc
from ..policy.words import Armed, Gone, Identity
from ..processes import tree
from ..processes.process import Process

#: Read from the FIFO before the loop has its turn again (bytes): all that there is room for in it (pipe(7)), because
#: whoever was armed before a notice was sent is to be known before it is delivered.
_MOST_AT_A_TIME = 1 << 16


class ArmedProcess:
    """One of them.

    Args:
        identity: `PID.START`.

    Raises:
        ValueError, OverflowError: that is no identity.
        ProcessLookupError: it has ended.
    """

    def __init__(self, identity: str) -> None:
        pid, _, start = identity.partition(".")
        self.process = Process(Identity(contract.node_name(), int(pid), int(start)))
        # The descriptor came first: it cannot mean another process that has the number now.
        if not self.process.lives:
            self.process.close()
            raise ProcessLookupError(f"{identity} has ended")
        self.process.program = tree.program(self._pid)
        #: It was given the notice.
        self.told = False
        #: It has noticed it.
        self.has_noticed = False

    @property
    def _pid(self) -> int:
        return self.process.who.pid

    def notify(self, notice: int) -> bool:
        """Signal it; return whether it was there to get it.

        A notice is SIGUSR1 or SIGTERM. The program may ignore the one (`trap ''` in a script around it does that), or
        have it back at its default, and still catch the other.
        """
        self.told = True
        caught = proc.signal_set(self._pid, "SigCgt")
        other = signal.SIGTERM if notice == signal.SIGUSR1 else signal.SIGUSR1
        if notice in proc.signal_set(self._pid, "SigBlk"):
            return self.process.send(notice)  # another thread may wait for it
        return self.process.notify(other if notice not in caught and other in caught else notice)

    def notify_again(self, notice: int) -> bool:
        """Signal it once more if it had the notice, and has not noticed; return whether it was there to get it.

        Only who sleeps may miss it, and not who waits for signals itself: it has them blocked, but while it is in
        sigwaitinfo(2).
        """
        if not self.told or self.has_noticed:
            return False
        asleep = tree.sleeps_in(self._pid)
        if not asleep or "sigtimedwait" in asleep or notice in proc.signal_set(self._pid, "SigBlk"):
            return False
        return self.notify(notice)


class ArmedProcesses:
    """All of them on this node.

    Args:
        folder_fd: the private folder.
        poller: gets the descriptors that tell what is new.

    Raises:
        OSError: the folder is not as it should be.
    """

    def __init__(self, folder_fd: int, poller: select.poll) -> None:
        self._poller = poller
        #: By what they call themselves: in a container, pids may be other ones.
        self._living: dict[str, ArmedProcess] = {}
        #: The beginning of a line of which the rest is not read yet.
        self._unread = b""
        # To write, too: without a writer it would be at its end, and so readable, for ever.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        self._ended = select.epoll()
        self._news = os.open(contract.NEWS_FIFO, flags, dir_fd=folder_fd)
        for descriptor in (self._news, self._ended.fileno()):
            poller.register(descriptor, select.POLLIN)

    @property
    def living(self) -> list[ArmedProcess]:
        return list(self._living.values())

    def news(self) -> Iterator[Armed | Gone]:
        """Yield who has been armed and who has ended."""
        yield from self._read()
        ended = {descriptor for descriptor, _ in self._ended.poll(0)}
        for identity, armed in list(self._living.items()):
            process = armed.process
            # Without a pidfd (before Linux 5.3) we look when we are awake, as we are often during a shutdown.
            if process.pidfd in ended or (process.pidfd is None and not process.lives):
                del self._living[identity]
                if process.pidfd is not None:
                    self._ended.unregister(process.pidfd)
                process.close()
                yield Gone(process.who)

    def _read(self) -> Iterator[Armed]:
        """Read a part of the news: a process that tells too much must not hold up what the others wait for."""
        try:
            *lines, self._unread = (self._unread + os.read(self._news, _MOST_AT_A_TIME)).split(b"\n")
        except BlockingIOError:
            return
        self._unread = self._unread[:_MOST_AT_A_TIME]
        renumbered: dict[str, str] | None = None
        for line in lines:
            word, _, identity = line.decode("ascii", "replace").partition(" ")
            known = self._living.get(identity)
            if word == contract.SEEN_NEWS and known is not None:
                known.has_noticed = True
            elif word == contract.ARMED_NEWS and known is None:
                try:
                    armed = ArmedProcess(identity)
                except (ValueError, OverflowError, OSError):
                    if renumbered is None:
                        renumbered = tree.renumbered()
                    try:
                        armed = ArmedProcess(renumbered[identity])
                    except (KeyError, OSError):
                        continue  # it has ended, or no armed process has written that
                process = armed.process
                if process.pidfd is not None:
                    self._ended.register(process.pidfd, select.EPOLLIN)
                self._living[identity] = armed
                yield Armed(process.program, process.who)

    def close(self) -> None:
        for armed in self._living.values():
            armed.process.close()
        self._living.clear()
        for descriptor in (self._news, self._ended.fileno()):
            self._poller.unregister(descriptor)
        self._ended.close()
        os.close(self._news)
