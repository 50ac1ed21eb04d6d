"""Who reads what we write, and is our own child: the `tee` that an `exec > >(tee log) 2>&1` has left us.

It is no part of the run. What the run and we say last is in the log only if it comes to its end by itself, which it
does when nobody holds the pipe any more that it reads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from ...bootstrap import proc

#: Read at a time (bytes): what a pipe holds (pipe(7)).
_BLOCK = 1 << 16

#: Which file it is: device and inode.
File = tuple[int, int]


def find(children: Iterable[int], before: float) -> list[str]:
    """Return those of our children that read our standard output or error, as `proc.identity` names them.

    Args:
        children: all of them.
        before: when nothing of the run was there yet (s since the boot). A program may read its own output.
    """
    pipes = _pipes((1, 2))
    found = [proc.identity(pid) for pid in children if pipes and _is_older(pid, before) and _reads(pid, pipes)]
    return [identity for identity in found if identity]


class Unread:
    """What is still in the pipe when its reader has ended, as by a SIGTERM that Slurm sends to all processes.

    It goes to where the reader wrote, if that is a file: the job's own log.

    Args:
        reader: as `proc.identity` names it.

    Raises:
        OSError: it has just ended.
    """

    def __init__(self, reader: str) -> None:
        (ours, *_) = [descriptor for descriptor in (1, 2) if _pipes((descriptor,))]
        # No file system is asked by this: it may hang.
        self._output = os.open(f"/proc/{reader.partition('.')[0]}/fd/1", os.O_PATH | os.O_CLOEXEC)
        self.is_file = stat.S_ISREG(os.fstat(self._output).st_mode)
        #: As long as we have it open, writing to the pipe is no error. None: where nothing can be saved, it is.
        self.pipe: int | None = None
        if self.is_file:
            self.pipe = os.open(f"/proc/self/fd/{ours}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._output,) if self.pipe is None else (self._output, self.pipe)

    def read(self) -> bytes:
        """Return a part; empty: there is none now."""
        try:
            return b"" if self.pipe is None else os.read(self.pipe, _BLOCK)
        except BlockingIOError:
            return b""

    def write(self, blocks: Iterable[bytes]) -> None:
        """Write something down; this may hang."""
        log = os.open(f"/proc/self/fd/{self._output}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        for block in blocks:
            os.write(log, block)

    def let_go(self) -> None:
        """Close what we write to, so that whoever reads it comes to its end. Nothing can be said after that."""
        pipes = _pipes((1, 2))
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor != self.pipe and _pipes((descriptor,)) & pipes:
                os.close(descriptor)


def _pipes(descriptors: Iterable[int]) -> set[File]:
    found = set()
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue  # the listing's own
        if stat.S_ISFIFO(status.st_mode):
            found.add((status.st_dev, status.st_ino))
    return found


def _is_older(pid: int, before: float) -> bool:
    fields = proc.stat(pid)
    return bool(fields) and int(fields[proc.STARTED]) < int(before * os.sysconf("SC_CLK_TCK"))


def _reads(pid: int, pipes: set[File]) -> bool:
    """Return whether a process has one of these pipes open, and only to read."""
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            status = os.stat(f"{folder}/{name}")
            # The link's mode tells for what the descriptor is open (proc_pid_fd(5)).
            if (status.st_dev, status.st_ino) in pipes and not os.lstat(f"{folder}/{name}").st_mode & stat.S_IWUSR:
                return True
    except OSError:
        pass  # it ends just now, or is another user's
    return False
