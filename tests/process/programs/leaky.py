"""Tests each of which leaves something behind, told by its docstring; the last one leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

from tests.process.conftest import launch
from tests.process.launch import KFORGE_RUN, Launch, kill_kforge_run, reap, run_below

__all__ = ["launch"]  # a fixture

OPEN = os.open("/dev/null", os.O_RDONLY)
TRAIN = ("sh", "-c", "echo ready; exec sleep 1000")


def test_a_child() -> None:
    r"""process .*\bsleep\b"""
    os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)


def test_an_orphan() -> None:
    r"""process .*\bsleep\b"""
    subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)


def test_a_zombie() -> None:
    r"""process \d+ \(true\), state Z$"""
    os.waitid(os.P_PID, os.posix_spawnp("true", ["true"], {}), os.WEXITED | os.WNOWAIT)


def test_a_descriptor() -> None:
    r"""descriptor \d+: None -> /dev/null$"""
    os.open("/dev/null", os.O_RDONLY)


def test_a_descriptor_of_somebody_elses_that_is_closed() -> None:
    r"""descriptor \d+: /dev/null -> None$"""
    os.close(OPEN)


def test_a_temporary_folder() -> None:
    r"""file or folder /\S+/tmp/left"""
    tempfile.mkdtemp(prefix="left")


def test_what_a_child_leaves_in_tmpdir() -> None:
    r"""file or folder /\S+/tmp/tmp\."""
    subprocess.run(["mktemp"], check=True)


def test_a_journal() -> None:
    r"""file or folder /\S+/state/kforge$"""
    subprocess.run([*KFORGE_RUN, "true"], env={**os.environ, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, check=True)


def test_the_folder_of_a_killed_kforge_run(launch: Launch) -> None:
    r"""private folder /\S+/\.kforge-\d+-\d+-"""
    run = launch(*TRAIN)
    run.says("ready")
    reap(kill_kforge_run(run))


def test_the_folder_of_one_that_another_program_has_started(launch: Launch) -> None:
    r"""private folder /\S+/\.kforge-\d+-\d+-"""
    start = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    run = launch.start([sys.executable, "-c", start, *KFORGE_RUN, *TRAIN])
    run.says("ready")
    inner, child = run_below(run.pid)
    os.kill(inner, signal.SIGKILL)
    run.ends()
    reap(child)


def test_nothing() -> None:
    pass
