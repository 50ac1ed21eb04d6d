"""A kforge-run that runs one of the programs here, and what that program tells."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

from .installation import Installation

PROGRAMS = Path(__file__).parent / "programs"
#: For one line of a program (s).
PATIENCE = 60


class Subject:
    """kforge-run with its child.

    Args:
        installation: where kforge-run is.
        child: the command it runs; its output is ours to read, line by line.
        options: of kforge-run.
        under: a command that runs it, strace for instance.
    """

    def __init__(
        self, installation: Installation, *child: str, options: tuple[str, ...] = (), under: tuple[str, ...] = ()
    ) -> None:
        command = [*under, installation.kforge_run, *options, *child]
        # What it says goes to a file, as under Slurm.
        with open(installation.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, env=installation.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        self._unread = b""
        self.pid = self._process.pid

    def line(self) -> list[str]:
        """Return the words of the next line.

        Raises:
            RuntimeError: there is none.
        """
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._fd], [], [], PATIENCE)
            block = os.read(self._fd, 65536) if ready else b""
            if not block:
                raise RuntimeError(f"expected a line within {PATIENCE} s, got {self._unread!r} (hint: --keep)")
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().split()

    def everybody_left(self) -> bool:
        """Return whether nobody has the child's output open any more."""
        ready, _, _ = select.select([self._fd], [], [], 0)
        return bool(ready) and not self._unread and not os.read(self._fd, 1)

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()


class Receiver(Subject):
    """kforge-run with programs/receiver.py, started and ready.

    Args:
        installation: where kforge-run is.
        kind: `plain`, or `cooperative`: it has a `ShutdownHandler`.
        under: a command that runs kforge-run, strace for instance.

    Attributes:
        child: the receiver's pid.
    """

    def __init__(self, installation: Installation, kind: str, under: tuple[str, ...] = ()) -> None:
        super().__init__(installation, installation.python, str(PROGRAMS / "receiver.py"), kind, under=under)
        _ready, pid = self.line()
        self.child = int(pid)

    def stop(self) -> None:
        """End it from below: kforge-run itself would wait for a checkpoint."""
        os.kill(self.child, signal.SIGUSR1)
        self.wait()
        self.close()
