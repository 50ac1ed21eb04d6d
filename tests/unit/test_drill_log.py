"""What is read out of a run's log."""

from __future__ import annotations

from pathlib import Path

from kempnerforge.commands.rehearsal import run_log
from kempnerforge.commands.rehearsal.run_log import RunLog

LOG = """\
kforge-run 20:34:10 warning: nothing can be interrupted
step 1
kforge-run 20:34:12 notice: SIGUSR1 from python (pid 7)
kforge-run 20:34:14 warning: still running: stack dump and SIGTERM
kempnerforge: graceful shutdown took longer than 2 s: forced exit, stacks of all threads follow
Current thread 0x00007f0af17686c0 (most recent call first):
  File "/site-packages/kempnerforge/resilience/forced_exit.py", line 98 in _stacks
  File "/usr/lib/python3.11/threading.py", line 982 in run

Thread 0x00007f0af2601b80 (most recent call first):
  File "/home/me/train.py", line 5 in all_reduce
kforge-run[task 0.1] 20:34:14 warning: nothing can be interrupted
  File "/home/me/train.py", line 6 in <module>
Traceback (most recent call last):
  File "/home/me/train.py", line 6, in <module>
1: kforge-run 20:34:14 warning: of the second task
ValueError: what was last
"""


def test_stacks_without_our_own_threads_and_tracebacks() -> None:
    assert run_log.stacks_of(LOG) == [
        "Thread 0x00007f0af2601b80 (most recent call first):",
        '  File "/home/me/train.py", line 5 in all_reduce',
        '  File "/home/me/train.py", line 6 in <module>',
    ]


def test_the_commands_own_last_lines() -> None:
    assert run_log.last_lines(LOG, 10) == [
        "step 1",
        "Traceback (most recent call last):",
        '  File "/home/me/train.py", line 6, in <module>',
        "ValueError: what was last",
    ]
    assert run_log.last_lines(LOG, 1) == ["ValueError: what was last"]


def test_a_log_begins_where_it_was_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert RunLog(path, False).text() == ""
    path.write_text("of an earlier run\n")
    log = RunLog(path, False)
    with path.open("a") as file:
        file.write("new\n")
    assert log.text() == "new\n"
    assert log.text(most=3) == "ew\n"
    assert log.text(offset=log.size) == ""
