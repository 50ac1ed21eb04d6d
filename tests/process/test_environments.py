"""The user's environment does not break kforge-run: a package of its name, an old click, a foreign psutil."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.process.launch import Launch, Launched
from tests.process.test_packaging import (
    CHECKOUT,
    SITE_PACKAGES,
    editable,
    installed,
    make_environment,
    pip,
    run,
    wheel,
)

__all__ = ["editable", "installed", "wheel"]  # fixtures

#: A training environment: a framework that has our package's name (and a handler of its own where the published one
#: has it), a click older than the one that we need, and a psutil that was built for another Python.
FRAMEWORK = {
    "kempnerforge/__init__.py": "",
    "kempnerforge/config/__init__.py": "",
    "kempnerforge/training/__init__.py": "",
    "kempnerforge/resilience/__init__.py": "from .signal_handler import ShutdownHandler\n",
    "kempnerforge/resilience/health.py": "",
    "kempnerforge/resilience/signal_handler.py": """
import signal

class ShutdownHandler:
    def __init__(self):
        self.told = False
        for signum in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(signum, self.tell)

    def tell(self, signum, frame):
        self.told = True
""",
}
OLD_CLICK = {"click/__init__.py": "__version__ = '7.1.2'\n"}
FOREIGN_PSUTIL = {"psutil/__init__.py": "raise ImportError('_psutil_linux.so: undefined symbol: PyInit')\n"}
#: It leaves a process behind that has to be swept.
TRAIN = """
import subprocess, sys, time
from kempnerforge.resilience import ShutdownHandler
handler = ShutdownHandler()
left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("ready", left.pid, sys.modules["kempnerforge"].__file__, flush=True)
while not handler.told:
    time.sleep(0.01)
print("saved", flush=True)
"""


def write(folder: Path, *packages: Mapping[str, str]) -> Path:
    for package in packages:
        for name, text in package.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Return the folder of the training environment's packages, with its program beside them."""
    folder = write(tmp_path / "training", FRAMEWORK, OLD_CLICK, FOREIGN_PSUTIL)
    (folder / "train.py").write_text(TRAIN)
    return folder


@pytest.fixture(scope="module")
def installed_by_uv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment that uv has installed the wheel in."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed (hint: bin/test --frameworks)")
    bin_folder = make_environment(tmp_path_factory.mktemp("uv"), *SITE_PACKAGES)
    cache = tmp_path_factory.mktemp("cache")
    run(uv, "pip", "install", "--offline", "--no-deps", "--cache-dir", cache, "--python", bin_folder / "python", wheel)
    return bin_folder


def runs_through_a_notice(launch: Launch, kforge_run: list[str | Path], folder: Path, path: str) -> Launched:
    """Run the training program from its folder through a notice."""
    command = [*map(str, kforge_run), sys.executable, "train.py"]
    run = launch.start(command, variables={"PYTHONPATH": path}, cwd=folder)
    ready, left, framework = run.line().split()
    # The program has its own framework, and not ours.
    assert (ready, framework) == ("ready", str(folder / "kempnerforge/__init__.py")), run.log
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(85)
    assert not os.path.exists(f"/proc/{left}"), run.log
    return run


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["without options", "with options"])
@pytest.mark.parametrize("environment", ["installed", "editable", "installed_by_uv"])
def test_a_training_environment_on_pythonpath(
    environment: str, options: list[str | Path], training: Path, request: pytest.FixtureRequest, launch: Launch
) -> None:
    script = request.getfixturevalue(environment) / "kforge-run"
    run = runs_through_a_notice(launch, [script, *options], training, str(training))
    assert "checkpointed" in run.log


def test_installed_into_the_training_environment_with_an_old_click_and_a_foreign_psutil(
    wheel: Path, training: Path, tmp_path: Path, launch: Launch
) -> None:
    folder = write(tmp_path / "packages", OLD_CLICK, FOREIGN_PSUTIL)
    bin_folder = make_environment(tmp_path / "environment", str(folder))
    pip("--python", bin_folder / "python", "install", "--no-deps", wheel)
    runs_through_a_notice(launch, [bin_folder / "kforge-run"], training, str(training))
    # Options cannot be read then, and this is said before anything runs.
    answer = run(bin_folder / "kforge-run", "--timeout", "5", "true", status=125)
    assert "options need click 8.1 or newer" in answer.stderr and "(hint: " in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_without_any_click_and_psutil(tmp_path: Path, launch: Launch) -> None:
    bin_folder = make_environment(tmp_path / "environment")
    training = write(tmp_path / "training", FRAMEWORK, {"train.py": TRAIN})
    runs_through_a_notice(launch, [bin_folder / "python", CHECKOUT / "bin/kforge-run"], training, str(training))


def test_the_working_directory_is_no_place_to_import_from(installed: Path, training: Path, launch: Launch) -> None:
    runs_through_a_notice(launch, [installed / "kforge-run", "-v"], training, "")
