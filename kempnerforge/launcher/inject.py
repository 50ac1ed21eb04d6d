"""What the child finds of us: the private folder, and the variables that lead to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..bootstrap import contract

#: Where the folder goes, in this order: the user's choice first, then what every node has of its own.
_PARENTS = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108 - mkdir(2) of a new name with mode 0700 is safe there


def parents(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield where a private folder may go; a relative TMPDIR would be another folder to a descendant."""
    for parent in (environment.get("TMPDIR", ""), *_PARENTS):
        if os.path.isabs(parent):
            yield parent


class PrivateFolder:
    """A folder on this node that only this user may enter (0700), for the control socket and the notice.

    Args:
        parent: where to make it.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, parent: str) -> None:
        self.path = os.path.join(parent, f"kforge-{os.getuid()}-{os.getpid()}-{os.urandom(4).hex()}")
        os.mkdir(self.path, 0o700)
        self.fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def write_notice(self, notice: dict[str, Any]) -> None:
        """Leave the notice for processes that register later. Failing here costs them nothing but a message's time."""
        import json

        try:
            temporary = contract.NOTICE_FILE + ".new"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            try:
                os.write(descriptor, json.dumps(notice).encode())
            finally:
                os.close(descriptor)
            os.replace(temporary, contract.NOTICE_FILE, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:
            pass  # a full disk; whoever registers is told over the socket as well

    def remove(self) -> None:
        """Remove the folder and all that is in it; leave it if somebody else put something there."""
        for name in (contract.SOCKET_FILE, contract.NOTICE_FILE, contract.NOTICE_FILE + ".new"):
            try:
                os.unlink(name, dir_fd=self.fd)
            except OSError:
                continue
        os.close(self.fd)
        try:
            os.rmdir(self.path)
        except OSError:
            pass


def child_environment(
    environment: Mapping[str, str], folder: PrivateFolder | None, job_facts: str | None
) -> dict[str, str]:
    """Return the environment of the training process.

    Args:
        folder: None: there is none, and nobody can register.
        job_facts: what inner kforge-runs need to know of the job; None: what is inherited stays.
    """
    inherited = dict(environment)
    inherited.pop(contract.CONTROL_VARIABLE, None)
    if "LC_CTYPE" in inherited and not _was_handed_to_us("LC_CTYPE"):
        del inherited["LC_CTYPE"]  # Python sets it for itself where there is no locale (PEP 538)
    if folder is not None:
        inherited[contract.CONTROL_VARIABLE] = contract.control_address(folder.path)
    if job_facts is not None:
        inherited[contract.JOB_FACTS_VARIABLE] = job_facts
    return inherited


def _was_handed_to_us(name: str) -> bool:
    """Return whether a variable was there before this Python started; True where /proc does not tell."""
    try:
        with open("/proc/self/environ", "rb") as initial:
            return f"\0{name}=".encode() in b"\0" + initial.read()
    except OSError:
        return True
