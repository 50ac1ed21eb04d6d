"""What a node's mount namespace can be made to show: other names of users, an open home, a /proc that hides.

Each function returns commands for `Sandbox(prepare=…)`, and works for root only.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

#: A user whom every machine has, and who is not root.
NOBODY = 65534


def known_as(folder: Path, number: int, user: str, group: str) -> list[list[str]]:
    """Let a user and a group of the same number have other names.

    Args:
        folder: for the files; the nodes must see it.
        number: of both.
        user: the user's name.
        group: the group's name.
    """
    commands = []
    for file, line in {"passwd": f"{user}:x:{number}:{number}::/:/bin/sh", "group": f"{group}:x:{number}:"}.items():
        (folder / file).write_text(f"{line}\n{Path('/etc', file).read_text()}")
        commands.append(["mount", "--bind", str(folder / file), f"/etc/{file}"])
    return commands


def hiding_processes(level: int) -> list[list[str]]:
    """Mount /proc so that users see their own processes only (`hidepid` in proc(5))."""
    return [["mount", "-t", "proc", "-o", f"hidepid={level}", "proc", "/proc"]]


def opened(paths: Iterable[Path]) -> list[list[str]]:
    """Let everybody see folders that lie in a home of root's: the checkout, its Python.

    The home is covered, and has nothing else in it then.
    """
    closed: dict[Path, list[str]] = {}
    for path in paths:
        for ancestor in reversed(path.parents):
            if not ancestor.stat().st_mode & 1:
                closed.setdefault(ancestor, []).append(shlex.quote(str(path)))
                break
    script = ["mount -t tmpfs tmpfs /mnt"]
    for cover, below in closed.items():
        script += [f"mkdir /mnt/{number} && mount --bind {path} /mnt/{number}" for number, path in enumerate(below)]
        script += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(cover))}"]
        script += [f"mkdir -p {path} && mount --bind /mnt/{number} {path}" for number, path in enumerate(below)]
        script += ["umount /mnt/* && rmdir /mnt/*"]
    return [["sh", "-ec", "\n".join(script)]]
