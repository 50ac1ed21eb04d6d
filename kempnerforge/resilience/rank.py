"""This process as one of many ranks: its line in the page, and the poll at which all ranks stop together.

Without a notice a poll is an addition, a store and a load. With one, the ranks of a world meet: kforge-run asks by the
word in each one's line, and a rank waits in its poll until it is told to stop or to go on (docs/many-ranks.md, which
also has what simpler ways have broken). Nobody stops before all are there.
"""

from __future__ import annotations

import fcntl
import operator
import os
import sys
import threading
import time

from ..bootstrap import page
from ..bootstrap.page import AT, HEARD, HOLD, LET, POLLS, STOP, TICKET, WAITS, WORD, WORLD
from . import worlds
from .descriptors import NONE, Owned, out_of_the_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

    from .launcher_link import LauncherLink
    from .worlds import World

#: So many polls are looked at closely for a world: one that is made later is found at the notice.
_LOOKS = 16
#: How long a rank in a poll sleeps until it looks at its word again: at first, and at most (s). Guesses.
_NAP, _LONGEST_NAP = 0.0002, 0.005
#: With a notice, so long (s) without a word counts as the loss of kforge-run: a guess.
_NO_WORD = 2.0
#: How long ranks that have lost kforge-run let each other come to their next poll (s): a guess.
_FREEZE = 0.01
_STDERR = 2


class Rank:
    """This process among others: one object for all of its handlers.

    Attributes:
        polls: the number of the last poll.
        line: its words in the page, or in memory that nobody else sees.
        stopped: the ranks have agreed, and this one has come to where it stops.
        launcher_lost: kforge-run was killed.
    """

    def __init__(self) -> None:
        self._generation = 0
        #: All words of the page; None: there is none.
        self._words: memoryview | None = None
        #: The page's descriptor, for a lock.
        self._page = Owned(NONE)
        self._page_refused = False
        self.forget()

    def forget(self) -> None:
        """Be alone, and share nothing: in a forked child, the line is its parent's."""
        self._words = None
        self._be_alone(memoryview(bytearray(page.WORDS * page.WIDTH)).cast("Q"))

    def _be_alone(self, line: memoryview) -> None:
        self.polls = self._counted = self._generation * page.GENERATION
        self.line = line
        self.stopped = False
        self.launcher_lost = False
        self._name: str | None = None
        self._world: World | None = None
        self._looks = 0
        #: Who trains: the main thread, or if that never polls, the first that does.
        self._thread: int | None = None
        self._ticket = line[TICKET]

    # --- what is known -----------------------------------------------------------------------------

    @property
    def agrees(self) -> bool:
        """Whether it stops only where all ranks of its world do."""
        return self._world is not None

    @property
    def is_looking(self) -> bool:
        """Whether the next poll is to be looked at closely, too."""
        may_find = self._world is None and self._name != "" and self._looks < _LOOKS and not self._page_refused
        return may_find or (self._thread is not None and self._thread != threading.main_thread().ident)

    # --- with the first registration ---------------------------------------------------------------

    def begin(self, name: str | None) -> None:
        """Count anew.

        Args:
            name: of the world; empty: none; None: the one that is found.
        """
        self._generation += 1
        self._be_alone(self.line)
        self.line[POLLS] = self.polls
        self._name = name

    def is_of(self, name: str) -> None:
        """Be of a world that another handler of this process names."""
        self._name = name

    def adopt(self, descriptor: int, number: int) -> None:
        """Have a line in the page that kforge-run has sent.

        Args:
            descriptor: of the page, owned by this; NONE: there is no page.
            number: of the line.
        """
        if descriptor == NONE:
            self._page_refused = True
            return
        if self._words is not None:
            os.close(descriptor)  # another registration of this process, and the same line
            return
        try:
            words = page.lines_of(_mapped(descriptor))
        except (OSError, ValueError):
            self._page_refused = True
            os.close(descriptor)
            return
        self._page = Owned(out_of_the_way(descriptor))
        self._words = words
        line = page.line_of(words, number)
        line[POLLS] = self.polls
        self._ticket = line[TICKET]
        self.line = line

    # --- a poll ------------------------------------------------------------------------------------

    def count(self, step: int) -> None:
        """Take the program's own count for the number of this poll.

        Raises:
            ValueError: it is negative, or no whole number.
        """
        try:
            number = operator.index(step)
        except TypeError:
            number = -1
        if not 0 <= number < page.GENERATION:
            raise ValueError(f"step: expected a whole number, 0 or more, got {step!r}")
        self.polls = self._generation * page.GENERATION + number

    def arrive(self, noticed_at: float | None, link: LauncherLink | None) -> None:
        """Look closely at a poll that has been counted, and meet the other ranks if there is a notice.

        Args:
            noticed_at: since when there is a notice (s, monotonic); None: there is none here.
            link: to kforge-run, which hears of the world.
        """
        me = threading.get_ident()
        if self._thread is None or (me != self._thread and me == threading.main_thread().ident):
            self._thread = me
        if me != self._thread:
            if self.line[WORD]:
                # Whoever else polls must not move the count of the one that trains.
                self.polls = self.line[POLLS] = self._counted
            return
        self._counted = self.polls
        if self._world is None:
            self._join(link)
        if self._world is not None and not self.stopped and (self.line[WORD] or noticed_at or self.launcher_lost):
            if link is not None and not self.line[WORD]:
                link.noticed()
            self.stopped = self._meet(self.polls, noticed_at)

    def _join(self, link: LauncherLink | None) -> None:
        self._looks += 1
        if self._words is None or link is None or self._name == "":
            return
        self._world = worlds.find() if self._name is None else worlds.named(self._name)
        if self._world is not None:
            # Here, too: without kforge-run the ranks find each other by it.
            self.line[WORLD] = page.number_of(self._world[0])
            link.joined(*self._world)

    def _meet(self, count: int, noticed_at: float | None) -> bool:
        """Wait until this rank is told to stop or to go on, and return whether to stop."""
        line, nap = self.line, _NAP
        self._ticket += 1
        line[POLLS], line[TICKET], line[WAITS] = count, self._ticket, count
        try:
            while True:
                word = line[WORD]
                kind, at = page.kind_of(word), page.at_of(word)
                if kind == STOP:
                    return count >= at
                if (kind == AT and count < at) or (kind == HOLD and line[LET] == self._ticket):
                    return False
                is_late = noticed_at is not None and time.monotonic() > noticed_at + _NO_WORD
                if self.launcher_lost or (not kind and is_late):
                    self._decide_without_launcher()
                    continue
                if not kind:
                    return False
                line[HEARD] = word  # last: it waits, under this very word
                time.sleep(nap)
                nap = min(nap * 1.5, _LONGEST_NAP)
        finally:
            line[HEARD] = 0

    # --- without kforge-run ------------------------------------------------------------------------

    def _decide_without_launcher(self) -> None:
        """Set the stop for all ranks of the world, unless another one has: one that stops alone would hang the rest."""
        self._lock(fcntl.LOCK_EX)
        try:
            lines = self._peers()
            # Not this rank's own: kforge-run may have died when it had written a word into some of the lines.
            word = page.newest(line[WORD] for line in lines)
            if page.kind_of(word) == AT:
                word = page.word(STOP, page.at_of(word), page.SERIAL_OF_RANKS)
            elif page.kind_of(word) != STOP:
                word = page.word(STOP, self._freeze(lines), page.SERIAL_OF_RANKS)
            for line in lines:
                line[WORD] = word
        finally:
            self._lock(fcntl.LOCK_UN)

    def _freeze(self, lines: list[memoryview]) -> int:
        """Have all wait at their next poll for a moment, and return the highest number that one of them comes to."""
        hold = page.word(HOLD, 0, page.SERIAL_OF_RANKS)
        for line in lines:
            line[WORD] = hold
        self.line[HEARD] = hold
        time.sleep(_FREEZE)
        return max(line[POLLS] + (line[HEARD] != hold) for line in lines)

    def _peers(self) -> list[memoryview]:
        """Return the lines of the world, this one among them."""
        if self._words is None:
            return [self.line]
        lines = [page.line_of(self._words, number) for number in range(page.LINES)]
        return [line for line in lines if line[WORLD] == self.line[WORLD]]

    def _lock(self, how: int) -> None:
        if self._page.is_ours:
            fcntl.lockf(self._page.fd, how)


#: What is mapped is never given back: the number of its descriptor may be the program's by now.
_kept: list[object] = []
#: Python's map can do without a descriptor (from 3.13 on).
_MAP_OPTIONS = {"trackfd": False} if sys.version_info >= (3, 13) else {}


def _mapped(descriptor: int) -> mmap.mmap:
    """Map a page for good."""
    # Here: a program without kforge-run needs none.
    import mmap

    # Python's map has a descriptor of its own, of the lowest number that is free: not one of the standard three.
    taken = []
    while (opened := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) <= _STDERR:
        taken.append(opened)
    try:
        mapped = mmap.mmap(descriptor, page.SIZE, **_MAP_OPTIONS)
    finally:
        for each in (*taken, opened):
            os.close(each)
    _kept.append(mapped)
    return mapped
