"""The private folder: what kforge-run and the processes below it find of each other on this node.

It is reached by descriptor only, from its making to its end. Whoever could rename what is on the way to it could
otherwise have us write to, and remove, files of our own that are somewhere else.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...bootstrap import contract, proc
from ..processes import libc
from ..telling import trust
from ..telling.writer import LAST_PATIENCE, MOMENT, Writer, wait_for

#: Memory comes first: it never hangs, and is never on a network.
_MEMORY = "/dev/shm"  # noqa: S108 - mkdir(2) of a new name with mode 0700 is safe there
#: Then the user's choice, and then what every node has of its own.
_DISKS = ("/tmp", "/var/tmp")  # noqa: S108
#: Behind the name of a file that is not whole yet.
_NEW = ".new"


def parents(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield where a private folder may go; a relative TMPDIR would be another folder to a descendant."""
    for parent in (_MEMORY, environment.get("TMPDIR", ""), *_DISKS):
        if os.path.isabs(parent):
            yield parent


class PrivateFolder:
    """A folder on this node that only this user may enter (0700). What is in it, the contract says.

    Args:
        parent: where to make it.
        poller, helpers: for its writer.

    Raises:
        OSError: it cannot be made there, or a stranger could put another one in its place.
    """

    def __init__(self, parent: str, poller: select.poll, helpers: set[int]) -> None:
        me = proc.identity(os.getpid()).replace(".", "-")
        self._name = f".kforge-{os.getuid()}-{me}-{os.urandom(4).hex()}"
        self.path = os.path.join(parent, self._name)
        self._parent = trust.open_folder(parent, trust.Trust.NOW)
        try:
            os.mkdir(self._name, contract.PRIVATE_MODE, dir_fd=self._parent)
            # Some file systems know nothing of modes: then everybody below would refuse it.
            self.fd = contract.open_private_folder(self._name, self._parent)
        except OSError:
            _try_to(os.rmdir, self._name, self._parent)
            os.close(self._parent)
            raise
        #: None: the folder is in memory, where nothing hangs.
        self.writer: Writer | None = None
        if not libc.is_in_memory(self._parent):
            self.writer = Writer(_do_all, poller, helpers, keep=(self._parent, self.fd), without=_do_all)

    def create(self, name: str, content: bytes) -> None:
        """Write a new file.

        Raises:
            OSError: it is there, or cannot be written.
        """
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file which is there whole or not at all."""
        temporary = name + _NEW
        _try_to(os.unlink, temporary, self.fd)  # of a disk that was full
        self.create(temporary, content)
        os.replace(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write_notice(self, packet: bytes) -> None:
        """Leave the notice for processes that register later. Failing here costs them nothing but a message's time."""
        self._do(lambda: self._replace(contract.NOTICE_FILE, packet))

    def mark(self, name: str) -> None:
        """Make an empty file, which means something by being there."""
        self._do(lambda: self._replace(name, b""))

    def _do(self, work: Callable[[], None]) -> None:
        """Change the folder before what comes next, unless its file system does not answer."""
        if self.writer is None:
            _try(work)
            return
        hangs = self.writer.busy
        self.writer.put(work)
        wait_for([self.writer], 0.0 if hangs else MOMENT)

    def remove(self) -> None:
        """Remove the folder and our files in it. What others have put there stays, and the folder around it."""
        if self.writer is None:
            self._remove()
        else:
            self.writer.put(self._remove)
            wait_for([self.writer], LAST_PATIENCE)
            self.writer.give_up()
        os.close(self.fd)
        os.close(self._parent)

    def _remove(self) -> None:
        for name in contract.FILES:
            _try_to(os.unlink, name, self.fd)
            _try_to(os.unlink, name + _NEW, self.fd)
        try:
            # By its name, but nothing else that may have that name now: an empty folder is all that can go.
            if os.path.samestat(os.stat(self._name, dir_fd=self._parent, follow_symlinks=False), os.fstat(self.fd)):
                os.rmdir(self._name, dir_fd=self._parent)
        except OSError:
            pass  # it is gone already, or not empty


def _do_all(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        _try(work)


def _try(work: Callable[[], None]) -> None:
    try:
        work()
    except OSError:
        pass  # it was tidied away, or there is no room; who looks for it does as if there were no notice


def _try_to(remove: Callable[..., None], name: str, dir_fd: int) -> None:
    try:
        remove(name, dir_fd=dir_fd)
    except OSError:
        pass  # it was never made, or is gone already
