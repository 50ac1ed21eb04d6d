"""`kforge submit`: write a batch script and submit it."""

from __future__ import annotations

import click

from . import slurm_commands, template
from .sbatch_arguments import Given, SbatchCommand
from .screen import echo

_EPILOG = """\b
Examples:
  kforge submit single-process --time=24:00:00 -- python train.py
  kforge submit array --array=0-15 --dry-run -- python train.py
  job=$(kforge submit single-process --parsable -- python train.py)
"""


@click.command(cls=SbatchCommand, epilog=_EPILOG)
@click.option("--dry-run", is_flag=True, help="Show the script, and submit nothing.")
@click.option("--parsable", is_flag=True, help="Print the job's number alone, as sbatch --parsable does.")
@template.destination_option
@template.force_option
@template.words_argument
@click.pass_context
def submit(
    ctx: click.Context, dry_run: bool, parsable: bool, destination: str | None, force: bool, words: list[str]
) -> None:
    """Write a batch script and submit it.

    The job runs COMMAND, its script is made from the template NAME. Prints the job's number and where its log will be.
    """
    if not dry_run:
        slurm_commands.need("sbatch")
    made = template.make(words, Given.of(ctx), check=dry_run)
    if dry_run or destination is not None:
        template.write(made, destination, force=force)
    template.tell(made)
    if dry_run:
        return
    submitted = slurm_commands.submit(made.content, made.options)
    if parsable:
        echo(submitted)
        return
    job, _, cluster = submitted.partition(";")
    echo(f"job {job}{f' on {cluster}' if cluster else ''} submitted")
    if not cluster:
        log = slurm_commands.log_of(job)
        echo(f"log: {log}{' (%a is the number of each task)' if '%a' in log else ''}")
    echo(f"cancel it: scancel {job}; what happened: kforge report {job}")
