"""Runs programs that use ShutdownHandler, without kforge-run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests import leaks
from tests.process.launch import Launch, Launched, wait_until

#: The Python that trains: CHILD_PYTHON=python3.8 tests that one.
PYTHON = os.environ.get("CHILD_PYTHON", sys.executable)
#: What every program starts with.
PRELUDE = r"""
import ctypes, faulthandler, os, signal, sys, threading, time
from kempnerforge.resilience import ShutdownHandler
from kempnerforge.resilience import process_guard

def say(*what):
    # One write: with PYTHONUNBUFFERED, print() makes several, and those of a forked child come in between.
    os.write(1, (" ".join(map(str, what)) + "\n").encode())

def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)

def stuck(library):
    # A mutex locked twice. Unlike libc's sleep(), no signal ever gets it out.
    mutex = ctypes.create_string_buffer(256)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def open_files():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass  # the listing's own
    return found

def tasks():
    return len(os.listdir("/proc/self/task"))
"""

Run = Callable[..., Launched]


@pytest.fixture
def run(launch: Launch) -> Iterator[Run]:
    """Run some code after the prelude; it is gone after the test, with all that it has forked."""
    others = leaks.children()

    def start(code: str, stderr: int | IO[bytes] | None = None, **variables: str) -> Launched:
        program = launch.folder / f"child{len(launch.started)}" / "child.py"
        program.parent.mkdir()
        program.write_text(PRELUDE + textwrap.dedent(code))
        return launch.start([PYTHON, "-B", str(program)], variables=variables, stderr=stderr)

    yield start
    for child in launch.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    leaks.end_all(others)  # what it forked is ours by now


def wait_for_sleep(pid: int, task: int | str | None = None, where: str = "futex") -> None:
    """Wait until a thread, the main one if none is named, sleeps in the kernel: in a futex no signal gets it out."""
    wait_until(lambda: where in Path(f"/proc/{pid}/task/{task or pid}/wchan").read_text())
