"""Where a root folder with another Slurm comes from, and what is said where there can be none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm import roots
from tests.slurm.sandbox import can_unshare

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'
#: One that this machine has not itself.
OTHER = next(version for version in roots.RELEASES if version != roots.own_version())
SECURITY = "Types: deb\nURIs: http://a.example/debian-security\nSuites: bookworm-security\nComponents: main\n"


@pytest.mark.parametrize(
    ("release", "sources", "archive"),
    [
        (
            DEBIAN,
            {"d.sources": f"{SECURITY}\nTypes: deb\n# by hand\nURIs: http://b.example/debian http://c.example\n"
            "Suites: bookworm bookworm-updates\nComponents: main contrib\n"},
            "http://b.example/debian",
        ),
        (
            DEBIAN,
            {"d.list": "# deb http://x.example bookworm main\ndeb-src http://y.example bookworm main\n"
            "deb [arch=amd64 signed-by=/a.gpg] http://b.example/debian bookworm contrib main # ours\n"},
            "http://b.example/debian",
        ),
        (DEBIAN, {"d.sources": SECURITY, "other.list": "deb http://b.example nodistro main\n", "key.gpg": "?"}, None),
        (DEBIAN, {}, None),
        (DEBIAN.replace("ID=debian", "ID=ubuntu"), {"d.list": "deb http://b.example/ubuntu bookworm main\n"}, None),
    ],
    ids=["deb822", "one line", "none of Debian's", "nothing", "Ubuntu"],
)  # fmt: skip
def test_whence(release: str, sources: dict[str, str], archive: str | None, tmp_path: Path) -> None:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text(release)
    for name, text in sources.items():
        (tmp_path / "apt/sources.list.d" / name).write_text(text)
    assert roots.archive(tmp_path) == archive


def test_a_slurm_that_no_debian_has() -> None:
    with pytest.raises(roots.Unavailable, match=re.escape("no release of Debian is known to have it (known: 22.05")):
        roots.make("1.0")


def test_without_debootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(roots.Unavailable, match=r"only root|debootstrap is not installed"):
        roots.make("24.11")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a debootstrap that gets half-way and complains about what an earlier one has left."""
    if not can_unshare() or roots.archive() is None:
        pytest.skip("there can be no root folders here")
    debootstrap = tmp_path / "debootstrap"
    debootstrap.write_text('#!/bin/sh\n[ ! -e "$4" ] || echo E: leftovers\nmkdir "$4"; echo E: half-way; exit 1\n')
    debootstrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_half_made_is_made_anew(cache: Path) -> None:
    root = roots.place(OTHER)
    for _ in range(2):
        with pytest.raises(roots.Unavailable, match=rf"could not be made: E: half-way \(see {root}\.log\)"):
            roots.make(OTHER)
        assert not root.exists() and Path(f"{root}.unfinished").exists()
        assert "leftovers" not in Path(f"{root}.log").read_text()
    assert cache in root.parents


def test_what_has_an_older_recipe_is_not_used_and_goes_in_time(cache: Path) -> None:
    root = roots.place(OTHER)
    (new, old) = (root.with_name(f"{OTHER}-{name}") for name in ("new", "old"))
    for folder in (root, new, old):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    assert roots.make(OTHER) == root
    assert {folder.name for folder in root.parent.iterdir() if folder.is_dir()} == {root.name, new.name}
    assert cache in root.parents


def test_without_room(cache: Path) -> None:
    cache.mkdir()
    make = [sys.executable, str(roots.CHECKOUT / "bin/slurm-root"), "make", OTHER]
    mounted = f'mount -t tmpfs -o size=1m tmpfs {cache} && exec "$@"'
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", mounted, "sh", *make]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (77, "")
    assert f"no Slurm {OTHER} here: no room for it in {cache}/kforge/slurm-roots: 3 GB are needed" in said.stderr


def test_no_archive_is_named_here() -> None:
    assert "://" not in Path(roots.__file__).read_text().replace("file://", "")
