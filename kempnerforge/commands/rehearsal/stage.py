"""Where a run is rehearsed: what a rehearsal needs of this machine, or of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .. import journals
from ..interrupts import Interrupts
from ..trouble import Trouble
from .run_log import RunLog
from .verdict import Seen, seen_of


class Stage(Protocol):
    """A run under kforge-run, already on its way."""

    #: Where its kforge-runs keep their journals.
    folder: Path
    log: RunLog
    #: How often it is worth a look (s).
    tick: float

    def has_ended(self) -> bool:
        """Return whether kforge-run has ended, and all that it has told can be read."""

    def waits_for(self) -> str:
        """Return what it waits for as long as it has not started."""

    def send_notice(self) -> None:
        """Send kforge-run a SIGUSR1."""

    def end(self, interrupts: Interrupts) -> None:
        """End everything that is left: politely, unless the user interrupts once more."""

    def why_not_started(self) -> Trouble:
        """Return why it has ended without having started the command."""


def look(folder: Path) -> Seen:
    """Return what the journals in a folder tell of the run."""
    owner, tasks = None, {}
    for path in sorted(folder.glob("*.jsonl")):
        journal = journals.read(path)
        if journal.attempts and journal.task:
            tasks[journal.task] = journal.attempts[-1]
        elif journal.attempts:
            owner = journal.attempts[-1]
    return seen_of(owner, tasks)
