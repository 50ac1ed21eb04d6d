"""What a shell offers behind `kforge-run`: programs for the first word, files for all others."""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import CompletionItem

#: A name that means nothing to a shell: bash puts what is offered into the line as it is, and `$(…)` would be run.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+.:][A-Za-z0-9_@%+.:-]*")


def complete_command(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return completions of a word of the command."""
    return [CompletionItem(incomplete, type="file")] if context.params.get("command") else programs(incomplete)


def programs(incomplete: str) -> list[CompletionItem]:
    """Return the programs on PATH whose names begin so and are plain, or the files where it has a folder."""
    if "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    found: set[str] = set()
    for folder in os.get_exec_path():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        plain = (name for name in names if name.startswith(incomplete) and _PLAIN.fullmatch(name))
        found.update(name for name in plain if os.access(f"{folder}/{name}", os.X_OK))
    return [CompletionItem(name) for name in sorted(found)]
