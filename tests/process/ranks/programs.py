"""Training loops of many ranks, as people write them: each is a function of a rank, and stops when it is told to.

What all have in common: a rank that is told to stop saves together with the others (`save`), which hangs if they are
not all there, and fails if they are not at one step. A step is a few milliseconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.resilience import ShutdownHandler

#: More than a run takes until it is told to stop.
LONG = 3000
STEP = 0.004  # s


class Rank:
    """What a program is given: who it is, and its handler."""

    def __init__(self, rank: int, size: int, seed: int) -> None:
        self.rank, self.size = rank, size
        self.random = random.Random(seed * 100 + rank)
        self.step = 0
        self.handler = ShutdownHandler(timeout_sec=60)
        #: Which step it has saved; None: it has not.
        self.saved: int | None = None

    def compute(self, seconds: float | None = None) -> None:
        time.sleep(self.random.random() * 2 * STEP if seconds is None else seconds)

    def collective(self) -> None:
        dist.all_reduce(torch.ones(1))

    def train(self) -> None:
        self.compute()
        self.collective()
        self.step += 1

    def save(self) -> None:
        """Save a step that all ranks have to agree on."""
        steps = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(steps, torch.tensor([self.step]))
        assert len({int(step) for step in steps}) == 1, steps
        self.saved = self.step
        self.handler.finish()


def even(rank: Rank) -> None:
    while rank.step < LONG:
        rank.train()
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def flag_all_reduced(rank: Rank) -> None:
    """The program agrees by itself as well."""
    while rank.step < LONG:
        rank.train()
        flag = torch.tensor([int(rank.handler.should_shutdown())])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        if flag.item():
            return rank.save()
    return None


def accumulation(rank: Rank) -> None:
    """Four batches for a step, and a poll after each step."""
    while rank.step < LONG:
        for _ in range(4):
            rank.compute(STEP / 4)
        rank.collective()
        rank.step += 1
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def one_polls_for_all(rank: Rank) -> None:
    """Only rank 0 polls, and tells the others."""
    while rank.step < LONG:
        rank.train()
        flag = torch.tensor([int(rank.rank == 0 and rank.handler.should_shutdown())])
        dist.broadcast(flag, 0)
        if flag.item():
            return rank.save()
    return None


def one_evaluates(rank: Rank) -> None:
    """Rank 0 evaluates alone every ten steps, and polls there as well."""
    while rank.step < LONG:
        rank.train()
        if rank.rank == 0 and rank.step % 10 == 0:
            for _ in range(3):
                rank.compute(STEP)
                if rank.handler.should_shutdown():
                    return rank.save()
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def one_polled_once_more(rank: Rank) -> None:
    if rank.rank == 0:
        rank.handler.should_shutdown()
    even(rank)


def one_is_busy_before_its_poll(rank: Rank) -> None:
    while rank.step < LONG:
        rank.train()
        if rank.rank == 0 and rank.step % 50 == 0:
            rank.compute(1.0)
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def one_is_late_and_has_polled_more(rank: Rank) -> None:
    if rank.rank == 0:
        rank.handler.should_shutdown()
    while rank.step < LONG:
        rank.train()
        if rank.rank == 0:
            rank.compute(0.15)
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def one_is_out_of_data(rank: Rank) -> None:
    """As under DDP's Join: the last rank has no batches any more, and goes along without a step of its own."""
    while rank.step < LONG:
        if rank.rank != rank.size - 1 or rank.step < 20:
            rank.compute()
        rank.collective()
        rank.step += 1
        is_out = rank.rank == rank.size - 1 and rank.step > 20
        if (not is_out or rank.step % 2) and rank.handler.should_shutdown():
            return rank.save()
    return None


def own_count_at_uneven_polls(rank: Rank) -> None:
    """All poll every ten steps, and rank 0 every five."""
    every = 5 if rank.rank == 0 else 10
    while rank.step < LONG:
        rank.train()
        if rank.step % every == 0 and rank.handler.should_shutdown(step=rank.step):
            return rank.save()
    return None


def nested_loops(rank: Rank) -> None:
    """Epochs of seven steps, with a poll in both loops."""
    while rank.step < LONG:
        for _ in range(7):
            rank.train()
            if rank.handler.should_shutdown():
                return rank.save()
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def saves_in_the_background(rank: Rank) -> None:
    thread: threading.Thread | None = None
    while rank.step < LONG:
        rank.train()
        if rank.step % 20 == 0:
            if thread is not None:
                thread.join()
            thread = threading.Thread(target=rank.compute, args=(0.05,))
            thread.start()
        if rank.handler.should_shutdown():
            if thread is not None:
                thread.join()
            return rank.save()
    return None


def pipeline(rank: Rank) -> None:
    """Stages that pass micro-batches on and gradients back, one forward and one backward in turn (1F1B)."""
    before, after, batches = rank.rank - 1, rank.rank + 1, 2 * rank.size
    warm_up = min(rank.size - rank.rank, batches)
    sent: list[Any] = []

    def work(source: int, target: int) -> None:
        if 0 <= source < rank.size:
            dist.recv(torch.zeros(1), source)
        rank.compute(STEP / 4)
        if 0 <= target < rank.size:
            sent.append(dist.isend(torch.zeros(1), target))

    def forward() -> None:
        work(before, after)

    def backward() -> None:
        work(after, before)

    while rank.step < LONG:
        for _ in range(warm_up):
            forward()
        for _ in range(batches - warm_up):
            backward()
            forward()
        for _ in range(warm_up):
            backward()
        while sent:
            sent.pop().wait()
        rank.step += 1
        if rank.handler.should_shutdown():
            return rank.save()
    return None


def one_has_no_handler(rank: Rank) -> None:
    """The last rank never polls, and hears of the stop by what the others send along."""
    while rank.step < LONG:
        rank.train()
        stop = rank.rank != rank.size - 1 and rank.handler.should_shutdown()
        flag = torch.tensor([int(stop)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        if flag.item():
            return rank.save()
    return None


def two_more_threads_poll(rank: Rank) -> None:
    over = threading.Event()

    def poll() -> None:
        while not over.wait(0.003 + rank.random.random() * 0.01):
            rank.handler.should_shutdown()

    threads = [threading.Thread(target=poll, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        even(rank)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def a_second_group(rank: Rank) -> None:
    """Half of the ranks have collectives of their own."""
    half = dist.new_group(list(range(rank.size // 2)))
    while rank.step < LONG:
        rank.train()
        if rank.rank < rank.size // 2:
            rank.compute(STEP / 2)
            dist.all_reduce(torch.ones(1), group=half)
        if rank.handler.should_shutdown():
            return rank.save()
    return None


PROGRAMS: dict[str, Callable[[Rank], Any]] = {
    program.__name__: program
    for program in (
        even,
        flag_all_reduced,
        accumulation,
        one_polls_for_all,
        one_evaluates,
        one_polled_once_more,
        one_is_busy_before_its_poll,
        one_is_late_and_has_polled_more,
        one_is_out_of_data,
        own_count_at_uneven_polls,
        nested_loops,
        saves_in_the_background,
        pipeline,
        one_has_no_handler,
        two_more_threads_poll,
        a_second_group,
    )
}
