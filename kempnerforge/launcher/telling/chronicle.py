"""What kforge-run tells of an attempt: each fact once, in log and journal. Nothing here may ever harm the run."""

from __future__ import annotations

from ..policy import facts
from ..policy.words import History
from . import wording
from .journal import Journal
from .output import Log
from .writer import LAST_PATIENCE, MOMENT, Writer, wait_for


class Chronicle:
    """The log and the journal of one attempt.

    Args:
        log: kforge-run's own.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._journal: Journal | None = None
        #: What there was to write before there was a journal; None: there is one, or there will be none.
        self._early: list[facts.Journaled] | None = []
        self._told_trouble = False

    def keep_journal(self, journal: Journal | None) -> None:
        """Have written down what was told, and all that comes.

        Args:
            journal: None: there is none.
        """
        self._journal = journal
        early, self._early = self._early or [], None
        for fact in early:
            self._record(fact)

    def tell(self, fact: facts.Fact) -> None:
        """Tell a fact to whoever reads the log or the journal."""
        self._say(fact)
        if isinstance(fact, facts.Journaled):
            self._record(fact)

    def warn(self, text: str | None) -> None:
        """Warn, if there is anything to warn of."""
        if text is not None:
            self.tell(facts.Warned(text))

    def _say(self, fact: facts.Fact) -> None:
        if (line := wording.line_of(fact)) is not None:
            self._log.say(line.level, line.text)

    def _record(self, fact: facts.Journaled) -> None:
        if self._early is not None:
            self._early.append(fact)
        elif self._journal is not None:
            self._journal.record(fact)
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

    def close(self, patience: float = LAST_PATIENCE) -> None:
        """Wait for what is not written yet; what hangs is left behind.

        Args:
            patience: how long whoever reads our log may take to make room (s).
        """
        if self._journal is not None:
            wait_for(self.writers(), LAST_PATIENCE)
            if (left := self._journal.writer.give_up()) is not None:
                self._say(facts.Warned(f"pid {left} hangs while it writes the journal"))
            self._tell_trouble(self._journal)
        if self._log.writer is not None:
            wait_for([self._log.writer], LAST_PATIENCE)
            self._log.writer.give_up()
        self._log.flush(patience)

    def look_after_journal(self) -> None:
        """Warn if the journal is not written any more."""
        if self._journal is not None:
            self._tell_trouble(self._journal)

    def _tell_trouble(self, journal: Journal) -> None:
        if journal.trouble is not None and not self._told_trouble:
            self._told_trouble = True
            self._say(facts.Warned(f"no journal: {journal.trouble}"))
