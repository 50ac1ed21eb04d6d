"""`kforge` as a program, without Slurm: what it writes, what it refuses, and with which exit status."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BIN = Path(sys.prefix) / "bin"
KFORGE = BIN / "kforge"
TEMPLATE = ("template", "single-process")
COMMAND = ("--", "python", "train.py")


def kforge(
    *arguments: str | bytes | Path,
    path: str | Path = BIN,
    cwd: Path | None = None,
    limit: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run kforge where there is no Slurm, unless ``path`` has it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "KFORGE"))}
    return subprocess.run(
        [KFORGE, *arguments],
        env={**environment, "PATH": str(path)},
        cwd=cwd,
        preexec_fn=limit,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


def refusal(answer: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one line in which kforge says why not."""
    assert (answer.returncode, answer.stdout) == (status, ""), answer
    *before, line = answer.stderr.splitlines()
    assert not before and line.startswith("kforge: error: ")
    return line.removeprefix("kforge: error: ")


# --- template ------------------------------------------------------------------------------------


def test_the_list_of_templates_says_what_each_is_for() -> None:
    lines = kforge("template", "--list").stdout.splitlines()
    names = {path.stem for path in (Path(__file__).parents[2] / "slurm_templates").iterdir()}
    assert {line.split()[0] for line in lines} == names
    assert all(len(line) <= 100 and len(line.split()) > 3 for line in lines)


def test_a_template_gets_its_options_and_its_command() -> None:
    answer = kforge(*TEMPLATE, "-t", "90", "--signal=B:USR1@300", "--comment", "a #b", "--exclusive", *COMMAND)
    lines = answer.stdout.splitlines()
    for line in ("#SBATCH --time=90", "#SBATCH --signal=B:USR1@300", '#SBATCH "--comment=a #b"', "#SBATCH --exclusive"):
        assert lines.count(line) == 1
    assert lines[-1] == "exec kforge-run python train.py"
    assert "there is no sbatch here" in answer.stderr
    assert answer.returncode == 0


def test_options_come_before_or_behind_the_name() -> None:
    one = kforge("template", "--exclusive", "-t5", "single-process", "--requeue", *COMMAND)
    other = kforge("template", "single-process", "-t5", "--exclusive", *COMMAND)
    assert one.stdout == other.stdout and "#SBATCH --exclusive" in one.stdout


def test_one_task_per_gpu_stays_one_task_per_gpu() -> None:
    lines = kforge("template", "srun-one-task-per-gpu", "--gpus-per-node=a100:8", *COMMAND).stdout.splitlines()
    assert "#SBATCH --gpus-per-node=a100:8" in lines and "#SBATCH --ntasks-per-node=8" in lines


def test_what_the_options_would_lose_is_said(tmp_path: Path) -> None:
    options = ("--no-requeue", "--output=logs/%j.log")
    answer = kforge(*TEMPLATE, *options, "-o", "job.sbatch", *COMMAND, cwd=tmp_path)
    assert answer.returncode == 0 and (tmp_path / "job.sbatch").exists()
    assert "warning: --no-requeue: Slurm refuses to start this job again" in answer.stderr
    assert "warning: there is no folder logs" in answer.stderr and "mkdir -p logs" in answer.stderr


def test_torchrun_waits_as_long_as_slurm_does() -> None:
    arguments = ("template", "torchrun-one-node", "--signal=B:USR1@600", *COMMAND)
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=660" in kforge(*arguments).stdout.splitlines()


def test_how_a_template_is_used_is_not_said_in_what_is_made_from_it() -> None:
    lines = kforge(*TEMPLATE, *COMMAND).stdout.splitlines()
    assert not any("sbatch single-process.sbatch" in line for line in lines)
    assert lines[2] == "#" and lines[3] != "#"


@pytest.mark.parametrize(
    ("template", "options", "gpus", "tasks"),
    [
        ("torchrun-one-node", ["--gpus=8"], "8", None),
        ("torchrun-several-nodes", ["--gpus=a100:8", "--nodes=4"], "a100:2", "1"),
        ("srun-one-task-per-gpu", ["-G", "16"], "8", "8"),
        ("srun-one-task-per-gpu", ["--gres=gpu:a100:2"], "a100:2", "2"),
        ("srun-one-task-per-gpu", ["--gpus-per-node=0"], "0", "4"),
    ],
)
def test_gpus_in_all_are_said_per_node(template: str, options: list[str], gpus: str, tasks: str | None) -> None:
    lines = kforge("template", template, *options, *COMMAND).stdout.splitlines()
    assert f"#SBATCH --gpus-per-node={gpus}" in lines
    assert not any(line.startswith("#SBATCH --gpus=") for line in lines)
    said = [line for line in lines if line.startswith("#SBATCH --ntasks-per-node=")]
    assert said == ([] if tasks is None else [f"#SBATCH --ntasks-per-node={tasks}"])


def test_without_a_command_all_of_them_are_shown() -> None:
    answer = kforge()
    assert answer.returncode == 2 and "\n  doctor " in answer.stdout and answer.stderr == ""


def test_bytes_that_are_no_text_arrive_unchanged(tmp_path: Path) -> None:
    words = [b"\xff\xfe", "“é”".encode(), b"a\nb", b"'", b"$HOME", b"*", b""]
    script = kforge("template", "single-process", "--job-name", b"\xfftrain", "--", *words).stdout
    (tmp_path / "kforge-run").write_text(f'#!{shutil.which("bash")}\nprintf "%s\\0" "$@"\n')
    (tmp_path / "kforge-run").chmod(0o755)
    received = subprocess.run(
        ["bash"],
        input=os.fsencode(script),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    assert received.split(b"\0")[:-1] == words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("template", "singel-process", *COMMAND), "did you mean single-process?"),
        (("template", *COMMAND), "kforge template --list"),
        (TEMPLATE, "kforge template single-process -- python train.py"),
        ((*TEMPLATE, "python", "train.py"), "the command comes behind --"),
        ((*TEMPLATE, "--time=1", *COMMAND), "a longer --time"),
        ((*TEMPLATE, "--signal=USR1@120", *COMMAND), "--signal=B:USR1@120"),
        ((*TEMPLATE, "--ntasks=3", "--gpus=4", *COMMAND), "--ntasks=4"),
        ((*TEMPLATE, "--wrap=true", *COMMAND), "cannot be said in a batch script"),
        ((*TEMPLATE, "-j", "4", *COMMAND), "-j is no option of sbatch's"),
        ((*TEMPLATE, "--tiem=4", *COMMAND), "did you mean --time?"),
        ((*TEMPLATE, "--", "kforge-run", "python"), "the template starts kforge-run itself"),
        ((*TEMPLATE, "--", "python train.py"), "without quotes around them all"),
        ((*TEMPLATE, "--", "A=1", "python"), "env A=1"),
        (("template", "torchrun-one-node", "--", "torchrun", "x.py"), "the template starts torchrun itself"),
        (("template", "torchrun-several-nodes", "--gpus=7", *COMMAND), "use --gpus-per-node"),
        (("doctor", "--jsn"), "there is no option --jsn"),
        (("doctor", "a.sbatch", "b.sbatch"), "'b.sbatch' is too much"),
        (("completion", "tcsh"), "is not one of 'bash', 'zsh', 'fish'"),
        ((*TEMPLATE, "--comment=a\nb", *COMMAND), "cannot hold a line end"),
        (("submit", "single-process", "--parsable"), "there is no sbatch here"),
        (("doctor",), "there is no scontrol here"),
        (("doctor", "nowhere.sbatch"), "there is no file nowhere.sbatch"),
        (("doctor", "/dev/zero"), "/dev/zero is no file"),
        (("nonsense",), "No such command"),
    ],
)
def test_what_cannot_be_right_is_one_line_with_a_hint(arguments: tuple[str, ...], says: str) -> None:
    assert says in refusal(kforge(*arguments), 125 if "there is no s" in says else 2)


def test_a_file_is_written_once_and_replaced_only_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "job.sbatch"
    answer = kforge(*TEMPLATE, "-o", file, *COMMAND)
    assert answer.returncode == 0 and answer.stdout == "" and str(file) in answer.stderr
    first = file.read_text()
    assert first.endswith("exec kforge-run python train.py\n")
    assert file.stat().st_mode & 0o100 and not file.stat().st_mode & stat.S_IWOTH
    assert "--force" in refusal(kforge(*TEMPLATE, "-o", file, "-t5", *COMMAND), 2)
    assert file.read_text() == first
    assert kforge(*TEMPLATE, "-o", file, "-t5", "--force", *COMMAND).returncode == 0
    assert "--time=5" in file.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.sbatch"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    said = refusal(kforge(*TEMPLATE, "-o", tmp_path / "job.sbatch", *COMMAND, limit=no_room), 125)
    assert "cannot write" in said and "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/sys/kernel/job.sbatch", "nowhere/job.sbatch", "file/job.sbatch"])
def test_a_place_that_takes_no_file(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(kforge(*TEMPLATE, "-o", place, *COMMAND, cwd=tmp_path), 125)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(kforge(*TEMPLATE, "-o", tmp_path, "--force", *COMMAND), 2)


def test_what_is_no_file_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    assert "No space left" in refusal(kforge(*TEMPLATE, "-o", "/dev/full", "--force", *COMMAND), 125)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert kforge(*TEMPLATE, "-o", "-", *COMMAND, cwd=tmp_path).stdout.endswith("exec kforge-run python train.py\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_changes_no_status(tmp_path: Path, closed: str) -> None:
    (tmp_path / "job.sbatch").write_text(BAD)
    for arguments, status in (("doctor job.sbatch", 1), ("template --list", 0), ("doctor nowhere", 2)):
        command = f"{shlex.quote(str(KFORGE))} {arguments} {closed}"
        assert (
            subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False).returncode == status
        )


def test_a_pipe_as_the_file_is_written_to() -> None:
    assert kforge(*TEMPLATE, "-o", "/dev/stdout", *COMMAND).stdout.endswith("exec kforge-run python train.py\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    pipeline = f"{shlex.quote(str(KFORGE))} template --list | true"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", pipeline], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


# --- doctor --------------------------------------------------------------------------------------

BAD = "#!/bin/bash\n#SBATCH --signal=USR1@120\n#SBATCH --requeue\nkforge-run python train.py\n"


def test_the_doctor_names_line_and_cure_and_fails(tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(BAD)
    answer = kforge("doctor", "job.sbatch", cwd=tmp_path)
    assert answer.returncode == 1
    text = " ".join(answer.stdout.split())
    assert "job.sbatch:2: would lose a run: --signal=USR1@120 without B: does not reach" in text
    assert "job.sbatch:4: would lose a run: no exec" in text
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "    cure: exec kforge-run python train.py\n" in answer.stdout
    assert answer.stdout.endswith("\n2 findings would lose a run\n")
    assert "\x1b" not in answer.stdout


def test_the_doctor_takes_options_as_sbatch_will(tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(BAD.replace("kforge-run", "exec kforge-run"))
    assert kforge("doctor", "job.sbatch", cwd=tmp_path).returncode == 1
    answer = kforge("doctor", "job.sbatch", "--signal=B:USR1@90", cwd=tmp_path)
    assert (answer.returncode, answer.stdout.splitlines()[-1]) == (0, "job.sbatch: nothing found that would lose a run")


def test_the_doctor_speaks_json(tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(BAD)
    told = json.loads(kforge("doctor", "--json", "job.sbatch", cwd=tmp_path).stdout)
    assert [finding["line"] for finding in told["findings"] if finding["loses"]] == [2, 4]
    assert set(told["findings"][0]) == {"line", "loses", "what", "cure", "is_unclear"}


def test_the_doctor_cannot_tell_and_says_how_to_write_it(tmp_path: Path) -> None:
    head = "#!/bin/bash\n#SBATCH --signal=B:USR1@120 --requeue --open-mode=append\n"
    (tmp_path / "job.sbatch").write_text(f"{head}if false; then exec kforge-run x; fi\npython train.py\n")
    answer = kforge("doctor", "job.sbatch", cwd=tmp_path)
    assert answer.returncode == 3
    assert answer.stdout.splitlines() == [
        "job.sbatch:3: cannot tell whether the shell comes to this kforge-run",
        "    cure: write it like this, the last line by itself and at the end:",
        "        #SBATCH --signal=B:USR1@120",
        "        #SBATCH --requeue",
        "        exec kforge-run python train.py",
        "",
        "job.sbatch: cannot tell whether it would lose a run",
    ]
    # What is certain counts more.
    assert kforge("doctor", "job.sbatch", "--signal=USR1@90", cwd=tmp_path).returncode == 1


def test_the_doctor_knows_what_earlier_attempts_needed(tmp_path: Path) -> None:
    """A journal of a job of the same name, in which stopping took 130 s."""
    common = {"job": "7", "attempt": "1-1"}
    start = {"command": ["python", "train.py"], "version": "1", "place": "batch", "name": "big", "node": "n1"}
    lines = [
        {"time": 1000.0, "event": "start", **common, **start},
        {"time": 1100.0, "event": "notice", **common, "signal": "SIGUSR1", "sender": "slurmstepd"},
        {"time": 1230.0, "event": "exit", **common, "status": 0},
    ]
    journals = tmp_path / "journals"
    journals.mkdir()
    (journals / "alpha-7.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    script = tmp_path / "job.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --signal=B:USR1@120 --requeue\nexec kforge-run python train.py\n")
    arguments = ("doctor", "--journal", journals, script)
    assert kforge(*arguments).returncode == 0, "a job of another name"
    answer = kforge(*arguments, "--job-name=big")
    assert answer.returncode == 1
    assert "job 7 took 130 s to stop" in " ".join(answer.stdout.split()) and "--signal=B:USR1@190" in answer.stdout


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"\x7fELF\0\0", 2, "is no script: it holds NUL bytes"),
        (b"", 1, "does not begin with #!"),
        (b"#!/bin/bash\r\nexec kforge-run x\r\n", 1, "Windows"),
        (b"#!/usr/bin/python3\nprint(1)\n", 1, "python3 is the batch process"),
        (b"#!/bin/csh\nkforge-run x\n", 1, "no exec"),
        (b"#!/bin/bash\n\xff\xfe\nexec kforge-run \xff\n", 1, "no --signal"),
        (b"#!/bin/bash\n" + b"# 0123456789abcde\n" * 600_000, 1, "sbatch takes 4 MB"),
    ],
    ids=["binary", "empty", "Windows", "Python", "csh", "no text", "10 MB"],
)
def test_scripts_of_all_kinds(tmp_path: Path, content: bytes, status: int, says: str) -> None:
    (tmp_path / "script").write_bytes(content)
    answer = kforge("doctor", "script", cwd=tmp_path)
    assert answer.returncode == status
    assert says in " ".join(answer.stdout.split()) + answer.stderr
    assert "Traceback" not in answer.stderr


# --- help and completion ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["template"], ["submit"], ["doctor"], ["drill"], ["report"], ["completion"]])
def test_help_has_examples_and_fits_a_terminal(command: list[str]) -> None:
    answer = kforge(*command, "--help")
    assert answer.returncode == 0
    assert "kforge " + " ".join(command[:1]) in answer.stdout.partition("Options:")[2]
    assert max(map(len, answer.stdout.splitlines())) <= 80


COMPLETE = """
eval "$(kforge completion bash)"
compopt() { :; }  # only known while bash itself completes
complete_line() {
  read -ra COMP_WORDS <<<"$1"
  case $1 in *' ') COMP_WORDS+=('') ;; esac
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  "$(complete -p "${COMP_WORDS[0]}" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')" "${COMP_WORDS[0]}"
  printf '%s\\n' "${COMPREPLY[@]}"
}
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kforge tem", {"template"}),
        ("kforge template single", {"single-process"}),
        ("kforge template --gpus-per-n", {"--gpus-per-node"}),
        ("kforge submit --dry", {"--dry-run"}),
        ("kforge completion f", {"fish"}),
        ("kforge-run --no-em", {"--no-embed"}),
        ("kforge-run kforge-r", {"kforge-run"}),
    ],
)
def test_bash_completes_both_commands(line: str, expected: set[str]) -> None:
    answer = subprocess.run(
        ["bash", "--norc", "-c", f"{COMPLETE}\ncomplete_line {shlex.quote(line)}"],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(answer.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_both_commands(shell: str) -> None:
    answer = kforge("completion", shell)
    assert "_KFORGE_COMPLETE=" in answer.stdout and "_KFORGE_RUN_COMPLETE=" in answer.stdout
