"""Processes that kforge-run starts itself: the training process, scontrol and srun."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from typing import NoReturn

from ..policy.tables import NOT_FOUND
from . import libc

#: Reset in a child, also where they are inherited as ignored: bash could not trap them. The others stay as they were
#: (nohup), but for those that Python itself ignores.
_RESET = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


#: Slurm sends SIGTERM to every descendant (slurm-facts, proctrack/linuxproc), to our scontrol just when we need it too.
_SHIELDED_FROM = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


class CannotExecute(Exception):
    """The command was not executed; `errno` says why (execve(2))."""

    def __init__(self, command: str, number: int) -> None:
        super().__init__(f"{command}: {os.strerror(number)}")
        self.errno = number


def explain(error: BaseException) -> str:
    """Return why nothing was started, with what would help."""
    if not isinstance(error, CannotExecute):
        return f"{error} (hint: the command was not started)"
    if error.errno == errno.ENOENT:
        return f"{error} (hint: is it in PATH, and its environment activated?)"
    return f"{error} (hint: it must be an executable file; start a script through its interpreter)"


class Child:
    """A child process that has been executed and is not reaped by anybody else.

    Attributes:
        pid: its process id.
        status: None while it is not reaped; then its exit status, or minus the signal it died of.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def send(self, signum: int) -> bool:
        """Send a signal unless the child has been reaped; return whether it was there to get it."""
        if self.status is not None:
            return False
        try:
            os.kill(self.pid, signum)  # cannot hit another process: until it is reaped, the pid is its own
        except PermissionError:
            return False  # it has become another user (set-uid)
        return True

    def reap(self) -> None:
        """Take the exit status of the child, which must have ended."""
        _pid, wait_status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(wait_status)


def spawn(
    command: list[str],
    environment: Mapping[str, str],
    *,
    own_group: bool,
    death_signal: int,
    umask: int | None = None,
) -> Child:
    """Start the training process with an empty signal mask and return when it has been executed.

    Args:
        command: program and arguments; a program without a slash is looked for in PATH of `environment`.
        own_group: put it into a process group of its own, where no terminal's Ctrl-C reaches it. It can always be
            interrupted there: a script's background is started with SIGINT ignored, which is not meant for a notice.
        death_signal: what it gets when kforge-run dies.
        umask: None: ours.

    Raises:
        CannotExecute: it is not there or not executable.
        OSError: fork(2) or pipe(2) failed.
    """

    def prepare() -> None:
        if own_group:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if umask is not None:
            os.umask(umask)

    failed_in, failed_out = os.pipe()  # close-on-exec: its end tells that the program was executed
    try:
        child = _fork(command, environment, death_signal, prepare, lambda why: _write_number(failed_out, why))
    except OSError:
        os.close(failed_in)
        raise
    finally:
        os.close(failed_out)
    with open(failed_in, "rb") as failed:
        answer = failed.read(4)
    if answer:
        child.reap()
        raise CannotExecute(command[0], int.from_bytes(answer, "little"))
    return child


def spawn_helper(command: list[str], environment: Mapping[str, str], output: int, input_: int | None = None) -> Child:
    """Start a helper of ours, and do not wait until it has been executed: a folder in PATH may hang.

    It leads a group of its own, ignores the signals meant for the run, and dies with us. If it cannot be executed its
    output says why, and it ends with NOT_FOUND.

    Args:
        output: descriptor for its standard output and error.
        input_: descriptor for its standard input; None: it has nothing to read.

    Raises:
        OSError: fork(2) failed.
    """

    def prepare() -> None:
        os.setpgid(0, 0)
        source_of_input = os.open(os.devnull, os.O_RDONLY) if input_ is None else input_
        for target, source in ((0, source_of_input), (1, output), (2, output)):
            os.dup2(source, target)
        for signum in _SHIELDED_FROM:
            signal.signal(signum, signal.SIG_IGN)

    def fail(why: int) -> None:
        os.write(output, os.fsencode(f"{command[0]}: {os.strerror(why)}"))

    child = _fork(command, environment, signal.SIGKILL, prepare, fail)
    lead_a_group(child.pid)  # or a kill of the group would come too early
    return child


def lead_a_group(pid: int) -> None:
    """Put a process into a group of its own, by which the sweep knows our helpers (setpgid(2))."""
    try:
        os.setpgid(pid, 0)
    except OSError:
        pass  # it has done so itself: it is executed, or has ended


def _fork(
    command: list[str],
    environment: Mapping[str, str],
    death_signal: int,
    prepare: Callable[[], None],
    fail: Callable[[int], None],
) -> Child:
    """Fork a child that executes a command.

    Args:
        prepare: is called in the child.
        fail: is called in the child where it cannot be executed, with the reason (errno(3)).
    """
    parent = os.getpid()
    pid = os.fork()
    if pid != 0:
        return Child(pid)
    number = errno.ENOEXEC
    try:
        libc.set_parent_death_signal(death_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        for signum in _RESET:
            signal.signal(signum, signal.SIG_DFL)
        prepare()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _execute(command, environment)
    except OSError as error:
        number = error.errno or number
    finally:
        # Whatever happens, nothing of the parent may go on running in the child.
        try:
            fail(number)
        finally:
            os._exit(NOT_FOUND)


def _write_number(descriptor: int, number: int) -> None:
    os.write(descriptor, number.to_bytes(4, "little"))


def _execute(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute like execvp(3): through PATH, and a script without a shebang by the shell."""
    # What has no name can be in an environment, but execve(2) is not given it by Python.
    environment = {name: value for name, value in environment.items() if name and "=" not in name}
    name = command[0]
    folders = [""] if "/" in name else environment.get("PATH", os.defpath).split(":")
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not name:
        raise failure  # Python would refuse it in its own way
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            os.execve(path, command, environment)
        except FileNotFoundError:
            continue
        except NotADirectoryError as error:
            # In PATH a file is passed over; in the command's own path it is the reason.
            failure = error if "/" in name else failure
        except PermissionError as error:
            failure = error
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], environment)
    raise failure


def shares_our_terminal() -> bool:
    """Return whether kforge-run is in the foreground of a terminal.

    Its child then stays in our group, so that it may read the terminal, and gets what the terminal sends.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
