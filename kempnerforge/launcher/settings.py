"""What the user asked for: option over KFORGE_* variable over default."""

from __future__ import annotations

from typing import NamedTuple

from .telling.output import Verbosity

#: The first argument of a kforge-run that another one has put into an srun, before what that hands down: JSON.
INNER_OPTION = "--inner"


class Settings(NamedTuple):
    """All options of kforge-run.

    Attributes:
        command: program and arguments of the training process.
        timeout: longest shutdown (s); None: as long as Slurm gives.
        term_grace: from SIGTERM to SIGKILL (s).
        requeue: requeue the job when the run should go on.
        max_requeues: stop requeueing after so many restarts of the job; None: no limit.
        retry_failures: requeue so many times after a failure without a notice.
        early_notice: have a step of our own listen for a preemption, where Slurm tells steps first.
        inject: have the bootstrap in Python programs.
        notify: how whoever holds the work is told: USR1, TERM or INT; None: by the best door that it has.
        journal: folder of the journals; None: the default one, inside Slurm only.
        command_in_journal: write the command's arguments into the journal, and not only its program.
        umask: of the training process; None: our own.
        verbosity: how much kforge-run says on standard error.
    """

    command: list[str]
    timeout: float | None = None
    term_grace: float = 10.0
    requeue: bool = True
    max_requeues: int | None = None
    retry_failures: int = 0
    early_notice: bool = True
    inject: bool = True
    notify: str | None = None
    journal: str | None = None
    command_in_journal: bool = True
    umask: int | None = None
    verbosity: Verbosity = "normal"
