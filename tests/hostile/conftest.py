"""Fixtures of the hostile tests: a victim, an attacker, and what both can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import users
from tests.hostile.users import User


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    if why := users.why_not():
        pytest.skip(why)
    with users.installed() as folder:
        yield folder


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder into which everybody may look. pytest's own are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="kforge-hostile-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _no_private_folder_is_left() -> Iterator[None]:
    """Remove what a killed kforge-run, or the attacker, has left of private folders, and nobody else would."""
    yield
    for uid in (users.VICTIM, users.ATTACKER):
        for folder in Path("/dev/shm").glob(f".kforge-{uid}-*"):
            shutil.rmtree(folder)


@pytest.fixture
def victim(common: Path, installation: Path) -> User:
    return User(users.VICTIM, common, installation)


@pytest.fixture
def attacker(common: Path, installation: Path) -> User:
    return User(users.ATTACKER, common, installation)


@pytest.fixture
def open_tmp(common: Path) -> Path:
    """A TMPDIR in which everybody may write, and rename what is another's: without a sticky bit."""
    folder = common / "tmp"
    folder.mkdir()
    folder.chmod(0o777)
    return folder
