"""`kforge drill`: rehearse the notice with the real command, and say whether it would lose a run."""

from __future__ import annotations

import os
from pathlib import Path
from signal import SIGINT
from typing import Any

import click

from ..launcher.options import Seconds
from ..launcher.policy.tables import CANNOT_EXECUTE, DIED_OF, MANUAL_WINDOW, NOT_FOUND
from . import sbatch_arguments, slurm_commands
from .interrupts import Interrupted, Interrupts
from .rehearsal import as_job, text
from .rehearsal.place import Place
from .rehearsal.rehearse import Plan
from .rehearsal.verdict import AFTER_START
from .sbatch_arguments import Given, SbatchCommand
from .screen import echo, echo_json
from .trouble import BAD_INPUT, FAILED, FOUND, Trouble

_EPILOG = f"""\b
Examples:
  kforge drill -- python train.py
  kforge drill --checkpoint 'runs/*.pt' --resume -- python train.py
  kforge drill --after 60 -- ./simulate          # it does not poll
  kforge drill --slurm --partition=gpu --gpus=1 -- python train.py

COMMAND really runs, and really saves: give it a place of its own to save to,
and enough steps that it is not done before the notice.

\b
Exit status:
  0        PASS
  {FOUND}        FAIL
  {BAD_INPUT}        usage error
  {FAILED}      it could not be rehearsed: no Slurm, a full disk ...
  {CANNOT_EXECUTE}, {NOT_FOUND} COMMAND cannot be executed, or was not found
  {DIED_OF}+n    ended by signal n (Ctrl-C: {DIED_OF + SIGINT})
"""


class _DrillCommand(SbatchCommand):
    """Takes every option of sbatch, but does not offer those that do not go with a rehearsal."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if isinstance(parameter, click.Option) and as_job.REFUSED & {name[2:] for name in parameter.opts}:
                parameter.hidden = True


@click.command(cls=_DrillCommand, epilog=_EPILOG)
@click.option("--slurm", is_flag=True, help="Rehearse as a real job; sbatch's options go with it.")
@click.option(
    "--lead",
    type=Seconds(),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="What Slurm would give: the N of --signal=B:USR1@N.",
)
@click.option(
    "--patience",
    type=Seconds(),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="How long the first poll may take; the time in Slurm's queue does not count.",
)
@click.option(
    "--after",
    type=Seconds(),
    metavar="SECONDS",
    help="How long it runs before the notice: from its first poll (default: 0), or if it does not poll"
    f" from its start (default: {AFTER_START:g}).",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(),
    multiple=True,
    metavar="PATH",
    help="A file, folder or pattern that must be written anew after the notice. Can be repeated.",
)
@click.option("--resume", is_flag=True, help="Start it once more after a PASS, until its first poll.")
@click.option("--show-output", is_flag=True, help="Show the command's output on standard error as it comes.")
@click.option(
    "--log", type=click.Path(), metavar="FILE", help="Keep the command's output; else it is kept after a FAIL."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@sbatch_arguments.words_argument("", sbatch_arguments.complete_command)
@click.pass_context
def drill(
    ctx: click.Context,
    slurm: bool,
    lead: float,
    patience: float,
    after: float | None,
    checkpoints: tuple[str, ...],
    resume: bool,
    show_output: bool,
    log: str | None,
    as_json: bool,
    words: list[str],
) -> None:
    """Rehearse the notice: does COMMAND save in time?

    It is started, told to stop as Slurm does before a time limit, and watched until it has ended.

    Prints what it measured, PASS or FAIL with the reason, and the lead to ask Slurm for.
    """
    given = Given.of(ctx)
    sbatch_arguments.check_known(given)
    if words:
        raise Trouble(f"{words[0]!r} is too much", "the command comes behind --, and values as --key=value")
    if not given.command:
        raise Trouble("no command", "kforge drill -- python train.py")
    if os.path.basename(given.command[0]) == "kforge-run":
        raise Trouble("kforge-run is started by the drill itself", "leave it out: kforge drill -- python train.py")
    if not 0 < lead <= MANUAL_WINDOW:
        hint = f"kforge-run gives {MANUAL_WINDOW:g} s to a signal that is sent by hand"
        raise Trouble(f"--lead {lead:g} is not more than 0 and at most {MANUAL_WINDOW:g}", hint)
    if slurm:
        slurm_commands.need("sbatch")
        as_job.check_options(given.options)
    elif given.options:
        raise Trouble(f"{given.options[0]} is an option of sbatch's", "it goes with --slurm")
    if log is not None and os.path.exists(log) and not os.path.isfile(log):
        raise Trouble(f"--log {log} is no file")
    plan = Plan(given.command, lead, patience, after, checkpoints)
    log_file = Path(log).absolute() if log else None
    with Interrupts() as interrupts:
        place = Place(plan, given.options if slurm else None, show_output, log_file)
        try:
            results = place.rehearse(2 if resume else 1, interrupts)
        except Interrupted as stop:
            ctx.exit(DIED_OF + stop.signum)
        if as_json:
            echo_json(text.data(plan, results, place.kept))
        else:
            echo(text.report(plan, results, place.kept))
    ctx.exit(0 if all(one.verdict.passed for one in results) else FOUND)
