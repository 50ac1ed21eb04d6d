"""Where a drill keeps what it writes, and what is left of that."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...launcher.telling import trust
from ...launcher.telling.trust import Trust
from .. import files
from ..batch.sbatch_options import Option
from ..interrupts import Interrupted, Interrupts
from ..progress import Progress
from ..trouble import FAILED, Trouble
from .as_job import AsJob
from .here import Here
from .rehearse import Plan, Result, rehearse
from .run_log import RunLog
from .stage import Stage

#: The log's name in the drill's folder.
_LOG = "log"


class OwnFolder:
    """A new folder of ours alone (0700), where no other user can put another one in its place.

    Args:
        parents: where it may be made: in the first of them that no other user could lead elsewhere.

    Raises:
        OSError: it cannot be made in any of them; says why not in the first.
    """

    def __init__(self, parents: Iterator[str]) -> None:
        first: OSError | None = None
        for parent in parents:
            try:
                self._make(parent)
            except OSError as error:
                first = first or error
                continue
            return
        raise first or FileNotFoundError("no folder to make it in")

    def _make(self, parent: str) -> None:
        self._parent = trust.open_folder(parent, Trust.NOW)
        self._name = f"kforge-drill-{os.urandom(6).hex()}"
        self.path = Path(parent, self._name)
        try:
            os.mkdir(self._name, 0o700, dir_fd=self._parent)
            os.chmod(self._name, 0o700, dir_fd=self._parent)  # whatever the umask has left of that
            self._folder = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._parent)
        except OSError:
            os.close(self._parent)
            raise

    def new_folder(self, name: str) -> Path:
        """Make a folder in it."""
        os.mkdir(name, 0o700, dir_fd=self._folder)
        os.chmod(name, 0o700, dir_fd=self._folder)
        return self.path / name

    def remove(self, but: str | None = None) -> bool:
        """Remove it, or all that is in it but one name; return whether it worked. No link is followed.

        It is reached through its descriptor, and cannot be used any more.
        """
        for name in os.listdir(self._folder):
            if name != but:
                self._remove(name)
        left = set(os.listdir(self._folder)) - {but}
        os.close(self._folder)
        try:
            if but is None:
                os.rmdir(self._name, dir_fd=self._parent)
        except OSError:
            return False
        finally:
            os.close(self._parent)
        return not left

    def _remove(self, name: str) -> None:
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mode):
                # On NFS a file that a node still has open cannot be removed.
                shutil.rmtree(f"/proc/self/fd/{self._folder}/{name}", ignore_errors=True)
            else:
                os.unlink(name, dir_fd=self._folder)
        except OSError:
            pass  # what is left is said


def _parents(in_a_job: bool) -> Iterator[str]:
    """Yield where a drill's folder may be."""
    if in_a_job:
        # A job can only work in a folder that its node sees: that is where the user is, or at home.
        yield from (os.getcwd(), os.path.expanduser("~"))
    else:
        yield from (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - a new folder with mode 0700 is safe there


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
            os.close(files.open_to_append(str(log)))
        try:
            self._folder = OwnFolder(_parents(in_a_job=options is not None))
        except OSError as error:
            hint = f"{'set TMPDIR to' if options is None else 'start it in'} a folder where you may write"
            raise Trouble(f"no folder for the drill: {error.strerror}", hint, status=FAILED) from None
        self._runs = 0

    def rehearse(self, times: int, interrupts: Interrupts) -> list[Result]:
        """Rehearse until it fails, so many times at most, and leave nothing behind.

        Raises:
            Interrupted: the user did not want to wait.
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
        self._runs += 1
        journals = self._folder.new_folder(f"journals-{self._runs}")
        log = RunLog(self._log or self._folder.path / _LOG, self._show_output)
        if self._options is None:
            return Here(self._plan.command, self._plan.lead, journals, log)
        job = AsJob(self._plan, self._options, journals, log, interrupts)
        self._progress.say(f"job {job.job} submitted")
        return job

    def _leave(self, failed: bool) -> None:
        """Remove all but the log, if that is wanted or worth a look."""
        mine = self._folder.path / _LOG
        keep = failed and mine.is_file() and mine.stat().st_size > 0
        self.kept = str(mine) if keep else None if self._log is None else str(self._log)
        if not self._folder.remove(but=_LOG if keep else None):
            self._progress.say(f"could not be removed: {self._folder.path}")
