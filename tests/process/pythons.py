"""Other Pythons on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

VERSIONS = ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def python_of_version(version: str) -> str | None:
    """Return a Python of this version, if there is one on PATH or where pyenv keeps them."""
    candidates = [f"python{version}", *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for candidate in filter(shutil.which, candidates):
        # pyenv's shims are on PATH also for versions that they then refuse to start.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None
