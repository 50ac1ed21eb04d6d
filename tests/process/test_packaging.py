"""What a user installs: the script keeps its #SBATCH lines, and starts from wherever it is installed or copied to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import click
import hatchling
import psutil
import pytest

from kempnerforge.__about__ import __version__
from tests.process.pythons import python_of_version

CHECKOUT = Path(__file__).parents[2]
SBATCH_LINES = ["#SBATCH --signal=B:USR1@120", "#SBATCH --requeue", "#SBATCH --open-mode=append"]
#: Where the test run's own click, psutil and build backend are.
SITE_PACKAGES = {str(Path(str(module.__file__)).parents[1]) for module in (click, psutil, hatchling)}


def run(
    *command: str | Path, path: str | Path = "", job: str = "", cwd: str | Path = "/", status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command with ``path`` first on PATH, as Slurm's ``job`` if there is one, and without a package index."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "KFORGE_", "PYTHON"))}
    environment["PIP_NO_INDEX"] = "1"
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    if job:
        environment["SLURM_JOB_ID"] = job
    answer = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert answer.returncode == status, answer.stdout + answer.stderr
    return answer


def pip(*arguments: str | Path) -> None:
    """Run pip with what is installed here, and nothing from a package index."""
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, CHECKOUT)
    (built,) = folder.iterdir()
    return built


def make_environment(folder: Path, *dependencies: str) -> Path:
    """Make a virtual environment that sees only these folders besides its own, and return its bin folder."""
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Last in the alphabet, so that what is installed here comes first.
    (site_packages / "zz_test_run.pth").write_text("\n".join(dependencies))
    return folder / "bin"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment that the wheel is installed in."""
    bin_folder = make_environment(tmp_path_factory.mktemp("installed"), *SITE_PACKAGES)
    pip("--python", bin_folder / "python", "install", "--no-deps", "--force-reinstall", wheel)
    return bin_folder


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment that the checkout is installed in."""
    bin_folder = make_environment(tmp_path_factory.mktemp("editable"), *SITE_PACKAGES)
    pip("--python", bin_folder / "python", "install", "--no-deps", "--no-build-isolation", "--editable", CHECKOUT)
    return bin_folder


def assert_starts(*command: str | Path, path: str | Path = "", job: str = "") -> None:
    answer = run(*command, "--version", path=path, job=job)
    assert "kforge-run" in answer.stdout
    assert __version__ in answer.stdout


def assert_sbatch_lines_follow_the_shebang(script: str, interpreter: str) -> None:
    first, *rest = script.splitlines()
    assert first == f"#!{interpreter}"
    assert rest[: len(SBATCH_LINES)] == SBATCH_LINES
    assert rest[len(SBATCH_LINES) :] == (CHECKOUT / "bin/kforge-run").read_text().splitlines()[1 + len(SBATCH_LINES) :]


def test_the_wheel_has_the_script_and_the_templates(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (script,) = (name for name in names if name.endswith(".data/scripts/kforge-run"))
        assert_sbatch_lines_follow_the_shebang(archive.read(script).decode(), "python")
        assert archive.getinfo(script).external_attr >> 16 & 0o111 == 0o111
        for template in (CHECKOUT / "slurm_templates").iterdir():
            assert archive.read(f"kempnerforge/slurm_templates/{template.name}") == template.read_bytes()
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if "-" not in folder} == {"kempnerforge"}, "the wheel installs something else"


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=CHECKOUT)
    (sdist,) = tmp_path.iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)
    (source,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())
    assert (source / "tests/process/test_packaging.py").is_file()
    assert (source / ".ci/run").is_file()
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (rebuilt,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(rebuilt) as new, zipfile.ZipFile(wheel) as old:
        assert {i.filename: i.CRC for i in new.infolist()} == {i.filename: i.CRC for i in old.infolist()}


def test_an_installed_script_starts(installed: Path) -> None:
    script = (installed / "kforge-run").read_text()
    assert_sbatch_lines_follow_the_shebang(script, str(installed / "python"))
    assert_starts("kforge-run", path=installed)


def test_an_editable_installs_script_starts_and_finds_the_templates_at_the_top(editable: Path) -> None:
    script = (editable / "kforge-run").read_text()
    assert_sbatch_lines_follow_the_shebang(script, str(editable / "python"))
    assert_starts("kforge-run", path=editable)
    code = "import importlib.resources as r; print(r.files('kempnerforge').joinpath('slurm_templates').resolve())"
    assert run(editable / "python", "-c", code).stdout.strip() == str(CHECKOUT / "slurm_templates")


@pytest.mark.parametrize("environment", ["installed", "editable"])
def test_the_companion_is_installed_with_all_that_it_needs(
    environment: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bin_folder = request.getfixturevalue(environment)
    script = run(bin_folder / "kforge", "template", "single-process", "--no-check", "--", "true").stdout
    assert script.endswith("exec kforge-run true\n")
    start = {"time": 1, "event": "start", "job": "7", "attempt": "1-1", "command": ["true"], "place": "batch"}
    (tmp_path / "slurm-7.jsonl").write_text(f"{json.dumps(start)}\n")
    run(bin_folder / "kforge", "report", "7", "--journal", tmp_path, "--html", tmp_path / "page.html")
    assert "<style>" in (tmp_path / "page.html").read_text()
    drill = run(bin_folder / "kforge", "drill", "--", "true", status=1)
    assert "too short to rehearse" in " ".join(drill.stdout.split())


@pytest.mark.parametrize("environment", ["installed", "editable"])
def test_a_users_type_checker_knows_the_types(environment: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    program = shutil.copy(CHECKOUT / "tests/process/programs/typed_user.py", tmp_path)
    python = request.getfixturevalue(environment) / "python"
    options = ("--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache")
    checked = run(sys.executable, "-m", "mypy", *options, program, cwd=tmp_path)
    assert checked.stdout.startswith("Success: ")


@pytest.mark.parametrize("environment", ["installed", "editable"])
def test_slurms_copy_of_an_installed_script_starts(
    environment: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy = shutil.copy(request.getfixturevalue(environment) / "kforge-run", tmp_path / "slurm_script")
    assert_starts(copy, job="1")


def test_the_checkouts_script_starts_by_its_path_and_through_links(tmp_path: Path) -> None:
    bin_folder = make_environment(tmp_path / "venv", *SITE_PACKAGES)
    assert_starts(CHECKOUT / "bin/kforge-run", path=bin_folder)
    (tmp_path / "first").symlink_to(CHECKOUT / "bin/kforge-run")
    (tmp_path / "second").symlink_to("first")
    assert_starts(tmp_path / "second", path=bin_folder)


#: What Slurm answers, for a script whose path has a space and whose arguments look like its own fields.
JOB_RECORD = (
    "JobId=2 JobName=a Command=/b --timeout 5 true WorkDir=/x it s --version WorkDir=/c UserId=root(0) "
    "GroupId=root(0) MCS_label=N/A Priority=4294901758 Nice=0 "
    "JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1 BatchHost=n1 NumNodes=1 NumCPUs=1 Network=(null) "
    "Command={script} --timeout 5 true WorkDir=/x it s --version {submit_line}"
    "WorkDir=/tmp/out dir StdErr=/tmp/out dir/sp.log StdIn=/dev/null StdOut=/tmp/out dir/sp.log Power= \n"
)
SUBMIT_LINE = "SubmitLine=sbatch {script} --timeout 5 true WorkDir=/x it s --version "


@pytest.mark.parametrize("submit_line", ["", SUBMIT_LINE], ids=["22.05", "25.11"])
def test_slurms_copy_of_the_checkouts_script_asks_slurm_where_it_came_from(tmp_path: Path, submit_line: str) -> None:
    # tests/slurm shows the same with a real sbatch; this is for machines without one.
    bin_folder = make_environment(tmp_path / "venv", *SITE_PACKAGES)
    (tmp_path / "check out").symlink_to(CHECKOUT)
    script = tmp_path / "check out/bin/kforge-run"
    (tmp_path / "record").write_text(JOB_RECORD.format(script=script, submit_line=submit_line.format(script=script)))
    (bin_folder / "scontrol").write_text(f'#!/bin/sh\n[ "$*" = "show job -o 2" ] && cat "{tmp_path}/record"\n')
    (bin_folder / "scontrol").chmod(0o755)
    copy = Path(shutil.copy(CHECKOUT / "bin/kforge-run", tmp_path / "slurm_script"))

    arguments = ["--timeout", "5", "true", "WorkDir=/x", "it s", "--version"]
    run(copy, *arguments, path=bin_folder, job="2")

    # Without an answer nothing can be found, and this is said as if nothing had been asked.
    answer = run(copy, *arguments, path=bin_folder, status=125, job="3")
    assert "No module named 'kempnerforge'" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_no_file_in_the_scripts_folder_passes_for_a_module(installed: Path, tmp_path: Path) -> None:
    shutil.copy(installed / "kforge-run", tmp_path)
    (tmp_path / "click.py").write_text("raise SystemExit('the wrong click')")
    assert_starts(tmp_path / "kforge-run")


def test_a_missing_package_is_said_in_one_line(tmp_path: Path) -> None:
    bin_folder = make_environment(tmp_path / "venv", *SITE_PACKAGES)
    script = Path(shutil.copy(CHECKOUT / "bin/kforge-run", tmp_path / "kforge-run"))
    answer = run(script, "true", path=bin_folder, status=125)
    assert "No module named 'kempnerforge'" in answer.stderr
    assert "(hint: " in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_does_not_hide_the_status(redirection: str, tmp_path: Path) -> None:
    bin_folder = make_environment(tmp_path / "venv")
    script = Path(shutil.copy(CHECKOUT / "bin/kforge-run", tmp_path / "kforge-run"))
    answer = run("sh", "-c", f'exec "$0" true {redirection}', script, path=bin_folder, status=125)
    assert answer.stdout == ""


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9"])
def test_an_old_python_says_so_in_one_line(version: str) -> None:
    python = python_of_version(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    answer = run(python, CHECKOUT / "bin/kforge-run", "true", status=125)
    assert "needs Python 3.10 or later" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
