"""What is shown: the one place where text, whoever it is from, comes to a terminal.

Names of files and jobs, lines of scripts and journals, what Slurm's commands say: all of it may have been made to move
a terminal's cursor, to set its title, to turn the direction of what is read. So whatever is shown goes through `echo`
or `echo_json`, and nothing but our own colours comes out of there as anything but letters.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from typing import Any

from ..launcher.telling.output import one_line

#: Stands for the escape character of a colour of ours. No text from elsewhere holds it: that would have to guess it.
_OURS = os.urandom(16).hex()
_STYLES = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "bright_black": 90}


def echo(text: str, *, err: bool = False) -> None:
    """Print lines; control characters, and whatever else is no letter, as escapes.

    Args:
        text: the lines, with `paint` in them.
        err: to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    shown = "\n".join(map(one_line, text.split("\n")))
    shown = shown.replace(_OURS, "\x1b") if stream.isatty() else re.sub(rf"{_OURS}\[\d+m", "", shown)
    stream.write(f"{shown}\n")
    stream.flush()


def paint(text: str, style: str) -> str:
    """Return a text that `echo` emphasizes where there is a terminal."""
    return f"{_OURS}[{_STYLES[style]}m{text}{_OURS}[0m"


def echo_json(data: Any) -> None:
    """Print data as JSON, which has escapes of its own; what is no number to JSON is null."""
    text = json.dumps(_finite(data), indent=2)
    # The one control character that JSON leaves as it is.
    echo(text.replace("\x7f", "\\u007f"))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
