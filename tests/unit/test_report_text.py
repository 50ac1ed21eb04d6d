"""The report in the terminal and as JSON, letter by letter."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.commands.journals import read
from kempnerforge.commands.timeline import answer, story, text, wording
from kempnerforge.commands.timeline.story import Story
from tests.unit.journal_lines import START, Writer, eventful, many

NOW = START + 100_000


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(job: Writer, folder: Path, slurm_state: str | None = None) -> Story:
    found = story.tell(read(job.write(folder)), NOW, slurm_state)
    assert found is not None
    return found


def plain(content: str, _style: str) -> str:
    return content


def lines(found: Story, width: int = 80, *, everything: bool = False) -> list[str]:
    return list(text.job(found, width, plain, everything=everything))


EVENTFUL = """\
job 4242  pretrain  cluster slurm  times in UTC
python train.py --config 'big model.yaml'

#  started               ran   waited  progress  why it ended
1  2026-11-25 09:46  58m 00s        -  yes       time limit: saved, requeued
2  2026-11-25 10:46  29m 01s   2m 11s  yes       time limit: saved, requeued
3  2026-11-25 11:26  58m 15s  10m 41s  yes       time limit: killed, it did not
                                                 end in time, requeued
4  2026-11-25 12:26        ?   2m 11s  ?         no end recorded: killed without
                                                 a trace (SIGKILL, node failure)
5  2026-11-25 13:33   8m 21s        ?  no        failed, exited with 1, retried
6  2026-11-25 13:44  36m 03s   2m 05s  yes       cancelled: saved, not requeued;
                                                 suspended for 4m 00s

shutdowns, in seconds after the notice; slack is what was left to the deadline
#  notice   first poll  finish  exit  requeued  slack  forced
1  SIGUSR1         0.2     2.1   2.2       2.3  115.7
2  SIGUSR1         4.8    31.0  31.1      31.2    8.8
3  SIGTERM           -       -  24.8      25.1    4.9  SIGTERM at 14.9, SIGKILL
                                                       at 24.6
6  SIGTERM         0.1     3.0   3.2         -   26.7

6 attempts over 4h 37m: ran 3h 09m, lost 17m 08s between attempts, 1h 06m not
known, longest shutdown 31.1 s (attempt 2), least slack 4.9 s (attempt 3), 1
killed, 1 without progress; last: cancelled"""


def test_a_job_at_80_columns(tmp_path: Path) -> None:
    assert "\n".join(lines(told(eventful(), tmp_path))) == EVENTFUL


RUNNING = """\
job 4242  pretrain  cluster slurm  times in UTC
python train.py --config 'big model.yaml'

#  started              ran  waited  progress  why it ended
1  2026-11-25 09:46  1d 03h       -  ?         running

now: running (Slurm: RUNNING) for 1d 03h, last heard of at 2026-11-25 09:46:49
1 attempt over 1d 03h: ran 1d 03h; last: running"""


def test_a_job_that_runs(tmp_path: Path) -> None:
    job = Writer()
    job.start(0)
    assert "\n".join(lines(told(job, tmp_path, "RUNNING"))) == RUNNING
    unknown = lines(told(job, tmp_path))
    assert "now: still running, or killed without a trace (SIGKILL, node failure): last" in unknown
    assert unknown[-1] == "1 attempt over 9.0s: ran ?; last: running, or killed"


LATEST = """\
job   name           attempts  last heard of        lost  how it stands
4242  pretrain              6  2026-11-25 14:24  17m 08s  cancelled
7     模型训练模型          1  2026-11-25 09:46        -  running
8     \\x1b[2Jname\\n         3  2026-11-25 12:48   4m 11s  time limit, requeued
9     -                     1  2026-11-25 09:48        -  died of SIGSEGV"""


def test_the_latest_jobs_at_80_columns(tmp_path: Path) -> None:
    running = Writer("7", "模型训练模型")
    running.start(0)
    failed = Writer("9", "")
    failed.start(0)
    failed.record(100, "exit", status=-11)
    failed.end(100, "failed", None)
    rude = many(3, "8")
    rude.lines = [line.replace('"pretrain"', r'"\u001b[2Jname\n"') for line in rude.lines]
    stories = [
        told(eventful(), tmp_path),
        told(running, tmp_path, "RUNNING"),
        told(rude, tmp_path),
        told(failed, tmp_path),
    ]
    shown = list(text.jobs(stories, 80, plain))
    assert [wording.cells(line) <= 80 for line in shown] == [True] * 5
    assert "\n".join(shown) == LATEST


@pytest.mark.parametrize("width", [40, 80, 81, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    job = eventful(name="模型" * 60 + "\x1b[31m\n" + "e\u0301" * 60)
    job.lines = [line.replace("big model.yaml", "模" * 100 + r"\udcff\u202e") for line in job.lines]
    found = told(job, tmp_path)
    shown = [*lines(found, width), *text.jobs([found], width, plain), *text.tasks([found], width, plain)]
    assert all(line.isprintable() for line in shown)
    # Where there is no room for the columns as they are, the last one keeps its least width.
    assert max(map(wording.cells, shown)) <= max(width, 81)
    assert all(line == line.rstrip() for line in shown)


def test_of_many_attempts_the_first_and_the_last_are_shown(tmp_path: Path) -> None:
    found = told(many(10_000), tmp_path)
    shown = lines(found)
    assert len(shown) < 80
    assert shown.count("… 9,970 more attempts (--all shows them)") == 2
    numbers = [int(line.split()[0]) for line in shown if line.split() and line.split()[0].isdecimal()]
    assert numbers == [*range(1, 6), *range(9976, 10_001)] * 2
    assert len(lines(found, everything=True)) > 20_000
    assert not any("more attempts" in line for line in lines(told(many(31), tmp_path)))


def test_what_to_know_of_the_journal_is_said_once(tmp_path: Path) -> None:
    job = Writer()
    for at, restarts in ((0, 3), (100, 0)):
        job.start(at)
        job.record(at + 9, "defragmented")
        job.end(at + 10, "completed", None, restarts)
    path = job.write(tmp_path)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    found = story.tell(read(path), NOW)
    assert found is not None
    assert list(text.notes(found)) == [
        "1 line of the journal cannot be read: passed over",
        "a newer kforge-run wrote some of this journal: 2 lines not understood (hint: update kforge-run)",
        "1 attempt of an older job with the same number left out",
    ]
    assert lines(found)[2:5] == [
        "1 line of the journal cannot be read: passed over",
        "a newer kforge-run wrote some of this journal: 2 lines not understood (hint:",
        "update kforge-run)",
    ]


TASKS = """\
tasks of the job's steps, their last attempts, in seconds after the notice
task  node  attempts  first poll  finish  exit  its last attempt
0.2   n1           2         0.2    31.0  31.1  time limit
0.10  n2           1           -       -     -  running, or killed"""


def test_the_tasks_of_a_job(tmp_path: Path) -> None:
    stories = []
    for task, node in (("0.2", "n1"), ("0.10", "n2")):
        job = Writer()
        job.start(0, node=node, place="step")
        if task == "0.2":
            job.checkpoint(100, 0, finish=31.0)
            job.start(200, place="step")
            job.checkpoint(300, 1, finish=31.0)
            job.lines = [line.replace('"requeued": true', '"requeued": false') for line in job.lines]
        path = tmp_path / f"slurm-4242.{task}.jsonl"
        path.write_bytes(job.text)
        found = story.tell(read(path), NOW)
        assert found is not None
        stories.append(found)
    assert "\n".join(text.tasks(stories, 80, plain)) == TASKS


def test_colours_say_nothing_that_words_do_not(tmp_path: Path) -> None:
    found = told(eventful(), tmp_path)
    painted = list(text.job(found, 80, lambda content, style: f"<{style}>{content}</{style}>", everything=False))
    assert any("<red>failed, exited with 1, retried</red>" in line for line in painted)
    assert any("<green>time limit: saved, requeued</green>" in line for line in painted)
    assert painted[0] == "<bold>job 4242  pretrain  cluster slurm  times in UTC</bold>"


# --- JSON ----------------------------------------------------------------------------------------


def test_the_answer_for_scripts(tmp_path: Path) -> None:
    found = told(eventful(), tmp_path)
    task = told(many(1, "77"), tmp_path)
    said: dict[str, Any] = json.loads(json.dumps(answer.answer([found], {0: [task]}), allow_nan=False))
    (job,) = said["jobs"]
    assert job | {"attempts": [], "tasks": [], "totals": {}} == {
        "job": "4242",
        "task": None,
        "array_task": None,
        "cluster": "slurm",
        "name": "pretrain",
        "command": ["python", "train.py", "--config", "big model.yaml"],
        "journal": str(tmp_path / "slurm-4242.jsonl"),
        "standing": "over",
        "slurm_state": None,
        "totals": {},
        "attempts": [],
        "tasks": [],
        "older_attempts": 0,
        "unreadable_lines": 0,
        "unknown_lines": 0,
        "unread_bytes": 0,
        "forgotten_attempts": 0,
    }
    assert job["totals"] == {
        "attempts": 6,
        "span": pytest.approx(16648.3),
        "ran": pytest.approx(found.totals.ran),
        "waited": pytest.approx(found.totals.waited),
        "unaccounted": pytest.approx(3991.0),
        "longest_shutdown": {"seconds": pytest.approx(31.1), "attempt": 2},
        "least_slack": {"seconds": 4.9, "attempt": 3},
        "forced": 1,
        "without_progress": 1,
    }
    assert [task["job"] for task in job["tasks"]] == ["77"]
    assert job["attempts"][2] == {
        "number": 3,
        "key": found.rows[2].attempt.key,
        "node": "n1",
        "command": ["python", "train.py", "--config", "big model.yaml"],
        "version": "0.1.0",
        "place": "batch",
        "standing": "over",
        "started": START + 5993,
        "ended": START + 9488.1,
        "last_heard_of": START + 9488.1,
        "ran": pytest.approx(3495.1),
        "waited": pytest.approx(640.8),
        "unaccounted": None,
        "suspended": 0.0,
        "why": "time limit: killed, it did not end in time, requeued",
        "reason": "time_limit",
        "outcome": "forced",
        "requeued": True,
        "because": "requeued",
        "not_started": None,
        "exit_status": -9,
        "status": 0,
        "restarts": 2,
        "progress": True,
        "armed": True,
        "registered": True,
        "first_ready_poll": START + 6002,
        "notice": {"time": START + 9463, "signal": "SIGTERM", "sender": "slurmstepd (pid 77)"},
        "shutdown": {
            "first_poll": None,
            "finish": None,
            "exit": pytest.approx(24.8),
            "requeued": pytest.approx(25.1),
            "deadline": pytest.approx(30.0),
            "slack": 4.9,
            "terminate": pytest.approx(14.9),
            "kill": pytest.approx(24.6),
        },
        "statuses": [],
    }
