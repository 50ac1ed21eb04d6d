"""Signals at every moment of kforge-run's life. Whatever happens it ends, and leaves nothing behind."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

from tests.process.children import LAST
from tests.process.launch import KFORGE_RUN, ROOT, Launch, program

#: kforge-run's whole start, on a busy machine (s).
START = 0.15


def pause(seconds: float) -> None:
    """Let a random moment pass. This is the subject here: whenever the signal comes, all is well."""
    time.sleep(seconds * random.random())


@pytest.mark.parametrize("chunk", range(4))
def test_a_signal_while_kforge_run_starts(launch: Launch, chunk: int) -> None:
    """Until it has blocked the signals it dies of them, as any program does, and has not started anything yet."""
    del chunk
    for _ in range(5):
        runs = [launch("sleep", "60", options=("--timeout", "0.5")) for _ in range(5)]
        random.shuffle(runs)
        for run in runs:
            pause(START / 5)
            run.send(signal.SIGUSR1)
        for run in runs:
            ended = run.wait()
            assert ended == (128 + signal.SIGTERM if run.own_lines else -signal.SIGUSR1), (ended, run.log)


#: On PYTHONPATH, it stalls the start at the import of one module, until there is a line on standard input.
STALL = """
import os, sys

class Stall:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STALL_AT"]:
            os.write(1, b"importing\\n")
            os.read(0, 1)

sys.meta_path.insert(0, Stall())
"""


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("module", ["cli", "processes.signals"])
@pytest.mark.parametrize("kforge_run", [KFORGE_RUN, (str(ROOT / "bin/kforge-run"),)], ids=["module", "script"])
def test_a_signal_during_the_imports_waits_for_the_child(
    launch: Launch, kforge_run: tuple[str, ...], module: str, signum: int
) -> None:
    (launch.folder / "sitecustomize.py").write_text(STALL)
    variables = {"PYTHONPATH": f"{launch.folder}:{ROOT}", "STALL_AT": f"kempnerforge.launcher.{module}"}
    run = launch.start([*kforge_run, "--timeout=0.5", "sleep", "1000"], variables=variables, stdin=subprocess.PIPE)
    run.says("importing")
    run.send(signum)
    run.give(b"\n")
    run.ends(128 + signal.SIGTERM)
    assert f"notice: {signal.Signals(signum).name}" in run.log


@pytest.mark.parametrize("chunk", range(2))
def test_a_signal_before_the_child_exists(launch: Launch, chunk: int) -> None:
    del chunk
    for _ in range(10):
        run = launch("sleep", "60", options=("--timeout", "0.5"))
        run.captures()
        run.send(signal.SIGUSR1)
        run.ends(128 + signal.SIGTERM)
        assert "notice: SIGUSR1" in run.log


def test_another_signal_before_the_child_exists(launch: Launch) -> None:
    """It is handed on as soon as there is somebody to tell, like the notice."""
    for _ in range(10):
        run = launch("sleep", "1000")
        run.captures(signal.SIGUSR2)
        run.send(signal.SIGUSR2)
        run.ends(128 + signal.SIGUSR2)


@pytest.mark.parametrize("chunk", range(2))
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_the_child_ends_in_the_same_instant(launch: Launch, signum: int, chunk: int) -> None:
    del chunk
    for _ in range(25):
        run = launch("sh", "-c", "echo ready; exit 7", options=("-q",))
        run.says("ready")
        pause(0.003)
        if run.process.poll() is None:
            run.send(signum)
        ended = run.wait()
        assert ended in (7, 128 + signum), (ended, run.log)


def test_ten_thousand_notices(launch: Launch) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    for _ in range(5000):
        run.send(signal.SIGUSR1, signal.SIGTERM)
    run.says("SIGUSR1")
    run.taken()
    run.send(LAST)
    assert run.rest() == []
    run.ends(9)
    assert len(run.own_lines) < 20


def test_ten_thousand_other_signals(launch: Launch) -> None:
    """What cannot coalesce is passed on each time, and the notice comes through."""
    run = launch(*program("listen"))
    run.says("ready")
    run.send(*[signal.SIGRTMIN + 7] * 10_000, signal.SIGUSR1)
    run.taken()
    run.send(LAST)
    said = run.rest()
    assert said.count("SIGRTMIN+7") == 10_000 and said.count("SIGUSR1") == 1
    run.ends(9)
