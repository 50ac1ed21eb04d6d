"""kforge-run's exit status, its options, and that it changes nothing while nothing happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kempnerforge.launcher.policy.tables import EXIT_STATUSES, FAILED
from tests.process import children
from tests.process.launch import KFORGE_RUN, ROOT, Launch, program

#: Has no notice, checkpoints by itself, and asks to be run again.
CHECKPOINTED = 85


# --- exit statuses, a row of the table each --------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 85, 124, 255])
def test_the_childs_own(launch: Launch, status: int) -> None:
    run = launch("sh", "-c", f"exit {status}")
    run.ends(status)
    assert run.log == ""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP, signal.SIGRTMIN])
def test_a_child_that_died_of_a_signal(launch: Launch, signum: int) -> None:
    run = launch("sh", "-c", f"kill -{int(signum)} $$")
    run.ends(128 + signum)
    assert run.log == ""


@pytest.mark.parametrize("status", [0, 85])
def test_checkpointed_and_not_requeued(launch: Launch, status: int) -> None:
    run = launch(*program("cooperate", status))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)


def test_the_status_after_a_notice_is_the_childs_where_it_failed(launch: Launch) -> None:
    run = launch(*program("cooperate", "3"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no command (hint: kforge-run python train.py)"),
        (["--no-such-option", "true"], "No such option"),
        (["--timeout=-1", "true"], "'-1' is not a number of seconds (0 or more)"),
        (["--timeout=soon", "true"], "'soon' is not a number of seconds"),
        (["--timeout=inf", "true"], "'inf' is not a number of seconds"),
        (["--timeout=nan", "true"], "'nan' is not a number of seconds"),
        (["--timeout=", "true"], "'' is not a number of seconds"),
        (["--term-grace=-0.1", "true"], "'-0.1' is not a number of seconds"),
        (["--max-requeues=-1", "true"], "-1 is not in the range"),
        (["--max-requeues=1.5", "true"], "'1.5' is not a valid integer"),
        (["--retry-failures=many", "true"], "'many' is not a valid integer"),
        (["--timeout"], "requires an argument"),
    ],
)
def test_usage_errors(launch: Launch, arguments: list[str], complaint: str) -> None:
    run = launch(*arguments)
    run.ends(2)
    assert run.log.startswith("kforge-run: error: ") and run.log.count("\n") == 1
    assert complaint in run.log


@pytest.mark.parametrize("descriptors", [5])
def test_kforge_run_itself_failed(launch: Launch, descriptors: int) -> None:
    run = launch("true", shell=f"ulimit -n {descriptors}")
    run.ends(125)
    assert "error: [Errno 24] Too many open files (hint: the command was not started)\n" in run.log


def test_cannot_be_executed(launch: Launch) -> None:
    (launch.folder / "data").write_text("exit 0")
    lost = launch.folder / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)
    for command, status in (("./data", 126), ("/", 126), ("./data/no", 126), (str(lost), 127)):
        run = launch(command)
        run.ends(status)
        assert run.log.startswith(f"kforge-run: error: {command}: ") and run.log.count("\n") == 1


@pytest.mark.parametrize("command", ["no-such-command", "./no-such-file", ""])
def test_not_found(launch: Launch, command: str) -> None:
    run = launch(command)
    run.ends(127)
    assert run.log.startswith(f"kforge-run: error: {command}: ") and run.log.count("\n") == 1


def test_not_found_where_path_leads_through_a_file(launch: Launch) -> None:
    launch("no-such-command", variables={"PATH": f"/dev/null/bin:{os.environ['PATH']}"}).ends(127)


def test_a_later_folder_of_path_has_it(launch: Launch) -> None:
    """As a shell does it: what is not executable in one folder may be so in the next."""
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (launch.folder / name).mkdir()
        (launch.folder / name / "tool").write_text("#!/bin/sh\nexit 9\n")
        (launch.folder / name / "tool").chmod(mode)
    path = f"/no/such/folder:{launch.folder}/one:{launch.folder}/two:{os.environ['PATH']}"
    launch("tool", variables={"PATH": path}).ends(9)
    launch("tool", variables={"PATH": f"{launch.folder}/one:{os.environ['PATH']}"}).ends(126)


def test_help_fits_two_screens_and_has_the_table(launch: Launch) -> None:
    run = launch("--help")
    text = run.rest()
    run.ends(0)
    assert len(text) < 60 and max(map(len, text)) <= 80
    for status, meaning in EXIT_STATUSES:
        assert any(status in line and meaning in line for line in text)
    assert "    exec kforge-run python train.py" in text


def test_the_program_itself_fails_with_the_same_status() -> None:
    """It has the number for itself, because it may have to say that the package is not there."""
    assert f"\nFAILED = {FAILED}\n" in (ROOT / "bin/kforge-run").read_text()


# --- nothing happens ---------------------------------------------------------------------------------


def test_output_is_the_same_with_and_without(launch: Launch) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 999); os.write(2, b'\\xff\\0no newline')"
    command = [sys.executable, "-c", code]
    without = launch.start([*command])
    out = without.rest()
    run = launch(*command)
    assert run.rest() == out
    run.ends(0)
    without.ends(0)
    assert run.log_file.read_bytes() == without.log_file.read_bytes()


def test_stdin_passes_through(launch: Launch) -> None:
    data = os.urandom(1 << 20)
    (launch.folder / "input").write_bytes(data)
    with open(launch.folder / "input", "rb") as file:
        run = launch("cat", stdin=file)
    assert run.rest_of_bytes() == data
    run.ends(0)


def test_a_script_without_a_shebang_is_run_by_the_shell(launch: Launch) -> None:
    script = launch.folder / "my run.sh"
    script.write_text('echo "$0|$1|$2"; exit 4')
    script.chmod(0o755)
    run = launch(str(script), "a b", "")
    run.says(f"{script}|a b|")
    run.ends(4)


def test_odd_arguments(launch: Launch) -> None:
    odd = [b"\xff\xfe", b"two words", b"a\nb", b"", b"--timeout", b"-v", b"--", "ä".encode(), b"$HOME", b"'\""]
    tool = os.fsencode(launch.folder) + b"/t\xf6\xf6l \n"
    os.symlink("/usr/bin/printf", tool)
    run = launch(tool, rb"%s\0", *odd)
    assert run.rest_of_bytes() == b"\0".join(odd) + b"\0"
    run.ends(0)
    assert run.log == ""


def test_odd_arguments_in_a_journal(launch: Launch, tmp_path: Path) -> None:
    launch("true", b"\xff\n", options=("--journal", "journal")).ends(0)
    assert launch.journal(tmp_path / "journal")[0]["command"] == ["true", "\udcff\n"]


def test_the_environment_is_the_same_but_for_two_variables(launch: Launch) -> None:
    """Python sets LC_CTYPE in its own environment when there is no locale (PEP 538): the child must not see it."""
    odd = {"KFORGE_CONTROL": "stale:/tmp", "ODD": "a\nb"}
    without = launch.start(["env", "-0"], variables=odd)
    run = launch("env", "-0", variables=odd)
    seen = "\n".join(run.rest()).split("\0")
    expected = "\n".join(without.rest()).split("\0")
    control, path = sorted(set(seen).difference(expected))
    assert control.startswith("KFORGE_CONTROL=") and ":/dev/shm/.kforge-" in control
    assert path == f"PYTHONPATH={launch.site}:{ROOT}"
    assert set(expected).difference(seen) == {"KFORGE_CONTROL=stale:/tmp", f"PYTHONPATH={ROOT}"}
    without.ends(0)
    run.ends(0)


# --- options and variables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "options", "left"),
    [
        ({}, (), 600),
        ({"KFORGE_TIMEOUT": "100"}, (), 100),
        ({"KFORGE_TIMEOUT": ""}, (), 600),
        ({"KFORGE_TIMEOUT": "100"}, ("--timeout", "50.5"), 50),
        ({"KFORGE_TIMEOUT": "100"}, ("--timeout=0",), 600),
        ({}, ("--timeout=1e300",), 600),
    ],
)
def test_an_option_over_a_variable_over_the_default(
    launch: Launch, variables: dict[str, str], options: tuple[str, ...], left: int
) -> None:
    run = launch(*program("cooperate"), options=options, variables=variables)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(CHECKPOINTED)
    said = run.logs(r"kforge-run .* (\d+) s left to save")
    assert left - 5 < int(said[1]) <= left  # on a loaded machine it is said a little later


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIMEOUT", "-1"),
        ("TIMEOUT", "soon"),
        ("TERM_GRACE", "inf"),
        ("REQUEUE", "perhaps"),
        ("MAX_REQUEUES", "-1"),
        ("RETRY_FAILURES", "x"),
        ("QUIET", "very"),
    ],
)
def test_bad_values_of_variables(launch: Launch, variable: str, value: str) -> None:
    run = launch("echo", "started", variables={f"KFORGE_{variable}": value})
    assert run.rest() == []
    run.ends(2)
    assert run.log.startswith("kforge-run: error: ") and run.log.count("\n") == 1
    assert value in run.log and variable.lower().replace("_", "-") in run.log


@pytest.mark.parametrize("variable", ["KFORGE_VERSION", "KFORGE_HELP", "KFORGE_COMMAND", "KFORGE_RUN_VERSION"])
@pytest.mark.parametrize("value", ["1", "1.2"])
def test_variables_that_are_no_settings(launch: Launch, variable: str, value: str) -> None:
    """`module load kforge/1.2` may well set KFORGE_VERSION."""
    run = launch("echo", "started", variables={variable: value})
    run.says("started")
    run.ends(0)
    assert run.log == ""


def test_how_much_is_told(launch: Launch) -> None:
    said = {}
    for option in ("--quiet", "", "--verbose"):
        run = launch(*program("cooperate"), options=(option,) if option else ())
        run.says("ready")
        run.send(signal.SIGTERM)
        run.ends(CHECKPOINTED)
        assert run.log.splitlines() == [line for line in run.log.splitlines() if line.startswith("kforge-run ")]
        said[option] = len(run.own_lines)
    assert said["--quiet"] == 0 < said[""] < said["--verbose"]


def test_a_job_id_that_is_not_a_number(launch: Launch) -> None:
    run = launch(*program("cooperate"), variables={"SLURM_JOB_ID": "12x;ab"})
    run.says("ready")
    assert run.own_lines == ["kforge-run warning: SLURM_JOB_ID is '12x;ab', not a number: going on as outside Slurm"]
    run.send(signal.SIGTERM)
    run.says("stop", "SIGTERM")
    run.ends(CHECKPOINTED)


def test_waiting_for_weeks(launch: Launch) -> None:
    """poll(2) waits 24 days at most, and partitions allow longer jobs than that."""
    run = launch("sh", "-c", 'trap "" TERM; sleep 0.1 & exit 0', options=("--term-grace", "9e6"))
    run.ends(0)


def test_signals_and_listen_agree() -> None:
    """The marker is an otherwise unused signal."""
    assert signal.SIGRTMIN < children.LAST < signal.SIGRTMAX
    assert subprocess.run([*KFORGE_RUN, "--version"], capture_output=True, check=True).stdout.startswith(b"kforge-run")
