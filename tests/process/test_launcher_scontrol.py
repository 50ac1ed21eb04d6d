"""kforge-run's questions to Slurm, each of them a process."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from kempnerforge.launcher.asking.slurm import Controller
from kempnerforge.launcher.policy.words import JobRead
from kempnerforge.launcher.processes import tree


def test_a_question_that_was_given_up_does_not_end_the_one_that_took_its_place(tmp_path: Path) -> None:
    words = tmp_path / "words"
    os.mkfifo(words)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\nread -r line < {words}\necho $line\n")
    (tmp_path / "scontrol").chmod(0o755)
    helpers: set[int] = set()
    controller = Controller("123", "", {"PATH": str(tmp_path)}, select.poll(), helpers)
    controller.ask_job()
    controller.start_next(time.monotonic())
    (first,) = helpers
    controller.ask_job()
    controller.start_next(time.monotonic())
    (second,) = helpers - {first}
    while not tree.was_given(second, "KFORGE_SCONTROL"):
        time.sleep(0.001)  # it is forked, and not executed yet
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert controller.ended(first) == []
    speak = os.open(words, os.O_RDWR)
    os.write(speak, b"nothing that one could read\n")
    os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
    answers = controller.ended(second)
    os.close(speak)
    assert answers == [JobRead(None, "no JobId in scontrol's answer", answered=True)]
