"""Runs programs of many ranks, again and again, with the real page, rank and agreement, and without Slurm.

    python -m tests.process.ranks.trials [--ranks N] [--trials N] [--alone] [PROGRAM...]

`--alone`: without the agreement, to see what it is for.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from kempnerforge.launcher.meeting.page import Page
from kempnerforge.launcher.policy import facts
from kempnerforge.launcher.policy.timers import Timer, Timers
from kempnerforge.launcher.policy.words import Action, Ask, Identity, Joined, LetOn, LinesRead, ReadLines
from kempnerforge.launcher.policy.worlds import Worlds
from kempnerforge.resilience import process_guard
from tests.process.ranks.programs import PROGRAMS, Rank

#: How long a run may take from its notice on, and how long the ranks have to come together (s).
PATIENCE, WINDOW = 20.0, 20.0


class Ending(NamedTuple):
    """What became of a run."""

    #: What each rank has saved; None: nothing.
    saved: tuple[int | None, ...]
    #: How they agreed.
    how: str
    #: From the notice until the last rank was told (s), and how many there are.
    took: float

    @property
    def is_kept(self) -> bool:
        return len(set(self.saved)) == 1 and self.saved[0] is not None


class _Link:
    """Stands for the connection to kforge-run: each message is a line in a pipe."""

    def __init__(self, rank: int, fd: int) -> None:
        self._rank, self._fd = rank, fd

    def _say(self, *words: object) -> None:
        os.write(self._fd, ("\t".join(map(str, (self._rank, *words))) + "\n").encode())

    def joined(self, world: str, rank: int, size: int) -> None:
        self._say("joined", world, rank, size)

    def noticed(self) -> None:
        pass

    def left(self) -> None:
        self._say("left")

    def polled(self, stop: bool) -> None:
        if stop:
            self._say("told", time.monotonic())

    def finished(self) -> None:
        self._say("finished")

    def close(self) -> None:
        pass

    def mend(self, log: int, wait: bool = True) -> None:
        pass

    @property
    def is_ours(self) -> bool:
        return False  # nothing comes by it

    def receive(self, _adopt: object) -> list[object]:
        return []

    def saved(self, step: int | None) -> None:
        self._say("saved", step)


class Trial:
    """One run of a program, from its start to its end."""

    def __init__(self, program: str, size: int, seed: int, folder: Path, alone: bool) -> None:
        self._program, self._size, self._seed, self._folder, self._alone = program, size, seed, folder, alone
        self._random = random.Random(seed)
        self._page = Page()
        self._timers = Timers()
        self._worlds = Worlds(self._timers, sees_all=True)
        self._pids: dict[int, int] = {}
        self._whos: dict[int, Identity] = {}
        self._joined: set[int] = set()
        self._saved: dict[int, int | None] = {}
        self._told: dict[int, float] = {}
        self._how = ""

    def run(self) -> Ending:
        reader, writer = os.pipe()
        try:
            for rank in range(self._size):
                self._whos[rank] = Identity("n1", 1000 + rank, rank)
                number = self._page.number_for(self._whos[rank])
                assert number is not None and self._page.descriptor is not None, self._page.trouble
                self._start(rank, number, writer)
            os.close(writer)
            self._watch(reader)
        finally:
            for pid in self._pids.values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                os.waitpid(pid, 0)
            os.close(reader)
            self._page.close()
        took = max(self._told.values(), default=0.0) - self._noticed_at
        return Ending(tuple(self._saved.get(rank) for rank in range(self._size)), self._how, took)

    # --- a rank ------------------------------------------------------------------------------------

    def _start(self, rank: int, number: int, writer: int) -> None:
        pid = os.fork()
        if pid:
            self._pids[rank] = pid
            return
        status = 1
        try:
            log = os.open(self._folder / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._train(rank, number, _Link(rank, writer))
            status = 0
        except BaseException:  # noqa: BLE001 - it is a process of its own
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def _train(self, rank: int, number: int, link: _Link) -> None:
        me = Rank(rank, self._size, self._seed)
        me.handler.register()
        if not self._alone:
            assert self._page.descriptor is not None
            process_guard.rank.adopt(os.dup(self._page.descriptor), number)
        me.handler._shutdown.link = link  # type: ignore[assignment]
        me.handler._shutdown.quiet = False
        dist.init_process_group(
            "gloo",
            init_method=f"file://{self._folder}/store",
            rank=rank,
            world_size=self._size,
            timeout=timedelta(seconds=PATIENCE),
        )
        link._say("ready")
        PROGRAMS[self._program](me)
        link.saved(me.saved)

    # --- kforge-run's part -------------------------------------------------------------------------

    def _watch(self, reader: int) -> None:
        ready, buffer = 0, b""
        notice_at = self._noticed_at = float("inf")
        give_up = time.monotonic() + 2 * PATIENCE
        while self._saved.keys() != self._pids.keys() and time.monotonic() < give_up:
            due = self._timers.next
            until = min(give_up, notice_at, float("inf") if due is None else due)
            if select.select([reader], [], [], max(until - time.monotonic(), 0))[0]:
                read = os.read(reader, 65536)
                if not read:
                    return
                *lines, buffer = (buffer + read).split(b"\n")
                for line in lines:
                    rank, word, *rest = line.decode().split("\t")
                    if word == "ready":
                        ready += 1
                        if ready == self._size:
                            notice_at = time.monotonic() + 0.15 + self._random.random() * 0.2
                    self._hear(int(rank), word, rest)
            now = time.monotonic()
            if now >= notice_at:
                notice_at, self._noticed_at, give_up = float("inf"), now, now + PATIENCE
                self._give_notice(now)
            if self._timers.take(Timer.MEET, now):
                self._do(self._worlds.meet())

    def _give_notice(self, now: float) -> None:
        # Slurm's signal comes to all, and to each a moment later.
        for pid in self._random.sample(list(self._pids.values()), self._size):
            os.kill(pid, signal.SIGUSR1)
            if self._alone:
                time.sleep(self._random.random() * 0.005)
        if not self._alone:
            self._do(self._worlds.begin(now + WINDOW, now))

    def _hear(self, rank: int, word: str, rest: list[str]) -> None:
        who, now = self._whos[rank], time.monotonic()
        if word == "joined":
            self._do(self._worlds.joined(Joined(who, rest[0], int(rest[1]), int(rest[2])), now))
        elif word == "told":
            self._told[rank] = float(rest[0])
            self._worlds.told(who)
        elif word == "finished":
            self._do(self._worlds.finished(who))
        elif word == "left":
            self._do(self._worlds.left(who))
        elif word == "saved":
            self._saved[rank] = None if rest[0] == "None" else int(rest[0])

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ReadLines(whos):
                    self._do(self._worlds.read(LinesRead(self._page.read(whos)), time.monotonic()))
                case Ask(whos, word):
                    self._page.ask(whos, word)
                case LetOn(who, ticket):
                    self._page.let_on(who, ticket)
                case facts.Agreed(_, _, how, _):
                    self._how = how


def run(program: str, size: int, seed: int, alone: bool = False) -> Ending:
    """Run a program once.

    Args:
        alone: each rank stops by itself, as without an agreement.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        ending = Trial(program, size, seed, Path(folder), alone).run()
        if not ending.is_kept:
            for log in sorted(Path(folder).glob("log-*")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()[-1500:]}")
        return ending


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=list(PROGRAMS))
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--alone", action="store_true", help="without the agreement")
    options = parser.parse_args()
    bad = 0
    for program in options.programs:
        endings = [run(program, options.ranks, seed, options.alone) for seed in range(options.trials)]
        kept = sum(ending.is_kept for ending in endings)
        bad += kept < len(endings)
        took = sorted(1000 * ending.took for ending in endings)
        ways = {how: sum(ending.how == how for ending in endings) for how in sorted({one.how for one in endings})}
        middle, last = took[len(took) // 2], took[-1]
        print(f"{program:32} kept {kept} of {len(endings)}  {middle:6.0f} ms, {last:6.0f} at most  {ways}", flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
