"""The way up from an inner kforge-run."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from kempnerforge.bootstrap import contract, wire
from kempnerforge.launcher.meeting.outer import Outer


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Listen as an outer kforge-run does that has no time yet: the next one who comes has to wait."""
    folder = tmp_path / f".kforge-{os.getuid()}-{os.getpid()}-0-x"
    folder.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / contract.SOCKET_FILE))
    listener.listen(0)
    monkeypatch.setenv(contract.CONTROL_VARIABLE, f"{contract.node_name()}::{folder}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return listener


def test_a_full_backlog_is_waited_for(crowded: socket.socket) -> None:
    with crowded, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
        first.connect(crowded.getsockname())
        taken: list[socket.socket] = []

        def take_both() -> None:
            time.sleep(0.2)  # how long it has to wait is the subject
            taken.extend(crowded.accept()[0] for _ in range(2))

        thread = threading.Thread(target=take_both)
        thread.start()
        outer = Outer()
        thread.join()
        try:
            assert b'"is_launcher": true' in taken[1].recv(wire.MAX_MESSAGE)
        finally:
            for one in (*taken, outer._connection):
                one.close()


def test_a_backlog_that_stays_full_is_given_up(crowded: socket.socket) -> None:
    with crowded, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
        first.connect(crowded.getsockname())
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            Outer()
        assert time.monotonic() - began >= 1
