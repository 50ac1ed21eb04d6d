"""A program that is not ours, listened to for a while: it may say too much, never end, or leave others behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from ..bootstrap import proc
from ..launcher.processes.process import open_pidfd

#: What is kept of each output (bytes): scontrol says a kilobyte of each of a cluster's partitions.
_MOST = 16 << 20
_BLOCK = 1 << 16
#: How often it is asked whether it has ended where no descriptor tells (s, a guess): before Linux 5.3.
_TICK = 0.05
#: How long SIGKILL may take (s): a process that waits for a file server dies when that answers. A guess.
_DEATH = 2.0
#: Passes over a session, to catch what is forked while it is killed: a guess.
_PASSES = 10


class Said(NamedTuple):
    """What a program said until its end."""

    status: int
    output: bytes
    errors: bytes


class TooSlow(Exception):
    """It did not end in time."""


class TooMuch(Exception):
    """It says more than any answer has."""


def listen(
    command: Sequence[str], standard_input: bytes, environment: Mapping[str, str], patience: float, *, discard: bool
) -> Said:
    """Run a program and return what it says; nothing of it is left then, and nothing holds up the answer.

    It has a session of its own, all of which is killed in the end. So a site's wrapper script does not leave the real
    program behind, and what a wrapper leaves in the background, with our pipe in its hands, is not waited for.

    Args:
        command: with its arguments.
        standard_input: what it reads.
        environment: its variables.
        patience: how long it may take (s).
        discard: where it says too much, throw that away and wait on; otherwise it is ended at once.

    Raises:
        TooSlow: it did not end, and has been killed.
        TooMuch: it said too much, and has been killed.
        OSError: it cannot be executed.
    """
    process = _start(command, standard_input, environment)
    assert process.stdout is not None and process.stderr is not None
    outputs = [_Output(process.stdout), _Output(process.stderr)]
    try:
        _wait(process, outputs, time.monotonic() + patience, discard)
    finally:
        _end(process, thorough=not all(output.is_over for output in outputs))
        for output in outputs:
            output.close()
    return Said(process.returncode, *(bytes(output.kept) for output in outputs))


def _start(command: Sequence[str], standard_input: bytes, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # In memory: a pipe would have to be filled while the outputs are read.
    with open(os.memfd_create("standard input"), "w+b") as file:
        file.write(standard_input)
        file.seek(0)
        return subprocess.Popen(
            command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )


class _Output:
    """One of its outputs, read as it comes and kept as far as there is room."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.descriptor = pipe.fileno()
        self.kept = bytearray()
        #: Nothing writes into it any more.
        self.is_over = False
        self.is_too_long = False
        os.set_blocking(self.descriptor, False)

    def read(self) -> bool:
        """Read what is there; return whether more may be."""
        try:
            block = os.read(self.descriptor, _BLOCK)
        except BlockingIOError:
            return False
        room = _MOST - len(self.kept)
        self.kept += block[:room]
        self.is_too_long = self.is_too_long or len(block) > room
        self.is_over = not block
        return not self.is_over

    def close(self) -> None:
        self._pipe.close()


def _wait(process: subprocess.Popen[bytes], outputs: Sequence[_Output], until: float, discard: bool) -> None:
    """Read what it says, until it has ended."""
    poller = select.poll()
    by_descriptor = {output.descriptor: output for output in outputs}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    end = open_pidfd(process.pid)
    try:
        if end is not None:
            poller.register(end, select.POLLIN)
        while not _has_ended(process.pid):
            left = until - time.monotonic()
            if left <= 0:
                raise TooSlow
            for descriptor, _events in poller.poll(1000 * (left if end is not None else min(left, _TICK))):
                output = by_descriptor.get(descriptor)
                if output is not None and not output.read() and output.is_over:
                    poller.unregister(descriptor)
            if not discard and any(output.is_too_long for output in outputs):
                raise TooMuch
    finally:
        if end is not None:
            os.close(end)
    for output in outputs:
        # What it has left in the background may write on: no more than there is room for.
        while not output.is_too_long and output.read():
            pass


def _has_ended(pid: int) -> bool:
    """Return whether our child has ended. It is not reaped: so long no other process can get its number."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes], *, thorough: bool) -> None:
    """Kill what is left of its session, and reap it.

    Args:
        thorough: a process still holds our pipe, or it has not ended: look for groups besides its own, too.
    """
    for _pass in range(_PASSES):
        _kill(-process.pid)
        others = _in_session(process.pid) if thorough else []
        for pid in others:
            _kill(pid)
        if not others:
            break
    try:
        process.wait(_DEATH)
    except subprocess.TimeoutExpired:
        pass  # in the kernel's hands: it dies as soon as that lets go of it


def _kill(number: int) -> None:
    """Kill a process, or a group if it is negative (kill(2))."""
    try:
        os.kill(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended; or it is a program that has become another user


def _in_session(leader: int) -> list[int]:
    """Return the living processes of a session but its leader; coreutils' timeout has a group of its own."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == leader:
            continue
        fields = proc.stat(name)
        if fields and int(fields[proc.SESSION]) == leader and fields[proc.STATE] not in proc.ENDED:
            found.append(int(name))
    return found
