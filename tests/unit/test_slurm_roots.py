"""Where a root folder with another Slurm comes from, and what is said where there can be none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.slurm import roots

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'
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


def test_no_archive_is_named_here() -> None:
    assert "://" not in Path(roots.__file__).read_text().replace("file://", "")
