"""After each test no process, no file descriptor and no temporary folder is left (a plugin of pytest).

What other workers of pytest make at the same time does not count. Processes are looked for below this one, which adopts
whatever gets away from its parent while a test runs. TMPDIR and the folder of journals are this worker's own, for all
that inherit its environment. A kforge-run's private folder has the number of its process in its name: those are looked
for whose process the test has started (tests/process/launch.py), or has signalled itself.

Tests on a Slurm are left out: the sandbox that the first of them starts is for all, and looks after itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36
#: Where kforge-run puts its private folder, besides TMPDIR.
_PRIVATE_PARENTS = ("/dev/shm", "/tmp", "/var/tmp")
#: Of the processes that may have been a kforge-run.
_numbers: set[int] = set()


def may_be_kforge_run(pid: int) -> None:
    """Have the private folder of a process looked for at the end of the test."""
    _numbers.add(pid)


def _notice_signals(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("os.kill", "os.killpg") and isinstance(arguments[0], int):
        _numbers.add(arguments[0])


sys.addaudithook(_notice_signals)


@pytest.fixture(scope="session")
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make this worker's own folder. Its path is short: the address of a socket is limited to 107 bytes (unix(7))."""
    tmp_path_factory.getbasetemp()  # is where TMPDIR is now, and outlasts a test
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        os.chmod(folder, 0o755)  # the hostile tests are other users
        yield Path(folder)


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest, _own_folder: Path) -> Iterator[None]:
    """Check it, and clean up for the next test. As the first fixture of a test it comes after all others' ends."""
    if request.node.get_closest_marker("slurm"):
        yield
        return
    others, files, private = children(), _open_files(), _private_folders()
    _numbers.clear()
    folders = [_own_folder / "tmp", _own_folder / "state"]
    for folder in folders:
        folder.mkdir()
    adopt_orphans(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folders[0]))
        patch.setattr(tempfile, "tempdir", str(folders[0]))
        patch.setenv("XDG_STATE_HOME", str(folders[1]))
        yield
    left = [f"process {_describe(pid)}" for pid in children() - others]
    end_all(others)
    adopt_orphans(False)
    if _open_files() != files:
        gc.collect()  # what nothing but a cycle holds is not lost
    now = _open_files()
    left += [f"descriptor {fd}: {files.get(fd)} -> {now.get(fd)}" for fd, _ in set(files.items()) ^ set(now.items())]
    left += [f"file or folder {path}" for folder in folders for path in folder.iterdir()]
    for path in _private_folders() - private:
        if int(path.name.split("-")[2]) in _numbers:
            left.append(f"private folder {path}")
            shutil.rmtree(path)
    for folder in folders:
        shutil.rmtree(folder)
    assert not left, left


def adopt_orphans(wanted: bool) -> None:
    """Have what gets away from its parent show up among our children, and not init's (PR_SET_CHILD_SUBREAPER)."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) == 0


def end_all(others: set[int]) -> None:
    """Kill and reap all of our children but these, and what they leave to us by that."""
    while left := children() - others:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def children() -> set[int]:
    """Return our children, zombies too, in a few system calls."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return found


def _open_files() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def _private_folders() -> set[Path]:
    return {
        Path(parent, name)
        for parent in _PRIVATE_PARENTS
        for name in os.listdir(parent)
        if re.fullmatch(r"\.kforge-\d+-\d+-.*", name)
    }


def private_folders_of(pid: int) -> set[Path]:
    """Return where processes of this number have, or have left, what only their own may look into."""
    return {path for path in _private_folders() if int(path.name.split("-")[2]) == pid}


def _describe(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="backslashreplace").strip()
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return words or f"{name}), state {rest.split()[0]}"
