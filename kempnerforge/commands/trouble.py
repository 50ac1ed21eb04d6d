"""What ends a command with one clear line: bad input, or something that cannot be done here."""

from __future__ import annotations

from ..launcher.policy import tables

#: A finding: the doctor's, or a drill that failed.
FOUND = 1
#: Input that cannot be right.
BAD_INPUT = 2
#: The doctor cannot tell whether there is a finding.
UNCLEAR = 3
#: It could not be done: no Slurm here, a full disk, kforge itself failed.
FAILED = tables.FAILED


class Trouble(Exception):
    """An error that the user can do something about.

    Args:
        problem: what was seen, and what was expected.
        hint: what to do; empty: the problem says it.
        status: the exit status.
    """

    def __init__(self, problem: str, hint: str = "", *, status: int = BAD_INPUT) -> None:
        super().__init__(f"{problem} (hint: {hint})" if hint else problem)
        self.status = status
