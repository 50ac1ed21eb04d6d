"""The armed processes: the main programs of ranks, which the bootstrap has listed in the private folder.

They have no connection to us. That one is new it tells on a FIFO, and that one has ended its pidfd tells.
(inotify(7) would do without a word from them, but closing its descriptor takes up to 18 ms.)
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

from ..bootstrap import contract
from . import pidfd, tree
from .policy.words import Armed, Gone


class ArmedProcess:
    """One of them.

    Args:
        identity: its file's name.
        folder: the private folder.

    Raises:
        ProcessLookupError: it has ended.
    """

    def __init__(self, identity: str, folder: str) -> None:
        self._seen = f"{folder}/{contract.SEEN_PREFIX}{identity}"
        self.pid = int(identity.partition(".")[0])
        self.pidfd = pidfd.open_of(self.pid)
        # The descriptor came first: it cannot mean another process that has the number now.
        self._identity = identity
        if not self.lives:
            self.close()
            raise ProcessLookupError(f"{identity} has ended")
        self.program = tree.program(self.pid)
        #: It was given the notice.
        self.told = False

    @property
    def name(self) -> str:
        """What it is called in the log, where somebody is told."""
        return f"{self.program} (pid {self.pid}, armed)"

    @property
    def lives(self) -> bool:
        return tree.identity(self.pid) == self._identity

    def notify(self, notice: int) -> bool:
        """Signal it; return whether it was there to get it.

        A notice is SIGUSR1 or SIGTERM. The program may ignore the one (`trap ''` in a script around it does that), or
        have it back at its default, and still catch the other.
        """
        self.told = True
        caught = tree.signal_set(self.pid, "SigCgt")
        other = signal.SIGTERM if notice == signal.SIGUSR1 else signal.SIGUSR1
        if notice in tree.signal_set(self.pid, "SigBlk"):
            return pidfd.send(self.pid, self.pidfd, notice)  # another thread may wait for it
        return pidfd.notify(self.pid, self.pidfd, other if notice not in caught and other in caught else notice)

    def notify_again(self, notice: int) -> bool:
        """Signal it once more if it had the notice, and has not noticed; return whether it was there to get it.

        Only who sleeps may miss it, and not who waits for signals itself: it has them blocked, but while it is in
        sigwaitinfo(2).
        """
        if not self.told or os.path.exists(self._seen):
            return False
        asleep = tree.sleeps_in(self.pid)
        if not asleep or "sigtimedwait" in asleep or notice in tree.signal_set(self.pid, "SigBlk"):
            return False
        return self.notify(notice)

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)


class ArmedProcesses:
    """All of them on this node.

    Args:
        folder_fd: the private folder.
        poller: gets the descriptors that tell what is new.

    Raises:
        OSError: the folder is not as it should be.
    """

    def __init__(self, folder_fd: int, poller: select.poll) -> None:
        self._folder = f"/proc/self/fd/{folder_fd}/{contract.ARMED_FOLDER}"
        self._poller = poller
        self._seen: set[str] = set()
        self._living: dict[int, ArmedProcess] = {}
        # To write, too: without a writer it would be at its end, and so readable, for ever.
        self._news = os.open(contract.NEWS_FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
        self._ended = select.epoll()
        for descriptor in (self._news, self._ended.fileno()):
            poller.register(descriptor, select.POLLIN)

    @property
    def living(self) -> list[ArmedProcess]:
        return list(self._living.values())

    def news(self) -> Iterator[Armed | Gone]:
        """Yield who has been armed and who has ended."""
        if self._something_is_new():
            yield from self._look()
        ended = [descriptor for descriptor, _ in self._ended.poll(0)]
        # Without a pidfd (before Linux 5.3) we look when we are awake, as we are often during a shutdown.
        ended += [key for key, process in self._living.items() if process.pidfd is None and not process.lives]
        for key in ended:
            process = self._living.pop(key)
            if process.pidfd is not None:
                self._ended.unregister(process.pidfd)
            process.close()
            yield Gone(process.pid)

    def _something_is_new(self) -> bool:
        try:
            return bool(os.read(self._news, 1 << 16))
        except BlockingIOError:
            return False

    def _look(self) -> Iterator[Armed]:
        try:
            listed = set(os.listdir(self._folder))
        except OSError:
            return  # somebody has tidied TMPDIR away
        for identity in sorted(listed - self._seen):
            self._seen.add(identity)
            try:
                process = ArmedProcess(identity, os.path.dirname(self._folder))
            except (ValueError, OSError):
                continue  # it has ended, or the file is somebody else's
            if process.pidfd is not None:
                self._ended.register(process.pidfd, select.EPOLLIN)
            self._living[process.pidfd if process.pidfd is not None else -process.pid] = process
            yield Armed(process.program, process.pid)

    def close(self) -> None:
        for process in self._living.values():
            process.close()
        self._living.clear()
        for descriptor in (self._news, self._ended.fileno()):
            self._poller.unregister(descriptor)
        self._ended.close()
        os.close(self._news)
