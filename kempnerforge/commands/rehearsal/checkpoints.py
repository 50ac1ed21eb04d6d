"""What a program has written to where its checkpoints are, between two looks at it.

A file counts as written when its time, its size or its inode has changed between the looks: no two clocks are compared.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

#: How files are called that are not whole yet.
_PARTIAL = re.compile(r"^\.?tmp[._-]|[._-](?:tmp|temp|partial|incomplete)(?:[._-]\w+)?$|\.part$|~$", re.IGNORECASE)


class Stamp(NamedTuple):
    """What tells one version of a file from another."""

    modified: int  # ns, epoch
    size: int  # bytes
    inode: int


class Look(NamedTuple):
    """What is at a path, or at all that a pattern matches: files by their paths, in folders all that is below."""

    files: dict[str, Stamp]
    #: Of files that are not whole yet, by their names.
    partial: dict[str, Stamp]


class Written(NamedTuple):
    """What has been written between two looks."""

    pattern: str
    files: int = 0
    size: int = 0
    #: The latest time of any of them (s, epoch); None: nothing was written.
    at: float | None = None
    #: Why it is no checkpoint that a run could resume from; None: it is one, as far as can be seen from outside.
    problem: str | None = None


def look(pattern: str) -> Look:
    """Look at what is there now; what cannot be read is not there.

    Args:
        pattern: a file or a folder, or a pattern of such (glob(7), with `**`).
    """
    found = Look({}, {})
    for root in [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True):
        if os.path.isdir(root):
            for path in _below(root):
                partial = any(_PARTIAL.search(part) for part in os.path.relpath(path, root).split(os.sep))
                _note(path, found.partial if partial else found.files)
        else:
            _note(root, found.partial if _PARTIAL.search(os.path.basename(root)) else found.files)
    for path in [pattern, *found.files]:
        for beside in glob.glob(glob.escape(path) + "?*"):
            if _PARTIAL.search(os.path.basename(beside)):
                _note(beside, found.partial)
    return found


def written(pattern: str, before: Look, after: Look) -> Written:
    """Return what has been written between two looks at `pattern`."""
    new = {path: stamp for path, stamp in after.files.items() if before.files.get(path) != stamp}
    half = [path for path, stamp in after.partial.items() if before.partial.get(path) != stamp]
    if not new:
        there = after.files or before.files
        nothing = f"nothing was written to {pattern} after the notice" if there else f"there is nothing at {pattern}"
        return Written(pattern, problem=f"{nothing}, only {half[0]}" if half else nothing)
    size = sum(stamp.size for stamp in new.values())
    at = max(stamp.modified for stamp in new.values()) / 1e9
    # In a folder empty files may be marks; one that was named itself is the checkpoint.
    empty = [path for path, stamp in new.items() if not stamp.size and not (os.path.isdir(pattern) and size)]
    problem = f"{empty[0]} is empty" if empty else f"{half[0]} was left half-written" if half else None
    return Written(pattern, len(new), size, at, problem)


def _below(folder: str) -> Iterator[str]:
    for parent, _folders, files in os.walk(folder):
        for file in files:
            yield os.path.join(parent, file)


def _note(path: str, where: dict[str, Stamp]) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return
    where[path] = Stamp(status.st_mtime_ns, status.st_size, status.st_ino)
