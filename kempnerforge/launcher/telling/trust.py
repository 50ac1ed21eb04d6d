"""Whose a place in the file system is.

A *stranger* is every user but root and ourselves; to root, every user but root. Nothing that a stranger could have made
is imported, executed, obeyed, written to or deleted (docs/security.md). What is asked is what was opened, never a path
that could lead elsewhere a moment later.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from typing import NamedTuple

#: As many links as the kernel follows in one path (path_resolution(7)).
_MOST_LINKS = 40
#: Shown for a user that a user namespace does not know (user_namespaces(7)): root outside a rootless container.
_UNMAPPED = 65534
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
#: How a folder is opened to reach what is in it.
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Trust(enum.IntEnum):
    """How much a folder, and every one on the way to it, has to be root's or our own."""

    #: Others may own it; but no link of theirs is followed.
    NO_STRANGERS_LINK = 0
    #: No other user can replace what is there now. A sticky folder, as /tmp is one, will do.
    NOW = 1
    #: No other user can make anything of the name: not after our end, and not on a node where it is not there.
    ALWAYS = 2


class Strange(PermissionError):
    """A stranger could have made it, or could change it; the message says why."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(errno.EPERM, f"{path} {why}")


def is_stranger(uid: int) -> bool:
    """Return whether a user is neither root nor us."""
    return uid not in (0, os.geteuid())


class Folder(NamedTuple):
    #: O_PATH.
    fd: int
    #: It, or one on the way to it, lets no other user in: what modes say further down is of no matter.
    closed: bool


def open_folder(path: str, trust: Trust, *, make: bool = False) -> int:
    """Open a folder and return its descriptor (O_PATH).

    Args:
        path: of it; a relative one starts at the working directory, which is not looked at itself.
        trust: what is asked of it, and of every folder on the way.
        make: make what is not there, with mode 0700, of which the umask must leave all.

    Raises:
        Strange: it is not to be trusted so far.
        OSError: it cannot be opened, or made.
    """
    return walk(path, trust, make=make).fd


def walk(path: str, trust: Trust, *, make: bool = False) -> Folder:
    """Open a folder as `open_folder` does, and say whether anybody else gets there."""
    names = path.split("/")[::-1]
    links = 0
    #: So many names are left behind the first link: what a link names is not made.
    behind_link = len(names)
    folder = Folder(os.open("/" if os.path.isabs(path) else ".", FOLDER), False)
    try:
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            below = _open_below(folder.fd, name, make and len(names) < behind_link)
            status = os.fstat(below)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink("", dir_fd=below)
                os.close(below)
                links += 1
                if is_stranger(status.st_uid) and not _is_unmapped(status.st_uid):
                    raise Strange(f"{name} in {path}", f"is a link of uid {status.st_uid}")
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, f"{path}: {os.strerror(errno.ELOOP)}")
                behind_link = min(behind_link, len(names))
                names += target.split("/")[::-1]
                if target.startswith("/"):
                    os.close(folder.fd)
                    folder = Folder(os.open("/", FOLDER), False)
                continue
            os.close(folder.fd)
            # ".." leads out again.
            closed = name != ".." and folder.closed
            folder = Folder(below, closed or not (is_stranger(status.st_uid) or status.st_mode & _OTHERS_ENTER))
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, f"{path}: {os.strerror(errno.ENOTDIR)}")
            if why := why_not_trusted(below, trust, closed):
                raise Strange(f"{name} in {path}", why)
    except BaseException:
        os.close(folder.fd)
        raise
    return folder


def _open_below(folder: int, name: str, make: bool) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        pass  # another was quicker: who that was is looked at as ever
    return os.open(name, flags, dir_fd=folder)


def why_not_trusted(descriptor: int, trust: Trust, closed: bool = False) -> str | None:
    """Return why what was opened is not to be trusted so far; None: it is.

    Args:
        closed: no other user gets as far as to it.
    """
    if trust is Trust.NO_STRANGERS_LINK:
        return None
    status = os.fstat(descriptor)
    if is_stranger(status.st_uid) and not _is_unmapped(status.st_uid):
        return f"belongs to uid {status.st_uid}"
    mode = stat.S_IMODE(status.st_mode)
    if closed or not mode & _OTHERS_WRITE or (trust is Trust.NOW and mode & stat.S_ISVTX):
        return None
    if not mode & stat.S_IWOTH and _is_private_group(status.st_gid) and not _has_acl(descriptor):
        return None
    return f"may be written to by others (mode {mode:04o})"


def _is_unmapped(uid: int) -> bool:
    """Return whether a uid stands for users outside our user namespace. Those we cannot tell from root."""
    if uid != _UNMAPPED:
        return False
    try:
        with open("/proc/self/uid_map", "rb") as table:
            return table.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def _is_private_group(gid: int) -> bool:
    """Return whether a group has but one member, root or us: many systems give each user such a group."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
        owner = pwd.getpwuid(os.geteuid() if gid else 0)
    except (KeyError, OSError):
        return False
    return group.gr_name == owner.pw_name and owner.pw_gid == gid and set(group.gr_mem) <= {owner.pw_name}


def _has_acl(descriptor: int) -> bool:
    """Return whether an access control list (acl(5)) gives rights to more users than the mode shows."""
    try:
        return "system.posix_acl_access" in os.listxattr(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        return error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP)  # this file system has none, or does not say


def open_own_file(name: str, folder: int) -> int:
    """Open a file of ours to read and to append to, which may lie among others' files; make it (0600) if need be.

    Raises:
        Strange: there is something of the name that is no plain file of ours alone.
        OSError: it cannot be opened, or made.
    """
    # O_NONBLOCK: never wait for a reader or a lease, whatever is there.
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    except FileExistsError:
        pass
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Strange(name, "is a link") from None
        raise
    status = os.fstat(descriptor)
    why = None
    if not stat.S_ISREG(status.st_mode):
        why = "is no plain file"
    elif status.st_uid != os.geteuid():
        why = f"belongs to uid {status.st_uid}"
    elif status.st_nlink != 1:
        why = "has a second name"
    else:
        why = why_not_trusted(descriptor, Trust.ALWAYS)
    if why is not None:
        os.close(descriptor)
        raise Strange(name, why)
    return descriptor
