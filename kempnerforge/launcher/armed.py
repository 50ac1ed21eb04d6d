"""The armed processes: the main programs of ranks, which the bootstrap has listed in the private folder.

They have no connection to us. That one is new an inotify descriptor tells, and that one has ended its pidfd.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

from . import libc, pidfd, tree
from .policy.words import Armed, Gone


class ArmedProcess:
    """One of them.

    Args:
        identity: its file's name.

    Raises:
        ProcessLookupError: it has ended.
    """

    def __init__(self, identity: str) -> None:
        self.pid = int(identity.partition(".")[0])
        self.pidfd = pidfd.open_of(self.pid)
        # The descriptor came first: it cannot mean another process that has the number now.
        if tree.identity(self.pid) != identity:
            self.close()
            raise ProcessLookupError(f"{identity} has ended")
        self.program = tree.program(self.pid)

    def notify(self, notice: int) -> bool:
        """Signal it; return whether it was there to get it.

        A notice is SIGUSR1 or SIGTERM. The program may ignore the one (`trap ''` in a script around it does that), or
        have it back at its default, and still catch the other.
        """
        caught = tree.signal_set(self.pid, "SigCgt")
        other = signal.SIGTERM if notice == signal.SIGUSR1 else signal.SIGUSR1
        return pidfd.notify(self.pid, self.pidfd, other if notice not in caught and other in caught else notice)

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)


class ArmedProcesses:
    """All of them on this node.

    Args:
        folder: where they are listed.
        poller: gets the descriptors that tell what is new.
    """

    def __init__(self, folder: str, poller: select.poll) -> None:
        self._folder = folder
        self._poller = poller
        self._seen: set[str] = set()
        self._living: dict[int, ArmedProcess] = {}
        self._ended = select.epoll()
        poller.register(self._ended.fileno(), select.POLLIN)
        self._new: int | None
        try:
            self._new = libc.watch_for_new_files(folder)
            poller.register(self._new, select.POLLIN)
        except OSError:
            self._new = None  # no watch is left: we look whenever we are awake, as for a notice

    @property
    def living(self) -> list[ArmedProcess]:
        return list(self._living.values())

    def news(self) -> Iterator[Armed | Gone]:
        """Yield who has been armed and who has ended."""
        if self._something_is_new():
            yield from self._look()
        for descriptor, _ in self._ended.poll(0):
            process = self._living.pop(descriptor)
            self._ended.unregister(descriptor)
            process.close()
            yield Gone(process.pid)

    def _something_is_new(self) -> bool:
        if self._new is None:
            return True
        try:
            return bool(os.read(self._new, 1 << 16))
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
                process = ArmedProcess(identity)
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
        self._poller.unregister(self._ended.fileno())
        self._ended.close()
        if self._new is not None:
            self._poller.unregister(self._new)
            os.close(self._new)
