"""kforge-run inside srun: `srun kforge-run python train.py` is run where `srun python train.py` was said.

What the inner one needs travels as its argument: `--export=NONE`, SLURM_EXPORT_ENV and their like, which are left as
they are, take variables away. An argument can be read by every user of the node, so it holds no secret.

Only a command that is an srun pays for this module, and each kforge-run that is put into one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from ..bootstrap import contract
from .asking import srun
from .asking.place import Whereabouts
from .meeting.inject import check_passing
from .meeting.private_folder import PrivateFolder
from .policy.words import Tasks
from .settings import INNER_OPTION, Settings
from .telling.state_folder import state_folders
from .telling.trust import Trust, open_folder

#: What the inner one would find in its environment.
_VARIABLES = (contract.CONTROL_VARIABLE, contract.JOB_FACTS_VARIABLE)
#: What of our own settings holds for the inner ones, too.
_HANDED_DOWN = ("timeout", "term_grace", "inject", "notify", "command_in_journal", "verbosity")
#: Run by each task: a Python, our script and the rest. A node that has not the two, because they are on a disk of the
#: first one's, goes on without us. The notice waits until we are there: ignored signals stay so when a shell becomes
#: another program, and one that is blocked as well is kept (signal(7); our script blocks it first of all).
_TASK = """\
if [ -x "$1" ] && [ -r "$2" ]; then trap '' USR1; exec "$@"; fi
echo "kforge-run: not on node ${SLURMD_NODENAME-}: the task runs without it" >&2
shift 4; exec "$@\""""
#: Of a site's srun script and of a program that may be a script (characters): more than either has to say. Guesses.
_MOST_OF_SRUN, _FIRST_LINE = 1 << 16, 256


class InsideSrun:
    """What becomes of a command that is an srun.

    Args:
        settings: of the kforge-run that starts it.
        environment: srun's.
        where: this one is.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], where: Whereabouts) -> None:
        self._settings, self._environment = settings, environment
        one_node = environment.get("SLURM_JOB_NUM_NODES") == "1" and "SLURM_HET_SIZE" not in environment
        self._is_here = where.place == "batch" and one_node
        self._installed, self._trouble = _installation(self._is_here)
        self._verdict = self._put([])

    @property
    def tasks(self) -> Tasks:
        return "strangers" if self._trouble and self._verdict.is_put else self._verdict.tasks

    @property
    def tasks_here(self) -> int:
        return self._verdict.number if self._is_here and self.tasks == "ours" else 0

    @property
    def warning(self) -> str | None:
        """Why the tasks have no kforge-run, and what to do."""
        why, cure = self._verdict.why_not, self._verdict.cure
        if self._verdict.is_put and self._trouble:
            why, cure = self._trouble, "install kforge-run where all nodes have it, and only you or root can write"
        return f"kforge-run does not run in srun's tasks: {why} ({cure})" if why else None

    @property
    def is_put(self) -> bool:
        return self._verdict.is_put and not self._trouble

    def command(self, folder: PrivateFolder | None, job_facts: str | None) -> list[str]:
        """Return the command to run.

        Args:
            folder: where the inner kforge-runs of this node meet this one.
            job_facts: see `place.facts_to_hand_down`; None: what this one was given.
        """
        if not self.is_put:
            return self._settings.command
        settings: dict[str, Any] = {name: getattr(self._settings, name) for name in _HANDED_DOWN}
        journal = self._settings.journal or next(state_folders(self._environment), None)
        settings["journal"] = journal and os.path.abspath(journal)
        facts = job_facts or self._environment.get(contract.JOB_FACTS_VARIABLE, "")
        variables = dict(zip(_VARIABLES, (contract.control_address(folder.path) if folder else "", facts), strict=True))
        inner = [INNER_OPTION, json.dumps({"settings": settings, "variables": variables})]
        return self._put(["/bin/sh", "-c", _TASK, "kforge-run", *self._installed, *inner]).command

    def _put(self, before: list[str]) -> srun.Verdict:
        path = self._environment.get("PATH", os.defpath)
        script = _read(self._settings.command[0], path, _MOST_OF_SRUN)

        def first_line(program: str, folder: str) -> str:
            # A folder in PATH that is no whole path is looked at from the folder of the task.
            return _read(program, path, _FIRST_LINE, folder)

        return srun.put(before, self._settings.command, self._environment, script=script, first_line=first_line)


def read_inner(text: str, command: list[str], umask: int | None) -> Settings:
    """Return what the kforge-run outside of srun has handed down, and put its variables where ours are looked for.

    Raises:
        ValueError: that is not what it is.
    """
    try:
        given = json.loads(text)
        variables = {name: str(given["variables"][name]) for name in _VARIABLES}
        settings = Settings(command, umask=umask, **given["settings"])
    except (LookupError, TypeError) as error:
        raise ValueError(f"{error}") from None
    os.environ.update({name: value for name, value in variables.items() if value})
    return settings


def _installation(is_here: bool) -> tuple[list[str], str]:
    """Return the Python and the script to run on every node, and what speaks against them.

    Under `sbatch kforge-run` what runs is a copy in a spool folder, and only the package tells where we are installed.

    Args:
        is_here: this node is the only one, so whatever is here will do.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parent = os.path.dirname(package)
    # A checkout or `pip install --target`; an environment's or a user's lib/python3.x/site-packages.
    places = [parent, os.path.dirname(os.path.dirname(os.path.dirname(parent)))]
    scripts = [os.path.join(place, "bin", "kforge-run") for place in places]
    if os.path.basename(sys.argv[0]) == "kforge-run":
        scripts.insert(0, os.path.abspath(sys.argv[0]))
    script = next(filter(os.path.isfile, scripts), None)
    if script is None or not sys.executable:
        return [], f"its script is not found beside {package}"
    installed = [sys.executable, script]
    if is_here:
        return installed, ""
    try:
        for folder in {package, *map(os.path.dirname, (*installed, *map(os.path.realpath, installed)))}:
            # On another node a stranger could have made what is of that name there.
            check_passing(os.path.realpath(folder))
            os.close(open_folder(folder, Trust.ALWAYS))
    except OSError as error:
        return [], error.strerror or str(error)
    return installed, ""


def _read(program: str, path: str, most: int, folder: str = "") -> str:
    """Return how the file begins that a program's name leads to, if it is a script; empty: it is none, or not there."""
    folders = [folder] if "/" in program else [os.path.join(folder, one) for one in path.split(":")]
    for found in (os.path.join(one, program) for one in folders):
        if os.path.isfile(found) and os.access(found, os.X_OK):
            try:
                with open(found, "rb") as file:
                    start = file.read(most)
            except OSError:
                return ""
            return start.decode("utf-8", "surrogateescape") if start.startswith(b"#!") else ""
    return ""
