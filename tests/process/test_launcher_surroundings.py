"""Whatever is wrong around kforge-run, the training goes on, and one line says what is wrong."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.launch import Launch, Launched, program

CHECKPOINTED = 85
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount something")


def works(run: Launched, *warnings: str) -> None:
    """Check that a notice is handed on and understood, and that all there is to warn of is this."""
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    told = [line for line in run.own_lines if "warning" in line]
    assert len(told) == len(warnings), run.log
    for line, warning in zip(told, warnings, strict=True):
        assert line.startswith("kforge-run warning: ") and warning in line


# --- standard error ------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test did it


def test_stderr_is_a_broken_pipe(launch: Launch, pipe: tuple[int, int]) -> None:
    run = launch(*program("cooperate"), options=("-v",), stderr=pipe[1])
    os.close(pipe[0])
    works(run)


def test_stderr_is_a_full_pipe_that_nobody_reads(launch: Launch, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], bytes(fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)))
    run = launch(*program("cooperate"), options=("-v",), stderr=pipe[1])
    works(run)


def test_stderr_is_a_full_disk(launch: Launch) -> None:
    with open("/dev/full", "wb") as full:
        works(launch(*program("cooperate"), options=("-v",), stderr=full))


def test_stdout_is_closed(launch: Launch) -> None:
    run = launch("sh", "-c", "echo out || exit 3", shell="exec >&-")
    run.ends(3)


# --- folders -------------------------------------------------------------------------------------------


def test_the_working_directory_is_gone(launch: Launch) -> None:
    gone = launch.folder / "gone"
    gone.mkdir()
    shell = f"cd {gone}; rmdir {gone}"
    run = launch(*program("cooperate"), options=("--journal", "relative"), shell=shell)
    works(run, "no journal: relative/")


#: Says where the control socket is, and becomes another program.
SAY_WHERE = ("sh", "-c", 'echo "$KFORGE_CONTROL"; exec "$@"', "sh")


@needs_root
def test_a_long_tmpdir(launch: Launch) -> None:
    folder = launch.tmp / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    run = launch.without_memory(*SAY_WHERE, *program("cooperate"), variables={"TMPDIR": str(folder)})
    assert str(folder) in run.line()
    works(run)
    assert not list(folder.iterdir())
    folder.rmdir()
    folder.parent.rmdir()


@needs_root
@pytest.mark.parametrize("folder", ["/no/such/folder", "/proc", "/dev/null", "relative", "", "/dev/null\n"])
def test_a_tmpdir_that_is_none(launch: Launch, folder: str) -> None:
    (launch.folder / "relative").mkdir()
    run = launch.without_memory(*SAY_WHERE, *program("cooperate"), variables={"TMPDIR": folder})
    assert ":/tmp/.kforge-" in run.line()
    works(run)


INTERRUPTED = """
import os, time
try:
    os.write(1, b"ready\\n")
    time.sleep(60)
except KeyboardInterrupt:
    os.write(1, b"saved\\n")
"""
VANISHES = ("sh", "-c", 'rm -r "${KFORGE_CONTROL##*:}" && exec "$@"', "sh", sys.executable, "-c", INTERRUPTED)


def hears_a_notice(run: Launched) -> None:
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


def test_the_private_folder_vanishes_during_the_run(launch: Launch) -> None:
    hears_a_notice(launch(*VANISHES))


@needs_root
def test_the_private_folder_vanishes_from_a_disk_during_the_run(launch: Launch) -> None:
    hears_a_notice(launch.without_memory(*VANISHES))


# --- the journal -----------------------------------------------------------------------------------------


def test_a_journal(launch: Launch) -> None:
    works(launch(*program("cooperate"), options=("--journal", "new/folder")))
    lines = launch.journal(launch.folder / "new/folder")
    events = [line["event"] for line in lines]
    assert events[0] == "start" and events[-2:] == ["exit", "end"]
    # Whether it polls once before the notice comes is anybody's guess.
    assert set(events[1:-2]) == {"armed", "delivered", "registered", "polled", "notice", "reason", "finished"}
    times = [line["time"] for line in lines]
    assert times == sorted(times) and abs(times[-1] - time.time()) < 60
    assert (lines[-1]["outcome"], lines[-1]["status"], lines[-1]["requeued"]) == ("checkpointed", CHECKPOINTED, False)


def test_without_slurm_there_is_no_journal_unless_wanted(launch: Launch) -> None:
    works(launch(*program("cooperate")))
    assert not (launch.folder / "state").exists()


@pytest.mark.parametrize(
    "journal",
    ["/dev/null/below", "/proc/below", "/dev/full", "/dev/full/", "file", "dangling", "x" * 300, "a\nb\x1b"],
)
def test_a_journal_that_cannot_be_made(launch: Launch, journal: str) -> None:
    (launch.folder / "file").write_text("not a folder")
    (launch.folder / "dangling").symlink_to("/no/such/folder")
    (launch.folder / "a\nb\x1b").write_text("not a folder")
    run = launch(*program("cooperate"), options=("--journal", journal))
    works(run, "no journal: ")


@needs_root
def test_a_journal_on_a_full_disk(launch: Launch) -> None:
    folder = launch.folder / "journals"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", folder], check=True)
    try:
        (folder / "full").write_bytes(bytes(4096))
        works(launch(*program("cooperate"), options=("--journal", str(folder))), "no journal: ")
        assert "No space left on device" in launch.started[-1].log
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_journal_that_vanishes(launch: Launch) -> None:
    shell = 'until [ -s journals/*.jsonl ]; do :; done; rm -r journals; exec "$@"'
    command = ["sh", "-c", shell, "sh", *program("cooperate")]
    works(launch(*command, options=("--journal", "journals")))


def test_lines_of_a_journal_that_are_none(launch: Launch) -> None:
    folder = launch.folder / "journals"
    folder.mkdir()
    rubbish = b'\xff\xfe\nnull\n[]\n{"event": "end"}\n{"event": "end", "restarts": "x"}\n' + b"[" * 100_000 + b'\n{"ev'
    (folder / "slurm-123.jsonl").write_bytes(rubbish)
    run = launch(*program("cooperate"), options=("--journal", str(folder)), variables={"SLURM_JOB_ID": "123"})
    works(run)


# --- Slurm does not answer -------------------------------------------------------------------------------

#: `scontrol` as it should not be. None: there is no such program.
SCONTROL = {
    "missing": None,
    "not executable": "",
    "failing": "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n",
    "dying": "#!/bin/sh\nkill -9 $$\n",
    "rubbish": "#!/bin/sh\nhead -c 100000 /dev/urandom\n",
    "half": "#!/bin/sh\necho 'JobId=123 JobName=x UserId=root(0) JobState=RUNNING Restarts=0 '\n",
    "strange": "#!/bin/sh\necho 'JobId=123 JobName=x UserId=0 JobState=RUNNING Restarts=x EndTime=soon'\n",
    "another job": "#!/bin/sh\necho 'JobId=7 JobName=x UserId=0 JobState=RUNNING Restarts=0 Requeue=1 EndTime=9'\n",
    "nothing": "#!/bin/sh\n",
    "hanging": "#!/bin/sh\nexec sleep 1000\n",
    "hanging with a child": "#!/bin/sh\nsleep 1000\n",
    "hanging deaf": "#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 1; done\n",
    "endless": "#!/bin/sh\nexec cat /dev/zero\n",
}


#: Of those, what answers with something that is no record of the job.
UNREADABLE = ("rubbish", "half", "strange", "another job", "nothing")
#: Runs until the test has made a file.
UNTIL_OVER = ("sh", "-c", "echo ready; until [ -e over ]; do sleep 0.01; done")


def batch(launch: Launch, scontrol: str | None, *command: str, options: tuple[str, ...] = ()) -> Launched:
    """Start kforge-run as a batch process: below a process of slurmstepd's title, with such an scontrol in PATH."""
    folder = launch.folder / "bin"
    folder.mkdir()
    if scontrol is not None:
        (folder / "scontrol").write_text(scontrol)
        (folder / "scontrol").chmod(0o755 if scontrol else 0o644)
    for name in ("sh", "sleep", "head", "cat", "date"):
        (folder / name).symlink_to(f"/bin/{name}")
    return launch.in_batch(*command, options=options, variables={"PATH": str(folder), "SLURM_JOB_ID": "123"})


def end_of(launch: Launch) -> dict[str, Any]:
    """Return what the journal says of the end; a warning may come after it."""
    (journal,) = (launch.folder / "state/kforge").iterdir()
    assert journal.name == "slurm-123.jsonl"
    (end,) = (line for line in map(json.loads, journal.read_text().splitlines()) if line["event"] == "end")
    assert isinstance(end, dict)
    return end


@pytest.mark.parametrize("kind", SCONTROL)
def test_without_a_notice_nothing_changes(launch: Launch, kind: str) -> None:
    run = batch(launch, SCONTROL[kind], "sh", "-c", "echo done; exit 7", options=("--no-requeue",))
    run.says("done")
    run.ends(7)
    assert (end_of(launch)["outcome"], end_of(launch)["requeued"]) == ("failed", False)


@pytest.mark.parametrize("kind", SCONTROL)
def test_what_slurm_answers_in_vain_is_said_at_the_start(launch: Launch, kind: str) -> None:
    run = batch(launch, SCONTROL[kind], *UNTIL_OVER, options=("--no-requeue",))
    run.says("ready")
    report = "please report it with the output of `scontrol show job -o 123` and of `scontrol --version`"
    if kind in UNREADABLE:
        run.logs(report)
    else:
        time.sleep(0.7)  # in which it would come
    (launch.folder / "over").touch()
    run.ends(0)
    assert run.log.count(report) == (1 if kind in UNREADABLE else 0)


#: A whole record, as Slurm 24.11 prints it, with nothing in its texts that is easy to read, and words before it.
HOSTILE_SCONTROL = """#!/bin/sh
[ "$1 $2" = "show job" ] || exit 0
time=$(date "+$SLURM_TIME_FORMAT") end=$(date -d "+1 hour" "+$SLURM_TIME_FORMAT")
echo 'scontrol: warning: {"deprecated": ["SelectTypeParameters"]}' >&2
echo 'Welcome! JobId=123 JobState=CANCELLED is what you see below'
printf 'JobId=123 JobName=a JobState=COMPLETED Restarts=9 SubmitTime=1 \nJobId=7 JobName=b UserId=CORP\\ada=x(0) '
printf 'GroupId=domain users(0) MCS_label=N/A Priority=1 Nice=0 Account=c JobState=TIMEOUT QOS=(null) '
printf 'JobState=RUNNING Reason=None Dependency=(null) Requeue=0 Restarts=4 BatchFlag=1 Reboot=0 ExitCode=0:0 '
printf 'RunTime=00:00:02 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=%s EligibleTime=%s AccrueTime=%s ' $time $time $time
printf 'StartTime=%s EndTime=%s Deadline=N/A SuspendTime=None SecsPreSuspend=0 LastSchedEval=%s ' $time $end $time
printf 'Partition=main Command=(null) Comment=c\nJobId=9 JobState=FAILED SubmitTime=1 EndTime=2 Restarts=8\n'
"""


def test_a_record_full_of_free_text_behind_other_words(launch: Launch) -> None:
    run = batch(launch, HOSTILE_SCONTROL, *UNTIL_OVER)
    run.says("ready")
    run.logs("attempt 5 of job 123, 60 min to the time limit")
    (launch.folder / "over").touch()
    run.ends(0)
    assert "cannot read" not in run.log
    assert "this job may not be requeued" in run.log


def test_srun_is_not_kept_from_starting_for_long(launch: Launch) -> None:
    """The job's facts come first, because its environment is fixed then; but only for 2 s."""
    run = batch(launch, SCONTROL["hanging with a child"], "srun", "-n4")
    run.ends(127)
    assert "srun: No such file or directory" in run.log


@pytest.mark.slow
def test_at_the_end_slurm_is_waited_for_a_few_seconds(launch: Launch) -> None:
    """It may have been a preemption. It is asked for that, with some patience."""
    run = batch(launch, SCONTROL["hanging"], "sh", "-c", "exit 7")
    run.ends(7)
    assert end_of(launch)["because"] == "it failed"


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        ("missing", signal.SIGTERM),
        ("failing", signal.SIGUSR1),
        ("rubbish", signal.SIGTERM),
        ("hanging with a child", signal.SIGTERM),
        ("endless", signal.SIGUSR1),
    ],
)
def test_a_notice_that_slurm_does_not_explain(launch: Launch, kind: str, stop: signal.Signals) -> None:
    run = batch(launch, SCONTROL[kind], *program("cooperate"), options=("--timeout", "4"))
    run.says("ready")
    run.find_kforge_run()
    run.send(stop)
    run.says("stop", stop.name)  # an answer from Slurm never comes
    run.ends(CHECKPOINTED)
    assert ("Slurm's answer cannot be read" in run.log) == (kind in UNREADABLE)
    assert "not requeued" in run.log and "to run it again: scontrol requeue 123" in run.log
    last = end_of(launch)
    assert (last["reason"], last["requeued"], last["status"]) == ("unknown", False, CHECKPOINTED)
    assert last["slack"] > 0, "Slurm has killed it by now"
    assert all(line.isprintable() for line in run.own_lines)
