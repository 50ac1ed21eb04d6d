"""What around a run would lose it, said as soon as it is known."""

from __future__ import annotations

import math
import time

from . import surroundings
from .policy import facts, tables, words
from .telling.chronicle import Chronicle

#: When to look whether a notice could interrupt anything (s): a Python tells at once, but a script may have to fetch
#: its data first. Guesses.
_LOOK_AFTER = 1.5
_LOOK_AGAIN = 30.0


class Advice:
    """Warns of each thing once.

    Args:
        chronicle: gets the warnings.
        child: pid of the direct child.
        looks: whether to look for programs that a notice could interrupt.
        job_id: empty outside Slurm.
        requeue: False: `--no-requeue`.
        timeout: what ``--timeout`` allows (s); None: it is not given.
    """

    def __init__(
        self, chronicle: Chronicle, child: int, looks: bool, job_id: str, requeue: bool, timeout: float | None
    ) -> None:
        self._chronicle = chronicle
        self._child = child
        self._job_id, self._requeue, self._timeout = job_id, requeue, timeout
        self._started = time.monotonic()
        self._look_at = self._started + _LOOK_AFTER if looks else math.inf
        self._kill_wait = words.Site().kill_wait
        self._said_unreadable = False
        #: The job's Restarts as first read.
        self._restarts: int | None = None

    @property
    def time_to_stop(self) -> float:
        """How long stopping may take, by the user's word and by the last attempt (s)."""
        last = tables.past_of(self._chronicle.history, self._restarts or 0).last_shutdown
        return max(self._timeout or 0.0, last or 0.0)

    # --- who could hear a notice -------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When to look (s, monotonic); infinity: never."""
        return self._look_at

    def look_no_more(self) -> None:
        """Leave it: a process could hear one, or nothing is left that should."""
        self._look_at = math.inf

    def process_is_armed(self) -> None:
        """Look no more, but at who has started it."""
        if self._look_at < math.inf:
            self._look_at = math.inf
            self._chronicle.warn(surroundings.agent_warning(self._child, self.time_to_stop))

    def notice_came(self, now: float) -> None:
        """Look at once: what cannot hear it now, we do not wait for."""
        if self._look_at < math.inf:
            self._look_at = now

    def look(self, now: float, last: bool) -> None:
        """Warn if nothing could hear a notice: at first only where that is clear, and later wherever it is so.

        Args:
            last: what could not hear one now, we do not wait for.
        """
        last = last or now - self._started > _LOOK_AGAIN
        warning = surroundings.not_armed_warning(self._child, last)
        self._chronicle.warn(warning)
        self._look_at = math.inf if last or warning is not None else self._started + _LOOK_AGAIN

    # --- what Slurm says ---------------------------------------------------------------------------

    def no_scontrol(self, why: str) -> None:
        """Warn that Slurm cannot be asked."""
        self._chronicle.warn(f"{why}: without it this job cannot be requeued")

    def site_read(self, site: words.Site) -> None:
        """Keep what Slurm gives by itself."""
        self._kill_wait = site.kill_wait

    def script_read(self, asked: surroundings.AskedSignal | None) -> None:
        """Warn if the batch script asks for too short a lead, or for another signal."""
        self._chronicle.warn(surroundings.signal_warning(asked))
        self._chronicle.warn(surroundings.lead_warning(self.time_to_stop, self._kill_wait, asked))

    def job_read(self, read: words.JobRead) -> None:
        """Say which attempt this is, and warn of what keeps the job from a requeue."""
        if read.answered and not self._said_unreadable:
            self._said_unreadable = True
            self._chronicle.warn(surroundings.unreadable_warning(self._job_id, read.error))
        if read.job is not None and self._restarts is None:
            self._restarts = read.job.restarts
            self._chronicle.tell(facts.Remark(_which_attempt(read.job)))
            self._chronicle.warn(surroundings.not_requeueable_warning(read.job.requeueable, self._requeue))

    def no_step_listens(self, why: str) -> None:
        """Warn that our own small step cannot be had."""
        self._chronicle.warn(f"a preemption is noticed only when its grace is over: no step can be started ({why})")


def _which_attempt(job: words.Job) -> str:
    """Return where one attempt's lines begin, in a log that is appended to for days."""
    left = "no time limit" if job.end is None else f"{(job.end - time.monotonic()) / 60:.0f} min to the time limit"
    return f"{time.strftime('%Y-%m-%d')}: attempt {job.restarts + 1} of job {job.requeue_id}, {left}"
