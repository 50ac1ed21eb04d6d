"""The private folder: what kforge-run and the processes below it find of each other on this node."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from ..bootstrap import contract
from . import tree
from .policy.words import Reason

#: Where it goes, in this order: the user's choice first, then what every node has of its own.
_PARENTS = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108 - mkdir(2) of a new name with mode 0700 is safe there


def parents(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield where a private folder may go; a relative TMPDIR would be another folder to a descendant.

    A colon would end its entry in PYTHONPATH, which has no way to quote one.
    """
    for parent in (environment.get("TMPDIR", ""), *_PARENTS):
        if os.path.isabs(parent) and ":" not in parent:
            yield parent


class PrivateFolder:
    """A folder on this node that only this user may enter (0700). What is in it, the contract says.

    Args:
        parent: where to make it.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, parent: str) -> None:
        me = tree.identity(os.getpid()).replace(".", "-")
        self.path = os.path.join(parent, f"kforge-{os.getuid()}-{me}-{os.urandom(4).hex()}")
        os.mkdir(self.path, 0o700)
        self.fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def site(self) -> str:
        """The folder for PYTHONPATH."""
        return os.path.join(self.path, contract.SITE_FOLDER)

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
        temporary = name + ".new"
        self.create(temporary, content)
        os.replace(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write_notice(self, signum: int, reason: Reason | None) -> None:
        """Leave the notice for processes that register later. Failing here costs them nothing but a message's time."""
        # JSON by hand: the module would take 2 ms, while the notice waits to be delivered.
        known = "null" if reason is None else f'"{reason}"'
        try:
            self._replace(contract.NOTICE_FILE, f'{{"signal": {signum}, "reason": {known}}}'.encode())
        except OSError:
            pass  # a full disk; whoever registers is told over the socket as well

    def mark(self, name: str) -> None:
        """Make an empty file, which means something by being there."""
        try:
            self._replace(name, b"")
        except OSError:
            pass  # a full disk, or TMPDIR was tidied away; whoever looks for it does as if there were no notice

    def remove(self) -> None:
        """Remove the folder and what is in it. What somebody else put deeper stays, and the folders around it."""
        os.close(self.fd)
        for name in (*reversed(contract.FOLDERS), ""):
            folder = os.path.join(self.path, name)
            try:
                for file in os.listdir(folder):
                    _remove_file(os.path.join(folder, file))
                os.rmdir(folder)
            except OSError:
                continue  # it was never made, or is not empty


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # a folder, or somebody was faster
