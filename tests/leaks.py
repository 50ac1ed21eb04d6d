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
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)
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
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Make this worker's own TMPDIR and XDG_STATE_HOME.

    Their paths are short: the address of a socket is limited to 107 bytes (unix(7)).
    """
    tmp_path_factory.getbasetemp()  # is where TMPDIR is now, and outlasts a test
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        os.chmod(folder, 0o755)  # the hostile tests are other users
        tmp, state = Path(folder, "tmp"), Path(folder, "state")
        tmp.mkdir()
        state.mkdir()
        yield tmp, state


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest, _own_folders: tuple[Path, Path]) -> Iterator[None]:
    """Check it, and clean up for the next test. As the first fixture of a test it comes after all others' ends."""
    if request.node.get_closest_marker("slurm"):
        yield
        return
    tmp, state = _own_folders
    others, files, began = children(), _open_files(), time.time()
    _numbers.clear()
    _adopt_orphans(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp))
        patch.setattr(tempfile, "tempdir", str(tmp))
        patch.setenv("XDG_STATE_HOME", str(state))
        yield
    left = [f"process {_describe(pid)}" for pid in children() - others]
    started = set(_numbers)
    end_all(others)
    _adopt_orphans(False)
    if (now := _open_files()) != files:
        gc.collect()  # what nothing but a cycle holds is not lost
        now = _open_files()
    left += [f"descriptor {fd}: {files.get(fd)} -> {now.get(fd)}" for fd, _ in set(files.items()) ^ set(now.items())]
    private = (path for pid in started for path in private_folders_of(pid) if path.stat().st_ctime >= began)
    for kind, paths in (("private folder", private), ("file or folder", (*tmp.iterdir(), *state.iterdir()))):
        for path in paths:
            left.append(f"{kind} {path}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not left, left


def _adopt_orphans(wanted: bool) -> None:
    """Have what gets away from its parent show up among our children, and not init's (PR_SET_CHILD_SUBREAPER)."""
    assert _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) == 0


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


def private_folders_of(pid: int) -> list[Path]:
    """Return where processes of this number have, or have left, what only their own may look into."""
    return [path for parent in _PRIVATE_PARENTS for path in Path(parent).glob(f".kforge-*-{pid}-*-*")]


def _describe(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="backslashreplace").strip()
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return words or f"{name}), state {rest.split()[0]}"
