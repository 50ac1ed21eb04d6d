"""What attacks have not broken so far, and must not: command lines, missing /proc, being PID 1, closed streams."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from kempnerforge.commands.cli import kforge
from tests.process.children import LAST
from tests.process.launch import KFORGE_RUN, Launch, program

CHECKPOINTED = 85
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

#: What a shell, sbatch, or a template would trip over. 358 command lines are made of these.
SIGNS = [
    *("$HOME", "${HOME}", "$(touch X)", "`touch X`", "'", '"', "\\", "\\\\", "\\n", "\n", "\r\n", "\t", " ", "  ", ""),
    *("*", "?", "[a-z]", "~", "~root", "#", "#SBATCH --nodes=9", "!", "!!", "&", "&&", "|", ";", "<", ">", ">>"),
    *("<<EOF", "(", ")", "{", "}", "{a,b}", "=", "a=b", "-", "--", "-n", "-e", "%j", "%%", "^", "@", "$", "$$", "$1"),
    *("$@", "\u201c", "\x01", "\x1b[31m", "\x7f", "\u202e", "\u2028", "é", "日本", "\udcff", "\udc80abc", "a" * 3000),
]
PAIRS = itertools.combinations(SIGNS, 2)
COMMANDS = [
    *([sign] for sign in SIGNS),
    *([f"a{sign}b"] for sign in SIGNS),
    *([sign, sign] for sign in SIGNS),
    *(
        ["x", f"{one}{other}"]
        for one, other in itertools.islice(itertools.combinations(SIGNS, 2), 358 - 3 * len(SIGNS))
    ),
]


def test_whatever_a_command_holds_a_template_hands_on(tmp_path: Path) -> None:
    """Each script is one that bash reads, and run by it gives kforge-run exactly the words that were asked for."""
    assert len(COMMANDS) == 358
    said = tmp_path / "words"
    stand_in = tmp_path / "kforge-run"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{said}\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for words in COMMANDS:
        written = CliRunner().invoke(kforge, ["template", "single-process", "--no-check", "--", "prog", *words])
        assert written.exit_code == 0, written.output
        subprocess.run(["bash", "-n"], input=written.stdout_bytes, check=True, cwd=tmp_path)
        subprocess.run(["bash"], input=written.stdout_bytes, env=environment, check=True, cwd=tmp_path)
        assert said.read_bytes().split(b"\0")[:-1] == [b"prog", *map(os.fsencode, words)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kforge-run", "words"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_closed_in_every_way(launch: Launch, closed: str) -> None:
    marker = launch.folder / "ran"
    journal = ("--journal", str(launch.folder / "journals"))
    launch("sh", "-c", f"echo ran >{marker}; exit 7", options=journal, shell=f"exec {closed}").ends(7)
    assert marker.read_text() == "ran\n"
    assert launch.journal(launch.folder / "journals")[-1]["status"] == 7


def in_namespace(*options: str, first: str = ":", command: list[str]) -> list[str]:
    return ["unshare", "--mount", *options, "sh", "-c", f'{first} && exec "$@"', "sh", *KFORGE_RUN, *command]


@needs_root
def test_no_proc(launch: Launch) -> None:
    """Nothing can be known of processes: a notice goes to the child."""
    hide = "mount -t tmpfs none /proc"
    run = launch.start(in_namespace(first=hide, command=[*program("listen")]))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("SIGUSR1")
    run.send(LAST)
    run.ends(9)


@needs_root
def test_pid_1(launch: Launch) -> None:
    """As in a container: orphans come to us anyway, and nobody gets signals that he has no handler for."""
    wait = "trap 'echo told; exit 85' USR1; echo ready; while :; do sleep 0.1; done"
    orphan = f"(setsid sleep 100 >/dev/null 2>&1 &) & {wait}"
    command = ["--term-grace", "1", "sh", "-c", orphan]
    run = launch.start(in_namespace("--pid", "--fork", "--mount-proc", command=command))
    run.says("ready")
    (run.pid,) = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    run.send(signal.SIGUSR1)
    run.says("told")
    run.ends(CHECKPOINTED)
