"""The sbatch templates, and a batch script made from one: its `#SBATCH` lines set, a command put in."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from ...bootstrap import programs
from ...launcher.policy.tables import recommended_lead
from ...launcher.surroundings import AGENT_PATIENCE_VARIABLE
from ..trouble import Trouble
from . import consistency, sbatch_options
from .batch_script import BatchScript
from .sbatch_options import NOT_IN_A_SCRIPT, Option

FOLDER = Path(__file__).parents[2] / "slurm_templates"
_ENDING = ".sbatch"
#: How a template is used as it stands: no longer true of what is made from it.
_USAGE = re.compile(r"#\n#\s+sbatch .*\n")
_AGENT_PATIENCE = re.compile(rf"(export {AGENT_PATIENCE_VARIABLE}=)(\d+)")
#: A value of ``--gres`` that asks for GPUs and nothing else.
_ONLY_GPUS = re.compile(r"(?:gres:)?gpu:((?:[^:,]+:)?\d+)")
_NUMBER = re.compile(r"[0-9]{1,9}")
#: Where a template has as many of the one as of the other, so has what is made from it.
_TASKS_AND_GPUS = ("ntasks-per-node", "gpus-per-node")


def names() -> list[str]:
    """Return the names of all templates."""
    return sorted(path.name.removesuffix(_ENDING) for path in FOLDER.glob(f"*{_ENDING}"))


def description(name: str) -> str:
    """Return what a template is for, in one line."""
    return _read(name).lines[1].lstrip("# ").rstrip(":.")


class Script(NamedTuple):
    """A batch script made from a template.

    Attributes:
        text: all of it.
        given: the options that were set in it, as the template has them.
    """

    text: str
    given: list[Option]


def script(name: str, options: list[Option], command: list[str]) -> Script:
    """Return a batch script made from a template.

    Args:
        name: of the template.
        options: of sbatch, in the order in which they were given.
        command: what the job runs, as in sys.argv.

    Raises:
        Trouble: there is no such template, or the options cannot be right.
    """
    made = _read(name)
    _check_command(made, command)
    options = _per_node(made, options)
    options += _following(made, options)
    for option in options:
        _check_that_it_can_be_said(option)
        made.set(option)
    consistency.check(_options(made))
    made = BatchScript(_USAGE.sub("", made.text))
    _give_the_agent_as_long(made)
    made.put_command(command)
    return Script(made.text, options)


def _check_command(template: BatchScript, command: list[str]) -> None:
    program, text = command[0], template.text
    if os.path.basename(program) == "kforge-run":
        raise Trouble("the template starts kforge-run itself", "leave it out of the command")
    is_agent = programs.runs_one_of(command, programs.RANK_AGENTS)
    if is_agent and "exec kforge-run" in text and f" {os.path.basename(program)} " in text:
        raise Trouble(f"the template starts {program} itself", "the command is what each rank runs, like train.py")
    if re.fullmatch(r"[A-Za-z_]\w*=.*", program, re.DOTALL):
        raise Trouble(f"{program} is no program", f"env {program} …")
    if len(command) == 1 and re.search(r"\s", program) and not os.path.exists(program):
        raise Trouble(f"there is no program {program!r}", "the words of a command without quotes around them all")


def _per_node(template: BatchScript, given: list[Option]) -> list[Option]:
    """Return the options with GPUs said per node where the template says so: sbatch wants them said once."""
    given = [_gpus_of(option) for option in given]
    own = _options(template)
    values = {option.name: option.value or "" for option in given}
    if "gpus" not in values or "gpus-per-node" in values or "gpus-per-node" not in own:
        return given
    kind, colon, count = values["gpus"].rpartition(":")
    nodes = values.get("nodes", own.get("nodes") or "1")
    if not (_NUMBER.fullmatch(count) and _NUMBER.fullmatch(nodes) and int(nodes)):
        raise Trouble(f"--gpus={values['gpus']} on --nodes={nodes} cannot be shared out", "use --gpus-per-node")
    if int(count) % int(nodes):
        raise Trouble(f"{count} GPUs cannot be shared evenly by {nodes} nodes", "use --gpus-per-node")
    per_node = Option("gpus-per-node", f"{kind}{colon}{int(count) // int(nodes)}")
    return [option for option in given if option.name != "gpus"] + [per_node]


def _gpus_of(option: Option) -> Option:
    found = _ONLY_GPUS.fullmatch(option.value or "") if option.name == "gres" else None
    return option if found is None else Option("gpus-per-node", found[1])


def _following(template: BatchScript, given: list[Option]) -> list[Option]:
    """Return what follows from the options that were given: one task per GPU stays one task per GPU."""
    own = _options(template)
    values = {option.name: option.value for option in given}
    for name, other in (_TASKS_AND_GPUS, _TASKS_AND_GPUS[::-1]):
        is_alone = name in values and other not in values and not {"ntasks", "gpus", "gres"} & set(values)
        if is_alone and own.get(name) == own.get(other) and (values[name] or "").rpartition(":")[2] != "0":
            return [Option(other, (values[name] or "").rpartition(":")[2])]
    return []


def _give_the_agent_as_long(script: BatchScript) -> None:
    """Have torchrun wait for ranks that save at least as long as Slurm does, and kforge-run."""
    lead = sbatch_options.lead(_options(script).get("signal") or "").seconds
    for number, line in enumerate(script.lines):
        found = _AGENT_PATIENCE.fullmatch(line)
        if found and int(found[2]) < recommended_lead(lead):
            script.lines[number] = f"{found[1]}{recommended_lead(lead)}"


def _options(script: BatchScript) -> dict[str, str | None]:
    return {directive.option.name: directive.option.value for directive in script.directives()[0]}


def _check_that_it_can_be_said(option: Option) -> None:
    if option.name in NOT_IN_A_SCRIPT:
        raise Trouble(f"--{option.name} cannot be said in a batch script", "give it to sbatch itself")
    if option.value is not None and "\n" in option.value:
        raise Trouble(f"--{option.name}: a #SBATCH line cannot hold a line end")


def _read(name: str) -> BatchScript:
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        raise Trouble(
            f"there is no template {name!r}", f"did you mean {close[0]}?" if close else "kforge template --list"
        )
    return BatchScript((FOLDER / f"{name}{_ENDING}").read_text(encoding="utf-8"))
