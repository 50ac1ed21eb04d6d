"""The command lines of `template` and `submit`: sbatch's options as sbatch takes them, then `--` and a command."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..launcher import completion
from .batch import sbatch_options, templates
from .batch.sbatch_options import Option
from .trouble import Trouble

#: What `--help` shows, of all that sbatch takes.
_COMMON = {
    "time": "Time limit: minutes, HH:MM:SS or D-HH:MM:SS.",
    "partition": "Partition to run in.",
    "account": "Account to charge.",
    "qos": "Quality of service.",
    "nodes": "How many nodes.",
    "ntasks": "How many tasks.",
    "ntasks-per-node": "How many tasks on each node.",
    "cpus-per-task": "Processors for each task.",
    "mem": "Memory per node, like 64G.",
    "gpus": "How many GPUs, in all.",
    "gpus-per-node": "How many GPUs on each node.",
    "gpus-per-task": "How many GPUs for each task.",
    "constraint": "Features that the nodes must have.",
    "array": "Task numbers of an array, like 0-15.",
    "job-name": "Name of the job.",
    "output": "Log file; %j is the job's number, %x its name.",
    "signal": "Notice before the time limit: B:USR1@SECONDS.",
}
_LETTERS = {name: letter for letter, name in {**sbatch_options.SHORT, **sbatch_options.SHORT_FLAGS}.items()}
#: Letters that mean something else here.
_TAKEN = frozenset("oh")
_META = "kempnerforge.commands"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Given:
    """What the command line gave."""

    def __init__(self) -> None:
        self.options: list[Option] = []
        #: None: there was no `--`.
        self.command: list[str] | None = None

    @classmethod
    def of(cls, context: click.Context) -> Given:
        """Return what was given in a context."""
        given = context.meta.setdefault(_META, cls())
        assert isinstance(given, cls)
        return given


class SbatchOptionsCommand(click.Command):
    """A command that takes every option of sbatch besides its own. One that is not known here needs a `=`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options["context_settings"] = {"ignore_unknown_options": True, **options.get("context_settings", {})}
        super().__init__(*arguments, **options)
        own = {name for parameter in self.params for name in parameter.opts}
        all_of_them = [*_COMMON, *sorted(sbatch_options.KNOWN - set(_COMMON) - sbatch_options.OPTIONAL_VALUE)]
        self.params += [_parameter(name) for name in all_of_them if f"--{name}" not in own and name != "help"]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line's parts."""
        return [*filter(None, super().collect_usage_pieces(ctx)), "[SBATCH OPTIONS]"]


class SbatchCommand(SbatchOptionsCommand):
    """The same, and behind `--` it takes a command for the job.

    Its callback has `words`: what is neither, that is the name of a template.
    """

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line's parts."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND…"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take off the command for the job, and let click read the rest."""
        if "--" in args:
            end = args.index("--")
            Given.of(ctx).command = args[end + 1 :]
            args = args[:end]
        return super().parse_args(ctx, args)


def take_words(ctx: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[str]:
    """Return the words that are no options; an option that is not known here is left to sbatch (click callback)."""
    options, others = sbatch_options.parse([word for word in words if word.startswith("-")])
    if others:
        raise Trouble(f"{others[0]} is no option of sbatch's", "write long options as --key=value")
    Given.of(ctx).options += options
    return [word for word in words if not word.startswith("-")]


def check_known(given: Given, *, only_misspelt: bool = False) -> None:
    """Refuse an option that is none of sbatch's, as far as known here.

    Args:
        only_misspelt: let pass what may be a newer sbatch's.

    Raises:
        Trouble: there is one.
    """
    for option in given.options:
        if option.name not in sbatch_options.KNOWN:
            close = difflib.get_close_matches(option.name, sbatch_options.KNOWN, n=1, cutoff=0.7)
            if close or not only_misspelt:
                hint = f"did you mean --{close[0]}?" if close else "--help shows the options"
                raise Trouble(f"there is no option --{option.name}", hint)


def complete_file(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete a file (click's shell_complete)."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_command(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete what comes behind `--`: a program, then files (click's shell_complete)."""
    command = Given.of(ctx).command
    if command is None:
        return []
    return complete_file(ctx, _parameter, incomplete) if command else completion.programs(incomplete)


def complete_template(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of a template, and behind `--` a file (click's shell_complete)."""
    from click.shell_completion import CompletionItem

    if Given.of(ctx).command is not None:
        return complete_command(ctx, _parameter, incomplete)
    return [
        CompletionItem(name, help=templates.description(name))
        for name in templates.names()
        if name.startswith(incomplete)
    ]


def words_argument(metavar: str, shell_complete: Callable[..., list[Any]]) -> Callable[[_Function], _Function]:
    """Return a decorator for what is neither an option nor the command behind `--`: it becomes `words`."""
    return click.argument(
        "words",
        nargs=-1,
        type=click.UNPROCESSED,
        metavar=metavar,
        callback=take_words,
        shell_complete=shell_complete,
    )


def _parameter(name: str) -> click.Option:
    declarations = [f"--{name}", f"sbatch_{name.replace('-', '_')}"]
    if name in _LETTERS and _LETTERS[name] not in _TAKEN:
        declarations.insert(1, f"-{_LETTERS[name]}")
    is_flag = name in sbatch_options.FLAGS or name in sbatch_options.SHORT_FLAGS.values()

    def take(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            Given.of(ctx).options.append(Option(sbatch_options.long_name(name), None if is_flag else str(value)))

    return click.Option(
        declarations,
        is_flag=is_flag,
        default=None,
        metavar=None if is_flag else "VALUE",
        hidden=name not in _COMMON,
        help=_COMMON.get(name),
        expose_value=False,
        callback=take,
    )
