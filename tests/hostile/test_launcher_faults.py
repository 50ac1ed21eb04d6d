"""Odd files, odd numbers, odd variables and missing folders: each costs at most what needed it, and a line."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import leaks
from tests.hostile.test_launcher_code import PAYLOAD
from tests.hostile.users import User
from tests.process.children import LAST
from tests.process.launch import KFORGE_RUN, Launch, program

CHECKPOINTED = 85
#: Where no Slurm answers, kforge-run asks again until the deadline.
IN_3_S = ("--timeout", "3")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces and mounts")


def stops(launch: Launch, command: list[str]) -> None:
    """Check that a notice gets to a listener, however kforge-run was started."""
    run = launch.start(command)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e308", "-5", "1" * 400, '"9"', "[]"])
def test_numbers_in_a_journal(launch: Launch, number: str) -> None:
    journals = launch.folder / "journals"
    journals.mkdir()
    end = {"event": "end", "job": "123", "restarts": 0, "progress": True, "retried": False, "outcome": "completed"}
    line = json.dumps(end).rstrip("}") + f', "shutdown": {number}, "time": {number}}}\n'
    journal = journals / "slurm-123.jsonl"
    journal.write_text(line + line.replace('"restarts": 0', f'"restarts": {number}'))
    journal.chmod(0o600)
    run = launch.in_batch(
        *program("cooperate"), options=(*IN_3_S, "--journal", str(journals)), variables={"SLURM_JOB_ID": "123"}
    )
    run.says("ready")
    run.find_kforge_run()
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.wait()
    assert "a bug" not in run.log and "Traceback" not in run.log


@pytest.mark.parametrize("journal", [".", "/proc/self/fd"])
def test_a_journals_folder_in_which_nothing_can_be_made(launch: Launch, journal: str) -> None:
    gone = launch.folder / "gone"
    gone.mkdir()
    run = launch(*program("listen"), options=("--journal", journal), shell=f"cd {gone}; rmdir {gone}")
    run.says("ready")
    before = _processor_time(run.pid)
    run.logs("no journal: ")
    time.sleep(0.5)  # in which a loop would show
    assert _processor_time(run.pid) - before < 0.2
    run.send(LAST)
    run.ends(9)


def _processor_time(pid: int) -> float:
    """Return the processor time of a process and of those that it has reaped (s)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@needs_root
def test_memory_that_is_full_at_the_notice(launch: Launch) -> None:
    small = 'mount -t tmpfs -o size=256k,mode=1777 none /dev/shm && exec "$@"'
    command = (
        "trap 'rm /dev/shm/filler; sleep 0.1; exit 85' USR1; echo ready; "
        "dd if=/dev/zero of=/dev/shm/filler bs=4k 2>/dev/null; echo full; while :; do sleep 0.1; done"
    )
    left = f'{" ".join(KFORGE_RUN)} sh -c "$0"; status=$?; ls -A /dev/shm; exit $status'
    run = launch.start(["unshare", "--mount", "sh", "-c", small, "sh", "sh", "-c", left, command])
    run.says("ready")
    run.says("full")
    (run.pid,) = _children(run.pid)
    run.send(signal.SIGUSR1)
    assert run.rest() == []
    run.ends(CHECKPOINTED)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_root
def test_no_proc_and_something_left(launch: Launch) -> None:
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    options = ("--term-grace", "1")
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", *KFORGE_RUN, *options, "sh", "-c", "sleep 100 & exit 3"]
    others = leaks.children()
    launch.start(command).ends(3)
    assert len(leaks.children() - others) == 1  # without /proc kforge-run cannot find it, and it stays
    leaks.end_all(others)


@needs_root
def test_no_dev_and_closed_streams(launch: Launch) -> None:
    hide = 'mount -t tmpfs none /dev && exec <&- && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", *KFORGE_RUN, "sh", "-c", "exit 3"]
    launch.start(command).ends(3)


def test_variables_without_a_name(launch: Launch) -> None:
    """execve(2) takes them, and so does everybody but Python's execve."""
    environment = [f"{name}={value}" for name, value in launch.environment.items()]
    strings = [os.fsencode(text) for text in (*environment, "=foo", "=C:=x", "nothing")]
    pid = os.fork()
    if pid == 0:
        command = [os.fsencode(word) for word in (*KFORGE_RUN, "sh", "-c", "exit 7")]
        argv = (ctypes.c_char_p * (len(command) + 1))(*command, None)
        envp = (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
        ctypes.CDLL(None).execve(command[0], argv, envp)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_terminal_that_stops_who_writes_in_the_background(launch: Launch) -> None:
    """`stty tostop`: kforge-run writes its lines all the same, and is not stopped before the notice."""
    primary, terminal = pty.openpty()
    shell = (
        f"exec 0<>{os.ttyname(terminal)} 2>&0; stty tostop; set -m; "
        "(echo another >&2) & wait $!; echo another ended $?; kill -KILL $!; "
        f"{' '.join(KFORGE_RUN)} -v sh -c 'exit 3' & wait $!; echo ended $?"
    )
    run = launch.start(["bash", "-c", shell])
    run.says("another ended", 128 + signal.SIGTTOU)
    run.says("ended", 3)
    run.ends()
    shown = os.read(primary, 1 << 16)
    for end in (primary, terminal):
        os.close(end)
    assert re.search(rb"kforge-run \S+ started sh \(pid", shown)


def test_source_that_everybody_may_write_is_not_run(installation: Path, victim: User, common: Path) -> None:
    for writable in ("launcher/telling/chronicle.py", "bootstrap/inject/process.py", "launcher"):
        own = common / f"copy-{writable.replace('/', '-')}"
        shutil.copytree(installation, own)
        path = own / "kempnerforge" / writable
        path.chmod(0o777 if path.is_dir() else 0o666)
        variables = {"PYTHONPATH": str(own)}
        command = (victim.python, own / "bin/kforge-run", "echo", "ran")
        output, errors = victim.run(*command, variables=variables, status=125)
        assert output == "" and "everybody may write to" in errors and errors.count("\n") == 1


def test_the_working_directory_is_no_place_for_our_package(
    installation: Path, victim: User, attacker: User, common: Path
) -> None:
    """Where our own cannot be trusted there is none, and not one that lies about."""
    own, cwd, marks = common / "copy", common / "cwd", common / "marks"
    shutil.copytree(installation, own)
    (own / "kempnerforge/resilience/__pycache__").chmod(0o777)
    for folder in (cwd, marks):
        folder.mkdir()
        folder.chmod(0o777)
    payload = PAYLOAD.format(mark=f"{marks}/run-as-")
    plant = (
        'mkdir -p "$D/bootstrap/inject"; printf "%s\\n" "$P" >"$D/__init__.py"; '
        'cp "$D/__init__.py" "$D/bootstrap/inject/process.py"'
    )
    attacker.does(plant, D=cwd, P=payload)
    (common / "others").mkdir()
    for package in ("click", "psutil"):
        shutil.copytree(own / package, common / "others" / package)
    code = "import sys\ntry: import kempnerforge\nexcept ImportError: print('none')"
    home = Path("/opt") / f"{common.name}-home"
    home.mkdir(mode=0o700)
    os.chown(home, victim.uid, victim.uid)
    try:
        output, _ = victim.run(
            *(victim.python, own / "bin/kforge-run", victim.python, "-c", code),
            shell=f"cd {cwd}",
            variables={"PYTHONPATH": str(common / "others"), "HOME": str(home)},
        )
    finally:
        shutil.rmtree(home)
    assert output == "none\n" and list(marks.iterdir()) == []


@needs_root
def test_a_full_log_and_no_process_to_be_had(victim: User, common: Path) -> None:
    full = common / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "full", full], check=True)
    try:
        (full / "filler").write_bytes(bytes(4096))
        log = full / "log"
        victim.run(*victim.kforge_run, "-v", "sh", "-c", "exit 7", shell=f"ulimit -u 2; exec 2>{log}", status=7)
    finally:
        subprocess.run(["umount", full], check=True)
