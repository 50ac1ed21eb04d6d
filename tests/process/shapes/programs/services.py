"""Trains with another program below it, which must not be hurt before the save. `services.py KIND`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import train

PYTHON = sys.executable


def trains(below: Callable[[], None], before_saving: Callable[[], None] = lambda: None, saves_at: str = "INT") -> None:
    try:
        train.begin("run", saves_at)
        end = time.monotonic() + train.LONG
        while time.monotonic() < end:
            below()
            train.step()
    except KeyboardInterrupt:
        train.say("told run")
        time.sleep(0.3)
        before_saving()
        train.say("SAVED run")


def evaluation_run() -> None:
    """An evaluation by `subprocess.run(check=True)`: an exception if it is hurt."""
    trains(lambda: evaluated(lambda: subprocess.run([PYTHON, "helper.py", "evaluate"], check=True)))


def evaluation_output() -> None:
    trains(lambda: evaluated(lambda: subprocess.check_output([PYTHON, "helper.py", "evaluate"])))


def evaluation_wait() -> None:
    def evaluate() -> None:
        evaluation = subprocess.Popen([PYTHON, "helper.py", "evaluate"])
        if evaluation.wait() != 0:
            raise RuntimeError("the evaluation has failed")

    trains(lambda: evaluated(evaluate))


def evaluation_system() -> None:
    """While `os.system` waits, SIGINT is lost, and the trainer hears of another signal only afterwards."""

    def evaluate() -> None:
        if os.system(f"{PYTHON} helper.py evaluate 0.5") != 0:
            raise RuntimeError("the evaluation has failed")

    trains(lambda: evaluated(evaluate), saves_at="-")


def evaluated(evaluate: Callable[[], object]) -> None:
    try:
        evaluate()
    except (subprocess.CalledProcessError, RuntimeError) as error:
        train.say("hurt evaluation", error)
        raise


def service(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def asks(helper: subprocess.Popen[str]) -> Callable[[], None]:
    """Return what has a helper answer once, which it must."""
    assert helper.stdin is not None and helper.stdout is not None
    question, answer = helper.stdin, helper.stdout

    def ask() -> None:
        try:
            question.write("metric\n")
            question.flush()
            while answer.readline() != "metric\n":
                if helper.poll() is not None:
                    raise BrokenPipeError
        except BrokenPipeError:
            train.say("hurt service")
            raise

    return ask


def with_service(*command: str) -> None:
    helper = service(*command)
    ask = asks(helper)
    ask()
    trains(ask, ask)
    assert helper.stdin is not None
    helper.stdin.close()
    helper.wait()


def tracker() -> None:
    """A service to which the metrics go, the last ones at the save."""
    with_service(PYTHON, "helper.py", "answer")


def tracker_in_a_session() -> None:
    with_service("setsid", "-w", PYTHON, "helper.py", "answer")


def compiler() -> None:
    """A compile worker, which ignores Ctrl-C on purpose."""
    with_service(PYTHON, "helper.py", "answer_deaf")


def sink() -> None:
    """A program that is no Python."""
    with_service("cat")


def server() -> None:
    """A server that the trainer starts beside itself, and ends."""
    helper = subprocess.Popen([PYTHON, "helper.py", "serve"])
    try:
        trains(lambda: None, lambda: alive(helper))
    finally:
        helper.terminate()
        helper.wait()


def alive(helper: subprocess.Popen[bytes]) -> None:
    if helper.poll() is not None:
        train.say("hurt service")


def loader() -> None:
    """Data comes by a pipe from a program that is busier than the trainer."""
    helper = subprocess.Popen([PYTHON, "helper.py", "generate"], stdout=subprocess.PIPE)
    assert helper.stdout is not None
    source = helper.stdout

    def read() -> None:
        if not source.read(100):
            train.say("hurt loader")
            raise RuntimeError("no more data")

    trains(read, read)
    helper.kill()
    helper.wait()


def upload_in_a_thread() -> None:
    """The checkpoint before this one is still being uploaded."""
    statuses: list[int] = []
    command = [PYTHON, "helper.py", "evaluate", "2.5"]
    thread = threading.Thread(target=lambda: statuses.append(subprocess.call(command)))
    thread.start()
    trains(lambda: None)
    thread.join()
    if statuses != [0]:
        train.say("hurt upload")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
