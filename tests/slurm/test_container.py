"""The container template with Apptainer itself, through a notice to the finished second attempt.

Apptainer runs as it has to for ordinary users: in a user namespace, with the image mounted by FUSE.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.roots import CHECKOUT, FROM_SID, numbers
from tests.slurm.runs import PROGRAMS, Run
from tests.slurm.sandbox import Sandbox
from tests.slurm.test_templates import STEPS, example, submit
from tests.slurm.tried import only_on, tried

with_apptainer = only_on(
    lambda version: version in map(numbers, FROM_SID),
    "no Apptainer beside this Slurm: of the root folders, the one with the newest has it",
)

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
#: What is in the image besides Python and its standard library.
IN_IMAGE = ("/usr/bin/sh", "/usr/bin/env")
#: What Apptainer shows of the machine, it mounts on these.
FOLDERS = ("dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "usr/lib64", "var/tmp")
#: Root could do without, but may lack a capability that Apptainer then asks for.
AS_FOR_USERS = {"APPTAINER_USERNS": "1"}


@pytest.fixture
def image(slurm: Sandbox) -> Path:
    """An image with this machine's Python, made from its files by the first test that needs it."""
    if shutil.which("apptainer") is None:
        pytest.skip("no Apptainer here: it could not be installed into the root folder (its log has the reason)")
    file = slurm.work / "image.sif"
    with (slurm.work / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            build(file)
    trial = ["apptainer", "exec", str(file), "python3", "-c", ""]
    done = subprocess.run(trial, env={**os.environ, **AS_FOR_USERS}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"Apptainer cannot run here: {done.stderr.strip()}")
    return file


def build(file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        tree = Path(folder)
        for name in FOLDERS:
            (tree / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (tree / name).symlink_to(f"usr/{name}")
        for name in ("passwd", "group"):
            (tree / "etc" / name).touch()
        python = f"/usr/bin/{STANDARD_LIBRARY.name}"
        modules = STANDARD_LIBRARY.glob("lib-dynload/*.so")
        linked = subprocess.check_output(["ldd", python, *IN_IMAGE, *modules], text=True)
        for path in {python, *IN_IMAGE, *re.findall(r"(/\S+) \(0x", linked)}:
            (tree / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tree / path[1:])
        shutil.copytree(STANDARD_LIBRARY, tree / str(STANDARD_LIBRARY)[1:], symlinks=True)
        (tree / "usr/bin/python3").symlink_to(python)
        new = file.with_suffix(".new")
        subprocess.run(["apptainer", "build", "--mksquashfs-args", "-no-compression", new, tree], check=True)
        new.rename(file)


@pytest.fixture
def folder_outside() -> Iterator[Path]:
    """A folder that no container shows by default, neither as /tmp nor as the home folder."""
    if os.getuid() != 0:
        pytest.skip("only root may make such a folder")
    folder = Path(tempfile.mkdtemp(prefix="kforge-test-", dir="/run"))
    yield folder
    folder.rmdir()  # fails if kforge-run has left something


def survives(
    slurm: Sandbox, image: Path, *command: str, option: str, temporary: Path | None = None, shown: Path | None = None
) -> Run:
    """Submit the template, give the run a notice, and check that it lost nothing.

    Args:
        command: in it, the image has Python and a shell, and no packages.
        option: of Apptainer, set in the environment, because the template is to be used as it stands.
        temporary: TMPDIR of the job.
        shown: a folder that the user has the container show.
    """
    variables: dict[str, object] = {
        "IMAGE": image,
        **AS_FOR_USERS,
        **({} if temporary is None else {"TMPDIR": temporary}),
        **({} if shown is None else {"APPTAINER_BIND": shown}),
    }
    if option:
        variables[f"APPTAINER_{option.strip('-').upper()}"] = 1
    run = submit(slurm, "container-apptainer", *command, options=(), **variables).says("step 3 ")
    return run.signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


@tried("Apptainer, as it is and with `--pid`")
@with_apptainer
@pytest.mark.parametrize("option", ["", "--pid"])
def test_a_program_that_cooperates(slurm: Sandbox, image: Path, folder_outside: Path, option: str) -> None:
    # `kempnerforge` is the one that kforge-run brings along.
    program = example(slurm, f"container{option}", python="python3")
    command = ["sh", "-c", 'test ! -e /usr/share && exec "$@"', "sh", *program]
    run = survives(slurm, image, *command, option=option, temporary=folder_outside)
    assert "first poll by pid" in run.output


@with_apptainer
@pytest.mark.parametrize("option", ["", "--pid"])
def test_a_program_that_knows_of_no_signal(slurm: Sandbox, image: Path, option: str) -> None:
    program = ["python3", str(PROGRAMS / "save_when_interrupted.py"), str(STEPS)]
    # It is not for us to leave out the entry that is there.
    command = ["sh", "-c", f'export PYTHONPATH=$PYTHONPATH:{CHECKOUT}; exec "$@"', "sh", *program]
    run = survives(slurm, image, *command, option=option, shown=CHECKOUT)
    assert re.search(r"delivered to \S*save_when_interrupted\.py \(pid \d+\)", run.output)


@tried("Apptainer with `--cleanenv`: a program with a handler of its own")
@with_apptainer
def test_a_clean_environment(slurm: Sandbox, image: Path) -> None:
    """Nothing leads to kforge-run: the signal itself does, which Apptainer hands on."""
    command = ["env", f"PYTHONPATH={CHECKOUT}", *example(slurm, "container-cleanenv", python="python3")]
    run = survives(slurm, image, *command, option="--cleanenv")
    assert re.search(r"delivered to kempnerforge\.examples\.train \(pid \d+\) as SIGTERM", run.output)
