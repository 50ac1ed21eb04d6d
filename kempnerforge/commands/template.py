"""`kforge template`: write a batch script."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import click

from . import files, sbatch_arguments, slurm_commands
from .batch import templates
from .diagnosis import findings
from .diagnosis.finding import Finding
from .diagnosis.findings import Subject
from .sbatch_arguments import Given, SbatchCommand
from .screen import echo
from .trouble import Trouble

_EPILOG = """\b
Examples:
  kforge template --list
  kforge template single-process --time=24:00:00 -- python train.py
  kforge template torchrun-one-node --gpus-per-node=8 -p gpu -o job.sbatch \\
      -- python train.py --name "run 1"

Every other option of sbatch can be given too, as --key=value. A value given
here replaces the template's own.
"""


class Made(NamedTuple):
    """A script, and what is to be said about it."""

    content: bytes
    #: What was given of sbatch's options, as its command line has them.
    options: list[str]
    #: What in it would lose a run, or is good to know: the options that were given can do that.
    found: list[Finding]
    #: What kept sbatch from being asked about it; None: sbatch takes it.
    not_checked: str | None


def make(words: list[str], given: Given, *, check: bool) -> Made:
    """Make the script that the command line asks for.

    Args:
        words: the name of a template.
        given: options of sbatch, and the command.
        check: have sbatch --test-only check it, where there is one.

    Raises:
        Trouble: it cannot be right, or sbatch would not take it.
    """
    if not words:
        raise Trouble("no template", "kforge template --list shows them")
    if len(words) > 1:
        raise Trouble(f"{words[1]!r} is too much", "the command comes behind --, and values as --key=value")
    if not given.command:
        raise Trouble("no command", f"kforge template {words[0]} -- python train.py")
    script = templates.script(words[0], given.options, given.command)
    content = script.text.encode("utf-8", "surrogateescape")
    found = findings.find(Subject(content), environment=os.environ, given=script.given)
    options = [str(option) for option in script.given]
    not_checked = _why_not_checked(content, options) if check else None
    if not_checked is not None:
        sbatch_arguments.check_known(given, only_misspelt=True)
    return Made(content, options, found, not_checked)


def _why_not_checked(content: bytes, options: list[str]) -> str | None:
    if not slurm_commands.have("sbatch"):
        return "there is no sbatch here"
    try:
        refusal = slurm_commands.why_not_accepted(content, options)
    except Trouble as trouble:
        return str(trouble)
    if refusal is not None:
        hint = slurm_commands.hint_for(refusal) or "--no-check: it is for another cluster"
        raise Trouble(f"sbatch would not take this job: {refusal}", hint)
    return None


def tell(made: Made) -> None:
    """Say on standard error what is to be said about a script."""
    for finding in made.found:
        echo(f"warning: {finding.what} (cure: {finding.cure})".replace("\n", "; "), err=True)
    if made.not_checked is not None:
        echo(f"not checked with sbatch --test-only: {made.not_checked}", err=True)


def write(made: Made, destination: str | None, *, force: bool) -> None:
    """Write a script to a file or to standard output."""
    if destination in (None, "-") and sys.stdout.isatty():
        # Read by a person, and by a terminal, which would act on what is in a name.
        echo(made.content.decode("utf-8", "surrogateescape").expandtabs().removesuffix("\n"))
    elif destination is None or destination == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(made.content)
    else:
        files.write_new(destination, made.content, force=force, mode=0o777)
        echo(f"written: {os.path.abspath(destination)}", err=True)


words_argument = sbatch_arguments.words_argument("NAME", sbatch_arguments.complete_template)
destination_option = click.option(
    "-o", "--script", "destination", type=click.Path(), metavar="FILE", help="Write the script to FILE."
)
force_option = click.option("--force", is_flag=True, help="Replace FILE if it is there.")
check_option = click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Have sbatch --test-only check the script, if there is one.",
)


@click.command(cls=SbatchCommand, epilog=_EPILOG)
@click.option("--list", "list_them", is_flag=True, help="Show the templates and what each is for.")
@destination_option
@force_option
@check_option
@words_argument
@click.pass_context
def template(
    ctx: click.Context, list_them: bool, destination: str | None, force: bool, check: bool, words: list[str]
) -> None:
    """Write a batch script.

    It runs COMMAND, and is made from the template NAME. It goes to standard output, or with -o to a file.
    """
    if list_them:
        width = max(map(len, templates.names()))
        for name in templates.names():
            echo(f"{name:<{width}}  {templates.description(name)}")
        return
    made = make(words, Given.of(ctx), check=check)
    write(made, destination, force=force)
    tell(made)
