"""A rehearsal's report: legible at 80 columns, and the same in JSON."""

from __future__ import annotations

import json

from kempnerforge.commands.journals import Heard
from kempnerforge.commands.rehearsal import text
from kempnerforge.commands.rehearsal.checkpoints import Written
from kempnerforge.commands.rehearsal.rehearse import Plan, Result
from kempnerforge.commands.rehearsal.verdict import Seen, judge

PLAN = Plan(["python", "train.py", "--name", "run 1"], lead=120.0, patience=600.0)
SEEN = Seen(
    started_at=1000.0,
    cooperative=True,
    ready=3.2,
    noticed=3.3,
    signal="SIGUSR1",
    first_poll=0.2,
    saved=2.1,
    exit=2.2,
    ran=5.5,
    status=0,
    outcome="checkpointed",
    over=True,
)


def result(seen: Seen, *written: Written, stacks: tuple[str, ...] = (), last_lines: tuple[str, ...] = ()) -> Result:
    return Result(judge(seen, PLAN.lead), seen, written, stacks, (), last_lines)


def test_a_pass() -> None:
    written = Written("run.pt", 1, 312, 1005.3)
    assert text.report(PLAN, [result(SEEN, written)], None) == (
        "drill of: python train.py --name 'run 1'\n"
        "  ready        first poll 3.2 s after the start\n"
        "  notice       SIGUSR1, 3.3 s after the start\n"
        "  first poll   +0.2 s\n"
        "  saved        +2.1 s   (1.9 s to save)\n"
        "  exit         +2.2 s   with 0\n"
        "  slack        117.8 s of the 120 s that --signal=B:USR1@120 gives\n"
        "  checkpoint   run.pt: 312 bytes, +2.0 s\n"
        "  use          --signal=B:USR1@64\n"
        "               2.2 s × 1.5 (a slower day) + 60 s (kforge-run's own) = 63.3 s\n"  # noqa: RUF001 - as printed
        "  PASS"
    )


def test_it_says_who_was_told_and_by_which_door() -> None:
    ranks = tuple(Heard(pid, f"rank{pid}.py", "k") for pid in range(6))
    seen = SEEN._replace(told=("launch.py (pid 4)", "bash (pid 7) as SIGTERM"), heard=ranks)
    report = " ".join(text.report(PLAN, [result(seen)], None).split())
    assert (
        " told launch.py (pid 4); bash (pid 7) as SIGTERM heard rank0.py hears it by Ctrl-C, which it names; " in report
    )
    assert "rank3.py hears it by Ctrl-C, which it names and 2 more first poll" in report
    found = text.data(PLAN, [result(seen)], None)
    assert found["heard"][0] == {"pid": 0, "program": "rank0.py", "how": "hears it by Ctrl-C, which it names"}


def test_a_failure_says_where_it_was_and_what_it_said() -> None:
    stuck = SEEN._replace(first_poll=None, saved=None, exit=115.0, status=-9, outcome="forced", stages=("kill",))
    stacks = ("Thread 0x1 (most recent call first):", '  File "train.py", line 5 in all_reduce')
    report = text.report(PLAN, [result(stuck, stacks=stacks, last_lines=("step 9",))], "/tmp/kforge-drill-x/log")
    assert report.splitlines()[1:] == [
        "  ready        first poll 3.2 s after the start",
        "  notice       SIGUSR1, 3.3 s after the start",
        "  exit         +115.0 s   died of SIGKILL",
        "  FAIL         it did not poll after the notice, and had to be killed",
        "               Poll after each step: if shutdown_handler.should_shutdown():",
        "               save, finish(), and end",
        "  it was in",
        "  Thread 0x1 (most recent call first):",
        '    File "train.py", line 5 in all_reduce',
        "  it said",
        "    step 9",
        "  log          /tmp/kforge-drill-x/log",
    ]


def test_no_line_is_wider_than_a_terminal() -> None:
    plan = PLAN._replace(command=["python", "train.py", *(f"--option-{number}={number}" for number in range(20))])
    seen = SEEN._replace(exit=559.9, saved=559.8, tasks=64, noticed=599.9, ready=599.8)
    report = text.report(plan, [Result(judge(seen, 600.0), seen, (), (), ("a warning " * 20,), ())], None)
    assert max(map(len, report.splitlines())) <= 80


def test_what_the_terminal_would_act_on_is_shown_instead() -> None:
    report = text.report(PLAN, [result(SEEN._replace(status=3, outcome="interrupted"), last_lines=("\x1b[2J",))], None)
    assert "\x1b" not in report and "\\x1b[2J" in report


def test_json() -> None:
    data = json.loads(json.dumps(text.data(PLAN, [result(SEEN), result(SEEN._replace(ready=2.0))], None)))
    assert (data["passed"], data["verdict"], data["reason"], data["lead"]) == (True, "PASS", "", 120.0)
    assert data["shutdown"] == {"first_poll": 0.2, "saved": 2.1, "exit": 2.2}
    assert data["use"] == {"seconds": 64, "needed": 63.3}
    assert data["restarted"]["first_poll"] == 2.0


def test_a_resume_that_fails_decides() -> None:
    again = Seen(started_at=1.0, ran=0.5, status=1, outcome="failed", over=True)
    report = text.report(PLAN, [result(SEEN), result(again, last_lines=("unexpected key",))], None)
    assert "FAIL         it exited with 1, 0.5 s after its start" in report
    assert "unexpected key" in report
    assert text.data(PLAN, [result(SEEN), result(again)], None)["passed"] is False
