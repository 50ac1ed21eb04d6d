"""What is told of a run: lines in the log, events in the journal. Nothing here may ever harm it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .journal import Journal
from .output import Level, Log
from .policy.words import History


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

    def wait_for_history(self, patience: float) -> History:
        """Return how earlier attempts ended; nothing: not known within `patience` (s)."""
        return self._journal.wait_for_history(patience) if self._journal is not None else ()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._tell_trouble(self._journal)

    def _tell_trouble(self, journal: Journal) -> None:
        if journal.trouble is not None and not self._told_trouble:
            self._told_trouble = True
            self.warn(f"no journal: {journal.trouble}")
