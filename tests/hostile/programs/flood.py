"""Floods the kforge-run above it in one way, keeps what it has opened, and then has another process cooperate.

Run as `python flood.py WAY`; an argument of `main` is handed to the function of that name.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import resource
import socket
import subprocess
import sys

from kempnerforge.bootstrap import contract
from tests.process import children

#: The first bytes of what is understood, to be cut, repeated and mixed.
MESSAGES = [
    b'{"verb": "registered", "program": "p", "timeout": 60, "stacks": null}',
    b'{"verb": "polled", "stop": true}',
    b'{"verb": "status", "text": "t"}',
    b'{"verb": "more_time", "seconds": 1}',
    b'{"verb": "finished"}',
]


def folder() -> str:
    return contract.control_folder() or ""


def raise_limit() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def messages() -> list[socket.socket]:
    """20,000 random, cut, oversized and repeated ones."""
    chance = random.Random(1)
    connection = children.connect()
    for number in range(20_000):
        message = chance.choice(MESSAGES)
        kind = chance.randrange(4)
        if kind == 0:
            message = chance.randbytes(chance.randrange(1, 200))
        elif kind == 1:
            message = message[: chance.randrange(1, len(message))]
        elif kind == 2:
            message = message[:-1] + b', "x": "' + b"y" * chance.randrange(8000) + b'"}'
        try:
            connection.send(message)
        except BrokenPipeError:
            connection = children.connect()
        if number % 5000 == 0:
            connection = children.connect()
    return [connection]


def connections() -> list[socket.socket]:
    """1,283 from many processes, none of which ever reads."""
    code = (
        "import os, sys, time; from tests.process import children\n"
        "kept = []\n"
        "for _ in range(64):\n"
        "    kept.append(children.connect())\n"
        '    try: kept[-1].send(b\'{"verb": "registered", "program": "p", "timeout": 60, "stacks": null}\')\n'
        "    except OSError: pass\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    started = [subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) for _ in range(20)]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
    globals()["kept"] = started
    return [children.connect() for _ in range(3)]


def descriptors() -> list[socket.socket]:
    """200,000 of them, passed to kforge-run."""
    connection = children.connect()
    passed = array.array("i", [0] * 200)
    for _ in range(1000):
        connection.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    return [connection]


def news() -> list[socket.socket]:
    """20,000 names of armed processes, nearly none of which there is, and rubbish."""
    # Nobody reads it before there is a notice, once two processes have told that they have started.
    fifo = os.open(os.path.join(folder(), contract.NEWS_FIFO), os.O_WRONLY | os.O_NONBLOCK)
    rubbish = [b"99999999999999999999.1", b"-1.1", b"0.0", b"1.1", b"x" * 3000, b"\xff\0", b"", b"1", b"armed"]
    for number in range(20_000):
        name = rubbish[number % len(rubbish)] if number % 2 else b"%d.%d" % (number, number)
        with contextlib.suppress(BlockingIOError):
            os.write(fifo, b"armed " + name + b"\n")
            if number % 100 == 0:
                os.write(fifo, b"seen " + name + b"\n" + b"y" * 4000)
    os.close(fifo)
    return []


def main(way: str) -> None:
    raise_limit()
    kept = globals()[way]()
    children.say("flooded")
    children._cooperate_instead()
    del kept


if __name__ == "__main__":
    main(sys.argv[1])
