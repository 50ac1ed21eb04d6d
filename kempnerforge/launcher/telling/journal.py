"""One JSON line per event, one file per job, kept over all its attempts.

The folder is usually in a home on the network, and when that hangs, nothing else may: see writer.py. What is in a
journal counts (how many attempts made no progress), so it is taken only from a file that is ours alone. json is
imported where a journal is kept: it takes 2 ms, and outside Slurm there is usually none.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..policy import facts
from ..policy.words import EarlierAttempt, History
from .state_folder import state_folders
from .trust import Trust, open_folder, open_own_file
from .writer import Writer, wait_for

#: Only so much of a journal's end is read at the start (bytes): thousands of attempts, in a few milliseconds.
_TAIL = 1 << 20
#: More than any time in a journal (s): the year 2286.
_LONGEST = 1e10


def default_folder(environment: Mapping[str, str]) -> str:
    """Return the journals' folder.

    Raises:
        OSError: this user has no home.
    """
    for folder in state_folders(environment):
        return folder
    raise OSError("no HOME")


class Journal:
    """Appends events to a file, in the background.

    Args:
        folder: where; it is made when needed, for us alone (0700).
        name: of the file in it, which is ours alone (0600).
        common: fields of every line.
        poller, helpers: for its writer.

    Attributes:
        history: how earlier attempts ended; None: not read yet, or the journal cannot be relied on.
        writer: what writes it.
    """

    def __init__(
        self, folder: str, name: str, common: Mapping[str, Any], poller: select.poll, helpers: set[int]
    ) -> None:
        self.writer = Writer(self._write, poller, helpers)
        self._history: History | None = None
        self._folder = folder
        self._name = name
        self._common = common

    @property
    def path(self) -> str:
        return os.path.join(self._folder, self._name)

    @property
    def history(self) -> History | None:
        if self._history is None and self.writer.result is not None:
            self._history = tuple(EarlierAttempt(*fields) for fields in self.writer.result)
        # Who cannot write now will not be able to count this attempt later.
        return None if self.writer.trouble else self._history

    @property
    def trouble(self) -> str | None:
        """Why nothing is written any more; None: it is, as far as known."""
        why = self.writer.trouble
        return None if why is None else f"{self.path}: {why}"

    def record(self, fact: facts.Journaled) -> None:
        """Append a line. Nothing that goes wrong is raised: see `trouble`."""
        self.writer.put(encode(fact, time.time(), self._common))

    def wait_for_history(self, patience: float) -> History:
        """Return how earlier attempts ended, once something was recorded; nothing: not known in time (s)."""
        wait_for([self.writer], patience)
        return self.history or ()

    # --- in the process that writes --------------------------------------------------------------

    def _write(self, lines: Sequence[bytes]) -> list[tuple[Any, ...]] | None:
        """Append lines, and return the history before the first of them."""
        descriptor = self._open()
        history = None
        if self._history is None:
            history = [tuple(one) for one in _attempts(_tail_lines(descriptor), self._common.get("job"))]
        for line in lines:
            # One write per line: lines of two attempts, or of two ranks, never mix (open(2), O_APPEND).
            os.write(descriptor, line)
        return history

    def _open(self) -> int:
        try:
            return self._open_in_folder()
        except FileNotFoundError:
            return self._open_in_folder()  # the folder was tidied away, just now

    def _open_in_folder(self) -> int:
        folder = open_folder(self._folder, Trust.NO_STRANGERS_LINK, make=True)
        try:
            return open_own_file(self._name, folder)
        finally:
            os.close(folder)


def encode(fact: facts.Journaled, at: float, common: Mapping[str, Any]) -> bytes:
    """Return a fact's line.

    Args:
        at: when it happened (s, epoch).
        common: fields of every line.
    """
    import json

    line = {"time": at, **common, **facts.line_of(fact)}
    exact_enough = {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}
    return json.dumps(exact_enough).encode() + b"\n"


def _attempts(lines: list[bytes], job: object) -> History:
    """Return how a job's attempts ended; lines that cannot be read, or are of another job, are passed over."""
    import json

    attempts = []
    epoch_offset = time.time() - time.monotonic()
    for line in lines:
        try:
            entry = json.loads(line)
            fact = facts.read(entry, strict=True) if entry["job"] == job else None
            if isinstance(fact, facts.Ended):
                shutdown = None if fact.shutdown is None else _seconds(fact.shutdown)
                completed_at = _seconds(entry["time"]) - epoch_offset if fact.outcome == "completed" else None
                attempts.append(EarlierAttempt(fact.restarts, fact.progress, fact.retried, shutdown, completed_at))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue
    return tuple(attempts)


def _seconds(value: Any) -> float:
    """Return a time or a duration; Python's JSON also knows infinity.

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    seconds = float(value)
    if not 0 <= seconds < _LONGEST:
        raise ValueError(f"{seconds} s is no time")
    return seconds


def _tail_lines(descriptor: int) -> list[bytes]:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL, max(0, size - _TAIL)).splitlines() if size else []
