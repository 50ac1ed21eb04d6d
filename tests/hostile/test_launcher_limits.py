"""Surroundings in which plain Python runs, and so must a run: few descriptors, no threads, no processes, odd umasks."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.hostile.users import User
from tests.process.children import LAST
from tests.process.launch import Launch, program
from tests.process.test_launcher_surroundings import HOSTILE_SCONTROL, batch

CHECKPOINTED = 85


@pytest.mark.parametrize("descriptors", range(6, 17))
def test_few_descriptors(launch: Launch, descriptors: int) -> None:
    """What cannot be had is done without, and said once."""
    journal = ("--journal", str(launch.folder / "journals"))
    run = launch("sh", "-c", "echo ran; exit 7", options=journal, shell=f"ulimit -n {descriptors}")
    run.says("ran")
    run.ends(7)
    assert run.log.count("no private folder") <= 1 and run.log.count("\n") <= 3, run.log


@pytest.mark.parametrize("descriptors", [*range(10, 17), 24])
def test_few_descriptors_and_a_notice(launch: Launch, descriptors: int) -> None:
    run = launch(*program("listen"), shell=f"ulimit -n {descriptors}")
    run.says("ready")
    run.send(signal.SIGUSR1)
    # Where nothing can be injected it gets what every Python catches.
    assert run.line() in ("SIGUSR1", "SIGINT")
    run.send(LAST)
    run.ends(9)


NO_THREADS = "ulimit -s 4000000; ulimit -v 2000000"


def test_no_threads(launch: Launch) -> None:
    """A thread's stack does not fit into the address space."""
    thread = "import threading\ntry: threading.Thread(target=print).start()\nexcept RuntimeError: print('no thread')"
    journals = launch.folder / "journals"
    run = launch(sys.executable, "-c", thread, options=("--journal", str(journals)), shell=NO_THREADS)
    run.says("no thread")
    run.ends(0)
    assert [line["event"] for line in launch.journal(journals)][-1] == "end"
    run = launch(*program("cooperate"), shell=NO_THREADS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    assert run.log.count("no forced exit here") == 1


def test_no_threads_for_a_handler_alone(launch: Launch) -> None:
    """Without kforge-run just as well."""
    run = launch.start(program("cooperate"), shell=NO_THREADS)
    run.says("ready")
    run.send(signal.SIGTERM)
    run.says("stop", "SIGTERM")
    run.ends()


def test_no_further_process(counted: User) -> None:
    """Two of them: kforge-run and the run itself. Nothing is left for the journal's writer."""
    journal = ("--journal", "journals")
    output, errors = counted.run(*counted.kforge_run, *journal, "echo", "ran", shell="ulimit -u 2")
    assert output == "ran\n"
    assert errors.count("\n") <= 1 and ("no journal: " in errors or not errors)


def test_no_further_process_and_a_notice(counted: User) -> None:
    wait = "import time\ntry: print('ready', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('saved')"
    run = counted.begin(*counted.kforge_run, counted.python, "-c", wait, shell="ulimit -u 2")
    run.says("ready")
    counted.sends(run, signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("umask", ["0777", "0000"])
def test_an_odd_umask_leaves_nothing(launch: Launch, umask: str) -> None:
    run = launch("sh", "-c", "umask", shell=f"umask {umask}")
    run.says(umask)
    run.ends(0)
    assert run.log == ""


def test_a_scontrol_that_leaves_daemons_does_not_make_the_end_late(launch: Launch) -> None:
    """A site's script: what it leaves behind is ended, and not waited for."""
    leave = "#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\nsetsid sleep 1001 >/dev/null 2>&1 &\n"
    (launch.folder / "setsid").symlink_to("/usr/bin/setsid")
    scontrol = HOSTILE_SCONTROL.replace("#!/bin/sh\n", leave).replace("setsid", str(launch.folder / "setsid"))
    run = batch(launch, scontrol, "sh", "-c", "sleep 0.5; echo ran", options=("--term-grace", "1000"))
    run.says("ran")
    run.ends(0)
