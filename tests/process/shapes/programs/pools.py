"""Trains with workers of multiprocessing's, which it needs for its last step as well. `pools.py KIND METHOD`."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

import train

LONG = 60.0
#: Longer than any answer takes (s).
PATIENCE = 10.0


def square(number: int) -> int:
    return number * number


def serve(questions: multiprocessing.Queue[int], answers: multiprocessing.Queue[int]) -> None:
    """A worker that loads data: it is always busy, and always has something ready."""
    train.say("up worker")
    while True:
        number = questions.get()
        enough = time.thread_time() + 0.005
        while time.thread_time() < enough:
            pass
        answers.put(square(number))


def trains(answer: Callable[[int], int]) -> None:
    """Train with somebody who answers."""
    try:
        train.begin("run")
        end = time.monotonic() + LONG
        for number in itertools.count():
            assert answer(number) == square(number)
            train.step()
            if time.monotonic() > end:
                break
    except KeyboardInterrupt:
        train.say("told run")
        time.sleep(0.3)
        last(answer)


def last(answer: Callable[[int], int]) -> None:
    """The last answers are those to questions from before the interrupt, for a worker of a queue."""
    try:
        for _ in range(3):
            answer(3)
    except Exception as error:
        train.say("hurt worker", type(error).__name__)
        raise
    train.say("SAVED run")


def worker(daemon: bool = True) -> None:
    """A process that answers by a queue, as a DataLoader's do."""
    questions: multiprocessing.Queue[int] = multiprocessing.Queue()
    answers: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(questions, answers), daemon=daemon)
    process.start()

    def answer(number: int) -> int:
        questions.put(number)
        while (found := answers.get(timeout=PATIENCE)) != square(number):
            pass
        return found

    trains(answer)
    process.terminate()
    process.join()


def pool() -> None:
    with multiprocessing.Pool(2) as workers:
        workers.apply(train.say, ("up worker",))
        trains(lambda number: workers.apply_async(square, (number,)).get(PATIENCE))


def executor() -> None:
    with ProcessPoolExecutor(2) as workers:
        workers.submit(train.say, "up worker").result()
        trains(lambda number: workers.submit(square, number).result(PATIENCE))


def waits_for_data() -> None:
    """The workers are much slower than the trainer, which waits for them most of the time."""
    with ProcessPoolExecutor(2) as workers:
        workers.submit(train.say, "up worker").result()
        trains(lambda number: workers.submit(slowly, number).result(PATIENCE))


def slowly(number: int) -> int:
    enough = time.thread_time() + 0.05
    while time.thread_time() < enough:
        pass
    return square(number)


def nested() -> None:
    """The trainer is itself a process of multiprocessing's."""
    process = multiprocessing.Process(target=pool)
    process.start()
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    with suppress(BrokenPipeError):
        globals()[sys.argv[1]]()
