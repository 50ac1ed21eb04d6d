"""kforge-run as a user has it: installed, not editable, byte-compiled, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


class InstallError(Exception):
    """pip failed; the message has its last line."""


class Installation:
    """A throwaway virtual environment.

    Args:
        folder: where it goes, and whatever the runs leave behind.

    Attributes:
        python: its interpreter, the same as ours.
        kforge_run: the installed script.
        environment: of every process that is measured.

    Raises:
        InstallError: see the message.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder / "venv"
        venv.create(home, symlinks=True)
        self.python = str(home / "bin" / "python")
        self.kforge_run = str(home / "bin" / "kforge-run")
        # Our own and Slurm's variables would change what is measured; so would PYTHONDONTWRITEBYTECODE.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "KFORGE_", "PYTHON"))}
        self.environment = {
            **inherited,
            "PATH": f"{home / 'bin'}:{inherited.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(home),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        wheels = folder / "wheels"
        self._pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(CHECKOUT))
        (wheel,) = wheels.iterdir()
        self._pip("--python", self.python, "install", str(wheel))
        self._compile()

    def has(self, package: str) -> bool:
        """Install a package to compare with; return whether that worked."""
        try:
            self._pip("--python", self.python, "install", package)
        except InstallError:
            return False
        self._compile()
        return True

    def find(self, program: str, *arguments: str) -> str | None:
        """Return the path of a program that this machine has, None if it does not work here with these arguments."""
        found = shutil.which(program, path=self.environment["PATH"])
        if found is None:
            return None
        # pyenv's shims are on PATH also for what they then refuse to start.
        works = subprocess.run([found, *arguments], env=self.environment, capture_output=True, check=False)
        return found if works.returncode == 0 else None

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
        answer = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            lines = answer.stderr.strip().splitlines() or ["no message"]
            raise InstallError(f"pip {arguments[0]}: {lines[-1]}")

    def _compile(self) -> None:
        command = [self.python, "-m", "compileall", "-qq", "-j", "0", str(self.folder / "venv" / "lib")]
        subprocess.run(command, env=self.environment, check=False)  # packages may have files for other Pythons
