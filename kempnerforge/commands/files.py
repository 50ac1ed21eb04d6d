"""Files for the user: whole or not at all, and never over one that is there unless asked. Files of anybody: read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO, NamedTuple

from ..launcher.telling import trust
from ..launcher.telling.trust import Strange, Trust
from .trouble import FAILED, Trouble

#: As many links as the kernel follows in one path (path_resolution(7)).
_MOST_LINKS = 40
_OWN_PLACE = "name a place that no other user leads elsewhere"


def open_to_read(path: str | os.PathLike[str], hint: str = "") -> BinaryIO:
    """Open a file that may be anybody's, and never wait: a FIFO and a device may have no end, or no beginning.

    Args:
        path: of it.
        hint: what to do where it is no file.

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
        raise Trouble(f"cannot read {path}: it is not a regular file", hint)
    return os.fdopen(descriptor, "rb")


def write_new(path: str, content: bytes, *, force: bool, mode: int = 0o666) -> None:
    """Write a file that appears at its place in one move, with all of its content.

    Args:
        path: where; a link of the user's own or root's is followed.
        content: all of it.
        force: replace a file that is there.
        mode: its permissions, less the umask.

    Raises:
        Trouble: there is one, and it is not to be replaced; a stranger could lead us elsewhere; or it cannot be
            written, and nothing of it is left.
    """
    try:
        place = _find(path)
        try:
            if place.special is not None:
                _write_through(place.special, content)  # /dev/stdout, a FIFO: nothing there that could be replaced
            elif place.kind is not None and stat.S_ISDIR(place.kind):
                raise Trouble(f"{path} is a folder", "name a file in it")
            elif place.kind is not None and not force:
                raise _exists(path)
            else:
                _write(place, content, mode, replace=force)
        finally:
            place.close()
    except Strange as error:
        raise Trouble(f"cannot write {path}: {error.strerror}", _OWN_PLACE, status=FAILED) from None
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = "nothing was written; choose another place"
        raise Trouble(f"cannot write {path}: {why}", hint, status=FAILED) from None


def open_to_append(path: str) -> int:
    """Open a file of the user's to write behind its end, or make it, and return its descriptor.

    Raises:
        Trouble: it cannot be opened, or a stranger could have led us there.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        place = _find(path)
        try:
            if place.kind is not None and not stat.S_ISREG(place.kind):
                raise Trouble(f"{path} is no file")
            if place.kind is not None:
                return os.open(place.name, flags, dir_fd=place.folder)
            return os.open(place.name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=place.folder)
        finally:
            place.close()
    except Strange as error:
        raise Trouble(f"cannot write {path}: {error.strerror}", _OWN_PLACE) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise Trouble(f"cannot write {path}: {why}", "choose another place") from None


class _Place(NamedTuple):
    """Where a path leads."""

    #: The folder, opened, and the name in it, which is no link.
    folder: int
    name: str
    #: The mode of what is there; None: nothing is.
    kind: int | None = None
    #: What is there, opened (O_PATH), if it is neither a file nor a folder.
    special: int | None = None

    def close(self) -> None:
        os.close(self.folder)
        if self.special is not None:
            os.close(self.special)


def _find(path: str) -> _Place:
    """Follow a path to what it names, through links of the user's own and root's only.

    Raises:
        Strange: a link, or a FIFO or device that is there, is a stranger's.
        OSError: there is no such folder.
    """
    for _link in range(_MOST_LINKS):
        parent, name = os.path.split(path)
        folder = trust.open_folder(parent or ".", Trust.NO_STRANGERS_LINK)
        try:
            target = os.open(name or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return _Place(folder, name)
        except BaseException:
            os.close(folder)
            raise
        status = os.fstat(target)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            os.close(target)
            return _Place(folder, name, status.st_mode)
        if trust.is_stranger(status.st_uid):
            os.close(target)
            os.close(folder)
            what = "a link" if stat.S_ISLNK(status.st_mode) else "no file, and"
            raise Strange(name, f"is {what} of uid {status.st_uid}")
        if not stat.S_ISLNK(status.st_mode):
            return _Place(folder, name, status.st_mode, target)
        os.close(target)
        if (given := _given(folder, name)) is not None:
            return given
        path = os.path.join(parent, os.readlink(name, dir_fd=folder))
        os.close(folder)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _given(folder: int, name: str) -> _Place | None:
    """Return a pipe, a terminal … that a link of /proc's stands for: /dev/stdout. Whoever made it, we were given it."""
    if os.fstat(folder).st_dev != os.stat("/proc").st_dev:
        return None
    target = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
    mode = os.fstat(target).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        os.close(target)
        return None
    return _Place(folder, name, mode, target)


def _write(place: _Place, content: bytes, mode: int, *, replace: bool) -> None:
    # Not named after the file: the name may be as long as a name can be.
    partial = f".kforge-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(partial, flags, 0o600, dir_fd=place.folder), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode & ~_umask())
            os.fsync(file.fileno())
            if replace:
                os.replace(partial, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            else:
                _move_beside_nothing(partial, place)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it has been moved
                os.unlink(partial, dir_fd=place.folder)


def _move_beside_nothing(partial: str, place: _Place) -> None:
    try:
        os.link(
            partial, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder
        )  # unlike a rename, it fails if another process was quicker
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        try:
            os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            os.replace(partial, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        else:
            raise FileExistsError from None


def _exists(path: str) -> Trouble:
    return Trouble(f"{path} is there already", "choose another name, or replace it with --force")


def _write_through(special: int, content: bytes) -> None:
    # Through its descriptor: by its name it could be something else by now.
    with open(f"/proc/self/fd/{special}", "wb") as file:
        file.write(content)


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
