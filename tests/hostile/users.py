"""Two ordinary users of one machine, the victim and the attacker, and an installation that both can read."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.process.launch import PATIENCE, ROOT, Launch, Launched

#: Numbers that no user has here, above those of a machine's own users and below those of dynamic ones.
VICTIM, ATTACKER = 60_001, 60_002
#: From here on there is one for each of pytest's workers, who shares the number of his processes with nobody.
COUNTED = 60_100
#: Where only root can make anything, on any machine. A passing folder, as /tmp is one, would not do.
INSTALLATIONS = Path("/opt")


def why_not() -> str | None:
    """Return why there cannot be two users here; None: there can."""
    if os.geteuid() != 0:
        return "needs root, to be two other users"
    if shutil.which("setpriv") is None:
        return "needs setpriv (Debian: util-linux)"
    if find_python() is None:
        return "needs a Python of 3.10 or later that every user may execute"
    return None


@functools.cache
def find_python() -> str | None:
    """Return a Python that an ordinary user can execute, which those below /root are not."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        # setpriv can execute what its user cannot, and part of a Python's library is in the interpreter.
        check = "import ctypes, json, sys; open(sys.executable, 'rb'); sys.exit(sys.version_info < (3, 10))"
        done = subprocess.run([*become(VICTIM), python, "-c", check], capture_output=True, check=False, cwd="/")
        if done.returncode == 0:
            return python
    return None


def become(uid: int) -> list[str]:
    """Return what runs a command as this user."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


class User(Launch):
    """One of the two, who starts programs.

    Args:
        uid: the number.
        folder: where the home is made, which nobody else may enter, and a folder for the logs.
        installation: what is on PYTHONPATH and PATH.
    """

    def __init__(self, uid: int, folder: Path, installation: Path) -> None:
        logs = folder / f"logs{uid}"
        logs.mkdir(mode=0o700)
        super().__init__(logs)
        self.uid = uid
        self.home = folder / f"home{uid}"
        self.home.mkdir(mode=0o700)
        os.chown(self.home, uid, uid)
        python = find_python()
        assert python is not None
        self.python = python
        self.kforge_run = [python, str(installation / "bin" / "kforge-run")]
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{os.path.dirname(python)}:/usr/bin:/bin",
            "PYTHONPATH": str(installation),
        }

    def begin(
        self,
        *command: str | Path,
        variables: Mapping[str, str | None] | None = None,
        shell: str = "",
        stdin: int = subprocess.DEVNULL,
    ) -> Launched:
        """Start a command as this user.

        Args:
            variables: more environment; None: it is taken away.
            shell: what a shell does before it becomes the command.
        """
        whole = [*map(str, command)]
        if shell:
            whole = ["bash", "-c", f'{shell}\nexec "$@"', "bash", *whole]
        given = {**self.environment, **(variables or {})}
        taken = [f"--unset={name}" for name, value in given.items() if value is None]
        return self.start(
            ["env", *taken, *become(self.uid), *whole],
            variables={name: value for name, value in given.items() if value is not None},
            stdin=stdin,
            cwd=self.home,
        )

    def run(
        self, *command: str | Path, variables: Mapping[str, str | None] | None = None, shell: str = "", status: int = 0
    ) -> tuple[str, str]:
        """Run a command to its end, check its exit status, and return its output and errors."""
        run = self.begin(*command, variables=variables, shell=shell)
        output = run.rest_of_bytes().decode()
        ended = run.wait()
        assert ended == status, (ended, output, run.log)
        return output, run.log

    def sends(self, run: Launched, signum: int) -> None:
        """Signal a process as this user."""
        subprocess.run([*become(self.uid), "kill", f"-{signum}", str(run.pid)], check=True)

    def does(self, script: str, **variables: str | Path) -> None:
        """Run a shell script, in which each name is a variable; what fails in it is not looked at."""
        environment = {**self.environment, **{name: str(value) for name, value in variables.items()}}
        subprocess.run(
            [*become(self.uid), "bash", "-c", script],
            env=environment,
            cwd="/",
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )


@contextmanager
def installed() -> Iterator[Path]:
    """Install the checkout and what it needs, as an administrator would, for all users to read."""
    folder = Path(tempfile.mkdtemp(prefix="kforge-hostile-", dir=INSTALLATIONS))
    try:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "kempnerforge", folder / "kempnerforge", ignore=ignored)
        for package in ("click", "psutil"):
            spec = find_spec(package)
            assert spec is not None and spec.submodule_search_locations is not None
            shutil.copytree(spec.submodule_search_locations[0], folder / package, ignore=ignored)
        (folder / "bin").mkdir()
        for script in ("kforge-run", "kforge"):
            shutil.copy2(ROOT / "bin" / script, folder / "bin")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        python = find_python()
        assert python is not None
        # PYTHONPYCACHEPREFIX and PYTHONDONTWRITEBYTECODE may come from whoever runs the tests.
        environment = {"PATH": os.environ["PATH"]}
        subprocess.run([python, "-m", "compileall", "-qq", str(folder)], env=environment, check=True)
        yield folder
    finally:
        shutil.rmtree(folder)
