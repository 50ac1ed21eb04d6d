"""Fixtures of the hostile tests: a victim, an attacker, and what both can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import users
from tests.hostile.users import User
from tests.process.conftest import launch

__all__ = ["launch"]  # a fixture, as those below


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


@pytest.fixture
def victim(common: Path, installation: Path) -> Iterator[User]:
    user = User(users.VICTIM, common, installation)
    yield user
    user.close()


@pytest.fixture
def counted(common: Path, installation: Path, worker_id: str) -> Iterator[User]:
    """A victim whose processes are counted (ulimit -u)."""
    user = User(users.COUNTED + int(worker_id.removeprefix("gw").replace("master", "0")), common, installation)
    yield user
    user.close()


@pytest.fixture
def attacker(common: Path, installation: Path) -> Iterator[User]:
    user = User(users.ATTACKER, common, installation)
    yield user
    user.close()


@pytest.fixture
def open_tmp(common: Path) -> Path:
    """A TMPDIR in which everybody may write, and rename what is another's: without a sticky bit."""
    folder = common / "tmp"
    folder.mkdir()
    folder.chmod(0o777)
    return folder
