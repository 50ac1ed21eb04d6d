"""Signals that end a command which has something to tidy up: noted when they come, acted on where it is safe."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The user wants it to end; `signum` is the first signal that said so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Notes Ctrl-C and its kind between entry and exit. What was ignored (nohup) stays ignored.

    Attributes:
        count: how many have come.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        for signum in _ENDS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._first = self._first or signum

    def check(self) -> None:
        """Go on only if none has come.

        Raises:
            Interrupted: one has.
        """
        if self._first:
            raise Interrupted(self._first)

    def pause(self, seconds: float) -> None:
        """Sleep for a moment, short enough that the user need not wait for its end.

        Raises:
            Interrupted: one has come.
        """
        time.sleep(seconds)
        self.check()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep them, also from a process that is started here, until this is over: Ctrl-C goes to the whole group."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
