"""`kforge-run`: what was asked for in, exit status out. The one place where errors become lines."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from .policy.tables import CANNOT_EXECUTE, FAILED, NOT_FOUND
from .settings import INNER_OPTION, Settings
from .telling.output import complain, keep_standard_descriptors

#: What may say something of how to run a command, beside its options: theirs, and click's question for completions.
VARIABLES = frozenset(
    {f"KFORGE_{field.upper()}" for field in (*Settings._fields, "embed", "quiet", "verbose")} | {"_KFORGE_RUN_COMPLETE"}
)


def main(umask: int | None = None) -> NoReturn:
    """Run as the program `kforge-run`.

    Args:
        umask: what it was before kforge-run began; None: what it is.
    """
    keep_standard_descriptors()
    try:
        asked = _what_is_asked(sys.argv[1:], os.environ, umask)
        if isinstance(asked, Settings):
            _leave(_run(asked))
    except Exception:  # noqa: BLE001 - the one boundary: a bug in kforge-run has an exit status of its own
        import traceback

        traceback.print_exc()
        sys.exit(FAILED)
    sys.exit(asked)


def _what_is_asked(arguments: list[str], environment: Mapping[str, str], umask: int | None) -> Settings | int:
    """Return how to run which command, or the exit status where there is none to run."""
    if arguments[:1] == [INNER_OPTION] and len(arguments) > 2:
        from .inside_srun import read_inner

        try:
            return read_inner(arguments[1], arguments[2:], umask)
        except ValueError as error:
            _complain(f"{INNER_OPTION} is for kforge-run itself: {error} (hint: kforge-run python train.py)")
            return FAILED
    if arguments and not arguments[0].startswith("-") and VARIABLES.isdisjoint(environment):
        return Settings(arguments, umask=umask)
    try:
        from . import options
    except (ImportError, AttributeError, TypeError) as error:
        # An old click, or none: it lacks something that our options are declared with.
        here = getattr(sys.modules.get("click"), "__file__", None)
        cure = "install kforge-run into an environment of its own, or give no options"
        _complain(f"options need click 8.1 or newer, which {here or 'this Python'} is not: {error} (hint: {cure})")
        return FAILED
    return options.read(umask)


def _run(settings: Settings) -> int:
    from .processes.child import CannotExecute, explain
    from .supervisor import supervise

    try:
        return supervise(settings, os.environ)
    except CannotExecute as error:
        _complain(explain(error))
        return NOT_FOUND if error.errno == errno.ENOENT else CANNOT_EXECUTE
    except OSError as error:
        _complain(explain(error))
        return FAILED


def _complain(text: str) -> None:
    complain("kforge-run", text)


def _leave(status: int) -> NoReturn:
    """End at once: all is closed, and tearing the interpreter down would take as long as a short command."""
    os._exit(status)
