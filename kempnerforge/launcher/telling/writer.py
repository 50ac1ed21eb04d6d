"""What may hang is written by a process of its own: a file system that does not answer must not hold up the run.

A thread would not do. One that hangs in the kernel is killed by nothing, and keeps the whole process from ending. So
what is to be written waits in memory, and the loop forks a process that writes it and ends; an idle kforge-run has
none. There is one process for one place at a time, which keeps the order.
"""

from __future__ import annotations

import marshal
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..processes.child import lead_a_group

#: How long the end of kforge-run waits for what is not written yet (s): a guess.
LAST_PATIENCE = 1.0
#: How long what comes next waits for what should be written before it (s): a guess.
MOMENT = 0.02
#: What more there is to write while nothing can be written is dropped: a guess.
_MOST_WAITING = 10_000
#: Read at a time (bytes): what a pipe holds (pipe(7)).
_BLOCK = 1 << 16
#: kforge-run has no more descriptors than this, as a rule: one or two for each of 4,096 connections.
_MOST_DESCRIPTORS = 10_000


class Writer:
    """Writes to one place, in the background and in order.

    Args:
        write: does it, in the process that was forked for it; gets all that was put, oldest first.
        poller: gets the descriptor that tells when it is done.
        helpers: of kforge-run's own children those that are no part of the run; gets the process while there is one.
        keep: descriptors that stay open in that process.
        without: does it here, where no process can be had; None: then it is not done.

    Attributes:
        result: what `write` has returned last; None: nothing yet, or nothing good.
        trouble: why it was not written the last time; None: it was, as far as known.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Any]], object],
        poller: select.poll,
        helpers: set[int],
        *,
        keep: Sequence[int] = (),
        without: Callable[[Sequence[Any]], object] | None = None,
    ) -> None:
        self.result: Any = None
        self.trouble: str | None = None
        self._write = write
        self._without = without
        self._poller = poller
        self._helpers = helpers
        self._keep = keep
        self._waiting: list[Any] = []
        #: The process that is at it.
        self.pid: int | None = None
        self._answers: int | None = None
        self._answer = bytearray()

    @property
    def busy(self) -> bool:
        return self.pid is not None or bool(self._waiting)

    def put(self, item: object) -> None:
        """Have something written soon."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(item)

    def start_next(self) -> None:
        """Have written what waits, unless the process before is still at it."""
        if self.pid is not None or not self._waiting:
            return
        items, self._waiting = self._waiting, []
        try:
            self._fork(items)
        except OSError as error:
            self.trouble = f"no process can be had to write it ({error.strerror})"
            if self._without is not None:
                try:
                    self._without(items)
                except OSError as failure:
                    self.trouble = failure.strerror

    def _fork(self, items: list[Any]) -> None:
        answers, answering = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(answers)
            os.close(answering)
            raise
        if pid == 0:
            self._work(items, answering)
        os.close(answering)
        os.set_blocking(answers, False)
        self._poller.register(answers, select.POLLIN)
        self.pid, self._answers = pid, answers
        self._answer.clear()
        self._helpers.add(pid)
        lead_a_group(pid)

    def _work(self, items: list[Any], answering: int) -> NoReturn:
        """Be the process that writes. Every signal is blocked in it as in us, and only SIGKILL ends it early."""
        try:
            lead_a_group(0)
            # Connections have to end with kforge-run, and pipes with those that they belong to.
            _close_all_but({answering, *self._keep})
            told: Any
            try:
                told = (None, self._write(items))
            except OSError as error:
                told = (error.strerror or str(error), None)
            answer = marshal.dumps(told)
            while answer:
                answer = answer[os.write(answering, answer) :]
        finally:
            os._exit(0)

    def descriptor(self) -> int | None:
        """Return what becomes readable when the process is done; None: there is none."""
        return self._answers

    def read(self) -> None:
        """Take in what the process has answered, and reap it at its end."""
        while self._answers is not None:
            try:
                block = os.read(self._answers, _BLOCK)
            except BlockingIOError:
                return
            self._answer += block
            if not block:
                self._finish()

    def ended(self, pid: int) -> bool:
        """Reap the process, which has ended; return False if it is none of ours."""
        if pid != self.pid:
            return False
        self.read()
        return True

    def _finish(self) -> None:
        assert self.pid is not None and self._answers is not None
        # It has closed the descriptor, and so is in its very end.
        os.waitpid(self.pid, 0)
        self._forget()
        try:
            self.trouble, self.result = marshal.loads(self._answer)  # noqa: S302 - our own child's
        except (EOFError, ValueError, TypeError):
            self.trouble, self.result = "the process that writes it was killed", None

    def _forget(self) -> None:
        if self._answers is not None:
            self._poller.unregister(self._answers)
            os.close(self._answers)
        self._helpers.discard(self.pid or 0)
        self.pid = self._answers = None

    def give_up(self) -> int | None:
        """Kill the process if it is still at it, and leave it behind; return its pid. What waits is not written."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # it is not reaped, so this is no other process
            self._forget()
            self.trouble = "the file system does not answer"
        self._waiting.clear()
        return pid


def _close_all_but(kept: set[int]) -> None:
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        descriptors = list(range(_MOST_DESCRIPTORS))  # no /proc here; up to the limit there may be a thousand million
    for descriptor in set(descriptors).difference(kept):
        try:
            os.close(descriptor)
        except OSError:
            pass  # it was not open, or was the listing's own


def wait_for(writers: Iterable[Writer], patience: float) -> None:
    """Wait until all that was put is written, but for a bounded time (s)."""
    until = time.monotonic() + patience
    while True:
        poller = select.poll()
        busy = False
        for writer in writers:
            writer.read()
            writer.start_next()
            if (descriptor := writer.descriptor()) is not None:
                busy = True
                poller.register(descriptor, select.POLLIN)
        left = until - time.monotonic()
        if not busy or left <= 0:
            return
        poller.poll(math.ceil(left * 1000))
