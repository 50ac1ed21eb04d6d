"""Starts kforge-run, or any other program, as a real process without Slurm, and tells what became of it.

All tests do it in this way: they send signals, wait for lines on standard output, and read the log (standard error).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from kempnerforge.launcher.meeting import inject
from tests import leaks
from tests.process import children

ROOT = Path(__file__).parents[2]
KFORGE_RUN = (sys.executable, "-m", "kempnerforge.launcher")
#: Longer than anything here takes on a loaded machine (s).
PATIENCE = 60.0


def program(name: str, *arguments: object) -> list[str]:
    """Return the command line of a program in children.py."""
    return [sys.executable, children.__file__, name, *map(str, arguments)]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what no pipe tells."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.001)


@contextlib.contextmanager
def takes_at_least(seconds: float) -> Iterator[None]:
    """Check that something is not over before its time. How much longer it takes is a loaded machine's business."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began >= seconds


def kill_kforge_run(run: Launched) -> int:
    """Kill kforge-run, and return its child, now ours."""
    (child,) = run_below(run.pid)
    run.send(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    return child


def reap(pid: int) -> int:
    """Return the exit status of a process that we have adopted."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reap_orphans() -> None:
    """Wait for the end of all that has got away from programs which ran without kforge-run."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def tidy_after(killed: int) -> None:
    """Remove the private folder that a killed kforge-run leaves: nobody is left to do it, and no later one does."""
    (folder,) = leaks.private_folders_of(killed)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    shutil.rmtree(folder)


def status_of(pid: int) -> dict[str, str]:
    """Return /proc/PID/status, empty when the process has ended (proc_pid_status(5))."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def signals_in(pid: int, field: str) -> set[int]:
    """Return one of the signal masks of /proc/PID/status."""
    bits = int(status_of(pid).get(field, "0"), 16)
    return {signum for signum in range(1, signal.NSIG) if bits >> (signum - 1) & 1}


def parents() -> dict[int, int]:
    """Return the parent of every process there is."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := status_of(int(entry)).get("PPid")):
            found[int(entry)] = int(parent)
    return found


def descendants(pid: int) -> list[int]:
    """Return all that is below a process, zombies too, parents first."""
    by_parent: dict[int, list[int]] = {}
    for child, parent in parents().items():
        by_parent.setdefault(parent, []).append(child)
    below = list(by_parent.get(pid, ()))
    for process in below:
        below += by_parent.get(process, ())
    return below


def run_below(kforge_run: int) -> list[int]:
    """Return what is below a kforge-run, parents first, but for the forks of it that write its log and journal."""
    own = command_line(kforge_run)
    return [pid for pid in descendants(kforge_run) if command_line(pid) != own]


def command_line(pid: int) -> bytes:
    """Return the command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class ArmedProcess(NamedTuple):
    pid: int
    #: Open until the end of the test, so that its number means nobody else.
    pidfd: int


class Launched:
    """A running kforge-run.

    Args:
        process: it, or the wrapper in which it runs.
        log_file: gets its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self.log_file = log_file
        #: Of kforge-run itself.
        self.pid = process.pid
        self._unread = b""
        self._armed: list[ArmedProcess] = []

    # --- what the child says ----------------------------------------------------------------------

    def line(self) -> str:
        """Return the next line on standard output."""
        while b"\n" not in self._unread and self._read():
            pass
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="backslashreplace")

    def says(self, *words: object) -> None:
        line = self.line()
        assert line == " ".join(map(str, words)), f"{line!r}, and on stderr:\n{self.log}"

    def rest(self) -> list[str]:
        """Return all lines up to the end."""
        return self.rest_of_bytes().decode(errors="backslashreplace").splitlines()

    def rest_of_bytes(self) -> bytes:
        while self._read():
            pass
        rest, self._unread = self._unread, b""
        return rest

    def _read(self) -> bool:
        """Read something; return whether there was anything left."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing on stdout, and on stderr:\n{self.log}"
        block = os.read(self.process.stdout.fileno(), 1 << 20)
        self._unread += block
        return bool(block)

    # --- what kforge-run does ---------------------------------------------------------------------

    def send(self, *signums: int) -> None:
        for signum in signums:
            os.kill(self.pid, signum)

    def give(self, text: bytes) -> None:
        """Write to standard input, which the test has made a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def taken(self) -> None:
        """Wait until kforge-run has read every signal that was sent."""
        wait_until(lambda: not signals_in(self.pid, "ShdPnd"))

    def armed(self, count: int = 1) -> list[ArmedProcess]:
        """Wait until so many processes are armed (needs --verbose), and return them."""
        wait_until(lambda: len(self._armed_pids()) >= count or self.process.poll() is not None)
        for pid in self._armed_pids()[len(self._armed) :]:
            self._armed.append(ArmedProcess(pid, os.pidfd_open(pid)))
        return list(self._armed)

    def _armed_pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r" \(pid (\d+)\) can be interrupted", self.log)]

    def close(self) -> None:
        for process in self._armed:
            os.close(process.pidfd)
        for pipe in (self.process.stdout, self.process.stdin):
            if pipe is not None:
                pipe.close()

    def find_kforge_run(self) -> None:
        """Find kforge-run below the wrapper that it was started in."""
        (self.pid,) = [child for child, parent in parents().items() if parent == self.process.pid]
        leaks.may_be_kforge_run(self.pid)

    def captures(self, signum: int = signal.SIGUSR1) -> None:
        """Wait until a signal does not end kforge-run any more."""
        wait_until(lambda: signum in signals_in(self.pid, "SigBlk"))

    def wait(self) -> int:
        """Return the exit status, once there is one."""
        return self.process.wait(PATIENCE)

    def ends(self, status: int = 0, *, buggy: bool = False) -> None:
        """Wait for the end, and check the exit status, and that no traceback was printed unless wanted."""
        ended = self.wait()
        assert ended == status, (ended, self.log)
        assert ("Traceback" in self.log) == buggy, self.log

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="backslashreplace")

    def logs(self, pattern: str) -> re.Match[str]:
        """Wait for a line on standard error."""
        wait_until(lambda: re.search(pattern, self.log) or self.process.poll() is not None)
        found = re.search(pattern, self.log)
        assert found, f"no {pattern!r} in:\n{self.log}"
        return found

    @property
    def own_lines(self) -> list[str]:
        """What kforge-run itself wrote on standard error, without the time of day."""
        lines = [line for line in self.log.splitlines() if line.startswith("kforge-run")]
        return [re.sub(r" \d\d:\d\d:\d\d ", " ", line) for line in lines]


class Launch:
    """Starts kforge-run in a folder of its own, with an environment that knows of no Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.started: list[Launched] = []
        self.environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.tmp),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def __call__(
        self,
        *arguments: str | bytes,
        options: tuple[str, ...] = (),
        shell: str = "",
        variables: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = None,
        cwd: Path | None = None,
    ) -> Launched:
        """Start kforge-run.

        Args:
            arguments: the child's command line.
            options: of kforge-run.
            shell: what a shell does first; it then becomes kforge-run, in the same process.
            variables: more environment.
            stderr: None: it goes into the log.
        """
        return self.start([*KFORGE_RUN, *options, *arguments], shell, variables, stdin, stderr, cwd)

    def in_batch(
        self, *arguments: str, options: tuple[str, ...] = (), variables: Mapping[str, str] | None = None
    ) -> Launched:
        """Start kforge-run below a process that has the title of a batch job's slurmstepd."""
        slurmstepd = ["slurmstepd: [123.batch]", "-c", '"$@"; exit $?', "sh"]
        return self.start([*slurmstepd, *KFORGE_RUN, *options, *arguments], variables=variables, executable="/bin/sh")

    def without_memory(self, *arguments: str, variables: Mapping[str, str] | None = None) -> Launched:
        """Start kforge-run where there is no /dev/shm (root only), so that its private folder goes to a disk."""
        hide = 'mount --bind /sys /dev/shm && exec "$@"'  # in /sys nobody can make a folder
        return self.start(["unshare", "--mount", "sh", "-c", hide, "sh", *KFORGE_RUN, *arguments], variables=variables)

    def start(
        self,
        command: Sequence[str | bytes],
        shell: str = "",
        variables: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = None,
        cwd: Path | None = None,
        executable: str | None = None,
    ) -> Launched:
        """Start any command in the same surroundings."""
        if shell:
            command = ["/bin/sh", "-c", f'{shell}\nexec "$@"', "sh", *command]
        log_file = self.folder / f"log{len(self.started)}"
        with open(log_file, "wb") as log:
            process = subprocess.Popen(
                command,
                executable=executable,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log if stderr is None else stderr,
                env={**self.environment, **(variables or {})},
                cwd=cwd or self.folder,
                start_new_session=True,  # no terminal, as in a batch job
            )
        leaks.may_be_kforge_run(process.pid)
        self.started.append(Launched(process, log_file))
        return self.started[-1]

    def journal(self, folder: Path) -> list[dict[str, Any]]:
        """Return the lines of the one journal in a folder."""
        (file,) = folder.iterdir()
        return [json.loads(line) for line in file.read_text().splitlines()]

    @property
    def site(self) -> str:
        """What kforge-run puts on PYTHONPATH."""
        return inject.find_site(self.environment)

    def close(self) -> None:
        """Reap what has ended and close all pipes; what still runs is found by the fixture that looks for leftovers."""
        for launched in self.started:
            launched.process.poll()
            launched.close()
            launched.process.returncode = launched.process.returncode or 0  # or Popen warns
