"""`kforge`: its commands in one group, and the one place where errors become lines."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from .. import __about__
from ..launcher.telling.output import complain, keep_standard_descriptors
from .completion import completion
from .doctor import doctor
from .drill import drill
from .report import report
from .screen import echo
from .submit import submit
from .template import template
from .trouble import BAD_INPUT, FAILED, FOUND, UNCLEAR, Trouble

_EPILOG = f"""\b
Exit status:
  0    done; doctor: nothing would lose a run; drill: PASS
  {FOUND}    doctor: something would lose a run; drill: FAIL
  {BAD_INPUT}    usage error, or input that cannot be right
  {UNCLEAR}    doctor: cannot tell
  {FAILED}  it could not be done here: no Slurm, a full disk …

\b
Examples:
  kforge template single-process --time=24:00:00 -- python train.py
  kforge submit torchrun-one-node --gpus-per-node=4 -- train.py --lr 1e-4
  kforge doctor my-script.sbatch
  kforge drill -- python train.py
  kforge report
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__about__.__version__, prog_name="kforge")
@click.pass_context
def kforge(ctx: click.Context) -> None:
    """Write the sbatch script, check it, rehearse it, read what happened.

    What runs inside the job is kforge-run.
    """
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())
        ctx.exit(BAD_INPUT)


for command in (template, submit, doctor, drill, report, completion):
    kforge.add_command(command)


def _complain(text: str) -> None:
    complain("kforge", " ".join(text.split()))


def main(umask: int | None = None) -> NoReturn:
    """Run as the program `kforge`.

    Args:
        umask: what it was before kforge began, and shall be for the user's files; None: what it is.
    """
    if umask is not None:
        os.umask(umask)
    keep_standard_descriptors()
    # Where one was closed Python has none, and what is printed is lost.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Journals and scripts hold what the terminal's encoding may not have.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # With a umask that takes our own permissions away nothing that is made here could be used, or tidied up.
    os.umask(os.umask(0o077) & 0o077)
    status = FAILED
    try:
        status = kforge.main(prog_name="kforge", standalone_mode=False) or 0
        sys.stdout.flush()
    except Trouble as trouble:
        _complain(str(trouble))
        status = trouble.status
    except click.ClickException as error:
        _complain(error.format_message())
        status = error.exit_code
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.Abort:
        status = 130  # Ctrl-C, as a shell says it
    except SystemExit:
        # `kforge report | head`: whoever read it has seen enough, and click ends so that nothing is flushed again.
        status = 0
    except OSError as error:
        _complain(str(error))
    except Exception:  # noqa: BLE001 - the one boundary: a bug in kforge has an exit status of its own
        import traceback

        echo(traceback.format_exc(), err=True)
    sys.exit(status)
