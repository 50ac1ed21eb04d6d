"""Starts a launch shape below a real kforge-run, gives the notice, and finds out what became of the work."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.process.handling import PYTHON
from tests.process.launch import ROOT, Launch, Launched, descendants, status_of, wait_until
from tests.process.shapes.table import Shape

PROGRAMS = Path(__file__).parent / "programs"
CHECKPOINTED = 85
#: So long after the notice everything below is killed; SIGTERM comes 17 s before that.
TIMEOUT = 40
#: Slurm's own SIGTERM comes while somebody saves, or so long after the notice if nobody does (s).
SLURM_FOLLOWS = 0.4


def why_not_here(shape: Shape) -> str | None:
    """Return what a shape needs that is not here; None: it can be tried."""
    for need in shape.needs:
        kind, _, module = need.partition(" ")
        if kind == "import":
            if find_spec(module) is None:
                return f"{module} is not installed"
        elif need == "root":
            if os.geteuid() != 0:
                return "only for root"
        elif shutil.which(need, path=_path()) is None:
            return f"{need} is not installed"
    return None


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Trial:
    """One start of a shape.

    Args:
        name: of its folders.
        tmpdir: where its TMPDIR is; the paths of sockets in it are long (unix(7): 107 bytes).
        supervised: False: without kforge-run, to see that the shape itself is as it should be.
        python: what `python` is for the shape.
    """

    def __init__(
        self,
        launch: Launch,
        shape: Shape,
        name: str,
        tmpdir: str,
        *,
        supervised: bool = True,
        python: str = PYTHON,
    ) -> None:
        self.shape = shape
        self.folder = launch.folder / name
        self.work = self.folder / "work"
        shutil.copytree(PROGRAMS, self.work, ignore=shutil.ignore_patterns("__pycache__"))
        own_tmpdir = Path(tmpdir, name)
        own_tmpdir.mkdir()
        # As they are typed, whatever Python pytest and the programs have.
        kforge_run = f'{sys.executable} {ROOT / "bin" / "kforge-run"} -v --timeout {TIMEOUT} "$@"'
        self._command("kforge-run", kforge_run if supervised else '"$@"')
        self._command("python", f'{python} "$@"')
        self.said_in = self.work / "said"
        #: How the run may be called in the end, and the exit status that goes with it; None: the child's own.
        self.outcomes: dict[str, int | None] = {"checkpointed": CHECKPOINTED}
        if shape.fails_at_the_end:
            self.outcomes["interrupted"] = None
        self.run: Launched = launch.start(
            ["bash", "-c", f"{shape.before}\nexec kforge-run {shape.command}"],
            variables={
                "PATH": f"{self.folder / 'bin'}:{_path()}",
                "PYTHONPATH": "",
                "TMPDIR": str(own_tmpdir),
            },
            cwd=self.work,
        )

    def _command(self, name: str, command: str) -> None:
        file = self.folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\nexec {command}\n")
        file.chmod(0o755)

    # --- what is said -----------------------------------------------------------------------------

    @property
    def said(self) -> list[str]:
        return self.said_in.read_text().splitlines() if self.said_in.exists() else []

    @property
    def log(self) -> str:
        """What kforge-run says, wherever the shape leads it."""
        tee = self.work / "log"
        return self.run.log + (tee.read_text(errors="backslashreplace") if tee.exists() else "")

    @property
    def is_over(self) -> bool:
        return self.run.process.poll() is not None

    # --- what is done to it -----------------------------------------------------------------------

    def begins(self) -> None:
        """Wait until all who are there from the beginning are well under way."""
        wait_until(lambda: self.is_over or is_under_way(self.shape, self.said))
        assert not self.is_over, f"it has ended before the notice: {self.said}\n{self.log}"

    def notice(self) -> None:
        self.run.send(signal.SIGUSR1)
        self.noticed = time.monotonic()
        self.below = descendants(self.run.pid)

    @property
    def slurm_is_due(self) -> bool:
        """Tell whether it is time for Slurm's own SIGTERM."""
        return time.monotonic() > self.noticed + SLURM_FOLLOWS or any(line.startswith("told") for line in self.said)

    def slurm_follows(self, *, to_all: bool) -> None:
        """Send Slurm's own SIGTERM, to kforge-run's child or to every process that was there at the notice."""
        # A shell dies of it, and so may a Python that is ending. That, too, is requeued (docs/design.md).
        self.outcomes["interrupted"] = None
        self._slurm_signals([self.run.pid, *self.below] if to_all else self.below[:1])

    def slurm_alone(self) -> None:
        """Send Slurm's SIGTERM to every process as the first that any of them hears."""
        # Outside Slurm a SIGTERM is somebody's wish, after which a run that ends well has completed (docs/design.md).
        self.outcomes = {"checkpointed": CHECKPOINTED, "completed": 0}
        self._slurm_signals([self.run.pid, *descendants(self.run.pid)])

    def _slurm_signals(self, pids: list[int]) -> None:
        if not self.is_over:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def tell_holders(self) -> bool:
        """Have each that holds work save, without kforge-run, and return whether all can be told."""
        can_be_told = True
        for words in map(str.split, self.said):
            if words[0] == "start" and words[3] == "-":
                can_be_told = False
            elif words[0] == "start":
                (pid,) = (pid for pid in [self.run.pid, *descendants(self.run.pid)] if _is(pid, words[2]))
                os.kill(pid, getattr(signal, f"SIG{words[3]}"))
        return can_be_told

    def end(self) -> None:
        """Kill what still runs."""
        if not self.is_over:
            for pid in [self.run.pid, *descendants(self.run.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.run.wait()

    # --- what became of it ------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """Wait for the end, and return what is not as it should be."""
        self.run.rest()
        status = self.run.wait()
        found = unsaved(self.shape, self.said)
        outcome = re.search(r"^kforge-run \S+ (checkpointed|completed|interrupted)\b", self.log, re.MULTILINE)
        if self.shape.late:
            if outcome is None or outcome[1] == "completed":
                found.append("kforge-run does not say that it is checkpointed, or interrupted")
        else:
            if outcome is None or self.outcomes.get(outcome[1], -1) not in (None, status):
                found.append(f"kforge-run calls it {outcome and outcome[1]}, and exits with {status}")
            if "still running: " in self.log:
                found.append("only the final stage has ended it")
        return found and [*found, f"said: {self.said}", self.log]


def is_under_way(shape: Shape, said: list[str]) -> bool:
    """Return whether all have said that they are there who are from the beginning."""
    first = shape.holders[:1] if shape.late else shape.holders
    wanted = {f"start {holder}" for holder in first if holder != "upload"}
    wanted |= {f"up {helper}" for helper in shape.helpers}
    return wanted <= {" ".join(line.split()[:2]) for line in said}


def unsaved(shape: Shape, said: list[str]) -> list[str]:
    """Return who has not saved, or not once, and who was hurt."""
    found = []
    for holder in shape.holders:
        for word in ("SAVED",) if holder == "upload" else ("told", "SAVED"):
            times = said.count(f"{word} {holder}")
            # What is started again for ever gets its chance as well.
            if times != 1 and not (times > 1 and shape.late):
                found.append(f"{times} times {word} {holder}")
    return found + [line for line in said if line.startswith(("hurt", "ENDED"))]


def _is(pid: int, as_it_says: str) -> bool:
    """Return whether a process sees itself as this pid; in a PID namespace that is another one."""
    return status_of(pid).get("NSpid", "").split()[-1:] == [as_it_says]
