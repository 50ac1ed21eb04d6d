"""A rehearsal as a real job, with a time limit of its own for the day on which no drill is left to cancel it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from ...launcher.policy import tables
from .. import slurm_commands
from ..batch import sbatch_options
from ..batch.batch_script import quote_word
from ..batch.sbatch_options import Option
from ..interrupts import Interrupts
from ..trouble import FAILED, Trouble
from .here import kforge_run
from .rehearse import Plan
from .run_log import RunLog, last_lines
from .stage import look
from .verdict import AFTER_START

#: How often Slurm is asked about the job (s): a guess.
_ASK_EVERY = 2.0
#: How long what the job has written may take to be seen from here (s): NFS looks for new files once a minute or less.
_SEEN_WITHIN = 60.0
#: How long Slurm may take to end a job that was cancelled (s): KillWait, and its own tidying up. A
#: guess.
_CANCELLED_WITHIN = 90.0
#: What a job's time limit has beside what the rehearsal may take (s): Python's start, and a minute that Slurm's own
#: notice may come early.
_MARGIN = 180.0
#: Slurm's reason where a job's folder or log could not be opened on its node, among others.
_NOT_LAUNCHED = ("JobLaunchFailure", "RaisedSignal:53")
#: What Slurm cannot launch and may not requeue it cancels so soon, though it is called running for a moment (s).
_LAUNCHED_WITHIN = 5.0
#: States of a job that holds its nodes or may get some.
_ALIVE = tables.RUNNING_STATES | tables.WAITING_STATES | {"COMPLETING"}
#: sbatch's options that the rehearsal itself needs, or that make of one job several, or none.
REFUSED = sbatch_options.NOT_IN_A_SCRIPT | {"array", "error", "open-mode", "output", "requeue", "no-requeue"}


def check_options(options: list[Option]) -> None:
    """Check sbatch's options.

    Raises:
        Trouble: one of them does not go with a rehearsal.
    """
    for option in options:
        if option.name in REFUSED:
            hint = "--log FILE is for the log" if option.name in ("output", "error") else "leave it out"
            raise Trouble(f"--{option.name} does not go with a rehearsal", hint)


def script(plan: Plan, folder: Path) -> str:
    """Return the batch script; kforge-runs further down have the same options and tell in the same folder."""
    options = {"JOURNAL": str(folder), "REQUEUE": "0", "TIMEOUT": f"{plan.lead:g}"}
    assignments = " ".join(f"KFORGE_{name}={quote_word(value)}" for name, value in options.items())
    command = " ".join(map(quote_word, [*kforge_run(), *plan.command]))
    # kforge-run would warn of a script without one. Slurm rounds nothing.
    directive = f"#SBATCH --signal=B:USR1@{math.ceil(plan.lead)}"
    return f'#!/bin/bash\n{directive}\nunset "${{!KFORGE_@}}"\nexport {assignments}\nexec {command}\n'


def time_limit(plan: Plan) -> int:
    """Return for how long the job may run (min), so that one that is forgotten does not run for ever."""
    before = max(plan.patience, AFTER_START) + (plan.after or 0.0)
    return math.ceil((before + plan.lead + _MARGIN) / 60)


class AsJob:
    """A run as a job of its own.

    Args:
        plan: what is rehearsed.
        options: sbatch's.
        folder: an empty folder that the nodes see.
        log: gets all its output.
        interrupts: kept away from sbatch, which would not tell of a job that it has submitted.

    Raises:
        Trouble: sbatch did not take it.
    """

    tick = 0.5

    def __init__(self, plan: Plan, options: list[Option], folder: Path, log: RunLog, interrupts: Interrupts) -> None:
        self.folder, self.log = folder, log
        named = {option.name for option in options}
        limited = "time" in named or os.environ.get("SBATCH_TIMELIMIT")
        command = [
            *("sbatch", "--job-name=kforge-drill"),
            *([] if limited else [f"--time={time_limit(plan)}"]),
            *map(str, options),
            *("--parsable", "--no-requeue", "--open-mode=append"),
            *(f"--{stream}={str(log.path).replace('%', '%%')}" for stream in ("output", "error")),
        ]
        text = script(plan, folder).encode("utf-8", "surrogateescape")
        with interrupts.held():
            answer = slurm_commands.run(
                command, text, slurm_commands.SUBMIT_PATIENCE, without=("SBATCH_ARRAY_INX",), submits=True
            )
        if answer.status != 0:
            raise slurm_commands.not_submitted(answer)
        self.job, _, cluster = slurm_commands.submitted_job(answer).partition(";")
        self._cluster = [f"--clusters={cluster}"] if cluster else []
        self._state, self._reason, self._nodes = "PENDING", "", ""
        self._asked_at = -math.inf
        #: When it was first seen to be over, and to run (s, monotonic).
        self._over_at: float | None = None
        self._runs_since: float | None = None

    def has_ended(self) -> bool:
        """Return whether the job has ended, and its journal's last line can be read, or will not come any more.

        Raises:
            Trouble: it runs, and what it writes is not to be seen; or Slurm could not start it, and holds it.
        """
        self._ask()
        now = time.monotonic()
        if slurm_commands.could_not_be_launched(self._reason):
            raise Trouble(
                f"Slurm could not start job {self.job} on its node ({self._reason})",
                "can the node reach this folder? slurmd's log there tells why",
                status=FAILED,
            )
        if self._over_at is None:
            silent = self._runs_since is not None and now - self._runs_since > _SEEN_WITHIN
            if silent and look(self.folder).started_at is None:
                raise self._not_seen()
            return False
        seen = look(self.folder)
        all_told = seen.over or bool(seen.not_started)
        never_ran = self._reason.startswith(_NOT_LAUNCHED) or self._was_cancelled_early
        return all_told or never_ran or now - self._over_at > _SEEN_WITHIN

    @property
    def _was_cancelled_early(self) -> bool:
        # In its log may be what slurmd says of it.
        if self._state != "CANCELLED" or self._over_at is None or look(self.folder).started_at is not None:
            return False
        return self._runs_since is None or self._over_at - self._runs_since < _LAUNCHED_WITHIN

    def _is_over(self) -> bool:
        return self._over_at is not None

    def _ask(self) -> None:
        """Ask Slurm for the job's state, if it is time; a controller that does not answer has not said anything."""
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY:
            return
        try:
            query = ["squeue", *self._cluster, "--noheader", "--states=all", f"--jobs={self.job}", "--format=%T|%r|%N"]
            answer = slurm_commands.run(query)
        except Trouble:
            return
        finally:
            self._asked_at = time.monotonic()
        fields = answer.output.strip().split("\n")[-1].split("|")
        if len(fields) == 3:
            self._state, self._reason, self._nodes = fields
        elif answer.status == 0 or "Invalid job id" in answer.errors:
            self._state = "gone"  # it ended so long ago that Slurm has forgotten it
        else:
            return
        if self._state == "RUNNING" and self._runs_since is None:
            self._runs_since = now
        if self._state not in _ALIVE and self._over_at is None:
            self._over_at = now

    def waits_for(self) -> str:
        """Return the job's state, with Slurm's reason where it waits."""
        if self._over_at is not None:
            return f"job {self.job} has ended: looking for what it has written"
        because = f" ({self._reason})" if self._reason not in ("", "None") else ""
        return f"job {self.job} is {self._state.lower()}{because}{f' on {self._nodes}' if self._nodes else ''}"

    def send_notice(self) -> None:
        """Have Slurm send SIGUSR1 to the batch process.

        Raises:
            Trouble: it does not, though the job has not ended.
        """
        answer = slurm_commands.run(["scancel", *self._cluster, "--batch", "--signal=USR1", self.job])
        if answer.status != 0:
            self._asked_at = -math.inf
            self._ask()
            if self._over_at is None:
                raise Trouble(f"the notice could not be sent: {answer.errors}", status=FAILED)

    def end(self, interrupts: Interrupts) -> None:
        """Cancel the job, and wait until it is gone: it writes where we tidy up.

        Raises:
            Trouble: Slurm does not do it.
        """
        came = interrupts.count
        cancelled = killed = False
        until = time.monotonic() + _CANCELLED_WITHIN
        while not self._is_over() and time.monotonic() < until:
            cancelled = cancelled or self._cancel()
            if interrupts.count > came and not killed:
                killed = self._cancel("--signal=KILL")
            time.sleep(self.tick)
            self._ask()
        if not self._is_over():
            raise Trouble(
                f"job {self.job} could not be cancelled, and may still run", f"scancel {self.job}", status=FAILED
            )

    def _cancel(self, *how: str) -> bool:
        """Have the job end; return whether Slurm took it, and if not try again later."""
        try:
            return slurm_commands.run(["scancel", *self._cluster, *how, self.job]).status == 0
        except Trouble:
            return False
        finally:
            self._asked_at = -math.inf

    def why_not_started(self) -> Trouble:
        """Return kforge-run's own reason, or what else there is to know."""
        if self._was_cancelled_early:
            hint = "by Slurm, if its node could not launch it: slurmd's log there tells why"
            said = "".join(f": {line}" for line in last_lines(self.log.text(), 1))
            return Trouble(f"job {self.job} was cancelled before it started{said}", hint, status=FAILED)
        text = self.log.text()
        if why := look(self.folder).not_started:
            return Trouble(why, status=self._exit_status())
        if not text:
            return self._not_seen()
        said = "".join(f": {line}" for line in last_lines(text, 1))
        return Trouble(f"job {self.job} ended before kforge-run had started{said}", status=FAILED)

    def _exit_status(self) -> int:
        _answer, records = slurm_commands.job_records(self.job, self._cluster)
        status = records[0].fields.get("ExitCode", "").partition(":")[0] if records else ""
        return int(status) if status not in ("", "0") else FAILED

    def _not_seen(self) -> Trouble:
        return Trouble(
            f"nothing that job {self.job} has written on {self._nodes or 'its node'} can be seen in {self.folder}",
            "start the drill in a folder that the nodes share with this machine",
            status=FAILED,
        )
