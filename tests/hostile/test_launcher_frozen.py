"""The loop never waits for a file system: a notice is delivered, whatever hangs, and kforge-run comes to its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import frozen
from tests.hostile.frozen import Frozen
from tests.process.launch import KFORGE_RUN, Launch, Launched, program, reap_orphans

CHECKPOINTED = 85


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Frozen]:
    if why := frozen.why_not():
        pytest.skip(why)
    folder = tmp_path / "disk"
    folder.mkdir()
    with frozen.file_system(folder) as made:
        yield made


def left_behind(hung: Frozen, run: Launched) -> None:
    """Check that what hangs was left behind and ends when it can, so that the file system is free again."""
    assert run.process.poll() is not None
    hung.thaw()
    reap_orphans()


def test_tmpdir_hangs_from_the_start(launch: Launch, hung: Frozen) -> None:
    hung.freeze()
    run = launch(*program("cooperate"), variables={"TMPDIR": str(hung.path)})
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    assert "warning" not in run.log


@pytest.mark.parametrize("who", ["cooperate", "a script"])
def test_a_private_folder_that_is_no_memory_hangs(launch: Launch, hung: Frozen, who: str) -> None:
    """Before the notice; a Python that starts now, and is armed, must not hang either."""
    script = launch.folder / "train.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "subprocess.run([sys.executable, '-c', 'print(\"started\", flush=True)'], check=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: print('stop', 'SIGUSR1', flush=True); sys.exit(85)\n"
    )
    command = program("cooperate") if who == "cooperate" else ["python", str(script)]
    hide = 'mount --bind /sys /dev/shm && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    variables = {"TMPDIR": str(hung.path)}
    run = launch.start([*wrapper, *KFORGE_RUN, "--timeout", "6", *command], variables=variables, stdin=-1)
    run.says("ready")
    assert [path for path in hung.path.iterdir() if path.name.startswith(".kforge-")]
    hung.freeze()
    if who != "cooperate":
        run.give(b"\n")
        run.says("started")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    left_behind(hung, run)


@pytest.mark.parametrize("when", ["before the start", "before the notice"])
def test_the_journal_hangs(launch: Launch, hung: Frozen, when: str) -> None:
    journals = hung.path / "journals"
    journals.mkdir()
    if when == "before the start":
        hung.freeze()
    run = launch(*program("cooperate"), options=("--journal", str(journals)))
    run.says("ready")
    hung.freeze() if when == "before the notice" else None
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.ends(CHECKPOINTED)
    assert "no journal: " in run.log and "does not answer" in run.log
    left_behind(hung, run)


def test_the_log_hangs(launch: Launch, hung: Frozen) -> None:
    """SIGTERM, SIGKILL and the end come all the same. What could not be written is lost."""
    log = hung.path / "log"
    with open(log, "wb") as stderr:
        run = launch(
            *program("ignore", "SIGTERM", "SIGUSR1"), options=("--timeout", "3", "--term-grace", "0.5"), stderr=stderr
        )
        run.says("ready")
        hung.freeze()
        run.send(signal.SIGUSR1)
        assert run.wait() == 128 + signal.SIGKILL
    left_behind(hung, run)
