"""A bug in kforge-run costs the requeue, never the run."""

from __future__ import annotations

import signal
import sys

from tests.process.children import LAST
from tests.process.launch import Launch, program

#: A kforge-run whose policy breaks when the notice comes.
BROKEN = """
import sys
from kempnerforge.launcher import cli
from kempnerforge.launcher.policy.machine import Policy
from kempnerforge.launcher.policy.words import Signalled

decide = Policy.handle

def handle(self, event, now):
    if isinstance(event, Signalled):
        raise ZeroDivisionError("a bug")
    return decide(self, event, now)

Policy.handle = handle
cli.main()
"""


def test_signals_are_still_passed_on_and_the_childs_exit_status_is_kept(launch: Launch) -> None:
    run = launch.start([sys.executable, "-c", BROKEN, *program("listen", 7)])
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("SIGUSR1")
    run.logs("a bug in kforge-run")
    run.send(signal.SIGUSR2)
    run.says("SIGUSR2")
    run.send(signal.SIGTERM)
    run.says("SIGTERM")
    run.send(LAST)
    run.ends(7, buggy=True)
    assert "ZeroDivisionError: a bug" in run.log
