"""Many ranks below one kforge-run stop at the same step, whatever happens to any of them (docs/many-ranks.md)."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from kempnerforge.bootstrap import page
from kempnerforge.resilience import ShutdownHandler
from tests.process.handling import PYTHON
from tests.process.launch import ROOT, Launch, Launched, reap_orphans, tidy_after, wait_until

PROGRAM = str(ROOT / "tests" / "process" / "programs" / "ranks.py")
CHECKPOINTED = 85


class Ranks:
    """Ranks below a kforge-run.

    Args:
        kind: how they train, as the program says.
        options: of kforge-run.
    """

    def __init__(self, launch: Launch, kind: str = "even", size: int = 4, world: str = "test", **how: str) -> None:
        self.size = size
        options = ("--verbose", "--timeout", "20", "--term-grace", "2")
        self.run: Launched = launch(PYTHON, PROGRAM, str(size), kind, world, options=options, **how)  # type: ignore[arg-type]
        self.pids: dict[int, int] = {}
        while len(self.pids) < size:
            rank, word, number = self.run.line().split()
            assert word == "begins"
            self.pids[int(rank)] = int(number)

    def notice(self) -> Ranks:
        self.run.send(signal.SIGUSR1)
        return self

    def saved(self) -> dict[int, int]:
        """Return which step each rank has saved, when all have come to their end."""
        found = [re.fullmatch(r"(\d+) saved (\d+)", line) for line in self.run.rest()]
        return {int(one[1]): int(one[2]) for one in found if one is not None}


def at_one_step(saved: dict[int, int], size: int) -> bool:
    return len(saved) == size and len(set(saved.values())) == 1


@pytest.mark.parametrize("size", [2, 4, 8])
def test_they_stop_at_one_step(launch: Launch, size: int) -> None:
    ranks = Ranks(launch, size=size).notice()
    assert at_one_step(ranks.saved(), size), ranks.run.log
    ranks.run.ends(CHECKPOINTED)
    assert re.search(rf"kforge-run \S+ {size} ranks stop at poll \d+$", ranks.run.log, re.MULTILINE)
    assert ranks.run.log.count(" stops together with the others of its world") == size


def test_without_the_agreement_they_do_not(launch: Launch) -> None:
    """A rank that stops alone leaves the others behind in a collective that never ends."""
    # Rank 0 comes to its poll when the others have begun the next step.
    together, alone = Ranks(launch, "late").notice(), Ranks(launch, "late", world="").notice()
    assert at_one_step(together.saved(), 4), together.run.log
    assert not at_one_step(alone.saved(), 4) and "ranks stop" not in alone.run.log
    alone.run.wait()
    together.run.ends(CHECKPOINTED)


@pytest.mark.parametrize("after", [None, 0.0, 0.001, 0.003, 0.01])
def test_kforge_run_is_killed(launch: Launch, after: float | None) -> None:
    """Whether it has said anything by then or not.

    Args:
        after: how long after the notice (s); None: before it.
    """
    ranks = Ranks(launch)
    if after is not None:
        ranks.notice()
        time.sleep(after)
    ranks.run.send(signal.SIGKILL)
    saved = ranks.saved()
    assert at_one_step(saved, 4), saved
    ranks.run.wait()
    reap_orphans()
    tidy_after(ranks.run.pid)


def test_a_rank_is_stopped_for_a_while(launch: Launch) -> None:
    ranks = Ranks(launch)
    os.kill(ranks.pids[2], signal.SIGSTOP)
    ranks.notice()
    wait_until(lambda: "left to save" in ranks.run.log)
    os.kill(ranks.pids[2], signal.SIGCONT)
    assert at_one_step(ranks.saved(), 4), ranks.run.log
    ranks.run.ends(CHECKPOINTED)


def test_a_rank_that_is_dead_is_not_waited_for(launch: Launch) -> None:
    ranks = Ranks(launch, "free")
    os.kill(ranks.pids[1], signal.SIGKILL)
    wait_until(lambda: is_zombie(ranks.pids[1]))
    ranks.notice()
    assert ranks.saved().keys() == {0, 2, 3}, ranks.run.log
    ranks.run.wait()


def is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_a_rank_that_dies_while_it_saves_is_named_and_the_run_is_not_checkpointed(launch: Launch) -> None:
    ranks = Ranks(launch, "one_dies").notice()
    assert ranks.saved().keys() == {0, 2, 3}, ranks.run.log
    ranks.run.wait()
    lost = f"told to stop, and ended without having saved: pid {ranks.pids[1]}"
    assert lost in ranks.run.log and "kforge-run" in ranks.run.log
    assert re.search(r"^kforge-run \S+ interrupted: ", ranks.run.log, re.MULTILINE), ranks.run.log


def test_when_a_rank_completes_the_others_may_as_well(launch: Launch) -> None:
    ranks = Ranks(launch, "one_completes")
    wait_until(lambda: is_zombie(ranks.pids[1]))
    ranks.notice()
    assert ranks.saved().keys() == {0, 2, 3}, "it has gone before the notice, and nobody waits for it"
    ranks.run.ends(CHECKPOINTED)


def test_a_forked_child_polls_for_itself(launch: Launch) -> None:
    ranks = Ranks(launch, "polls_in_a_fork").notice()
    assert at_one_step(ranks.saved(), 4), ranks.run.log
    ranks.run.ends(CHECKPOINTED)
    counted = re.search(r"stop at poll (\d+)", ranks.run.log)
    assert counted is None or int(counted[1]) < 1000, "None: they were held"


def test_without_memory_to_share_each_stops_alone_and_that_is_said(launch: Launch) -> None:
    # memfd and file alike are limited by the size of a file (setrlimit(2), RLIMIT_FSIZE).
    ranks = Ranks(launch, "free", shell="ulimit -f 400").notice()
    assert len(ranks.saved()) == 4
    ranks.run.ends(CHECKPOINTED)
    assert ranks.run.log.count("no memory can be shared (File too large): its ranks stop one by one") == 1


@pytest.mark.parametrize("step", [-1, 1.5, "3", None.__class__, 1 << 40])
def test_a_step_that_is_no_count(step: object) -> None:
    with pytest.raises(ValueError, match="step: expected a whole number, 0 or more, got"):
        ShutdownHandler().should_shutdown(step=step)  # type: ignore[arg-type]


def test_a_step_may_be_any_integer() -> None:
    class Integer:
        def __index__(self) -> int:
            return 3

    assert not ShutdownHandler().should_shutdown(step=Integer())  # type: ignore[arg-type]


def test_words_are_written_in_one_store() -> None:
    """`struct.pack_into` writes byte by byte, which others can see."""
    for file in (ROOT / "kempnerforge").rglob("*.py"):
        assert "pack_into" not in file.read_text() or file.name == "page.py"
    assert page.lines_of(bytearray(page.SIZE)).itemsize == page.WIDTH  # type: ignore[arg-type]
