"""What an `exec > >(tee log) 2>&1` has left to kforge-run writes down what was said last, and ends with it."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.process.launch import (
    KFORGE_RUN,
    Launch,
    Launched,
    command_line,
    program,
    run_below,
    status_of,
    wait_until,
)

#: Reads far more slowly than a program writes, and says how much it has read at its end.
SLOW = """
import os, sys, time
with open("tee.log", "wb", 0) as log:
    while block := os.read(0, 4096):
        time.sleep(0.01)
        log.write(block)
os.write(2, b"read to its end\\n")
"""
#: Saves when it is interrupted, and then says more than a pipe holds.
TALKATIVE = """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    if "wait" in sys.argv:
        signal.sigwait({signal.SIGUSR2})
    for number in range(3000):
        print("line", number, "x" * 100)
    print("SAVED", flush=True)
"""
TALKS = (sys.executable, "-c", TALKATIVE)


def start(launch: Launch, reader: str, *command: str, options: tuple[str, ...] = ("-v",)) -> Launched:
    """Start kforge-run as the last command of a script that has its output read."""
    script = f'exec > >({reader} >read) 2>&1; exec "$@"'
    (launch.folder / "slow.py").write_text(SLOW)
    return launch.start(["bash", "-c", script, "bash", *KFORGE_RUN, *options, *command])


def lines_of(launch: Launch) -> list[str]:
    file = launch.folder / "tee.log"
    return file.read_text().splitlines() if file.exists() else []


def is_ready(launch: Launch) -> None:
    wait_until(lambda: "ready" in lines_of(launch))


def ends_in_full(launch: Launch, run: Launched) -> None:
    """Check that all is in the log by the moment at which kforge-run has ended."""
    run.ends(85)
    said = lines_of(launch)
    assert "SAVED" in said
    assert said[-1].startswith("kforge-run ") and " checkpointed" in said[-1]
    assert not any("could not be killed" in line or "sweeping" in line for line in said)


@pytest.mark.parametrize("reader", ["tee tee.log", "cat | tee tee.log", "exec setsid tee tee.log"])
def test_all_that_was_said_is_in_the_log(launch: Launch, reader: str) -> None:
    run = start(launch, reader, *TALKS)
    is_ready(launch)
    run.send(signal.SIGUSR1)
    ends_in_full(launch, run)


def test_a_slow_reader_is_given_time(launch: Launch) -> None:
    run = start(launch, f"{sys.executable} slow.py", *TALKS)
    is_ready(launch)
    run.send(signal.SIGUSR1)
    ends_in_full(launch, run)


def test_a_reader_gets_no_signal_and_is_nothing_left_behind(launch: Launch) -> None:
    """Not at the last stages either, and it does not hide what the program has left behind."""
    run = start(launch, "tee tee.log", *program("leave", 2, 7, "deaf", "orphan"), options=("-v", "--term-grace", "0.1"))
    run.ends(7)
    said = "\n".join(lines_of(launch))
    assert "sweeping what is left behind" in said and "could not be killed" not in said
    assert said.endswith("still running: SIGKILL")


def test_a_reader_that_does_not_end_is_killed_in_the_end(launch: Launch) -> None:
    run = start(launch, "tee tee.log; sleep 1000", *program("cooperate"), options=("--timeout", "3"))
    is_ready(launch)
    run.send(signal.SIGUSR1)
    run.ends(85)
    assert " checkpointed" in lines_of(launch)[-1]


def test_what_a_reader_leaves_unread_is_in_its_output(launch: Launch) -> None:
    """As when Slurm's SIGTERM after a requeue ends it: here by the time at which the sweep looks for survivors."""
    reads_only = "head -n1 | tee tee.log; exec sleep 1000"
    output = launch.folder / "output"
    script = f'exec > >(exec >>{output}; {reads_only}) 2>&1; exec "$@"'
    command = [*KFORGE_RUN, "--timeout", "3", *program("cooperate")]
    run = launch.start(["bash", "-c", script, "bash", *command])
    is_ready(launch)
    run.send(signal.SIGUSR1)
    run.ends(85)
    said = output.read_text().splitlines()
    assert said[0] == "ready" and "stop SIGUSR1" in said and " checkpointed" in said[-1]


def test_a_reader_that_is_killed_while_the_program_saves(launch: Launch) -> None:
    """Its work is done by kforge-run: else the program would die of its next line, or wait for ever."""
    command = [*KFORGE_RUN, *TALKS, "wait"]
    output = launch.folder / "output"
    run = launch.start(["bash", "-c", f'exec > >(exec tee tee.log >>{output}) 2>&1; exec "$@"', "bash", *command])
    is_ready(launch)
    (tee,) = [pid for pid in run_below(run.pid) if command_line(pid).startswith(b"tee")]
    run.send(signal.SIGUSR1)
    wait_until(lambda: "notice: SIGUSR1" in output.read_text())
    os.kill(tee, signal.SIGTERM)
    wait_until(lambda: not status_of(tee))
    run.send(signal.SIGUSR2)
    run.ends(85)
    said = output.read_text().splitlines()
    assert [line for line in said if line.startswith("line ")][-1].startswith("line 2999 ") and "SAVED" in said
    assert sum(line.startswith("line ") for line in said) == 3000 and " checkpointed" in said[-1]


def test_what_is_older_and_reads_no_log_of_ours_is_swept_as_ever(launch: Launch) -> None:
    """A monitor that a script leaves in its background is not waited for."""
    script = 'exec > >(tee tee.log >read) 2>&1; sleep 1000 & exec "$@"'
    options = ("-v", "--term-grace", "1000")
    run = launch.start(["bash", "-c", script, "bash", *KFORGE_RUN, *options, "sh", "-c", "exit 3"])
    run.ends(3)
    assert "sweeping what is left behind" in "\n".join(lines_of(launch))


def test_without_a_reader_a_program_may_read_its_own_output(launch: Launch) -> None:
    """It has a pipe of ours open to read, too, and is swept all the same."""
    code = "import os, sys, time; os.open('/dev/stdout', os.O_RDONLY); sys.exit(3) if os.fork() else time.sleep(1000)"
    run = launch(sys.executable, "-c", code, options=("-v", "--term-grace", "1000"))
    run.ends(3)
    assert "sweeping what is left behind" in run.log
