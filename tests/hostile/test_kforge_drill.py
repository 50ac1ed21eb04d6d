"""Where a drill keeps what it writes: a folder that nobody else can put another one in the place of."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kempnerforge.commands.rehearsal.place import OwnFolder
from kempnerforge.commands.rehearsal.run_log import RunLog
from tests.hostile.kforge import BIN, assert_bounded, environment, kforge
from tests.hostile.test_kforge_files import become, needs_two_users
from tests.hostile.users import ATTACKER, VICTIM


@pytest.fixture
def shared(open_tmp: Path) -> Path:
    """A folder in which everybody may rename everything: no sticky bit."""
    return open_tmp


def test_a_folder_in_which_others_rename_is_passed_over(shared: Path) -> None:
    folder = OwnFolder(iter([str(shared), str(shared.parent)]))
    assert folder.path.parent == shared.parent and list(shared.iterdir()) == []
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.remove() and not folder.path.exists()


def test_where_there_is_no_other_it_says_why(shared: Path) -> None:
    with pytest.raises(PermissionError, match=r"may be written to by others \(mode 0777\)"):
        OwnFolder(iter([str(shared), str(shared / "none")]))
    assert list(shared.iterdir()) == []


@needs_two_users
def test_a_strangers_folder_is_passed_over(shared: Path) -> None:
    os.chown(shared, ATTACKER, ATTACKER)
    shared.chmod(0o755)
    with pytest.raises(PermissionError, match="belongs to uid 60002"):
        OwnFolder(iter([str(shared)]))


def test_no_link_is_followed_when_it_is_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    folder = OwnFolder(iter([str(tmp_path)]))
    below = folder.new_folder("below")
    for place in (folder.path, below):
        (place / "link").symlink_to(precious)
        (place / "file").symlink_to(precious / "file")
        os.mkfifo(place / "fifo")
    (folder.path / "log").write_text("kept")
    before = len(os.listdir("/proc/self/fd"))
    assert folder.remove(but="log")
    assert [entry.name for entry in folder.path.iterdir()] == ["log"]
    assert (precious / "file").read_text() == "precious"
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_what_was_put_in_its_place_is_not_emptied(tmp_path: Path) -> None:
    folder = OwnFolder(iter([str(tmp_path)]))
    folder.new_folder("below")
    os.rename(folder.path, tmp_path / "moved")
    folder.path.mkdir()
    (folder.path / "precious").write_text("precious")
    assert not folder.remove()
    assert (folder.path / "precious").read_text() == "precious"
    assert list((tmp_path / "moved").iterdir()) == []


@needs_two_users
def test_a_umask_leaves_no_folder_that_cannot_be_used(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if len(parent.parts) > 2:
            parent.chmod(0o755)
    mine = tmp_path / "mine"
    mine.mkdir()
    os.chown(mine, VICTIM, VICTIM)

    def act() -> str:
        os.umask(0o777)
        folder = OwnFolder(iter([str(mine)]))
        (folder.new_folder("below") / "link").symlink_to("x")
        return f"{stat.S_IMODE(folder.path.stat().st_mode):o} {folder.remove()}"

    assert become(VICTIM, act) == "700 True"
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("umask", [0o777, 0o022])
def test_a_drill_leaves_nothing_in_a_folder_of_everybodys(shared: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        given = environment(f"{BIN}:/usr/bin:/bin", TMPDIR=str(shared))
        answer = kforge("drill", "--log", "log", "--", "python", "-c", "pass", given=given, cwd=shared.parent)
    finally:
        os.umask(before)
    assert_bounded(answer)
    assert "too short to rehearse" in answer.said
    assert list(shared.iterdir()) == []


def test_a_log_that_has_become_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    log = RunLog(tmp_path / "log", shown=True)
    assert log.text() == ""
    log.follow()
