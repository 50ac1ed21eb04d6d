"""What the child starts with: signals, groups, terminal, limits, descriptors; and what it learns of our death."""

from __future__ import annotations

import os
import pty
import signal
import sys
import termios
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.children import LAST
from tests.process.launch import (
    KFORGE_RUN,
    Launch,
    Launched,
    kill_kforge_run,
    program,
    reap,
    run_below,
    signals_in,
    status_of,
    tidy_after,
    wait_until,
)

#: Says the process group, session and terminal's foreground group of itself and its parent.
GROUPS = """
import os
def foreground():
    try:
        return os.tcgetpgrp(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return None
print(os.getpgrp() == os.getpgid(os.getppid()), os.getpgrp() == os.getpid(), os.getsid(0) == os.getsid(os.getppid()),
      foreground() == os.getpgrp(), flush=True)
"""


def same_with_and_without(launch: Launch, *command: str, shell: str = "") -> list[str]:
    """Check that a command says the same below kforge-run as without it."""
    without = launch.start([*command], shell)
    run = launch(*command, shell=shell)
    said = run.rest()
    assert said == without.rest() and said, run.log
    run.ends(0)
    without.ends(0)
    return said


# --- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", ["", "HUP QUIT USR2 WINCH TSTP RTMIN"], ids=["none", "ignored"])
def test_mask_and_dispositions_are_as_without_us(launch: Launch, ignored: str) -> None:
    shell = f"trap '' {ignored}" if ignored else ""
    said = same_with_and_without(launch, "grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status", shell=shell)
    assert said[0] == "SigBlk:\t0000000000000000"
    assert (said[1] != "SigIgn:\t0000000000000000") == bool(ignored)


def test_the_notices_signals_are_never_inherited_as_ignored(launch: Launch) -> None:
    """A shell could not trap them."""
    run = launch(
        "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done", shell="trap '' USR1 TERM CHLD"
    )
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(5)


INTERRUPTIBLE = """
import signal
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
try:
    signal.pause()
except KeyboardInterrupt:
    raise SystemExit(3)
"""


def in_background(launch: Launch, *command: str, first: str = ":", then: str = "") -> Launched:
    """Start kforge-run in the background of a script: its shell has it ignore SIGINT and SIGQUIT."""
    script = f'{first}; "$@" & {then}wait $!'
    run = launch.start(["bash", "-c", script, "bash", *KFORGE_RUN, *command])
    wait_until(lambda: len(run_below(run.pid)) > 0)
    run.find_kforge_run()
    return run


def test_a_child_in_a_scripts_background_can_be_interrupted(launch: Launch) -> None:
    run = in_background(launch, sys.executable, "-c", INTERRUPTIBLE)
    run.says(True)
    assert signals_in(run.pid, "SigIgn") >= {signal.SIGINT, signal.SIGQUIT}
    run.send(signal.SIGINT)
    run.ends(3)


def test_a_notice_interrupts_what_runs_in_a_scripts_background(launch: Launch) -> None:
    run = in_background(launch, sys.executable, "-c", INTERRUPTIBLE)
    run.says(True)
    run.send(signal.SIGUSR1)
    run.ends(3)


def test_ctrl_c_is_not_meant_for_a_scripts_background(launch: Launch, terminal: tuple[int, Path]) -> None:
    """As without kforge-run: the child is in the terminal's group, and ignores it."""
    code = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)
signal.sigwait({signal.SIGUSR2})
raise SystemExit(3)
"""
    first = f"exec <{terminal[1]}; trap 'echo interrupted' INT"
    run = in_background(launch, sys.executable, "-c", code, first=first, then="wait $!; ")
    run.says(True)
    os.write(terminal[0], b"\x03")
    run.says("interrupted")
    run.taken()
    run.send(signal.SIGUSR2)
    run.ends(3)
    assert "interrupt" not in run.log


def test_nohup_is_kept(launch: Launch) -> None:
    run = launch.start(["nohup", *KFORGE_RUN, "grep", "^SigIgn", "/proc/self/status"])
    run.says("SigIgn:\t0000000000000001")
    run.ends(0)


def test_a_blocked_signal_is_not_inherited(launch: Launch) -> None:
    code = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD})
os.execvp(sys.argv[1], sys.argv[1:])
"""
    run = launch.start([sys.executable, "-c", code, *KFORGE_RUN, "grep", "^SigBlk", "/proc/self/status"])
    run.says("SigBlk:\t0000000000000000")
    run.ends(0)


# --- groups and terminals ----------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, Path]]:
    """A terminal without echo: the end on which a person types, and the path of the other one."""
    master, slave = pty.openpty()
    modes = termios.tcgetattr(slave)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    yield master, Path(os.ttyname(slave))
    os.close(slave)
    os.close(master)


def test_without_a_terminal_the_child_has_a_group_of_its_own(launch: Launch) -> None:
    run = launch(sys.executable, "-c", GROUPS)
    run.says(False, True, True, False)
    run.ends(0)


def test_in_the_foreground_the_child_stays_in_our_group(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch(sys.executable, "-c", GROUPS, shell=f"exec <{terminal[1]}")
    run.says(True, False, True, True)
    run.ends(0)


def test_in_the_background_the_child_has_a_group_of_its_own(launch: Launch, terminal: tuple[int, Path]) -> None:
    command = [*KFORGE_RUN, sys.executable, "-c", GROUPS]
    shell = ["bash", "-c", f'exec <{terminal[1]}; set -m; "$@" & wait $!', "bash"]
    run = launch.start([*shell, *command])
    run.says(False, True, True, False)
    run.ends(0)


def test_ctrl_c_reaches_the_child_once(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch(*program("listen", 3), shell=f"exec <{terminal[1]}")
    run.says("ready")
    os.write(terminal[0], b"\x03")
    run.says("SIGINT")
    wait_until(lambda: "interrupt" in run.log)
    run.send(LAST)
    assert run.rest() == []
    run.ends(3)
    assert "notice: SIGINT from the terminal" in run.log


def test_ctrl_backslash_and_a_new_window_size_reach_the_child_once(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch(*program("listen"), shell=f"exec <{terminal[1]}")
    run.says("ready")
    os.write(terminal[0], b"\x1c")
    run.says("SIGQUIT")
    termios.tcsetwinsize(terminal[0], (12, 34))  # type: ignore[attr-defined,unused-ignore]  # Python 3.11
    run.says("SIGWINCH")
    run.taken()
    run.send(LAST)
    assert run.rest() == []
    run.ends(9)


def test_sigint_from_a_process_is_passed_on_in_the_foreground_too(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch(*program("listen"), shell=f"exec <{terminal[1]}")
    run.says("ready")
    run.send(signal.SIGINT)
    run.says("SIGINT")
    run.send(LAST)
    run.ends(9)


def test_keyboard_interrupt_ends_a_program_as_without_us(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch(
        sys.executable,
        "-c",
        "try: import time; print('ready', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(3)",
        shell=f"exec <{terminal[1]}",
    )
    run.says("ready")
    os.write(terminal[0], b"\x03")
    run.ends(3)


def test_ctrl_z_stops_and_fg_continues(launch: Launch, terminal: tuple[int, Path]) -> None:
    """The shell above must see its job stopped, or the prompt never comes back."""
    run = launch.start(program("shell", terminal[1], *KFORGE_RUN, *program("stop_quietly", 6)))
    run.says("ready")
    os.write(terminal[0], b"\x1a")
    assert {run.line(), run.line()} == {"stopped by SIGTSTP", "continued"}
    run.ends(6)


def hang_up(terminal: tuple[int, Path]) -> None:
    """Close a person's end of a terminal."""
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), terminal[0])


def is_told_once(run: Launched) -> None:
    run.says("SIGHUP")
    run.taken()
    run.send(LAST)
    assert run.rest() == []


def test_a_hang_up_reaches_the_child_of_a_sessions_leader(launch: Launch, terminal: tuple[int, Path]) -> None:
    """As with `ssh -t`, in tmux, under `srun --pty`: the kernel tells the leader, and the others only by its end."""
    run = launch(*program("listen"), options=("-v",), shell=f"exec <{terminal[1]}")
    run.says("ready")
    assert os.getsid(run.pid) == run.pid
    hang_up(terminal)
    is_told_once(run)
    run.ends(9)
    assert "SIGHUP from the terminal" in run.log


def test_a_hang_up_that_a_shell_passes_on_reaches_the_child_once(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch.start(program("shell", terminal[1], *KFORGE_RUN, *program("listen")))
    run.says("ready")
    run.find_kforge_run()
    hang_up(terminal)
    is_told_once(run)
    run.ends(9)


def test_a_hang_up_that_kills_the_shell_reaches_the_child_once(launch: Launch, terminal: tuple[int, Path]) -> None:
    """By the end of the session's leader, the kernel tells the foreground."""
    script = f'exec <{terminal[1]}; "$@"; exit $?'
    run = launch.start(["sh", "-c", script, "sh", *KFORGE_RUN, *program("listen")])
    run.says("ready")
    run.find_kforge_run()
    hang_up(terminal)
    run.ends(-signal.SIGHUP)
    is_told_once(run)
    assert reap(run.pid) == 9


def test_a_hang_up_reaches_the_child_of_a_background_once(launch: Launch, terminal: tuple[int, Path]) -> None:
    """It has a group of its own, which a shell knows nothing of."""
    script = f"""exec <{terminal[1]}; set -m; "$@" & trap 'kill -HUP -- -$!' HUP; wait $!; wait $!"""
    run = launch.start(["bash", "-c", script, "bash", *KFORGE_RUN, *program("listen")])
    run.says("ready")
    run.find_kforge_run()
    hang_up(terminal)
    is_told_once(run)
    run.ends(9)


def test_a_program_dies_of_a_hang_up_as_without_us(launch: Launch, terminal: tuple[int, Path]) -> None:
    run = launch("sh", "-c", "echo ready; exec sleep 60", shell=f"exec <{terminal[1]}")
    run.says("ready")
    hang_up(terminal)
    run.ends(128 + signal.SIGHUP)


def test_a_program_under_nohup_outlives_a_hang_up(launch: Launch, terminal: tuple[int, Path]) -> None:
    code = "trap 'exit 3' USR2; echo ready; while :; do sleep 0.01; done"
    run = launch.start(["nohup", *KFORGE_RUN, "-v", "sh", "-c", code], shell=f"exec <{terminal[1]}")
    run.says("ready")
    hang_up(terminal)
    run.logs("SIGHUP from the terminal")
    run.send(signal.SIGUSR2)
    run.ends(3)


# --- whatever else is inherited ------------------------------------------------------------------------


def test_limits_are_inherited(launch: Launch) -> None:
    shell = "ulimit -n 77; ulimit -c 0; ulimit -t 99; umask 027"
    said = same_with_and_without(launch, "sh", "-c", "cat /proc/self/limits; umask; nice", shell=shell)
    assert any(line.split()[:4] == ["Max", "open", "files", "77"] for line in said)


def test_descriptors_are_inherited_and_none_is_added(launch: Launch) -> None:
    (launch.folder / "data").write_text("seven\n")
    said = same_with_and_without(launch, "sh", "-c", "cat <&7; ls /proc/self/fd", shell="exec 7<data 3<&- 8>out")
    assert said[0] == "seven" and said[-1] == "8"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors_stay_closed(launch: Launch, closed: str) -> None:
    """And none of our lines goes into a file that took their number."""
    journals = launch.folder / "journals"
    code = """
import os, signal, sys
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
found = [is_open(fd) for fd in range(3)]
with open(sys.argv[1], "w") as file:
    print(found, file=file)
os.open("opened", os.O_CREAT | os.O_WRONLY)
if sys.argv[1] == "with":
    with open("parent", "w") as file:
        print([os.readlink(f"/proc/{os.getppid()}/fd/{fd}") for fd in range(3) if not found[fd]], file=file)
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigwait({signal.SIGUSR1, signal.SIGTERM})
"""
    code = code.replace("import os, signal, sys", "import os, signal, sys\nsignal.pthread_sigmask(0, {10, 15})", 1)
    command = [sys.executable, "-c", code]
    launch.start([*command, "without"], shell=f"exec {closed}").ends(0)
    run = launch(*command, "with", options=("-v", "--journal", str(journals)), shell=f"exec {closed}")
    run.ends(0)
    assert (launch.folder / "with").read_text() == (launch.folder / "without").read_text()
    assert (launch.folder / "opened").read_text() == ""
    assert set(literal_eval((launch.folder / "parent").read_text())) == {"/dev/null"}
    events = [line["event"] for line in launch.journal(journals)]
    assert events[0] == "start" and events[-1] == "end" and "notice" in events
    assert ("notice" in run.log) == ("2>" not in closed)


# --- our own death ---------------------------------------------------------------------------------------


def test_a_plain_child_gets_sigterm_when_we_are_killed(launch: Launch) -> None:
    run = launch("sh", "-c", "echo ready; exec sleep 60")
    run.says("ready")
    assert reap(kill_kforge_run(run)) == -signal.SIGTERM
    tidy_after(run.pid)


def test_a_cooperative_child_saves_when_we_are_killed(launch: Launch) -> None:
    run = launch("bash", "-c", 'trap "" TERM; "$@"; exit $?', "bash", *program("cooperate", 4, 0.05))
    run.says("ready")
    bash, python = run_below(run.pid)
    run.send(signal.SIGKILL)
    run.ends(-signal.SIGKILL)  # only then bash is ours
    run.says("stop", "SIGTERM")
    assert reap(bash) == 4
    assert not status_of(python)
    tidy_after(run.pid)


def test_kforge_run_itself_blocks_what_it_reads_from_its_descriptor(launch: Launch) -> None:
    run = launch(*program("listen"))
    run.says("ready")
    blocked = signals_in(run.pid, "SigBlk")
    assert signals_in(run.pid, "SigCgt") <= {signal.SIGINT}  # Python's own, blocked
    assert blocked >= {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCONT}
    run.send(LAST)
    run.ends(9)
