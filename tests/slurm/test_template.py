"""`kforge template` and `submit` beside the real sbatch: it takes what they write, and runs what was meant."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kempnerforge.commands.batch import templates
from kempnerforge.commands.batch.batch_script import directive_line
from kempnerforge.commands.batch.sbatch_options import Option
from tests.slurm.runs import BIN, Run, training
from tests.slurm.sandbox import Sandbox
from tests.unit.test_batch_script import SPLIT

#: One line of anything that an argument can hold.
LINES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
#: Words of a command: any bytes.
WORDS = st.binary(max_size=30).filter(lambda word: b"\0" not in word).map(os.fsdecode)
NASTY = st.sampled_from(
    ["$HOME", "`id`", "a b", "'", '"', "\\", "*", "~", "#x", "a\nb", "", "-x", "“", "!!", "&", "\r\n"]
)
OPTIONS = {
    "comment": LINES,
    "job-name": LINES.filter(bool),
    "time": st.sampled_from(["5", "10:00", "1:00:00", "1-0"]),
    "signal": st.sampled_from(["B:USR1@200", "b:10@61"]),
    "partition": st.sampled_from(["main", "preemptible"]),
    "mem": st.just("1G"),
    "nice": st.just("5"),
}


def kforge(slurm: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**slurm.environment, "PATH": f"{BIN}:{slurm.environment['PATH']}"}
    return subprocess.run(
        [BIN / "kforge", *arguments], env=environment, cwd=slurm.work, capture_output=True, text=True, check=False
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(templates.names()),
    options=st.fixed_dictionaries({}, optional=OPTIONS),
    command=st.lists(WORDS | NASTY, max_size=6).map(lambda words: ["python", *words]),
)
def test_whatever_is_asked_for_the_script_is_one_that_sbatch_takes(
    slurm: Sandbox, name: str, options: dict[str, str], command: list[str]
) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("no shellcheck here (hint: .ci/run installs it)")
    # The sandbox has no GPUs.
    given_options = [Option(key, value) for key, value in options.items()] + [Option("gpus-per-node", "0")]
    content = os.fsencode(templates.script(name, given_options, command).text)
    for check in (["bash", "-n", "/dev/stdin"], [shellcheck, "-"], ["sbatch", "--test-only"]):
        answer = subprocess.run(check, input=content, env=slurm.environment, capture_output=True, check=False)
        assert answer.returncode == 0, content.decode() + answer.stdout.decode() + answer.stderr.decode()


@pytest.mark.parametrize(("line", "words"), SPLIT)
def test_sbatch_splits_its_lines_as_we_do(slurm: Sandbox, line: str, words: list[str] | None) -> None:
    if line == " --comment=a\\ b" and slurm.version >= (24, 11):
        words = ["--comment=a b"]  # there a backslash keeps a space; the doctor reads as 22.05 does
    comments = [word.removeprefix("--comment=") for word in words or [] if word.startswith("--comment=")]
    script = slurm.work / f"split-{os.getpid()}-{abs(hash(line))}.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH{line}\nexit\n")
    command = ["sbatch", "--parsable", "--hold", "--output=/dev/null", str(script)]
    answer = subprocess.run(command, env=slurm.environment, capture_output=True, text=True, check=False)
    if words is None or any(not word.startswith("-") for word in words) or "--comment" in words:
        assert answer.returncode != 0
        return
    job = int(answer.stdout)
    slurm.submitted.append(job)
    record = slurm.run("scontrol", "show", "job", str(job)).stdout
    told = re.search(r"^ +Comment=(.*?) ?$", record, re.MULTILINE)
    assert ([told[1]] if told and told[1] else []) == [comment for comment in comments if comment]


@pytest.mark.parametrize("value", ["a b", 'say "hi"', "it's", "back\\slash", "#1", "\\", "é"])
def test_a_value_reaches_the_job_unchanged(slurm: Sandbox, value: str) -> None:
    script = (
        f"#!/bin/bash\n{directive_line([Option('comment', value), Option('hold'), Option('output', '/dev/null')])}\n"
    )
    job = slurm.sbatch(script=f"{script}exit\n")
    # Slurm 22.05 and 24.11 put a space behind it.
    record = slurm.run("scontrol", "show", "job", str(job)).stdout
    assert re.search(rf"^   Comment={re.escape(value)} ?$", record, re.MULTILINE)


def test_what_sbatch_would_not_take_is_refused_and_not_written(slurm: Sandbox, tmp_path: Path) -> None:
    arguments = ("template", "single-process", "-p", "nope", "-o", str(tmp_path / "job.sbatch"))
    answer = kforge(slurm, *arguments, "--", "true")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "sbatch would not take this job: invalid partition specified: nope" in answer.stderr
    assert list(tmp_path.iterdir()) == []
    assert kforge(slurm, *arguments, "--no-check", "--", "true").returncode == 0


def test_a_submitted_job_runs_the_command_unchanged_through_a_notice(slurm: Sandbox) -> None:
    words = ["a b", "$HOME", "'", "*", "x\ny"]
    code = "import sys; sys.argv[1:] == ['a b', '$HOME', \"'\", '*', 'x\\ny'] or sys.exit(3); print('unchanged')"
    train = training(60).replace("python", sys.executable)
    answer = kforge(
        slurm, "submit", "single-process", "-t", "10", "--cpus-per-task=1", "--output", f"{slurm.work}/%x of %j.log",
        "--", "bash", "-c", f'{sys.executable} "$@" && exec {train}', "bash", "-c", code, *words,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    job = int(answer.stdout.split()[1])
    slurm.submitted.append(job)
    run = Run.of(slurm, job)
    assert f"log: {run.record['StdOut']}" in answer.stdout.splitlines()
    run.says("unchanged").says("step 3 ").signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=60)


def test_what_was_typed_counts_more_than_a_variable(slurm: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # To sbatch a variable counts more than the script.
    for name, value in {"PARTITION": "preemptible", "JOB_NAME": "of-a-variable", "TIMELIMIT": "7", "WAIT": "1"}.items():
        monkeypatch.setitem(slurm.environment, f"SBATCH_{name}", value)
    options = ("--hold", "--partition=main", "--time=9", "--cpus-per-task=1")
    job = int(kforge(slurm, "submit", "single-process", "--parsable", *options, "--", "true").stdout)
    slurm.submitted.append(job)
    record = slurm.job(job)
    assert (record["Partition"], record["TimeLimit"], record["JobName"]) == ("main", "00:09:00", "of-a-variable")


def test_parsable_prints_the_number_alone(slurm: Sandbox) -> None:
    answer = kforge(slurm, "submit", "array", "--parsable", "--hold", "--array=4", "--cpus-per-task=1", "--", "true")
    assert answer.stderr == ""
    job = int(answer.stdout)
    slurm.submitted.append(job)
    assert slurm.job(job)["ArrayTaskId"] == "4"


def test_a_dry_run_submits_nothing(slurm: Sandbox) -> None:
    answer = kforge(slurm, "submit", "single-process", "--job-name=dry", "--dry-run", "--", "true")
    assert answer.returncode == 0 and answer.stderr == ""
    assert answer.stdout == kforge(slurm, "template", "single-process", "--job-name=dry", "--", "true").stdout
    assert "JobName=dry" not in slurm.run("scontrol", "show", "job", "-o").stdout


def test_where_an_array_writes_is_said_with_its_pattern(slurm: Sandbox) -> None:
    answer = kforge(slurm, "submit", "array", "--hold", "--cpus-per-task=1", "--", "true")
    job = answer.stdout.split()[1]
    slurm.submitted.append(int(job))
    assert f"log: {slurm.work}/train-{job}_%a.log" in answer.stdout
