"""`kforge drill` with real programs, from the notice to the verdict."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.launch import Launch, Launched, descendants, program, status_of, tidy_after

KFORGE_CODE = "from kempnerforge.commands.cli import main; main()"
KFORGE = (sys.executable, "-c", KFORGE_CODE)
PROGRAMS = Path(__file__).parent / "programs"
#: Long enough for a Python to have come to its loop (s): of a program that does not poll nobody can know better.
AFTER = "1.5"


def start(launch: Launch, *arguments: str, variables: dict[str, str] | None = None) -> Launched:
    return launch.start([*KFORGE, "drill", *arguments], variables=variables)


def drill(launch: Launch, status: int, *arguments: str, variables: dict[str, str] | None = None) -> str:
    """Rehearse, keep the log in the test's own folder, check the exit status, and return the report."""
    run = start(launch, "--log", str(launch.folder / "log of the run"), *arguments, variables=variables)
    report = "\n".join(run.rest())
    run.ends(status)
    return report


def script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(PROGRAMS / name), *map(str, arguments)]


def training(checkpoint: Path, *options: str) -> list[str]:
    steps = ("--steps", "100000", "--step-seconds", "0.01")
    return [sys.executable, "-m", "kempnerforge.examples.train", "--checkpoint", str(checkpoint), *steps, *options]


# --- what passes ---------------------------------------------------------------------------------


def test_a_cooperative_program_passes_with_all_its_times(launch: Launch) -> None:
    checkpoint = launch.folder / "run.json"
    arguments = ("--lead", "20", "--checkpoint", str(checkpoint), "--json", "--")
    found = json.loads(drill(launch, 0, *arguments, *training(checkpoint, "--save-seconds", "0.5")))
    times = found["shutdown"]
    assert 0 <= times["first_poll"] < times["saved"] <= times["exit"] < 20
    # The save takes 0.5 s; each time is when kforge-run heard of it, to a tenth in what is asked for.
    assert times["saved"] - times["first_poll"] >= 0.4
    assert found["use"]["needed"] == pytest.approx(1.5 * times["exit"] + 60, abs=0.1)
    assert found["checkpoints"][0]["problem"] is None and found["checkpoints"][0]["size"] > 100
    assert (found["verdict"], found["outcome"], found["status"]) == ("PASS", "checkpointed", 0)


def test_the_report_of_a_pass(launch: Launch) -> None:
    report = drill(launch, 0, "--lead", "20", "--", *training(launch.folder / "run.json")).splitlines()
    labels = [line[2:15].strip() for line in report if re.match("  [^ ]", line)]
    assert report[0].startswith("drill of: ")
    assert labels == ["ready", "notice", "told", "first poll", "saved", "exit", "slack", "use", "PASS", "log"]


def test_it_resumes_too(launch: Launch) -> None:
    report = drill(launch, 0, "--lead", "20", "--resume", "--", *training(launch.folder / "run.json"))
    assert "  restarted    first poll " in report
    assert "resumed at step" in (launch.folder / "log of the run").read_text()


def test_a_resume_that_crashes_fails(launch: Launch) -> None:
    arguments = script("resume_badly.py", launch.folder / "run.pt")
    report = drill(launch, 1, "--lead", "20", "--resume", "--", *arguments)
    assert "FAIL         it exited with 1, " in report
    assert "ValueError: unexpected key in the state dict" in report


def test_who_saves_at_ctrl_c_passes_with_a_caveat(launch: Launch) -> None:
    report = drill(launch, 0, "--after", AFTER, "--lead", "20", "--", *script("save_at_ctrl_c.py", "", 0))
    assert "PASS" in report and "the drill could not see whether it saved" in report
    assert "save_at_ctrl_c.py hears it by Ctrl-C, which it names" in " ".join(report.split())


def test_who_saves_at_ctrl_c_passes_without_one_where_the_checkpoint_shows_it(launch: Launch) -> None:
    saved = launch.folder / "saved"
    arguments = ("--after", AFTER, "--lead", "200", "--checkpoint", str(saved), "--")
    report = drill(launch, 0, *arguments, *script("save_at_ctrl_c.py", saved, 0))
    assert report.endswith("  PASS\n  log          " + str(launch.folder / "log of the run"))
    report = drill(launch, 0, *arguments, *script("save_at_ctrl_c.py", saved, "raise"))
    assert "It died of SIGINT, but what it wrote after the notice is there" in report


# --- what fails ----------------------------------------------------------------------------------


def test_who_saves_nothing_fails_where_a_checkpoint_was_named(launch: Launch) -> None:
    earlier = launch.folder / "saved"
    earlier.write_text("by an earlier run")
    arguments = ("--after", AFTER, "--lead", "20", "--checkpoint", str(earlier), "--")
    report = drill(launch, 1, *arguments, *script("save_at_ctrl_c.py", "", 0)).replace("\n               ", " ")
    assert f"FAIL         nothing was written to {earlier} after the notice" in report


def test_a_keyboard_interrupt_that_nobody_catches_fails(launch: Launch) -> None:
    report = drill(launch, 1, "--after", AFTER, "--lead", "20", "--", *script("save_at_ctrl_c.py", "", "raise"))
    assert "FAIL         the notice came as Ctrl-C does" in report
    assert "KeyboardInterrupt" in report.split("it said")[1]


def test_who_handles_nothing_fails(launch: Launch) -> None:
    report = drill(launch, 1, "--after", "0.2", "--lead", "1.5", "--", "sleep", "60")
    assert "FAIL         it did not end at the notice, and ended at SIGTERM only" in report


def test_who_ignores_everything_fails(launch: Launch) -> None:
    arguments = program("ignore", "SIGUSR1", "SIGTERM", "SIGINT")
    report = drill(launch, 1, "--after", AFTER, "--lead", "1.5", "--", *arguments)
    assert "FAIL         it did not end at the notice, and had to be killed" in report


def test_who_hangs_fails_with_its_stacks(launch: Launch) -> None:
    report = drill(launch, 1, "--lead", "1.5", "--", *script("hang_after_polling.py"))
    assert "FAIL         it had not polled " in report
    assert "in all_reduce" in report.split("it was in")[1]
    assert "forced_exit.py" not in report, "our own thread is not what it hangs in"


def test_who_hangs_with_the_gil_fails_with_its_stacks(launch: Launch) -> None:
    report = drill(launch, 1, "--lead", "1.5", "--after", "0.5", "--", *script("hang_after_polling.py", "gil"))
    assert "FAIL         it did not poll after the notice, and had to be killed" in report
    assert "in all_reduce" in report.split("it was in")[1]


def test_a_save_slower_than_the_lead_fails(launch: Launch) -> None:
    arguments = training(launch.folder / "run.json", "--save-seconds", "60")
    report = drill(launch, 1, "--lead", "6", "--", *arguments)
    assert "FAIL         it had not saved " in report
    assert "in save_checkpoint" in report
    assert "Rehearse with a longer --lead" in report


def test_who_never_polls_fails(launch: Launch) -> None:
    report = drill(launch, 1, "--patience", "0.5", "--", *program("get_stuck"))
    assert "FAIL         it has a ShutdownHandler, but did not call should_shutdown()" in report
    assert "  it said\n    ready" in report


def test_who_completes_without_a_look_fails(launch: Launch) -> None:
    report = drill(launch, 1, "--lead", "20", "--", *script("complete_without_a_look.py"))
    assert "FAIL         it completed without seeing the notice" in report


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("true",), "too short to rehearse: it completed 0."),
        (("sh", "-c", "exit 85"), "too short to rehearse: it exited with 85, 0."),
        (("sh", "-c", "echo no data >&2; exit 3"), "it exited with 3, 0."),
        (("sh", "-c", "kill -9 $$"), "it died of SIGKILL, 0."),
    ],
)
def test_who_ends_before_the_notice_fails(launch: Launch, command: tuple[str, ...], reason: str) -> None:
    report = drill(launch, 1, "--", *command)
    assert f"FAIL         {reason}" in report
    assert ("it said\n    no data" in report) == ("no data" in command[-1])


def test_another_exit_status_fails(launch: Launch) -> None:
    report = drill(launch, 1, "--lead", "20", "--", *program("cooperate", 3))
    assert "FAIL         it called finish(), but then exited with 3" in report


def test_kforge_run_killed_in_the_middle_fails_and_leaves_nothing(launch: Launch) -> None:
    run = start(launch, "--show-output", "--after", "60", "--", *program("ignore", "SIGTERM", "SIGUSR1"))
    run.logs("ready")
    (kforge_run,) = [pid for pid in descendants(run.pid) if status_of(pid).get("PPid") == str(run.pid)]
    os.kill(kforge_run, signal.SIGKILL)
    assert "FAIL         kforge-run was killed" in "\n".join(run.rest())
    run.ends(1)
    tidy_after(kforge_run)
    (kept,) = launch.tmp.iterdir()  # the log
    shutil.rmtree(kept)


# --- what cannot be rehearsed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--", "no-such-command"), 127, "no-such-command: No such file or directory (hint: is it in PATH"),
        (("--", "/etc/passwd"), 126, "/etc/passwd: Permission denied (hint: it must be an executable file"),
        ((), 2, "no command (hint: kforge drill -- python train.py)"),
        (("--",), 2, "no command (hint"),
        (("python", "train.py"), 2, "'python' is too much (hint: the command comes behind --"),
        (("--", "kforge-run", "python"), 2, "kforge-run is started by the drill itself (hint: leave it out"),
        (("--lead", "0", "--", "true"), 2, "--lead 0 is not more than 0 and at most 600"),
        (("--lead", "nan", "--", "true"), 2, "Invalid value for '--lead': 'nan' is not a number of seconds"),
        (("--patience", "-1", "--", "true"), 2, "Invalid value for '--patience': '-1' is not a number of seconds"),
        (("--partition=gpu", "--", "true"), 2, "--partition=gpu is an option of sbatch's (hint: it goes with --slurm)"),
        (("--log", "/dev/null/log", "--", "true"), 2, "cannot write /dev/null/log: Not a directory (hint: choose"),
        (("--slurm", "--array=0-3", "--", "true"), 2, "--array does not go with a rehearsal (hint: leave it out)"),
    ],
)
def test_bad_input(launch: Launch, arguments: tuple[str, ...], status: int, complaint: str) -> None:
    if "--slurm" in arguments and not shutil.which("sbatch"):
        pytest.skip("no sbatch on this machine (hint: bin/test --slurm installs it)")
    run = start(launch, *arguments)
    assert run.rest() == []
    run.ends(status)
    (line,) = [line for line in run.log.splitlines() if line != "starting"]
    assert line.startswith(f"kforge: error: {complaint}")


def test_no_slurm(launch: Launch) -> None:
    run = start(launch, "--slurm", "--", "true", variables={"PATH": str(launch.tmp)})
    run.ends(125)
    assert (
        run.log
        == "kforge: error: there is no sbatch here (hint: run this where Slurm is, on a login node for instance)\n"
    )


def test_no_room_for_anything(launch: Launch) -> None:
    # A limit on the size of files is as good as a full disk; this test's own log is a file, too.
    run = launch.start([*KFORGE, "drill", "--", "true"], "ulimit -f 0", stderr=subprocess.PIPE)
    assert run.process.stderr is not None
    with run.process.stderr as stderr:
        (said,) = stderr.read().decode().splitlines()
    run.ends(125)
    assert said.startswith("kforge: error: no folder for the drill: No usable temporary directory found in ")
    assert said.endswith("(hint: set TMPDIR to a folder where you may write)")


# --- what it does and leaves ---------------------------------------------------------------------


def test_a_failure_keeps_the_log_and_nothing_else(launch: Launch) -> None:
    run = start(launch, "--", "sh", "-c", "echo all of it; exit 3")
    last = run.rest()[-1]
    run.ends(1)
    (kept,) = launch.tmp.iterdir()
    assert last == f"  log          {kept}/log"
    assert {path.name for path in kept.iterdir()} == {"log"}
    assert (kept / "log").read_text() == "all of it\n"
    shutil.rmtree(kept)


def test_it_knows_of_no_job_and_of_no_options(launch: Launch) -> None:
    """Inside a job it would otherwise ask Slurm, and requeue the job that it runs in."""
    variables = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "KFORGE_TIMEOUT": "1", "KFORGE_JOURNAL": str(launch.folder)}
    drill(launch, 1, "--", "sh", "-c", "env; exit 3", variables=variables)
    names = [line.partition("=")[0] for line in (launch.folder / "log of the run").read_text().splitlines()]
    assert "HOME" in names
    assert [name for name in names if name.startswith(("SLURM_", "KFORGE_"))] == ["KFORGE_CONTROL"]


def test_a_file_of_the_users_does_not_pass_for_a_module(launch: Launch) -> None:
    for name in ("click.py", "signal.py", "kempnerforge.py"):
        (launch.folder / name).write_text("raise SystemExit('imported')\n")
    kforge = (sys.executable, "-c", f"import sys; del sys.path[0]; {KFORGE_CODE}")
    run = launch.start([*kforge, "drill", "--lead", "20", "--", "sh", "-c", "exit 3"])
    assert "FAIL         it exited with 3" in "\n".join(run.rest())
    run.ends(1)


def test_the_output_is_shown_as_it_comes(launch: Launch) -> None:
    run = start(launch, "--show-output", "--after", "60", "--", *program("cooperate"))
    run.logs("^ready$|\nready\n")
    run.send(signal.SIGINT, signal.SIGINT)
    run.ends(130)


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
def test_interrupted_it_lets_the_program_end_and_leaves_nothing(
    launch: Launch, signum: signal.Signals, status: int
) -> None:
    run = start(launch, "--show-output", "--after", "60", "--", *program("cooperate"))
    run.logs("it polls: the notice comes later")
    os.killpg(run.pid, signum)  # as the terminal does it
    assert run.rest() == []
    run.ends(status)
    assert "stop SIGTERM" in run.log


def test_interrupted_twice_it_does_not_wait(launch: Launch) -> None:
    run = start(launch, "--show-output", "--after", "60", "--", *program("ignore", "SIGUSR1", "SIGTERM", "SIGINT"))
    run.logs("ready")
    run.send(signal.SIGINT)
    run.logs("ending what was started")
    run.send(signal.SIGINT)
    run.ends(130)


def test_killed_it_takes_kforge_run_with_it(launch: Launch) -> None:
    run = start(launch, "--show-output", "--lead", "1", "--after", "60", "--", *program("cooperate"))
    run.logs("it polls: the notice comes later")
    below = descendants(run.pid)
    assert len(below) == 2
    (kforge_run,) = [pid for pid in below if status_of(pid)["PPid"] == str(run.pid)]
    run.send(signal.SIGKILL)
    run.wait()
    os.waitpid(kforge_run, 0)  # ours now
    shutil.rmtree(next(launch.tmp.glob("kforge-drill-*")))


def test_one_line_that_changes_on_a_terminal(launch: Launch) -> None:
    ours, theirs = os.openpty()
    run = launch.start([*KFORGE, "drill", "--after", "60", "--", *program("cooperate")], stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"it polls: the notice comes later: 1 of 60 s" not in shown:
        shown += os.read(ours, 1 << 16)
    run.send(signal.SIGINT)
    run.ends(130)
    shown += os.read(ours, 1 << 16)
    os.close(ours)
    assert shown.startswith(b"\r\x1b[Kstarting: 0 s\r\x1b[K")
    assert shown.endswith(b"\r\x1b[Kending what was started (once more: at once)\r\n")
    assert shown.count(b"\n") == 1
