"""kforge-run's options. Only who gives one pays for click, and a run without any needs none."""

from __future__ import annotations

import math
from signal import SIGINT
from typing import TYPE_CHECKING

import click

from .. import __about__
from .policy.tables import DIED_OF, EXIT_STATUSES
from .settings import Settings
from .telling.output import complain

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Parameter = click.ParamType[float]
else:
    _Parameter = click.ParamType  # it is generic since click 8.4 only


class Seconds(_Parameter):
    """A finite number of seconds, not negative."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number (click.ParamType)."""
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a number of seconds (0 or more), like 90 or 2.5", param, ctx)
        return seconds


def _complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from .completion import complete_command

    return complete_command(context, incomplete)


_EPILOG = (
    "\b\nExit status:\n"
    + "\n".join(f"  {status:<16} {meaning}" for status, meaning in EXIT_STATUSES)
    + "\n\n\b\nExample, a whole batch script:\n"
    "  #!/bin/bash\n"
    "  #SBATCH --signal=B:USR1@120\n"
    "  #SBATCH --requeue\n"
    "  exec kforge-run python train.py\n\n"
    "Each option can also be set as a variable: KFORGE_TIMEOUT=90 for --timeout 90, KFORGE_REQUEUE=0 for --no-requeue."
)


@click.command(
    epilog=_EPILOG,
    context_settings={
        "auto_envvar_prefix": "KFORGE",
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    },
)
@click.option(
    "--timeout", type=Seconds(), metavar="SECONDS", help="Longest shutdown allowed; default: all that Slurm gives."
)
@click.option(
    "--term-grace",
    type=Seconds(),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="From SIGTERM to SIGKILL, when time is plenty.",
)
@click.option(
    "--requeue/--no-requeue", default=True, show_default=True, help="Requeue the job when the run should go on."
)
@click.option(
    "--max-requeues", type=click.IntRange(min=0), metavar="N", help="Do not requeue a job restarted N times already."
)
@click.option(
    "--retry-failures",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Requeue up to N times after a failure that no signal explains.",
)
@click.option(
    "--early-notice/--no-early-notice",
    default=True,
    show_default=True,
    help="Hear of a preemption when its grace begins, by a tiny step of the job, where that leaves more time to save.",
)
@click.option(
    "--embed/--no-embed",
    default=True,
    show_default=True,
    help="Have Python programs listen for the notice, so that a script needs no code of ours.",
)
@click.option(
    "--notify",
    type=click.Choice(["USR1", "TERM", "INT"]),
    help="Tell whoever holds the work so, if it hears it.",
)
@click.option(
    "--journal",
    type=click.Path(),
    metavar="DIR",
    help="Folder of the journals; default: kforge in the XDG state folder, inside Slurm only.",
)
@click.option(
    "--command-in-journal/--no-command-in-journal",
    default=True,
    show_default=True,
    help="Write the command's arguments into the journal, which only you can read.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings only.")
@click.option("-v", "--verbose", is_flag=True, help="Print every detail.")
@click.version_option(
    __about__.__version__,
    prog_name="kforge-run",
    allow_from_autoenv=False,  # KFORGE_VERSION is what a `module load kforge` may set
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...", shell_complete=_complete)
def kforge_run(
    timeout: float | None,
    term_grace: float,
    requeue: bool,
    max_requeues: int | None,
    retry_failures: int,
    early_notice: bool,
    embed: bool,
    notify: str | None,
    journal: str | None,
    command_in_journal: bool,
    quiet: bool,
    verbose: bool,
    command: tuple[str, ...],
) -> Settings:
    """Run COMMAND so that a time limit, a preemption or a requeue never costs more than its current step.

    kforge-run hands the notice on to the training process, waits for its checkpoint, enforces the deadline, leaves no
    process behind and requeues the Slurm job, unless its owner cancelled it.
    """
    if not command:
        raise click.UsageError("no command (hint: kforge-run python train.py)")
    return Settings(
        command=list(command),
        timeout=timeout or None,
        term_grace=term_grace,
        requeue=requeue,
        max_requeues=max_requeues,
        retry_failures=retry_failures,
        early_notice=early_notice,
        inject=embed,
        notify=notify,
        journal=journal or None,
        command_in_journal=command_in_journal,
        umask=click.get_current_context().obj,
        verbosity="verbose" if verbose else "quiet" if quiet else "normal",
    )


def options_of(arguments: list[str]) -> dict[str, object]:
    """Return the options before a command, as they were given.

    Args:
        arguments: of a kforge-run, the command included.

    Raises:
        ValueError: kforge-run has no such option, or it lacks its value.
    """
    context = click.Context(kforge_run, info_name="kforge-run", allow_interspersed_args=False)
    try:
        return dict(kforge_run.make_parser(context).parse_args(list(arguments))[0])
    except click.UsageError as error:
        raise ValueError(error.format_message()) from None


def read(umask: int | None) -> Settings | int:
    """Return what this process was asked for by its arguments and variables, or the exit status where that is all.

    Args:
        umask: see `Settings`.
    """
    try:
        asked = kforge_run.main(prog_name="kforge-run", standalone_mode=False, obj=umask)
    except click.ClickException as error:
        complain("kforge-run", error.format_message())
        return error.exit_code
    except click.Abort:
        return DIED_OF + SIGINT
    # Whoever asked for --help has got it.
    return asked if isinstance(asked, Settings) else int(asked or 0)
