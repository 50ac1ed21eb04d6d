"""Files that kforge writes where another user has been before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kempnerforge.commands import files
from kempnerforge.commands.trouble import Trouble
from tests.hostile.kforge import environment, kforge
from tests.hostile.users import ATTACKER, VICTIM

needs_two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")


def become(uid: int, act: Callable[[], object]) -> str:
    """Return what an act gives, or the trouble it ends with, when another user does it."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                said = str(act())
            except (Trouble, OSError) as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder in which everybody may do everything: no sticky bit."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.parts[:3] == tmp_path.parts[:3] and len(folder.parts) > 2:
            folder.chmod(0o755)
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o777)
    for uid, name in ((VICTIM, "victim"), (ATTACKER, "attacker")):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, uid, uid)
    return place


def write(path: Path, *, force: bool = False, mode: int = 0o666) -> str:
    return become(VICTIM, lambda: files.write_new(str(path), b"ours", force=force, mode=mode))


@needs_two_users
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", ["the name", "a folder on the way", "a link behind one's own"])
def test_a_strangers_link_leads_nowhere(shared: Path, where: str, force: bool) -> None:
    mine = shared.parent / "victim"
    link, path = shared / "link", shared / "link"
    target: Path = mine / "target"
    if where == "a folder on the way":
        target, path = mine, link / "target"
    become(ATTACKER, lambda: link.symlink_to(target))
    if where == "a link behind one's own":
        path = mine / "own"
        become(VICTIM, lambda: path.symlink_to(link))
    said = write(path, force=force)
    assert said.startswith("Trouble: cannot write ") and "link of uid 60002" in said and "hint: " in said
    assert not (mine / "target").exists() and link.is_symlink()


@needs_two_users
@pytest.mark.parametrize("owner", [0, VICTIM])
def test_ones_own_link_and_roots_are_followed(shared: Path, owner: int) -> None:
    mine = shared.parent / "victim"
    become(VICTIM, (mine / "folder").mkdir)
    become(owner, lambda: (shared / "link").symlink_to("../victim/folder/file"))
    assert write(shared / "link") == "None"
    assert (mine / "folder" / "file").read_bytes() == b"ours" and (shared / "link").is_symlink()
    assert [entry.name for entry in (mine / "folder").iterdir()] == ["file"]


@needs_two_users
def test_a_strangers_fifo_gets_nothing(shared: Path) -> None:
    become(ATTACKER, lambda: os.mkfifo(shared / "fifo"))
    (shared / "fifo").chmod(0o666)
    reader = os.open(shared / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        said = write(shared / "fifo", force=True)
        assert "of uid 60002" in said
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_ones_own_fifo_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_new(str(tmp_path / "fifo"), b"ours", force=False)
        assert os.read(reader, 10) == b"ours"
    finally:
        os.close(reader)


@needs_two_users
def test_what_was_handed_to_us_is_written_to_whoever_made_it() -> None:
    """A pipe of root's user, as `sudo -u victim kforge template -o /dev/stdout | less` has one."""
    reader, writer = os.pipe()
    os.fchown(writer, ATTACKER, ATTACKER)
    os.fchmod(writer, 0o666)
    try:
        assert write(Path(f"/dev/fd/{writer}")) == "None"
        assert os.read(reader, 10) == b"ours"
    finally:
        os.close(reader)
        os.close(writer)


@needs_two_users
def test_a_log_is_not_opened_through_a_strangers_link(shared: Path) -> None:
    precious = shared.parent / "victim" / "precious"
    become(VICTIM, lambda: precious.write_text("precious"))
    become(ATTACKER, lambda: (shared / "log").symlink_to(precious))
    said = become(VICTIM, lambda: os.write(files.open_to_append(str(shared / "log")), b"x"))
    assert "link of uid 60002" in said and precious.read_text() == "precious"
    assert become(VICTIM, lambda: os.write(files.open_to_append(str(shared / "own")), b"x")) == "1"


def test_links_in_a_ring_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Trouble, match="Too many levels of symbolic links"):
        files.write_new(str(tmp_path / "a"), b"", force=True)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "ring").symlink_to("ring")
    for name in ("link", "link", "ring", "no/such", ".", "/dev/null", "/dev/full", "file/x"):
        try:
            files.write_new(str(tmp_path / name), b"x", force=False)
        except Trouble:
            continue
    assert os.listdir("/proc/self/fd") == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link", "ring"]


JOURNAL = '{"time": 1795600000, "event": "start", "job": "7", "attempt": "1", "command": ["x", "--token=secret"]}\n'


def write_page_and_script(folder: Path, *, umask: int) -> None:
    (folder / "c-7.jsonl").write_text(JOURNAL)
    before = os.umask(umask)
    try:
        given = environment(KFORGE_JOURNAL=str(folder))
        assert kforge("report", "7", "--html", "page.html", given=given, cwd=folder).status == 0
        assert kforge("template", "single-process", "-o", "job", "--", "x", given=given, cwd=folder).status == 0
    finally:
        os.umask(before)


def test_the_page_is_private_and_a_script_is_not(tmp_path: Path) -> None:
    write_page_and_script(tmp_path, umask=0o022)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "job").stat().st_mode) == 0o755


@pytest.mark.parametrize("umask", [0o777, 0o700])
def test_a_umask_that_takes_everything_leaves_us_our_own(tmp_path: Path, umask: int) -> None:
    write_page_and_script(tmp_path, umask=umask)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "job").stat().st_mode) & 0o700 == 0o700
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c-7.jsonl", "job", "page.html"]
