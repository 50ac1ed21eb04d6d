"""File descriptors of our own that no other code stumbles over."""

from __future__ import annotations

import fcntl
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple

    #: Which file it is: device and inode.
    File = Optional[Tuple[int, int]]

#: Stands for a descriptor where none can be had: nothing can be written to it.
NONE = -1
#: Files that a program opens hardly ever get such a number. A guess.
_HIGH = 200


class Owned:
    """A descriptor of ours, for as long as it is that.

    A program may close all that it does not know, and then open files of its own under the same numbers.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._file = file_of(fd)

    @property
    def is_ours(self) -> bool:
        """Whether it is open, and what it was."""
        return self._file is not None and file_of(self.fd) == self._file

    def close(self) -> None:
        """Close it, unless the program has."""
        if self.is_ours:
            os.close(self.fd)


def file_of(fd: int) -> File:
    """Return which file a descriptor stands for; None: it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def above_stdio(fd: int) -> int:
    """Return the descriptor, moved away from 0, 1 and 2.

    In a process started with a closed stderr our own would land there, and C code that prints an error would write
    it into them.
    """
    if fd > 2:
        return fd
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def out_of_the_way(fd: int) -> int:
    """Return the descriptor, moved to where a number is hardly ever used again, if there is room."""
    try:
        moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:
        return above_stdio(fd)  # beyond the limit (ulimit -n)
    os.close(fd)
    return moved


def open_log() -> int:
    """Return a descriptor of our own for the log, which is stderr.

    By the time we need it, the program may have closed 2 and opened a checkpoint in its place. Where 2 was closed from
    the start, Python leaves ``sys.__stderr__`` None, and whatever 2 is now is not a log.
    """
    if sys.__stderr__ is not None:
        try:
            return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            pass  # closed since
    return open_null()


def open_null() -> int:
    """Return a descriptor that takes everything and keeps nothing; NONE where there is none left."""
    try:
        return above_stdio(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        return NONE


def open_without_blocking(log: int) -> int:
    """Return another descriptor for the log, on which a write never blocks; for /dev/null where there cannot be one.

    O_NONBLOCK belongs to the open file, which other processes share, so a pipe or terminal is opened once more. That
    fails for a socket, and for a pipe which another user made. A regular file never blocks, and opened once more it
    would have an offset of its own and overwrite the log.
    """
    try:
        mode = os.fstat(log).st_mode
        if stat.S_ISREG(mode):
            return above_stdio(fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, 3))
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return above_stdio(os.open(f"/proc/self/fd/{log}", flags))
    except OSError:
        pass
    return open_null()
