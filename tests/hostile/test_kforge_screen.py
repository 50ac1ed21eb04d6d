"""What is shown of what others have written: letters, and never a terminal's control characters."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from kempnerforge.commands import screen
from tests.hostile.kforge import BIN, KFORGE, Answer, assert_harmless, environment, kforge

#: A title, a clear screen, a C1 introducer, a deletion, a carriage return, and letters turned around.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\b\u202egnp.exe\u2066\u200b"
COMMANDS = Path(__file__).parents[2] / "kempnerforge" / "commands"
#: What may be printed elsewhere: a line that is written over, click's own scripts, a script's bytes, a run's output.
WRITERS = {"screen.py", "progress.py", "completion.py", "template.py", "rehearsal/run_log.py"}


def harmless(answer: Answer) -> Answer:
    assert_harmless(answer.output + answer.errors)
    assert "Traceback" not in answer.errors
    return answer


def site(folder: Path, **scripts: str) -> dict[str, str]:
    """Return an environment with Slurm's commands as scripts."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return environment(f"{folder}:{BIN}:/usr/bin:/bin", EVIL=EVIL)


@pytest.fixture
def evil_script(tmp_path: Path) -> Path:
    path = tmp_path / f"job{EVIL}.sbatch"
    path.write_text(
        f"#!/bin/bash{EVIL}\n#SBATCH {EVIL}\n#SBATCH --signal={EVIL} --output={EVIL}/x --time={EVIL}\n"
        f"#SBATCH --{EVIL}\n"
        f"kforge-run --{EVIL} {EVIL}x >{EVIL}\ntrap x USR1\n",
    )
    return path


def test_a_script(evil_script: Path) -> None:
    assert "\\x1b]0;owned\\x07" in harmless(kforge("doctor", evil_script)).output
    found = harmless(kforge("doctor", "--json", evil_script))
    assert EVIL in json.loads(found.output)["script"]


def test_a_shell_script_that_is_looked_at_wholly(tmp_path: Path) -> None:
    (tmp_path / "job").write_text(f"#!/bin/bash\nkforge-run {EVIL}x >{EVIL}\nexport KFORGE_TIMEOUT={EVIL}\n")
    harmless(kforge("doctor", tmp_path / "job"))
    (tmp_path / "job").write_text(f"#!/bin/bash\npython {EVIL}\n")
    harmless(kforge("doctor", tmp_path / "job"))


def test_journals(tmp_path: Path) -> None:
    fields = dict.fromkeys(("name", "node", "version", "array_task", "reason", "because", "outcome", "signal"), EVIL)
    text = "".join(
        json.dumps({"time": 1795600000 + n, "event": event, "job": EVIL, "attempt": "1", "command": [EVIL], **fields})
        + "\n"
        for n, event in enumerate(("start", "notice", "exit", "end"))
    )
    (tmp_path / f"c{EVIL}-7.jsonl").write_text(text)
    (tmp_path / f"c{EVIL}-7.0.0.jsonl").write_text(text)
    (tmp_path / f"c{EVIL}-8.jsonl").write_text("")
    given = environment(KFORGE_JOURNAL=str(tmp_path))
    for arguments in ((), ("7",), ("7", "--tasks", "--all"), (EVIL,), (str(tmp_path / f"no{EVIL}.jsonl"),)):
        harmless(kforge("report", *arguments, given=given))
    job = json.loads(harmless(kforge("report", "7", "--json", given=given)).output)["jobs"][0]
    assert job["name"] == EVIL and job["command"] == [EVIL]
    page = tmp_path / f"page{EVIL}.html"
    harmless(kforge("report", "7", "--html", page, given=given))
    assert_harmless(page.read_text())


def test_a_journals_folder_with_a_name(tmp_path: Path) -> None:
    folder = tmp_path / f"empty{EVIL}"
    folder.mkdir()
    harmless(kforge("report", "--journal", folder))
    harmless(kforge("doctor", "--journal", folder, tmp_path / "none"))


SAYS = 'printf "%s\\n%s\\n" "$EVIL" "4242;$EVIL"; printf "sbatch: error: %s\\n" "$EVIL" >&2; exit '


@pytest.mark.parametrize("status", [0, 1])
def test_what_slurm_says(tmp_path: Path, status: int) -> None:
    evil = 'printf \'ClusterName = %s\\nSLURM_VERSION = %s\\nRequeueExit = %s\\n\' "$EVIL" "$EVIL" "$EVIL"; '
    evil += 'printf \'PartitionName=%s MaxTime=%s\\n   StdOut=%s\\n\' "$EVIL" "$EVIL" "$EVIL"; '
    evil += f'echo "error: $EVIL" >&2; exit {status}'
    given = site(tmp_path, sbatch=SAYS + str(status), scontrol=evil, squeue=SAYS + str(status), scancel="exit 0")
    (tmp_path / "job").write_text("#!/bin/bash\nexec kforge-run x\n")
    for arguments in (
        ("submit", "single-process", "--", EVIL),
        ("submit", "single-process", "--parsable", "--job-name", EVIL, "--", EVIL),
        ("template", "single-process", "-o", f"out{EVIL}", "--", EVIL),
        ("doctor",),
        ("doctor", "--json"),
        ("doctor", "job"),
        ("report", "7"),
        ("drill", "--slurm", f"--partition={EVIL}", "--", EVIL) if status else ("report",),
    ):
        harmless(kforge(*arguments, given=given, cwd=tmp_path))


def test_what_a_rehearsal_is_told(tmp_path: Path) -> None:
    program = f"import sys; sys.stdout.write({EVIL!r} * 3 + 'x\\n'); sys.exit(3)"
    given = environment(f"{BIN}:/usr/bin:/bin")
    harmless(kforge("drill", "--log", f"log{EVIL}", "--", "python", "-c", program, EVIL, given=given, cwd=tmp_path))
    harmless(kforge("drill", "--", f"no-such{EVIL}", given=given, cwd=tmp_path))


def test_what_is_not_json_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    screen.echo_json({"a": (float("inf"), float("nan"), 1.5), "b": EVIL})
    said = capsys.readouterr().out
    assert json.loads(said, parse_constant=pytest.fail) == {"a": [None, None, 1.5], "b": EVIL}
    assert_harmless(said)


def on_a_terminal(*arguments: str | Path) -> str:
    terminal, end = pty.openpty()
    with subprocess.Popen([KFORGE, *arguments], env=environment(), stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        said = b""
        try:
            while block := os.read(terminal, 1 << 16):
                said += block
        except OSError:
            pass  # that is how a terminal without anybody behind it ends
        os.close(terminal)
        process.wait(60)
    return said.decode().replace("\r\n", "\n")


def test_on_a_terminal_only_our_own_colours_are_colours(evil_script: Path) -> None:
    said = on_a_terminal("doctor", evil_script)
    colours = re.findall(r"\x1b\[\d+m", said)
    assert set(colours) == {"\x1b[31m", "\x1b[33m", "\x1b[0m"} or set(colours) == {"\x1b[31m", "\x1b[0m"}
    assert_harmless(re.sub(r"\x1b\[\d+m", "", said))


def test_a_script_is_shown_to_a_person_and_given_to_a_file() -> None:
    arguments = ("template", "single-process", "--no-check", f"--comment={EVIL.replace(chr(13), '')}", "--", "x")
    assert_harmless(on_a_terminal(*arguments))
    raw = kforge(*arguments)
    assert "\x1b]0;owned" in raw.output


def printed_by(path: Path) -> set[str]:
    """Return what in a module prints."""
    names = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    return {
        name
        for name in names
        if re.fullmatch(r"print|click\.s?echo|sys\.std.*write|os\.write|traceback\.print.*", name)
    }


@pytest.mark.parametrize("path", sorted(COMMANDS.rglob("*.py")), ids=lambda path: path.relative_to(COMMANDS).as_posix())
def test_whatever_is_shown_goes_through_one_place(path: Path) -> None:
    if path.relative_to(COMMANDS).as_posix() not in WRITERS:
        assert printed_by(path) == set()
