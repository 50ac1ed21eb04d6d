"""Where a drill keeps what it writes, and what is left of that."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..batch.sbatch_options import Option
from ..interrupts import Interrupted, Interrupts
from ..progress import Progress
from ..trouble import FAILED, Trouble
from .as_job import AsJob
from .here import Here
from .rehearse import Plan, Result, rehearse
from .run_log import RunLog
from .stage import Stage


class Place:
    """The folder of a drill, and what is started there.

    Args:
        options: sbatch's; None: it runs on this machine.
        log: where the user wants the log; None: nowhere in particular.

    Attributes:
        kept: where the log can be found afterwards; None: it is gone.
    """

    def __init__(self, plan: Plan, options: list[Option] | None, show_output: bool, log: Path | None) -> None:
        self._plan, self._options, self._show_output, self._log = plan, options, show_output, log
        self._progress = Progress(False if show_output else None)
        self.kept: str | None = None
        if log is not None:
            try:
                log.open("ab").close()
            except OSError as error:
                raise Trouble(f"cannot write {log}: {error.strerror}", "choose another --log") from None
        # A job can only work in a folder that its node sees, and that is where the user is.
        parent = None if options is None else os.getcwd()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="kforge-drill-", dir=parent))
        except OSError as error:
            hint = f"{'start it in' if parent else 'set TMPDIR to'} a folder where you may write"
            raise Trouble(f"no folder for the drill: {error.strerror}", hint, status=FAILED) from None

    def rehearse(self, times: int, interrupts: Interrupts) -> list[Result]:
        """Rehearse until it fails, so many times at most, and leave nothing behind.

        Raises:
            Interrupted: somebody did not want to wait.
            Trouble: it could not be rehearsed.
        """
        results: list[Result] = []
        try:
            while len(results) < times and all(one.verdict.passed for one in results):
                stage = self._start(interrupts)
                try:
                    results.append(rehearse(stage, self._plan, interrupts, self._progress))
                except Interrupted:
                    self._progress.say("ending what was started (once more: at once)")
                    raise
                finally:
                    stage.end(interrupts)
                    stage.log.follow()
                    self._progress.clear()
        finally:
            self._leave(failed=bool(results) and not results[-1].verdict.passed)
        return results

    def _start(self, interrupts: Interrupts) -> Stage:
        """Start the command anew."""
        journals = Path(tempfile.mkdtemp(dir=self._folder))
        log = RunLog(self._log or self._folder / "log", self._show_output)
        if self._options is None:
            return Here(self._plan.command, self._plan.lead, journals, log)
        job = AsJob(self._plan, self._options, journals, log, interrupts)
        self._progress.say(f"job {job.job} submitted")
        return job

    def _leave(self, failed: bool) -> None:
        """Remove all but the log, if that is wanted or worth a look."""
        mine = self._folder / "log"
        if failed and mine.exists() and mine.stat().st_size:
            self.kept = str(mine)
            for entry in self._folder.iterdir():
                if entry != mine:
                    self._remove(entry)
        else:
            self.kept = None if self._log is None else str(self._log)
            self._remove(self._folder)

    def _remove(self, folder: Path) -> None:
        # On NFS a file that a node still has open cannot be removed.
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            self._progress.say(f"could not be removed: {folder}")
