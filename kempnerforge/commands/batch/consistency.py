"""What cannot be right in a job's options, whatever the cluster: refused before sbatch is asked, with a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..trouble import Trouble
from . import sbatch_options

#: Options by name, as the job will have them; None: one without a value.
Options = Mapping[str, str | None]


def check(options: Options) -> None:
    """Refuse options that contradict each other, or what kforge-run needs.

    Raises:
        Trouble: they do.
    """
    _check_lead(options)
    _check_array(options)
    _check_tasks(options)
    _check_gpus(options)


def _check_lead(options: Options) -> None:
    limit = sbatch_options.minutes_and_more(options["time"] or "") if "time" in options else None
    if "signal" not in options:
        return
    lead = sbatch_options.lead(options["signal"] or "")
    if (why := sbatch_options.why_no_notice(options["signal"] or "")) is not None:
        raise Trouble(why, f"--signal=B:USR1@{lead.seconds}")
    if limit is not None and lead.seconds >= limit:
        raise Trouble(
            f"--signal gives its notice {lead.seconds} s before the end, but --time={options['time']} is only "
            f"{limit:.0f} s: the run would stop as soon as it starts",
            "a longer --time, or a shorter lead",
        )


def _check_array(options: Options) -> None:
    value = options.get("array")
    if value is not None and not re.fullmatch(r"\[?\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?\]?", value):
        raise Trouble(f"--array={value} is no list of task numbers", "like 0-15, 1,3,7 or 0-99%10")


def _check_tasks(options: Options) -> None:
    nodes, tasks, per_node = _nodes(options), _count(options, "ntasks"), _count(options, "ntasks-per-node")
    if nodes is None or tasks is None:
        return
    if tasks < nodes:
        raise Trouble(f"--ntasks={tasks} on --nodes={nodes}: not every node would have a task", f"--ntasks={nodes}")
    if per_node is not None and tasks > nodes * per_node:
        raise Trouble(
            f"--ntasks={tasks} does not fit: --nodes={nodes} * --ntasks-per-node={per_node} is {nodes * per_node}",
            f"--ntasks={nodes * per_node}",
        )


def _check_gpus(options: Options) -> None:
    nodes = _nodes(options)
    gpus, gpus_per_node = _gpus(options, "gpus"), _gpus(options, "gpus-per-node")
    gpus_per_node = _gpus(options, "gres") if gpus_per_node is None else gpus_per_node
    per_task = _gpus(options, "gpus-per-task")
    tasks, tasks_per_node = _count(options, "ntasks"), _count(options, "ntasks-per-node")
    if gpus is None and gpus_per_node is not None and nodes is not None:
        gpus = gpus_per_node * nodes
    if tasks is None and tasks_per_node is not None and nodes is not None:
        tasks = tasks_per_node * nodes
    if gpus is not None and nodes is not None and gpus % nodes:
        raise Trouble(f"{gpus} GPUs cannot be shared evenly by {nodes} nodes", f"--gpus={-(-gpus // nodes) * nodes}")
    _check_share("ntasks-per-node", gpus_per_node, tasks_per_node, per_task)
    _check_share("ntasks", gpus, tasks, per_task)


def _check_share(option: str, gpus: int | None, tasks: int | None, per_task: int | None) -> None:
    """Refuse tasks that do not fit the GPUs.

    Args:
        option: which one says how many tasks there are.
        gpus: how many these tasks have.
        per_task: what each asks for.
    """
    if not gpus or not tasks:
        return
    if per_task and gpus != tasks * per_task:
        fits = f"--{option}={gpus // per_task}" if gpus % per_task == 0 else "a multiple of --gpus-per-task"
        raise Trouble(f"--{option}={tasks} with --gpus-per-task={per_task} does not fit {gpus} GPUs", fits)
    if not per_task and gpus % tasks:
        raise Trouble(f"--{option}={tasks} does not fit {gpus} GPUs: not every task has as many", f"--{option}={gpus}")


def _nodes(options: Options) -> int | None:
    """Return how many nodes; None: as many as it takes, or between two numbers."""
    value = options.get("nodes")
    if value is None or re.fullmatch(r"\d+[kKmM]?(-\d+[kKmM]?)|\d+[kKmM]|[\d,:-]*,[\d,:-]*", value):
        return None
    return _positive("nodes", value)


def _count(options: Options, name: str) -> int | None:
    value = options.get(name)
    return None if value is None else _positive(name, value)


def _positive(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) == 0:
        raise Trouble(f"--{name}={value} is not a number above 0")
    return int(value)


def _gpus(options: Options, name: str) -> int | None:
    """Return how many GPUs a value like `4`, `a100:4`, `a100:2,h100:2` or `gpu:a100:4` asks for; None: it does not."""
    value = options.get(name)
    if value is None:
        return None
    wanted = [part for part in value.split(",") if name != "gres" or part.removeprefix("gres:").startswith("gpu")]
    counts = [part.rpartition(":")[2] for part in wanted]
    if name == "gres":
        counts = [count if count.isdigit() else "1" for count in counts]
    if not counts:
        return None
    if not all(re.fullmatch(r"[0-9]{1,9}", count) for count in counts):
        raise Trouble(f"--{name}={value} is no number of GPUs", f"like --{name}=4 or --{name}=a100:4")
    return sum(map(int, counts))
