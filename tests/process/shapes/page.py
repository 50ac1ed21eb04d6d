"""docs/shapes.md, as the table has it."""

from __future__ import annotations

from collections.abc import Iterator

from tests import pages
from tests.process.shapes.table import GROUPS, Shape

FILE = pages.DOCS / "shapes.md"
_ABOVE = """\
# Launch shapes

<!-- python -m tests.process.shapes writes this page, of tests/process/shapes/table.py -->

Each row was started below `kforge-run`, in a batch script that ends with `exec kforge-run` and the command; the
programs are in [tests/process/shapes/programs](../tests/process/shapes/programs). Then came one SIGUSR1, as of
`--signal=B:USR1@N`, and whoever held work had to save it, once, and the run to be called checkpointed, well before
anything was ended by force. Helpers, such as data workers, an evaluation or a tracker's service, had to live until
then. The same with Slurm's own SIGTERM while somebody saved, to kforge-run's child and to every process of the job.

The last two columns say what is meant to hold of that SIGTERM, and not every row of them does yet. Slurm gives it to
every process at once where the site has `ProctrackType=proctrack/linuxproc`:

- *after a notice*: the work is saved also if it comes then. "no" is a process that holds the work, is needed to
  save it, or would start what comes then, and dies of a SIGTERM at once: nothing can keep it from that. A wrapper that
  dies of it makes the run an interrupted one, which is requeued as well.
- *alone*: the work is saved also if there was no notice before. Where it is not "yes" a shell or another program that
  dies of SIGTERM stands around the work, or in it: only a lead (`--signal=B:USR1@120`) is sure to help.

"late" is a row in which something starts after the notice, or does not end of itself: it gets its chance when SIGTERM
is due, 17 s before the end at the latest, so that the run takes that long to end.
"""


def text() -> str:
    return "\n".join([_ABOVE, *(line for group in GROUPS for line in _section(group.title, group.shapes))])


def _section(title: str, shapes: tuple[Shape, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| launched as | command | who saves | SIGTERM after a notice | SIGTERM alone |"
    yield "| --- | --- | --- | --- | --- |"
    for shape in shapes:
        command = "; ".join(filter(None, (shape.before.replace("\n", "; "), shape.command)))
        yield _row(
            f"{shape.sentence}{_needs(shape)}",
            _code(command),
            ", ".join(shape.holders),
            "late" if shape.late else "no" if shape.dies_of_sigterm else "yes",
            "yes" if shape.without_lead else "-",
        )
    yield ""


def _needs(shape: Shape) -> str:
    """Tell which modules it is tried with, where they are installed."""
    modules = [need.removeprefix("import ") for need in shape.needs if need.startswith("import ")]
    return f" (with {' and '.join(modules)})" if modules else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(command: str) -> str:
    """Return a command as code, also one with backticks in it."""
    return f"`` {command} ``" if "`" in command else f"`{command}`"
