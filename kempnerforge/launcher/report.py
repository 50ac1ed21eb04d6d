"""What is told of a run: lines in the log, events in the journal. Nothing here may ever harm it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .journal import Journal
from .output import Level, Log
from .policy.words import History
from .writer import LAST_PATIENCE, MOMENT, Writer, wait_for


class Report:
    """The log and the journal of one attempt.

    Args:
        journal: None: none is kept.
    """

    def __init__(self, log: Log, journal: Journal | None) -> None:
        self._log = log
        self._journal = journal
        self._told_trouble = False

    def say(self, level: Level, text: str) -> None:
        self._log.say(level, text)

    def warn(self, text: str | None) -> None:
        """Warn, if there is anything to warn of."""
        if text is not None:
            self._log.say("warning", text)

    def record(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.record(event, fields)
            self._tell_trouble(self._journal)

    @property
    def history(self) -> History | None:
        """How earlier attempts ended; None: not known, or not yet."""
        return self._journal.history if self._journal is not None else None

    def flush(self) -> None:
        """Have in the log what was said, before others write into it; unless its file system does not answer."""
        if self._log.writer is not None:
            wait_for([self._log.writer], MOMENT)

    def writers(self) -> list[Writer]:
        """Return what writes in the background."""
        all_of_them = (self._log.writer, self._journal.writer if self._journal is not None else None)
        return [writer for writer in all_of_them if writer is not None]

    def wait_for_history(self, patience: float) -> History:
        """Return how earlier attempts ended; nothing: not known within `patience` (s)."""
        return self._journal.wait_for_history(patience) if self._journal is not None else ()

    def close(self) -> None:
        """Wait a moment for what is not written yet; what hangs is left behind."""
        if self._journal is not None:
            wait_for(self.writers(), LAST_PATIENCE)
            if (left := self._journal.writer.give_up()) is not None:
                self.warn(f"pid {left} hangs while it writes the journal")
            self._tell_trouble(self._journal)
        if self._log.writer is not None:
            wait_for([self._log.writer], LAST_PATIENCE)
            self._log.writer.give_up()

    def look_after_journal(self) -> None:
        """Warn if the journal is not written any more."""
        if self._journal is not None:
            self._tell_trouble(self._journal)

    def _tell_trouble(self, journal: Journal) -> None:
        if journal.trouble is not None and not self._told_trouble:
            self._told_trouble = True
            self.warn(f"no journal: {journal.trouble}")
