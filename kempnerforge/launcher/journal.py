"""One JSON line per event, one file per job, kept over all its attempts.

json is imported where a journal is kept: it takes 2 ms, and outside Slurm there is usually none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from .policy.words import Attempt, History

#: Only so much of a journal's end is read at the start (bytes): thousands of attempts, in a few milliseconds.
_TAIL = 1 << 20


def default_folder(environment: Mapping[str, str]) -> str:
    """Return the journals' folder in the XDG state folder (XDG Base Directory Specification)."""
    state = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "kforge")


class Journal:
    """Appends events to a file; a journal that cannot be written is told once and then left alone.

    Args:
        path: the file; its folder is made when needed.
        common: fields of every line.
    """

    def __init__(self, path: str, common: Mapping[str, Any]) -> None:
        self._path = path
        self._common = common
        self._descriptor: int | None = None
        #: Why it is not being written; None: it is, as far as known.
        self.trouble: str | None = None

    def record(self, event: str, fields: Mapping[str, Any]) -> str | None:
        """Append a line; return what went wrong, the first time that something does."""
        if self.trouble is not None:
            return None
        import json

        line = json.dumps({"time": round(time.time(), 3), "event": event, **self._common, **fields}) + "\n"
        try:
            if self._descriptor is None:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
                self._descriptor = os.open(self._path, flags, 0o644)
            # One write per line: lines of two attempts, or of two ranks, never mix (open(2), O_APPEND).
            os.write(self._descriptor, line.encode())
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror}"
            return self.trouble
        return None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def history(self) -> History:
        """Return how earlier attempts ended; lines that cannot be read are passed over."""
        import json

        attempts = []
        for line in _tail_lines(self._path):
            try:
                entry = json.loads(line)
                if entry["event"] != "end":
                    continue
                restarts = None if entry["restarts"] is None else int(entry["restarts"])
                progress = entry["progress"] if isinstance(entry["progress"], bool) else None
                shutdown = None if entry["shutdown"] is None else float(entry["shutdown"])
                attempts.append(Attempt(restarts, progress, entry["retried"] is True, shutdown))
            except (ValueError, KeyError, TypeError):
                continue
        return tuple(attempts)


def _tail_lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL).splitlines()
    except OSError:
        return []
