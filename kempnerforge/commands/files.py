"""Files for the user: whole or not at all, and never over one that is there unless asked. Files of anybody: read."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from typing import BinaryIO

from .trouble import FAILED, Trouble


def open_to_read(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file that may be anybody's, and never wait: a FIFO and a device may have no end, or no beginning.

    Raises:
        Trouble: it is no file, is not there, or may not be read.
    """
    try:
        # O_NONBLOCK: never wait for a writer or a lease, nor for the kernel's next message in /proc/kmsg.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Trouble(f"cannot read {path}: {why}", status=FAILED) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Trouble(f"cannot read {path}: it is not a regular file")
    return os.fdopen(descriptor, "rb")


def write_new(path: str, content: bytes, *, force: bool, mode: int = 0o666) -> None:
    """Write a file that appears at its place in one move, with all of its content.

    Args:
        path: where; a link is followed.
        content: all of it.
        force: replace a file that is there.
        mode: its permissions, less the umask.

    Raises:
        Trouble: there is one, and it is not to be replaced; or it cannot be written, and nothing of it is left.
    """
    if _is_something_else(path):
        return _write_through(path, content)  # /dev/stdout, a FIFO: nothing there that could be replaced
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    try:
        if os.path.isdir(path):
            raise Trouble(f"{path} is a folder", "name a file in it")
        if os.path.lexists(path) and not force:
            raise _exists(path)
        # Not named after the file: the name may be as long as a name can be.
        descriptor, partial = tempfile.mkstemp(prefix=".kforge-", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
                os.fchmod(descriptor, mode & ~_umask())
            if force:
                os.replace(partial, path)
            else:
                _move_beside_nothing(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it has been moved
                os.unlink(partial)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise _not_written(path, error) from None


def _move_beside_nothing(partial: str, path: str) -> None:
    try:
        os.link(partial, path)  # unlike a rename, it fails if somebody else was quicker
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError from None
        os.replace(partial, path)


def _exists(path: str) -> Trouble:
    return Trouble(f"{path} is there already", "choose another name, or replace it with --force")


def _not_written(path: str, error: OSError) -> Trouble:
    return Trouble(f"cannot write {path}: {error.strerror}", "nothing was written; choose another place", status=FAILED)


def _is_something_else(path: str) -> bool:
    """Return whether there is something that is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_through(path: str, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise _not_written(path, error) from None


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
