"""One JSON line per event, one file per job, kept over all its attempts.

A thread of its own reads and writes: the folder is usually in a home on the network, and when that hangs, nothing else
may. json is imported where a journal is kept: it takes 2 ms, and outside Slurm there is usually none.
"""

from __future__ import annotations

import os
import threading
import time
from _queue import SimpleQueue  # `import queue` costs 1 ms for classes that are not used here
from collections.abc import Mapping
from typing import Any

from .policy.words import Attempt, History

#: Only so much of a journal's end is read at the start (bytes): thousands of attempts, in a few milliseconds.
_TAIL = 1 << 20
#: How long the end waits for the last lines to be written (s).
_PATIENCE = 1.0


def default_folder(environment: Mapping[str, str]) -> str:
    """Return the journals' folder in the XDG state folder (XDG Base Directory Specification)."""
    state = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "kforge")


class Journal:
    """Appends events to a file, in the background.

    Args:
        path: the file; its folder is made when needed.
        common: fields of every line.

    Attributes:
        history: how earlier attempts ended; None: not read yet, or the journal cannot be relied on.
        trouble: why nothing is written any more; None: it is, as far as known.
    """

    def __init__(self, path: str, common: Mapping[str, Any]) -> None:
        self.history: History | None = None
        self.trouble: str | None = None
        self._path = path
        self._common = common
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._was_read = threading.Event()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def record(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append a line. Nothing that goes wrong is raised: see `trouble`."""
        import json

        line = json.dumps({"time": round(time.time(), 3), "event": event, **self._common, **fields})
        self._lines.put(line.encode() + b"\n")

    def wait_for_history(self, patience: float) -> History:
        """Return how earlier attempts ended, once something was recorded; nothing: not known in time (s)."""
        self._was_read.wait(patience)
        return self.history or ()

    def close(self) -> None:
        """Wait a moment for what is not written yet; a folder that hangs is left behind."""
        self._lines.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self.trouble = f"{self._path}: not written within {_PATIENCE:g} s"

    # --- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            descriptor = self._open()
            try:
                self._use(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.history = None  # who cannot write now will not be able to count this attempt later
            self.trouble = f"{self._path}: {error.strerror}"

    def _open(self) -> int:
        # O_NONBLOCK: never wait for a reader, whatever somebody put there.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        folder = os.path.dirname(self._path)
        os.makedirs(folder, exist_ok=True)
        try:
            return os.open(self._path, flags, 0o644)
        except FileNotFoundError:  # somebody tidied the folder away, just now
            os.makedirs(folder, exist_ok=True)
            return os.open(self._path, flags, 0o644)

    def _use(self, descriptor: int) -> None:
        first = self._lines.get()
        if first is not None:
            history = _attempts(_tail_lines(descriptor))
            os.write(descriptor, first)
            self.history = history
            self._was_read.set()
            # One write per line: lines of two attempts, or of two ranks, never mix (open(2), O_APPEND).
            while (line := self._lines.get()) is not None:
                os.write(descriptor, line)


def _attempts(lines: list[bytes]) -> History:
    """Return how attempts ended; lines that cannot be read are passed over."""
    import json

    attempts = []
    epoch_offset = time.time() - time.monotonic()
    for line in lines:
        try:
            entry = json.loads(line)
            if entry["event"] != "end":
                continue
            restarts = None if entry["restarts"] is None else int(entry["restarts"])
            progress = entry["progress"] if isinstance(entry["progress"], bool) else None
            shutdown = None if entry["shutdown"] is None else float(entry["shutdown"])
            completed_at = float(entry["time"]) - epoch_offset if entry["outcome"] == "completed" else None
            attempts.append(Attempt(restarts, progress, entry["retried"] is True, shutdown, completed_at))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return tuple(attempts)


def _tail_lines(descriptor: int) -> list[bytes]:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL, max(0, size - _TAIL)).splitlines() if size else []
