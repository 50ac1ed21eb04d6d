"""A rehearsal on this machine: the real kforge-run, which believes that it is outside Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ...bootstrap import contract
from ...launcher.processes import libc, reaping, tree
from .. import files
from ..interrupts import Interrupts
from ..trouble import FAILED, Trouble
from .run_log import RunLog, last_lines
from .stage import look

#: How long a run that was given up may take to end by itself, and how long kforge-run to tidy up (s): guesses.
_LAST_WISH, _TIDY_UP = 3.0, 3.0
#: How long kforge-run may take to write its first line (s): Python may have to come over a slow network.
#: A guess.
_STARTED_WITHIN = 60.0
#: The package, for a Python that is told where to find it.
_PACKAGE = str(Path(__file__).parents[3])
#: kforge-run without its script, which may be anywhere or have a first line that the kernel cannot read. Python puts
#: the working directory first on its path, where a file of the user's could pass for a module.
_KFORGE_RUN = (
    "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]; "
    "from kempnerforge.launcher.cli import main; main()"
)
#: Of Slurm's variables, those that say where Slurm is and not where we are.
_OF_THE_SITE = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS"})
#: What kforge-run takes off its child by itself, but only if it sees it.
_TAKEN_OFF = frozenset({contract.CONTROL_VARIABLE})


def kforge_run(*options: str) -> list[str]:
    """Return the command line of this Python's kforge-run, up to the command that it is to run."""
    return [sys.executable, "-c", _KFORGE_RUN, _PACKAGE, *options, "--"]


def outside_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that knows of no job and of no options for kforge-run."""
    return {
        name: value
        for name, value in environment.items()
        if name in _OF_THE_SITE | _TAKEN_OFF or not name.startswith(("SLURM_", "KFORGE_"))
    }


class Here:
    """A run on this machine.

    Args:
        command: what to run.
        lead: how long a shutdown may take (s).
        folder: an empty folder for all that is written about it.
        log: gets all its output.
    """

    tick = 0.05

    def __init__(self, command: list[str], lead: float, folder: Path, log: RunLog) -> None:
        self.folder, self.log = folder, log
        # Whatever becomes of kforge-run, nothing of it gets away.
        libc.become_child_subreaper()
        options = ("--no-requeue", f"--timeout={lead}", f"--journal={folder}")
        drill = os.getpid()

        def die_with_drill() -> None:
            libc.set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != drill:
                os._exit(1)

        self._started, self._seen = time.monotonic(), False
        with open(files.open_to_append(str(log.path)), "ab") as output:
            # In a session of its own it has no terminal, as in a job, and Ctrl-C is ours alone.
            self._process = subprocess.Popen(
                [*kforge_run(*options), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=outside_slurm(os.environ),
                start_new_session=True,
                preexec_fn=die_with_drill,  # noqa: PLW1509 - there is no other thread
            )

    def has_ended(self) -> bool:
        """Return whether kforge-run has ended.

        Raises:
            Trouble: it runs, and the drill cannot see what it does.
        """
        if self._process.poll() is not None:
            return True
        silent = not self._seen and time.monotonic() - self._started > _STARTED_WITHIN
        self._seen = self._seen or (silent and look(self.folder).started_at is not None)
        if silent and not self._seen:
            raise Trouble("kforge-run does not write its journal", self._hint, status=FAILED)
        return False

    def waits_for(self) -> str:
        """Return what it waits for before it has started."""
        return "starting"

    def send_notice(self) -> None:
        """Send kforge-run a SIGUSR1; Popen knows whether it is still there."""
        self._process.send_signal(signal.SIGUSR1)

    def end(self, interrupts: Interrupts) -> None:
        """End everything: a notice first, then SIGKILL below kforge-run, so that it can tidy up, and then to all."""
        came = interrupts.count
        self._process.send_signal(signal.SIGTERM)
        self._wait(_LAST_WISH, unless=lambda: interrupts.count > came)
        until = time.monotonic() + _TIDY_UP
        while self._process.poll() is None and time.monotonic() < until:
            for process in tree.walk(self._process.pid):
                if process.pid != self._process.pid:
                    _kill(process.pid)
            self._wait(self.tick)
        below = tree.Tree(())
        if not below.is_empty():
            below.kill()
            self._wait(_TIDY_UP)
            reaping.reap_all()

    def _wait(self, seconds: float, unless: Callable[[], bool] = bool) -> None:
        until = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < until and not unless():
            time.sleep(self.tick)

    def why_not_started(self) -> Trouble:
        """Return kforge-run's own reason, with its own exit status."""
        status = self._process.returncode
        if why := look(self.folder).not_started:
            return Trouble(why, status=status)
        said = "".join(f": {line}" for line in last_lines(self.log.text(), 1))
        return Trouble(f"kforge-run ended with {status}, and left no journal{said}", self._hint, status=FAILED)

    @property
    def _hint(self) -> str:
        return f"is there room in {self.folder.parent}? TMPDIR can name another place"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself
