"""Reading journals back: whatever is in the file, and whatever is in the folder."""

from __future__ import annotations

import json
import os
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands import journals
from kempnerforge.commands.journals import Attempt, Heard, Journal
from kempnerforge.commands.trouble import Trouble
from kempnerforge.launcher.policy import facts, words
from kempnerforge.launcher.policy.machine import Policy
from kempnerforge.launcher.telling.journal import encode
from tests.unit.journal_lines import COMMAND, START, Writer, eventful, many

KNOWN = ["start", "armed", "registered", "polled", "notice", "reason", "stage", "finished", "exit", "requeue"]
KNOWN += ["continued", "status", "end"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("journals") / "slurm-4242.jsonl"


def read(file: Path, content: bytes) -> Journal:
    file.write_bytes(content)
    return journals.read(file)


# --- what each line tells ------------------------------------------------------------------------


def test_an_attempt_as_it_should_be(tmp_path: Path) -> None:
    job = Writer()
    job.start(0)
    job.checkpoint(3478, 0)
    journal = journals.read(job.write(tmp_path))
    assert (journal.cluster, journal.job, journal.task, journal.label) == ("slurm", "4242", "", "4242")
    assert (journal.unreadable, journal.unknown, journal.newer) == (0, 0, False)
    (attempt,) = journal.attempts
    assert attempt == Attempt(
        key=job.key,
        number=1,
        started=START,
        last_time=START + 3480.3,
        job="4242",
        name="pretrain",
        node="n1",
        command=COMMAND,
        version="0.1.0",
        place="batch",
        armed=True,
        registered=True,
        first_ready_poll=START + 9,
        notice=journals.Notice(START + 3478, "SIGUSR1", "slurmstepd (pid 77)"),
        reason="time_limit",
        first_poll=START + 3478.2,
        finished=START + 3480.1,
        last_finished=START + 3480.1,
        exit_time=START + 3480.2,
        exit_status=0,
        end_time=START + 3480.3,
        outcome="checkpointed",
        because="requeued",
        requeued=True,
        status=0,
        restarts=0,
        progress=True,
        shutdown=2.2,
        slack=115.7,
    )


def test_all_that_may_happen(tmp_path: Path) -> None:
    attempts = journals.read(eventful().write(tmp_path)).attempts
    assert [attempt.number for attempt in attempts] == [1, 2, 3, 4, 5, 6]
    assert [attempt.outcome for attempt in attempts] == [
        "checkpointed",
        "checkpointed",
        "forced",
        None,
        "failed",
        "checkpointed",
    ]
    killed, lost, failed, cancelled = attempts[2:]
    assert [(stage.stage, round(stage.time - START, 3)) for stage in killed.stages] == [
        ("terminate", 9477.9),
        ("kill", 9487.6),
    ]
    assert (killed.exit_status, killed.shutdown, killed.slack) == (-9, None, 4.9)
    assert (lost.end_time, lost.last_time, lost.progress) == (None, lost.first_ready_poll, None)
    assert (failed.notice, failed.retried, failed.progress, failed.reason) == (None, True, False, None)
    assert (cancelled.suspended, cancelled.pauses, cancelled.status) == (240.0, (), 85)
    assert [attempt.runs_again for attempt in attempts] == [True, True, True, False, True, False]


def test_what_the_policy_records_is_understood(file: Path) -> None:
    """The policy's own records, and not this module's idea of them."""
    policy = Policy(words.Rules(place="batch", job_id="4242"))
    job = words.Job("RUNNING", 2, 2000.0, None, False, False, True, "4242_7")
    who = words.Identity("n1", 9, 90)
    happens: list[tuple[float, words.Event]] = [
        (1, words.JobRead(job)),
        (2, words.Armed("train.py", who)),
        (3, words.Registered("train.py", who, 600.0)),
        (4, words.Polled(who, False)),
        (100, words.Continued(30.0)),
        (1900, words.Signalled(10, "slurmstepd (pid 7)", False, True)),
        (1900, words.JobRead(job)),
        (1901, words.Polled(who, True)),
        (1905, words.Continued(3.0)),
        (1909, words.Finished(who)),
        (1910, words.ChildExited(0, True)),
        (1910.5, words.JobRead(job)),
        (1911, words.RequeueAnswered(True, False, "")),
        (1912, words.JobRead(job._replace(state="PENDING", restarts=3))),
    ]
    lines = [
        encode(action, START + at, {"job": "4242", "attempt": "1-1"})
        for at, event in happens
        for action in policy.handle(event, at)
        if isinstance(action, facts.Journaled)
    ]
    journal = read(file, b"".join(lines))
    assert (journal.unreadable, journal.unknown) == (0, 0)
    (attempt,) = journal.attempts
    assert attempt.notice == journals.Notice(START + 1900, "SIGUSR1", "slurmstepd (pid 7)")
    assert (attempt.armed, attempt.registered, attempt.first_ready_poll) == (True, True, START + 4)
    assert (attempt.first_poll, attempt.finished, attempt.exit_time) == (START + 1901, START + 1909, START + 1910)
    assert (attempt.reason, attempt.outcome, attempt.restarts, attempt.number) == ("time_limit", "checkpointed", 2, 3)
    assert (attempt.requeued, attempt.end_time) == (True, START + 1912)
    # What counts is the time in which it could run.
    assert attempt.suspended == 33 and attempt.pauses == ((START + 1905, 3.0),)
    assert attempt.after_notice(START + 1910) == attempt.shutdown == 7
    assert attempt.after_notice(START + 1901) == 1
    assert attempt.slack is not None and attempt.slack > 0


def test_a_notice_after_a_ctrl_c_is_the_one_that_counts(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.notice(100, "SIGINT", "interrupt")
    job.record(110, "continued", stopped_for=5.0)
    job.notice(200, "SIGTERM", "cancelled")
    (attempt,) = read(file, job.text).attempts
    assert attempt.notice is not None
    assert (attempt.notice.signal, attempt.reason, attempt.after_notice(START + 203)) == ("SIGTERM", "cancelled", 3)


def test_who_was_told_of_the_notice_that_counts_and_how_each_hears_it(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.notice(100, "SIGINT", "interrupt")
    job.record(100, "delivered", receivers="a.py (pid 5)")
    job.notice(200)
    job.record(200, "delivered", receivers="b.py (pid 6)")
    job.record(230, "delivered", receivers="b.py (pid 6)", again=True)
    job.record(200, "heard", pid=6, program="b.py", door="-")
    job.record(203, "heard", pid=6, program="b.py", door="k")
    (attempt,) = read(file, job.text).attempts
    assert (attempt.delivered, attempt.heard) == (("b.py (pid 6)",), (Heard(6, "b.py", "k"),))


def test_a_suspension_before_the_notice_is_no_part_of_the_shutdown(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.record(50, "continued", stopped_for=30.0)
    (attempt,) = read(file, job.text).attempts
    assert (attempt.suspended, attempt.pauses) == (30, ())
    job.notice(60)
    job.record(70, "continued", stopped_for=4.0)
    (attempt,) = read(file, job.text).attempts
    assert (attempt.suspended, attempt.after_notice(START + 71)) == (34, 7)


def test_only_the_latest_statuses_are_kept(file: Path) -> None:
    job = Writer()
    job.start(0)
    for number in range(1000):
        job.record(10, "status", pid=9, text=f"shard {number}")
    (attempt,) = read(file, job.text).attempts
    assert [status.text for status in attempt.statuses] == [f"shard {number}" for number in range(980, 1000)]


def test_the_first_of_each_kind_counts_and_the_last_finish(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.notice(100)
    for rank in (1, 2, 3):
        job.record(100 + rank, "polled", pid=rank, stop=True)
        job.record(110 + rank, "finished", pid=rank)
        job.record(120 + rank, "stage", stage="terminate")
        job.record(120 + rank, "stage", stage="of a newer version")
    (attempt,) = read(file, job.text).attempts
    assert (attempt.first_poll, attempt.finished, attempt.last_finished) == (START + 101, START + 111, START + 113)
    assert attempt.stages == (journals.Stage(START + 121, "terminate"),)


# --- what cannot be read -------------------------------------------------------------------------


def test_lines_that_are_none_are_passed_over_and_counted(file: Path) -> None:
    job = Writer()
    job.start(0)
    good = job.text.splitlines(keepends=True)
    rubbish = [
        b"\xff\xfe\n",
        b"null\n",
        b"[]\n",
        b"\0\0\0\0\n",
        b'{"event": "end"}\n',
        b'{"time": 1, "event": "end"}\n',
        b'{"time": 1, "attempt": "1-1"}\n',
        b'{"time": "1", "event": "end", "attempt": "1-1"}\n',
        b'{"time": true, "event": "end", "attempt": "1-1"}\n',
        b'{"time": NaN, "event": "end", "attempt": "1-1"}\n',
        b'{"time": 1e400, "event": "end", "attempt": "1-1"}\n',
        b'{"time": -5, "event": "end", "attempt": "1-1"}\n',
        b'{"time": 1, "event": ["end"], "attempt": "1-1"}\n',
        b'{"time": 1, "event": "end", "attempt": 1}\n',
        b"[" * 100_000 + b"\n",
        b'{"time": ' + b"9" * 5000 + b', "event": "end", "attempt": "1-1"}\n',
    ]
    journal = read(file, b"\n".join([b"", *rubbish]) + b"".join(good) + b'{"ti')
    assert journal.unreadable == len(rubbish) + 1
    assert len(journal.attempts) == 1 and journal.attempts[0].first_ready_poll == START + 9


def test_fields_of_the_wrong_type_are_left_out(file: Path) -> None:
    wrong: list[Any] = [None, True, -1, 1.5, 10**400, "x", [], {}, [1, "x"]]
    for value in wrong:
        job = Writer()
        job.key = "1-1"
        fields = dict.fromkeys(Attempt._fields, value) | {"stop": value, "stopped_for": value, "pid": value}
        fields |= dict.fromkeys(("signal", "sender", "stage", "text"), value)
        del fields["job"]
        for event in KNOWN:
            job.record(1, event, **fields)
        journal = read(file, job.text)
        assert (journal.unreadable, journal.unknown) == (0, 0)
        (attempt,) = journal.attempts
        assert all(isinstance(word, str) for word in attempt.command)
        assert attempt.restarts is None or attempt.restarts >= 0
        assert attempt.suspended >= 0


def test_a_line_behind_one_that_was_cut_short_is_found(file: Path) -> None:
    job = Writer()
    job.start(0)
    cut = b'{"time": 1795600009.0, "event": "notice", "job": "4242", "att'
    later = Writer()
    later.start(100)
    journal = read(file, job.text + cut + later.text)
    assert journal.unreadable == 1
    assert [(attempt.key, attempt.command) for attempt in journal.attempts] == [
        (job.key, COMMAND),
        (later.key, COMMAND),
    ]


def test_a_command_that_looks_like_a_line_is_none(file: Path) -> None:
    job = Writer()
    job.start(0, command=["sh", "-c", '\n{"time": 1, "event": "end", "attempt": "1-1"}\n'])
    (start, *_others) = job.lines
    cut = start[: start.index('"version"')]
    assert '"1-1' in cut.replace("\\", "")
    journal = read(file, cut.encode())
    assert (journal.attempts, journal.unreadable) == ((), 1)


def test_events_of_a_newer_version_are_counted(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.record(3000, "defragmented", by="a newer version")
    job.end(3001, "completed", None, novelty=["of", "a", "newer"])
    journal = read(file, job.text)
    assert (journal.unreadable, journal.unknown, journal.newer) == (0, 1, True)
    assert journal.attempts[0].outcome == "completed"


def test_a_line_without_an_end_is_read_too(file: Path) -> None:
    job = Writer()
    job.start(0)
    job.end(1, "completed", None)
    assert read(file, job.text[:-1]).attempts[0].outcome == "completed"


def test_a_line_that_is_too_long_is_passed_over(file: Path) -> None:
    job = Writer()
    job.start(0, command=["x" * 17_000_000])
    journal = read(file, job.text)
    assert journal.unreadable == 1 and journal.attempts[0].command == [] and journal.attempts[0].registered


def test_interleaved_attempts_are_told_apart(file: Path) -> None:
    one, other = Writer(), Writer()
    one.start(0)
    one.end(100, "completed", None)
    other.start(0.5)
    other.end(90, "failed", None)
    other_key = other.key + "0"
    lines = [line for pair in zip(one.lines, other.lines, strict=True) for line in pair]
    text = "\n".join(
        line.replace(f'"{other.key}"', f'"{other_key}"') if i % 2 else line for i, line in enumerate(lines)
    )
    first, second = read(file, text.encode()).attempts
    assert (first.key, first.outcome, second.key, second.outcome) == (one.key, "completed", other_key, "failed")


def test_a_clock_that_was_set_back(file: Path) -> None:
    job = Writer()
    job.start(1000)
    job.notice(400)
    job.record(300, "exit", status=0)
    job.end(200, "checkpointed", "time_limit")
    (attempt,) = read(file, job.text).attempts
    assert attempt.after_notice(START + 300) == 0


def test_numbers_go_by_the_restarts_where_they_are_known(file: Path) -> None:
    job = Writer()
    for at, restarts in ((0, None), (100, 4), (200, None), (300, 6)):
        job.start(at)
        job.end(at + 10, "checkpointed", "time_limit", restarts)
    assert [attempt.number for attempt in read(file, job.text).attempts] == [1, 5, 6, 7]


def test_an_older_job_of_the_same_number_is_known_by_its_restarts(file: Path) -> None:
    job = Writer()
    for at, restarts in ((0, 0), (100, 1), (200, None), (300, 0), (400, 0), (500, 1)):
        job.start(at)
        job.end(at + 10, "checkpointed", "time_limit", restarts)
    journal = read(file, job.text)
    assert [attempt.started - START for attempt in journal.of_this_job] == [200, 300, 400, 500]


def test_ten_thousand_attempts(file: Path) -> None:
    content = many(10_000).text
    file.write_bytes(content)
    started = time.process_time()
    journal = journals.read(file)
    took = time.process_time() - started
    assert len(journal.attempts) == 10_000 and journal.attempts[-1].number == 10_000
    assert took < 10  # 0.9 s where nothing else runs
    content = many(1_000).text  # while it is traced, all takes ten times as long
    file.write_bytes(content)
    tracemalloc.start()
    try:
        journal = journals.read(file)
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(content) * 2.5


# --- whatever is in the file ---------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(file: Path, content: bytes) -> None:
    journal = read(file, content)
    assert journal.attempts == () or journal.unreadable < content.count(b"\n") + 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.sampled_from([*KNOWN, "novelty"])
FIELDS = st.dictionaries(
    st.sampled_from([*Attempt._fields, "stop", "stopped_for", "signal", "sender", "stage", "pid", "text"]), VALUES
)
LINES = st.builds(
    lambda time, event, key, fields: {**fields, "time": time, "event": event, "attempt": key},
    st.floats(0, 2e9) | VALUES,
    EVENTS | VALUES,
    st.sampled_from(["1-1", "2-2"]) | VALUES,
    FIELDS,
)


@given(st.lists(LINES, max_size=12))
def test_no_lines_make_it_fail(file: Path, lines: list[dict[str, Any]]) -> None:
    journal = read(file, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    # All that will be done with it.
    for attempt in journal.of_this_job:
        attempt.after_notice(attempt.last_time)
        assert attempt.number >= 1
    assert journal.unreadable + journal.unknown <= len(lines)


@given(st.integers(0, 3), st.data())
def test_a_journal_cut_anywhere_tells_of_the_attempts_before(file: Path, count: int, data: st.DataObject) -> None:
    content = many(count + 1).text
    whole = read(file, content).attempts
    cut = data.draw(st.integers(0, len(content)), label="cut")
    journal = read(file, content[:cut])
    begins = [found.start() for found in re.finditer(rb'\{[^\n]*"event": "start"', content)] + [len(content)]
    ended = sum(begin <= cut for begin in begins[1:])
    # The line end itself is not needed.
    assert list(journal.attempts[:ended]) == list(whole[:ended])
    assert len(journal.attempts) <= ended + 1
    assert journal.unreadable <= 1
    assert journal.unreadable == 0 or content[cut : cut + 1] not in (b"", b"\n")


# --- what is in the folder -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        *("slurm-12", "slurm-123", "other-123", "slurm-1234", "slurm-123.0.2", "slurm-123.0.10", "slurm-123.1.0"),
        *("a-b-77", "local-1795600000-99", "slurm-9.x.0", "notes", "slurm-x"),
    ]
    for age, name in enumerate(names):
        (tmp_path / f"{name}.jsonl").touch()
        os.utime(tmp_path / f"{name}.jsonl", (START - age, START - age))
    (tmp_path / "slurm-5.jsonl.bak").touch()
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("12", ["slurm-12"]),
        ("123", ["other-123", "slurm-123", "slurm-123.0.2", "slurm-123.0.10", "slurm-123.1.0"]),
        ("slurm-123", ["slurm-123", "slurm-123.0.2", "slurm-123.0.10", "slurm-123.1.0"]),
        ("slurm-123.jsonl", ["slurm-123"]),
        ("123.0.10", ["slurm-123.0.10"]),
        ("slurm-123.0.2", ["slurm-123.0.2"]),
        ("77", ["a-b-77"]),
        ("9", ["slurm-9.x.0"]),
        ("local-1795600000-99", ["local-1795600000-99"]),
        ("99", []),
        ("", []),
        ("*", []),
        ("../12", []),
        ("12_3", []),
        ("nothing.jsonl", []),
    ],
)
def test_the_journals_of_a_job(folder: Path, job: str, expected: list[str]) -> None:
    assert names(journals.find(folder, job)) == [f"{name}.jsonl" for name in expected]


def test_a_journal_by_its_path(folder: Path) -> None:
    assert journals.find("/no/such", str(folder / "slurm-12.jsonl")) == [folder / "slurm-12.jsonl"]


def test_the_tasks_of_an_array(folder: Path) -> None:
    for job, task in (("123", "123_5"), ("1234", "123_4"), ("1235", "1234_4"), ("12", "123_9")):
        writer = Writer(job, array_task=task)
        writer.start(0)
        writer.write(folder)
    assert names(journals.find(folder, "123_4")) == ["slurm-1234.jsonl"]
    assert journals.find(folder, "123_6") == []
    # All of them, and not those of array 1234; a task's job is not older than its array.
    found = names(journals.find(folder, "123"))
    assert "slurm-1234.jsonl" in found and not {"slurm-1235.jsonl", "slurm-12.jsonl"} & set(found)


def test_what_only_the_tasks_of_a_job_know(folder: Path) -> None:
    owner, tasks = Writer("500"), [Writer("500"), Writer("500")]
    for start in (0, 1000):
        owner.start(start)
        owner.lines = owner.lines[:-1]  # an inner kforge-run registers, but does not poll
        owner.end(start + 900, "checkpointed", "preempted", requeued=True, progress=None)
        for index, task in enumerate(tasks):
            task.start(start + 1)
            task.notice(start + 800 + index)
            task.record(start + 802 + index, "polled", pid=9, stop=True)
            task.record(start + 810 + index, "finished", pid=9)
            task.end(start + 811, "checkpointed", "preempted", progress=start > 0 or None)
    read = []
    for name, writer in (("500", owner), ("500.0.0", tasks[0]), ("500.0.1", tasks[1])):
        path = folder / f"slurm-{name}.jsonl"
        path.write_text("".join(f"{line}\n" for line in writer.lines))
        read.append(journals.read(path))
    first, second = journals.with_tasks(read[0], read[1:]).attempts
    assert first.notice is not None and first.notice.time == START + 800
    assert (first.first_poll, first.last_finished) == (START + 803, START + 811)
    assert (first.progress, second.progress) == (None, True)
    assert second.notice is not None and second.notice.time == START + 1800
    assert journals.with_tasks(read[0], []) == read[0]


def test_the_latest_jobs(folder: Path) -> None:
    found = names(journals.latest(folder, 5))
    assert found == [f"{name}.jsonl" for name in ("slurm-12", "slurm-123", "other-123", "slurm-1234", "a-b-77")]
    # A job that has only its tasks' is there by the latest of them.
    assert names(journals.latest(folder, 50))[5:] == ["local-1795600000-99.jsonl", "slurm-9.x.0.jsonl"]


def test_no_folder_is_no_journals(tmp_path: Path) -> None:
    assert journals.latest(tmp_path / "none", 5) == journals.find(tmp_path / "none", "1") == []


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Trouble, match="Not a directory"):
        journals.latest(tmp_path / "file", 5)


@pytest.fixture
def not_readable(tmp_path: Path) -> Path:
    """Files that cannot be read, also by root."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "not a regular file"),
        ("fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("none", "No such file or directory"),
        ("a\0b", "embedded null byte"),
        ("/proc/self/mem", "Input/output error"),
    ],
)
def test_a_file_that_is_none(not_readable: Path, name: str, why: str) -> None:
    files = os.listdir("/proc/self/fd")
    with pytest.raises(Trouble, match=why):
        journals.read(not_readable / name)
    assert os.listdir("/proc/self/fd") == files


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = Writer().write(tmp_path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read every file")
    with pytest.raises(Trouble, match="Permission denied"):
        journals.read(path)


def test_an_empty_file(file: Path) -> None:
    assert read(file, b"").attempts == ()
