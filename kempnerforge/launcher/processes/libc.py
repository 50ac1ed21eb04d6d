"""The system calls that Python does not offer: prctl(2), signalfd(2), tgkill(2) and fstatfs(2)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

#: prctl(2): as linux/prctl.h has them.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SFD_CLOEXEC = os.O_CLOEXEC
_SFD_NONBLOCK = os.O_NONBLOCK
#: sizeof(sigset_t) in glibc and musl (bytes).
_SIGSET_SIZE = 128
#: More than a struct statfs takes anywhere (bytes), and what it begins with in a tmpfs: TMPFS_MAGIC.
_STATFS_SIZE = 512
_TMPFS = 0x01021994


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send `signum` to this process when the thread that forked it ends (PR_SET_PDEATHSIG(2const)).

    The parent may be gone already: compare getppid(2) afterwards.
    """
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0), "prctl")


def become_child_subreaper() -> None:
    """Adopt every orphan below this process, however deep (PR_SET_CHILD_SUBREAPER(2const))."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def signalfd(signums: Iterable[int]) -> int:
    """Return a non-blocking, close-on-exec descriptor from which `signums` can be read (signalfd(2))."""
    bits = 0
    for signum in signums:
        bits |= 1 << (signum - 1)
    mask = bits.to_bytes(8, sys.byteorder).ljust(_SIGSET_SIZE, b"\0")
    return _checked(_libc.signalfd(-1, mask, _SFD_CLOEXEC | _SFD_NONBLOCK), "signalfd")


def signal_main_thread(pid: int, signum: int) -> bool:
    """Signal the main thread of a process, and no other one (tgkill(2)); return False if that cannot be."""
    try:
        return int(_libc.tgkill(pid, pid, signum)) == 0
    except AttributeError:  # glibc before 2.30
        return False


def is_in_memory(descriptor: int) -> bool:
    """Return whether a file is in a tmpfs (fstatfs(2)): such a file system waits for nothing."""
    status = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(descriptor, status) < 0:
        return False
    kind = ctypes.c_long.from_buffer(status).value
    return kind == _TMPFS
