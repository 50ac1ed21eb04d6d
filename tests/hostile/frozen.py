"""A file system that does not answer: ext4 in a file, mounted on a loop device, and frozen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 8 << 20  # bytes


def why_not() -> str | None:
    """Return why there can be no such file system here; None: there can."""
    if os.geteuid() != 0:
        return "needs root, to mount and freeze a file system"
    missing = [tool for tool in ("mkfs.ext4", "fsfreeze", "losetup") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: e2fsprogs, util-linux)"
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode != 0:
        return "needs a free loop device"
    return None


class Frozen:
    """One that can be frozen.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_frozen = False

    def freeze(self) -> None:
        """From now on whoever writes hangs, and cannot be killed."""
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        self._is_frozen = True

    def thaw(self) -> None:
        if self._is_frozen:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)
            self._is_frozen = False


@contextmanager
def file_system(folder: Path) -> Iterator[Frozen]:
    """Mount a new one, and leave nothing of it."""
    image, mounted = folder / "image", folder / "mounted"
    image.touch()
    os.truncate(image, _SIZE)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    mounted.chmod(0o1777)
    frozen = Frozen(mounted)
    try:
        yield frozen
    finally:
        frozen.thaw()
        subprocess.run(["umount", mounted], check=True)
        image.unlink()
