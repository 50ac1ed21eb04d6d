"""Signals that end a command with something to tidy up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kempnerforge.commands.interrupts import Interrupted, Interrupts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
def test_the_first_one_is_noted_and_told_where_it_is_safe(signum: signal.Signals) -> None:
    # Below nohup it would be ignored, and stay so.
    before = signal.signal(signum, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            interrupts.check()
            # To this thread: pytest-xdist's workers have another one, which would take it in its own time.
            signal.raise_signal(signum)
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.count == 2
            with pytest.raises(Interrupted) as told:
                interrupts.pause(0)
        assert told.value.signum == signum
        assert signal.getsignal(signum) is signal.default_int_handler
    finally:
        signal.signal(signum, before)


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            interrupts.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


#: In a process of its own: pytest-xdist's workers have another thread, which takes the signals.
KEPT = """\
import os, signal, subprocess, sys
from kempnerforge.commands.interrupts import Interrupts
with Interrupts() as interrupts:
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
        code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('survived', flush=True)"
        subprocess.run([sys.executable, "-c", code])
        print(interrupts.count, flush=True)
    print(interrupts.count)
"""


def test_they_are_kept_from_us_and_from_what_is_started_meanwhile() -> None:
    said = subprocess.run([sys.executable, "-c", KEPT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["survived", "0", "1"]
