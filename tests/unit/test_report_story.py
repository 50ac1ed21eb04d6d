"""What a journal is taken to mean, and the words for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kempnerforge.commands.journals import Journal, read
from kempnerforge.commands.timeline import story, wording
from kempnerforge.commands.timeline.story import Row, Shutdown, Story
from tests.unit.journal_lines import START, Eventful, Writer, eventful
from tests.unit.test_architecture import PACKAGE, imports

NOW = START + 100_000
LOST = "no end recorded: killed without a trace (SIGKILL, node failure)"


def told(job: Writer, folder: Path, slurm_state: str | None = None, now: float = NOW) -> Story:
    found = story.tell(read(job.write(folder)), now, slurm_state)
    assert found is not None
    return found


def last(job: Writer, folder: Path, slurm_state: str | None = None) -> Row:
    return told(job, folder, slurm_state).last


# --- times ---------------------------------------------------------------------------------------


def test_where_the_time_went(tmp_path: Path) -> None:
    at = Eventful()
    found = told(eventful(), tmp_path)
    spans = [
        (row.ran and round(row.ran, 1), row.waited and round(row.waited, 1), row.unaccounted) for row in found.rows
    ]
    assert spans == [
        (3480.3, None, None),
        (round(5352.2 - at.second, 1), round(at.second - 3480.3, 1), None),
        (round(9488.1 - at.third, 1), round(at.third - 5352.2, 1), None),
        (None, round(at.fourth - 9488.1, 1), None),
        # Since the last word of the one before, nobody knows.
        (500.8, None, at.fifth - (at.fourth + 9)),
        (round(at.end - at.sixth - 240, 1), round(at.sixth - at.fifth - 500.8, 1), None),
    ]
    totals = found.totals
    assert totals.ran == pytest.approx(sum(ran for ran, _, _ in spans if ran), abs=1)
    assert totals.waited == pytest.approx(sum(waited for _, waited, _ in spans if waited), abs=1)
    assert totals.unaccounted == pytest.approx(at.fifth - at.fourth - 9)
    assert totals.span == pytest.approx(at.end)
    assert totals.longest_shutdown is not None and totals.longest_shutdown.number == 2
    assert totals.longest_shutdown.seconds == pytest.approx(31.1)
    assert totals.least_slack == (4.9, 3)
    assert (totals.forced, totals.without_progress) == (1, 1)


def test_the_moments_of_a_shutdown(tmp_path: Path) -> None:
    shutdowns = [row.shutdown for row in told(eventful(), tmp_path).rows]
    assert shutdowns[3] is shutdowns[4] is None
    saved, _, killed = shutdowns[:3]
    assert saved is not None and killed is not None
    figures = [saved.first_poll, saved.finish, saved.exit, saved.requeued, saved.deadline, saved.slack, saved.end]
    assert figures == pytest.approx([0.2, 2.1, 2.2, 2.3, 118.0, 115.7, 2.3])
    assert (killed.first_poll, killed.finish) == (None, None)
    assert [(stage.stage, round(stage.time, 3)) for stage in killed.stages] == [("terminate", 14.9), ("kill", 24.6)]


def test_what_came_long_before_the_notice_is_no_part_of_the_shutdown(tmp_path: Path) -> None:
    job = Writer()
    job.start(0)
    job.record(50, "finished", pid=8)
    # Slurm signals every process, so a program may be a moment faster than kforge-run.
    job.record(99.9, "polled", pid=9, stop=True)
    job.notice(100)
    shutdown = last(job, tmp_path).shutdown
    assert shutdown is not None
    assert (shutdown.first_poll, shutdown.finish, shutdown.exit, shutdown.requeued) == (0, None, None, None)
    assert shutdown.deadline is None and shutdown.end == pytest.approx(0.1)


def test_several_at_once_are_counted_once(tmp_path: Path) -> None:
    job = Writer()
    for start, end in ((0, 100), (10, 30), (130, 150)):
        job.start(start)
        job.end(end, "completed", None)
    assert [row.waited for row in told(job, tmp_path).rows] == [None, 0, 30]


def test_a_clock_that_was_set_back_makes_no_negative_times(tmp_path: Path) -> None:
    job = Writer()
    job.start(1000)
    job.end(100, "checkpointed", "time_limit", requeued=True)
    job.start(50)
    job.end(60, "completed", None, 1)
    first, second = told(job, tmp_path).rows
    assert (first.ran, first.until, second.waited, second.ran) == (0, START + 1000, 0, 10)


def test_a_running_attempt_runs_until_now(tmp_path: Path) -> None:
    job = Writer()
    job.start(0)
    found = told(job, tmp_path, "RUNNING", START + 5000)
    assert (found.last.standing, found.last.ran, found.totals.span) == ("running", 5000, 5000)
    assert wording.standing(found).startswith("running (Slurm: RUNNING) for 1h 23m, last heard of at ")


def test_attempts_of_an_older_job_are_left_out(tmp_path: Path) -> None:
    job = Writer()
    for at, restarts in ((0, 0), (100, 1), (300, 0)):
        job.start(at)
        job.end(at + 10, "checkpointed", "time_limit", restarts)
    found = told(job, tmp_path)
    assert (found.older, len(found.rows), found.rows[0].waited) == (2, 1, None)


def test_a_journal_without_attempts_is_no_story() -> None:
    assert story.tell(Journal(Path("x"), "", "", "", ()), NOW) is None
    assert not story.may_go_on(Journal(Path("x"), "", "", "", ()))


# --- how it stands -------------------------------------------------------------------------------


def no_end() -> Writer:
    job = Writer()
    job.start(0)
    return job


def requeued() -> Writer:
    job = no_end()
    job.checkpoint(3478, 0)
    return job


def requeued_by_slurm() -> Writer:
    job = no_end()
    job.notice(100, "SIGTERM", "requeued")
    job.end(102, "checkpointed", "requeued", because="Slurm requeues it already")
    return job


def completed() -> Writer:
    job = no_end()
    job.end(100, "completed", None)
    return job


@pytest.mark.parametrize(
    ("job", "slurm_state", "standing", "says"),
    [
        (no_end(), None, "open", "still running, or killed without a trace (SIGKILL, node failure): last heard of at"),
        (no_end(), "RUNNING", "running", "running (Slurm: RUNNING) for"),
        (no_end(), "SUSPENDED", "running", "running (Slurm: SUSPENDED) for"),
        (no_end(), "COMPLETING", "ending", "ending (Slurm: COMPLETING), last heard of at"),
        (no_end(), "NODE_FAIL", "lost", f"{LOST} (Slurm: NODE_FAIL): last heard of at"),
        (no_end(), "PENDING", "lost", f"{LOST} (Slurm: PENDING): last heard of at"),
        (requeued(), None, "requeued", "requeued, no later attempt is recorded"),
        (requeued(), "PENDING", "waiting", "waits to be started again (Slurm: PENDING)"),
        (requeued(), "RUNNING", "requeued", "requeued, no later attempt is recorded (Slurm: RUNNING)"),
        (requeued(), "CANCELLED", "over", "requeued, but not started again (Slurm: CANCELLED)"),
        (requeued_by_slurm(), "PENDING", "waiting", "waits to be started again (Slurm: PENDING)"),
        (requeued_by_slurm(), "CANCELLED", "over", "requeued, but not started again (Slurm: CANCELLED)"),
        (completed(), None, "over", ""),
        (completed(), "COMPLETED", "over", ""),
    ],
)  # fmt: skip
def test_how_a_job_stands(tmp_path: Path, job: Writer, slurm_state: str | None, standing: str, says: str) -> None:
    found = told(job, tmp_path, slurm_state)
    assert found.last.standing == standing
    said = wording.standing(found)
    assert said.startswith(says) and bool(said) == bool(says)
    # Only where the journal leaves it open is Slurm worth a question.
    assert story.may_go_on(found.journal) == (standing != "over" or slurm_state == "CANCELLED")


@pytest.mark.parametrize(("place", "worth"), [("batch", True), ("step", False), ("outside", False)])
def test_only_for_a_batch_job_its_state_tells_whether_the_attempt_runs(tmp_path: Path, place: str, worth: bool) -> None:
    job = Writer()
    job.start(0, place=place)
    assert story.may_go_on(read(job.write(tmp_path))) is worth


# --- why it ended --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason", "status", "fields", "why", "short"),
    [
        ("completed", None, 0, {}, "completed", "completed"),
        ("completed", "time_limit", 0, {}, "time limit: completed", "completed"),
        ("checkpointed", "time_limit", 0, {"requeued": True}, "time limit: saved, requeued", "time limit, requeued"),
        ("checkpointed", "preempted", 0, {"requeued": True}, "preempted: saved, requeued", "preempted, requeued"),
        ("checkpointed", "requeued", 0, {}, "requeued from outside: saved", "requeued from outside"),
        ("checkpointed", "cancelled", 0, {"because": "x"}, "cancelled: saved, not requeued", "cancelled"),
        ("checkpointed", "unknown", 0, {"because": "x"}, "told to stop, not known why: saved, not requeued",
         "told to stop, not known why"),
        ("checkpointed", "manual", 0, {"requeued": True}, "SIGUSR1 by hand: saved, requeued",
         "SIGUSR1 by hand, requeued"),
        ("checkpointed", "time_limit", 0, {"because": "--no-requeue"}, "time limit: saved, not requeued: --no-requeue",
         "time limit"),
        ("checkpointed", None, 85, {"requeued": True}, "saved, requeued", "saved, requeued"),
        ("interrupted", "time_limit", 1, {"requeued": True},
         "time limit: exited with 1, its save not finished, requeued",
         "time limit, exited with 1, its save not finished, requeued"),
        ("interrupted", "interrupt", -2, {"because": "x"}, "Ctrl-C: died of SIGINT, not requeued",
         "Ctrl-C, died of SIGINT"),
        ("forced", "time_limit", -9, {"requeued": True}, "time limit: killed, it did not end in time, requeued",
         "time limit, killed, requeued"),
        ("failed", None, 3, {"because": "it failed"}, "failed, exited with 3, not requeued", "failed, exited with 3"),
        ("failed", None, -11, {"requeued": True, "retried": True}, "died of SIGSEGV, retried",
         "died of SIGSEGV, requeued"),
        ("failed", None, 3, {"because": "it failed, and all its retries are used"},
         "failed, exited with 3, not requeued: it failed, and all its retries are used", "failed, exited with 3"),
        ("dreamed", "a\x1b[31mwhim", 0, {"because": "of\nit"},
         r"a\x1b[31mwhim: exited with 0, not requeued: of\nit", r"a\x1b[31mwhim, exited with 0"),
    ],
)  # fmt: skip
def test_why_an_attempt_ended(
    tmp_path: Path, outcome: str, reason: str | None, status: int, fields: dict[str, Any], why: str, short: str
) -> None:
    job = no_end()
    if reason is not None:
        job.notice(100, "SIGUSR1", reason)
    job.record(101, "exit", status=status)
    job.end(102, outcome, reason, **fields)
    row = last(job, tmp_path)
    assert (wording.why(row), wording.in_short(row)) == (why, short)


def test_a_headline_stands_for_itself(tmp_path: Path) -> None:
    rows = told(eventful(), tmp_path).rows
    assert [wording.headline(rows[index]) for index in (0, 3, 4, 5)] == [
        ("time limit", "saved, requeued"),
        ("no end recorded", ""),
        ("failed, exited with 1", "retried"),
        ("cancelled", "saved, not requeued"),
    ]


def test_a_save_that_nobody_reported_is_not_told_as_one(tmp_path: Path) -> None:
    job = no_end()
    job.lines = [line for line in job.lines if '"registered"' not in line]
    job.notice(100)
    job.record(101, "exit", status=0)
    job.end(102, "checkpointed", "time_limit", requeued=True)
    assert wording.why(last(job, tmp_path)) == "time limit: exited with 0, requeued"


@pytest.mark.parametrize("place", ["step", "outside"])
def test_where_nothing_is_requeued_nothing_is_said_of_it(tmp_path: Path, place: str) -> None:
    job = Writer()
    job.start(0, place=place)
    job.notice(100)
    job.end(102, "checkpointed", "time_limit", because="a step is not requeued, its job is")
    assert wording.why(last(job, tmp_path)) == "time limit: saved"


# --- in words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.4, "59s"),
        (59.5, "1m 00s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 00m"),
        (86399, "23h 59m"),
        (86400, "1d 00h"),
        (100 * 86400, "100d"),
        (1e10, "115740d"),
    ],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text
    assert len(text) <= 8


def test_the_parts_of_a_shutdown_in_words() -> None:
    nothing = Shutdown("SIGUSR1", None, None, None, None, None, None, (), 0)
    assert wording.shutdown_in_short(nothing) == "its end is not known"
    assert wording.shutdown_in_full(nothing) == "SIGUSR1"
    told = nothing._replace(first_poll=0.2, finish=2.1, exit=2.2, requeued=2.3, slack=115.7)
    assert wording.shutdown_in_short(told) == "exit +2.2 s, 115.7 s to spare"
    assert wording.shutdown_in_full(told) == (
        "SIGUSR1, first poll +0.2 s, finish +2.1 s, exit +2.2 s, requeued +2.3 s, 115.7 s to spare"
    )


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("模型训练", 8, "模型训练"),
        ("模型训练", 7, "模型训…"),
        ("模型训练", 6, "模型…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("a\nb\x1b[31m", 12, r"a\nb\x1b[31m"),
        ("\u202egpj.exe", 40, r"\u202egpj.exe"),
        ("x" * 10_000_000, 4, "xxx…"),
    ],
)
def test_a_text_is_cut_to_the_columns_there_are(text: str, width: int, fitted: str) -> None:
    assert wording.fit(text, width) == fitted
    assert wording.cells(fitted) <= width


def test_lines_are_folded_between_words() -> None:
    assert wording.fold("a bb ccc 模型训练 xxxxxxxxxxxx", 6) == ["a bb", "ccc", "模型训", "练", "xxxxxx", "xxxxxx"]
    assert wording.fold("", 6) == [""]


def test_the_rooms_know_nothing_of_the_world() -> None:
    paths = list((PACKAGE / "commands/timeline").glob("*.py"))
    assert len(paths) > 1
    for path in paths:
        outside = {name for name in imports(path) if not name.startswith("kempnerforge")}
        assert {name.partition(".")[0] for name in outside} <= {
            "__future__", "collections", "datetime", "html", "math", "pathlib", "shlex", "time", "typing",
            "unicodedata",
        }  # fmt: skip


def test_why_an_attempt_was_not_started(tmp_path: Path) -> None:
    job = Writer()
    job.key = "1-1"
    job.record(0, "not started", why="train: No such file or directory (hint: is it in PATH?)")
    row = last(job, tmp_path)
    assert wording.why(row) == "not started: train: No such file or directory (hint: is it in PATH?)"
    assert row.standing == "over"
