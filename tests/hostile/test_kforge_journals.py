"""Journals that nobody's kforge-run wrote: too long, too deep, too many, or no files at all."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from kempnerforge.commands import journals
from kempnerforge.commands.timeline import wording
from tests.hostile.kforge import Answer, assert_bounded, assert_harmless, environment, kforge

START = 1_795_600_000


def line(event: str, attempt: str = "1", **fields: object) -> str:
    return json.dumps({"time": START, "event": event, "job": "7", "attempt": attempt, **fields}) + "\n"


def report(folder: Path, *arguments: str) -> Answer:
    answer = kforge("report", *arguments, given=environment(KFORGE_JOURNAL=str(folder)))
    assert_bounded(answer)
    assert_harmless(answer.errors)
    return answer


def test_the_time_is_linear_in_suspensions(tmp_path: Path) -> None:
    path = tmp_path / "c-7.jsonl"
    path.write_text(line("start") + line("notice", signal="SIGUSR1") + line("continued", stopped_for=0.5) * 120_000)
    begin = time.process_time()
    (attempt,) = journals.read(path).attempts
    assert time.process_time() - begin < 10
    assert attempt.suspended == 60_000
    assert attempt.after_notice(START + 60_001) == 1
    report(tmp_path, "7")


def sparse(path: Path, size: int, end: str) -> None:
    """Make a file that is as long as it likes, and takes no room."""
    with path.open("wb") as file:
        file.write(line("start", "old").encode())
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        file.write(end.encode())


@pytest.mark.parametrize("size", [1 << 30, 1 << 42])
def test_of_a_journal_without_end_the_end_is_read(tmp_path: Path, size: int) -> None:
    sparse(
        tmp_path / "c-7.jsonl", size, "\n" + line("start", "new", name="here") + line("end", "new", outcome="completed")
    )
    answer = report(tmp_path, "7")
    assert "here" in answer.output and "completed" in answer.output
    assert "the journal is too long: its first" in answer.said
    (job,) = json.loads(report(tmp_path, "7", "--json").output)["jobs"]
    assert job["unread_bytes"] > size - (64 << 20)


def test_a_gigabyte_in_one_line_is_no_line(tmp_path: Path) -> None:
    sparse(tmp_path / "c-7.jsonl", 1 << 30, "")
    assert "tells of no attempt" in report(tmp_path, "7").errors


@pytest.mark.parametrize(
    "content",
    [
        "[" * 3_000_000 + "\n",
        '{"a":' * 500_000 + "\n",
        "[" + "[]," * 1_300_000 + "[]]\n",
        "9" * 4_000_000 + "\n",
        '{"time": ' + "9" * 4_000_000 + "}\n",
        line("start", restarts=0).replace("1795600000", "NaN"),
        line("end", slack=0).replace('"slack": 0', '"slack": 1e999') + line("end").replace("1795600000", "9" * 400),
        "".join(
            line("end", slack=float("nan"), shutdown=float("inf"), restarts=10**30, status=1e300) for _ in range(9)
        ),
        "".join(line("start", str(n)) for n in range(150_000)),
        "".join(line("start", str(n), command=[f"w{n}{m}" for m in range(300)]) for n in range(6000)),
        line("end", because="x y " * 900_000, reason="r" * 10, outcome="o"),
        line("status", text="s" * 2_000_000) * 10,
        "\n" * 10_000_000,
        "x\n" * 5_000_000,
    ],
    ids=[
        *(
            "nested",
            "objects",
            "lists",
            "number",
            "time",
            "NaN",
            "infinite",
            "large",
            "attempts",
            "commands",
            "because",
        ),
        *("statuses", "empty lines", "no lines"),
    ],
)
def test_whatever_is_in_it_the_report_is_bounded(content: str, tmp_path: Path) -> None:
    (tmp_path / "c-7.jsonl").write_text(content + line("start", "last", name="train", command=["python"]))
    for arguments in (("7",), ("7", "--json"), ("7", "--html", str(tmp_path / "page.html"))):
        answer = report(tmp_path, *arguments)
        assert answer.status == 0
        if "--json" in arguments:
            json.loads(answer.output, parse_constant=pytest.fail)


def test_of_too_many_attempts_the_latest_are_told(tmp_path: Path) -> None:
    (tmp_path / "c-7.jsonl").write_text("".join(line("start", str(n)) for n in range(21_000)))
    assert "1,000 earlier attempts left out" in report(tmp_path, "7").said


def test_tasks_are_given_to_their_attempts_in_time(tmp_path: Path) -> None:
    def many(count: int, name: str) -> journals.Journal:
        (tmp_path / name).write_text(
            "".join(line("start", str(n)).replace(str(START), str(START + n)) for n in range(count))
        )
        return journals.read(tmp_path / name)

    own, task = many(10_000, "c-7.jsonl"), many(10_000, "c-7.0.0.jsonl")
    begin = time.process_time()
    assert len(journals.with_tasks(own, [task] * 10).attempts) == 10_000
    assert time.process_time() - begin < 10


def test_a_word_is_folded_in_time() -> None:
    begin = time.process_time()
    assert len(wording.fold("x" * 500_000, 120)) == -(-500_000 // 120)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device", "endless", "dangling", "loop", "kmsg"])
def test_what_is_no_file_is_left_out(tmp_path: Path, kind: str) -> None:
    (tmp_path / "c-5.jsonl").write_text(line("start", name="good"))
    place = tmp_path / "c-9.jsonl"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(tmp_path)
            listener.bind(place.name)
    else:
        targets = {"device": "/dev/tty", "endless": "/dev/zero", "dangling": "nowhere", "loop": place.name}
        place.symlink_to(targets.get(kind, "/proc/kmsg"))
    answer = report(tmp_path)
    assert answer.status == 0 and "good" in answer.output
    assert_bounded(kforge("report", place))
    (tmp_path / "job.sbatch").write_text("#!/bin/bash\n#SBATCH --requeue\nexec kforge-run x\n")
    assert_bounded(kforge("doctor", "--journal", tmp_path, tmp_path / "job.sbatch"))


def test_a_folder_of_a_hundred_thousand_files_is_looked_through_in_time(tmp_path: Path) -> None:
    for number in range(100_000):
        os.close(os.open(tmp_path / f"c-{number}.jsonl", os.O_CREAT | os.O_WRONLY))
    (tmp_path / "c-99999.jsonl").write_text(line("start", name="train", array_task="0_3"))
    for arguments in (("99999",), ("100000",), ("0",), ("--tasks",)):
        report(tmp_path, *arguments)
    assert "train" in report(tmp_path).output


def test_more_files_than_are_looked_at_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_MOST_FILES", 10)
    monkeypatch.setattr(journals, "_MOST_TASKS", 5)
    for number in range(20):
        (tmp_path / f"c-{number}.jsonl").touch()
    told: list[str] = []
    assert len(journals.latest(tmp_path, 50, told.append)) == 10
    journals.find(tmp_path, "00", told.append)
    assert told[0].endswith("has more than 10 files: the others were not looked at")
    assert any("were not looked into for tasks of 00" in one for one in told)
