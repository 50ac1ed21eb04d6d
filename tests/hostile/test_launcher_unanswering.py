"""A folder in the environment stops answering during the run: no name in it can be looked up any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.launch import ROOT, Launch, Launched, program, reap_orphans, wait_until

SERVER = Path(__file__).parent / "programs/unanswering_folder.py"
OPTIONS = ("--timeout", "4", "--term-grace", "1")


class Unanswering:
    """A folder that answers until it is told not to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "unanswering"
        self.path.mkdir()
        self._flag = folder / "flag"
        command = [sys.executable, str(SERVER), str(self.path), str(self._flag)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._server.stdout is not None and self._server.stdout.readline() == b"mounted\n"

    def stop_answering(self) -> None:
        self._flag.touch()

    def close(self) -> None:
        self._server.kill()  # whoever hangs gets an error now
        self._server.communicate()
        subprocess.run(["umount", "--lazy", self.path], check=True)
        reap_orphans()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Unanswering]:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse, to be a file server")
    made = Unanswering(tmp_path)
    yield made
    made.close()


def escalates(run: Launched, folder: Unanswering) -> None:
    """Check that a child that ignores everything is killed though the folder does not answer."""
    # What kforge-run needs later it has looked up by now.
    wait_until(lambda: b"/psutil/" in Path(f"/proc/{run.pid}/maps").read_bytes())
    wait_until(lambda: "poll" in Path(f"/proc/{run.pid}/wchan").read_text())
    folder.stop_answering()
    run.send(signal.SIGUSR1)
    run.wait()


def test_a_folder_on_pythons_path(launch: Launch, folder: Unanswering) -> None:
    variables = {"PYTHONPATH": f"{folder.path}:{ROOT}"}
    # The child itself imports nothing later, or it would hang.
    run = launch(*program("ignore", "SIGTERM", "SIGUSR1"), options=OPTIONS, variables=variables)
    run.says("ready")
    escalates(run, folder)
    run.ends(128 + signal.SIGKILL)


def test_a_folder_on_the_path_of_programs(launch: Launch, folder: Unanswering) -> None:
    """It is where scontrol is looked for first."""
    bin_folder = launch.folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (bin_folder / "scontrol").chmod(0o755)
    path = f"{folder.path}:{bin_folder}:{launch.environment['PATH']}"
    ignore = program("ignore", "SIGTERM", "SIGUSR1")
    run = launch.in_batch(*ignore, options=OPTIONS, variables={"PATH": path, "SLURM_JOB_ID": "123"})
    run.says("ready")
    run.find_kforge_run()
    escalates(run, folder)
