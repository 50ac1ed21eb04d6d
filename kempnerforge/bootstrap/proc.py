"""What /proc tells of a process (proc(5)). kforge-run reads it here, and so does what it injects into others.

Nothing here raises: of a process that has ended, or that is hidden, there is nothing to tell.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    #: A pid, or `self`.
    Pid = int | str

#: Where in `stat()` is what: as proc_pid_stat(5) numbers the fields, but from 0.
PID, NAME, STATE, PARENT, SESSION, USER, SYSTEM, STARTED = 0, 1, 2, 3, 5, 13, 14, 21
#: States of what has ended, and is only not reaped yet.
ENDED = "ZX"
#: Bytes that are read at a time: most files here are shorter.
_BLOCK = 4096


def read(path):
    # type: (str) -> str
    """Return all of a file; empty: it is not there, or hidden."""
    found = b""
    try:
        # Without a Python file around it, which takes as long again.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        block = os.read(file, _BLOCK)
        while block:
            found += block
            block = os.read(file, _BLOCK)
    except OSError:
        pass  # the process has just ended
    finally:
        os.close(file)
    return found.decode("utf-8", "surrogateescape")


def stat(pid):
    # type: (Pid) -> list[str]
    """Return the fields of /proc/PID/stat, the name without its parentheses; empty: there is none."""
    before, _, behind = read("/proc/%s/stat" % pid).rpartition(")")  # a name may have anything in it
    number, _, name = before.partition(" (")
    return [number, name, *behind.split()] if behind else []


def identity(pid):
    # type: (Pid) -> str
    """Return `PID.START` of a living process, which no other process of this boot has; empty: it does not live.

    The pid is that of the PID namespace for which /proc was mounted, maybe another one than os.getpid() knows.
    """
    fields = stat(pid)
    return "" if not fields or fields[STATE] in ENDED else fields[PID] + "." + fields[STARTED]


def status(pid, field):
    # type: (Pid, str) -> list[str]
    """Return the words of a field of /proc/PID/status (proc_pid_status(5))."""
    for line in read("/proc/%s/status" % pid).split("\n"):
        name, _, value = line.partition(":")
        if name == field:
            return value.split()
    return []


def signal_set(pid, field):
    # type: (Pid, str) -> set[int]
    """Return a signal mask of a process as signal numbers.

    Args:
        field: `SigBlk`, `SigIgn` or `SigCgt`: which are blocked, ignored or caught.
    """
    return signal_sets(pid).get(field, set())


def signal_sets(pid):
    # type: (Pid) -> dict[str, set[int]]
    """Return all signal masks of a process, read at one moment."""
    found = {}
    for line in read("/proc/%s/status" % pid).split("\n"):
        if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:")):
            found[line[:6]] = _bits(line[7:])
    return found


def _bits(mask):
    # type: (str) -> set[int]
    bits = int(mask, 16)
    return {bit + 1 for bit in range(bits.bit_length()) if bits >> bit & 1}


def command_line(pid):
    # type: (Pid) -> list[str]
    """Return the arguments of a process, the program itself the first."""
    return read("/proc/%s/cmdline" % pid).split("\0")[:-1]


def executable(pid):
    # type: (Pid) -> str
    """Return the name of the file that a process executes."""
    try:
        return os.path.basename(os.readlink("/proc/%s/exe" % pid))
    except OSError:
        return ""


def children(pid):
    # type: (Pid) -> list[int]
    """Return the pids of the children of all threads of a process; none also where the kernel does not tell."""
    try:
        tasks = os.listdir("/proc/%s/task" % pid)
    except OSError:
        return []
    return [int(child) for task in tasks for child in read("/proc/%s/task/%s/children" % (pid, task)).split()]
