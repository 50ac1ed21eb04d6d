"""`kforge completion`: what a shell needs to complete the command lines of kforge and kforge-run."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..launcher.options import kforge_run

_EPILOG = """\b
Put one of these into your shell's start-up file:
  eval "$(kforge completion bash)"        # ~/.bashrc (bash 4.4 or later)
  eval "$(kforge completion zsh)"         # ~/.zshrc, after compinit
  kforge completion fish | source         # ~/.config/fish/config.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what completes command lines in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    for command, name in ((ctx.find_root().command, "kforge"), (kforge_run, "kforge-run")):
        variable = f"_{name}_COMPLETE".replace("-", "_").upper()
        complete = kind(command, {}, name, variable)
        click.echo(complete.source_template % complete.source_vars())
