"""Where kforge-run is put into an srun's command line: a row for each shape."""

from __future__ import annotations

import shlex

import pytest

from kempnerforge.launcher.asking.srun import MOST_TASKS, Verdict, put

#: What a file begins with, by its name and the folder of the task.
FILES = {
    ("./train.py", ""): "#!/usr/bin/env python3\n",
    ("./run", ""): "#! /bin/bash -e\n",
    ("torchrun", ""): "#!/home/ada/env/bin/python3.12\n",
    ("./hidden", "/data"): "#!/usr/bin/env -S python3 -u\n",
    ("./report.awk", ""): "#!/usr/bin/awk -f\n",
    ("./tool", ""): "#!/opt/pythonic\n",
}
WRAPPER = '#!/bin/bash\n# what our site adds\nexport OMP_NUM_THREADS=1\n\nexec /opt/slurm/bin/srun --mpi=pmix "$@"\n'


def verdict(line: str, *, script: str = "", **environment: str) -> Verdict:
    return put(
        ["KFORGE"],
        shlex.split(line),
        environment,
        script=script,
        first_line=lambda program, folder: FILES.get((program, folder), ""),
    )


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("srun python train.py", "srun KFORGE python train.py"),
        ("/opt/slurm/bin/srun python3.12 -u train.py", "/opt/slurm/bin/srun KFORGE python3.12 -u train.py"),
        ("srun bash run.sh", "srun KFORGE bash run.sh"),
        ("srun sh -c 'exec python \"$0\"' x", "srun KFORGE sh -c 'exec python \"$0\"' x"),
        ("srun ./train.py --mpi", "srun KFORGE ./train.py --mpi"),
        ("srun ./run", "srun KFORGE ./run"),
        ("srun torchrun --nproc-per-node=4 train.py", "srun KFORGE torchrun --nproc-per-node=4 train.py"),
        ("srun -D /data ./hidden", "srun -D /data KFORGE ./hidden"),
        ("srun --chdir=/data ./hidden", "srun --chdir=/data KFORGE ./hidden"),
        ("srun sh -c 'exec /opt/kforge-run/bin/python a'", "srun KFORGE sh -c 'exec /opt/kforge-run/bin/python a'"),
        # Options with a value, without, and with one if it is there at once.
        ("srun -n 2 -N1 --label python a", "srun -n 2 -N1 --label KFORGE python a"),
        ("srun --mem 4G --gres=gpu:2 python a", "srun --mem 4G --gres=gpu:2 KFORGE python a"),
        ("srun -lK python a", "srun -lK KFORGE python a"),
        ("srun -lK1 -un2 python a", "srun -lK1 -un2 KFORGE python a"),
        ("srun -lun 2 python a", "srun -lun 2 KFORGE python a"),
        ("srun --kill-on-bad-exit python a", "srun --kill-on-bad-exit KFORGE python a"),
        ("srun --overlap --exclusive=user python a", "srun --overlap --exclusive=user KFORGE python a"),
        ("srun --export=NONE python a", "srun --export=NONE KFORGE python a"),
        ("srun --export ALL,X='a b' python a", "srun --export ALL,X='a b' KFORGE python a"),
        ("srun --job-name : python a", "srun --job-name : python a"),  # srun takes that for two components
        # Behind "--", and a program's own options.
        ("srun -- python -n 4", "srun -- KFORGE python -n 4"),
        ("srun --label -- bash --multi-prog", "srun --label -- KFORGE bash --multi-prog"),
        ("srun python --multi-prog --help", "srun KFORGE python --multi-prog --help"),
        # Heterogeneous steps.
        ("srun -n1 python a : -n2 bash b", "srun -n1 KFORGE python a : -n2 KFORGE bash b"),
        ("srun -n1 kforge-run python a : python b", "srun -n1 kforge-run python a : KFORGE python b"),
        ("srun --het-group=0,1 python a", "srun --het-group=0,1 KFORGE python a"),
    ],
)
def test_put(line: str, becomes: str) -> None:
    found = verdict(line)
    assert found.command == shlex.split(becomes)
    assert found.is_put is (line != becomes)
    assert not found.is_put or found.tasks == "ours"
    assert not found.why_not


@pytest.mark.parametrize(
    ("line", "tasks"),
    [
        ("srun kforge-run python a", "ours"),
        ("srun -n4 /opt/bin/kforge-run -v python a", "ours"),
        ("srun python -m kempnerforge.launcher python a", "ours"),
        # Who starts a kforge-run by another program has thought of it.
        ("srun env A=1 kforge-run python a", "unknown"),
        ("srun bash -c 'ulimit -c 0; exec kforge-run python a'", "unknown"),
        # srun runs nothing, or complains.
        ("srun", "unknown"),
        ("srun -n4", "unknown"),
        ("srun python a : -n", "unknown"),
        ("srun --help", "unknown"),
        ("srun -V", "unknown"),
        ("srun -lh python a", "unknown"),
        ("srun --usage", "unknown"),
        ("srun --version", "unknown"),
        ("srun --test-only python a", "unknown"),
    ],
)
def test_unchanged_without_a_word(line: str, tasks: str) -> None:
    assert verdict(line) == Verdict(shlex.split(line), tasks, verdict(line).number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "why", "cure", "tasks"),
    [
        ("srun --multi-prog conf", "with --multi-prog", "before each program in its file", "unknown"),
        ("srun --bcast=/tmp/x python a", "with --bcast", "leave it out", "unknown"),
        ("srun --bcast python a", "with --bcast", "leave it out", "unknown"),
        ("srun --async python a", "with --async", "does not wait", "unknown"),
        ("srun --pty bash", "with --pty", "leave it out", "unknown"),
        ("srun --jobid=7 python a", "with --jobid", "leave it out", "unknown"),
        ("srun --container=/x python a", "with --container", "if the image has it", "unknown"),
        ("srun --container-image=x.sqsh python a", "with --container-image", "if the image has it", "unknown"),
        ("srun --container-writable python a", "with --container-writable", "if the image has it", "unknown"),
        # Cut short, of a plugin, with a value where it has none: the next word may be the program or not.
        ("srun --kill python a", "--kill is no option", "srun … kforge-run …", "unknown"),
        ("srun --lab python a", "--lab is no option", "srun … kforge-run …", "unknown"),
        ("srun --label=1 python a", "--label is no option", "srun … kforge-run …", "unknown"),
        ("srun --auks=yes python a", "--auks is no option", "srun … kforge-run …", "unknown"),
        ("srun -y python a", "-y is no option", "srun … kforge-run …", "unknown"),
        ("srun -lZ python a", "-Z is no option", "srun … kforge-run …", "unknown"),
        ("srun -M other python a", "-M is no option", "srun … kforge-run …", "unknown"),
        # Other programs.
        ("srun ./a.out -x", "a.out is neither", "write: srun kforge-run ./a.out -x", "strangers"),
        ("srun -n2 -- nvidia-smi", "nvidia-smi is neither", "write: srun -n2 -- kforge-run nvidia-smi", "strangers"),
        ("srun ./report.awk", "report.awk is neither", "write: ", "strangers"),
        ("srun ./tool", "tool is neither", "write: ", "strangers"),
        ("srun ./hidden", "hidden is neither", "write: ", "strangers"),
        ("srun uv run train.py", "uv is neither", "write: srun kforge-run uv run train.py", "strangers"),
        ("srun numactl -N 0 python a", "numactl is neither", "write: srun kforge-run numactl", "strangers"),
        ("srun python a : ./b", "b is neither", "write: ", "strangers"),
    ],
)
def test_refused(line: str, why: str, cure: str, tasks: str) -> None:
    found = verdict(line)
    assert found.command == shlex.split(line)
    assert not found.is_put
    assert why in found.why_not
    assert cure in found.cure
    assert found.tasks == tasks


@pytest.mark.parametrize(
    ("variable", "value", "refused"),
    [
        ("SLURM_SRUN_MULTI", "1", True),
        ("SLURM_BCAST", "/tmp/x", True),
        ("SLURM_CONTAINER", "/x", True),
        ("SRUN_CONTAINER", "/x", True),
        ("SRUN_CONTAINER_ID", "x", True),
        ("_SLURM_SPANK_OPTION_pyxis_container_image", "x.sqsh", True),
        ("PYXIS_CONTAINER", "x", True),
        ("SLURM_CONTAINER", "", False),
        ("APPTAINER_CONTAINER", "x.sif", False),
        ("SLURM_EXPORT_ENV", "NONE", False),
        ("SLURM_BCAST_EXCLUDE", "/lib", False),
    ],
)
def test_options_as_variables(variable: str, value: str, refused: bool) -> None:
    found = verdict("srun python a", **{variable: value})
    assert found.is_put is not refused
    assert (variable in found.why_not) is refused


@pytest.mark.parametrize(
    ("line", "environment", "number"),
    [
        ("srun python a", {}, 1),
        ("srun python a", {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, 4),
        ("srun python a", {"SLURM_NPROCS": "8", "SLURM_JOB_NUM_NODES": "2"}, 4),
        ("srun python a", {"SLURM_NTASKS": "32", "SLURM_NTASKS_PER_NODE": "8"}, 8),
        ("srun -n 5 python a", {"SLURM_NTASKS": "32", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "16"}, 3),
        ("srun -n16 python a", {}, 16),
        ("srun -n17 python a", {}, None),
        ("srun -n17 -N 2-4 python a", {}, 9),
        ("srun --ntasks=64 --ntasks-per-node=8 python a", {}, 8),
        ("srun --ntasks=64 --tasks-per-node=32 python a", {}, None),
        ("srun python a", {"SLURM_NTASKS": "17", "SLURM_NNODES": "1"}, None),
        ("srun -n 2k python a", {}, None),
        ("srun -N $N -n 4 python a", {}, None),
        ("srun --ntasks-per-gpu=1 python a", {"SLURM_NTASKS": "99"}, MOST_TASKS),
        ("srun --ntasks-per-gpu=2 python a", {"SLURM_NTASKS": "4"}, None),
        ("srun --ntasks-per-core=1 python a", {"SLURM_NTASKS": "4"}, None),
        ("srun --ntasks-per-core=1 -n4 python a", {}, 4),
        ("srun -n3 python a : -n2 kforge-run python b", {}, 5),
        ("srun -N0 -n4 python a", {}, 4),
    ],
)
def test_how_many_tasks_a_node_gets(line: str, environment: dict[str, str], number: int | None) -> None:
    found = verdict(line, **environment)
    assert found.is_put is (number is not None)
    assert found.number == (number or 0)
    assert ("at most 16" in found.why_not) is (number is None)


def test_so_many_kforge_runs_as_a_person_wants() -> None:
    assert verdict("srun -n64 kforge-run python a") == Verdict(shlex.split("srun -n64 kforge-run python a"), "ours", 64)


@pytest.mark.parametrize(
    ("script", "is_put"),
    [
        (WRAPPER, True),
        ('#!/bin/sh\nsrun.real "$@"', True),
        ('#!/bin/sh\nexec /usr/bin/srun --mem=0 -l  "$@"\n# the end\n', True),
        ('#!/bin/sh\n[ -n "$SLURM_JOB_ID" ] || echo no job >&2\nexec srun "$@"\n', True),
        # It looks at the words, or drops some, or may run something else.
        ('#!/bin/sh\necho "$1" >> /var/log/srun\nexec /usr/bin/srun "$@"\n', False),
        ('#!/bin/sh\nshift\nexec /usr/bin/srun "$@"\n', False),
        ('#!/bin/sh\nset -- --pty "$@"\nexec /usr/bin/srun "$@"\n', False),
        ("#!/bin/sh\nexec /usr/bin/srun $*\n", False),
        ("#!/bin/sh\nexec /usr/bin/srun $@\n", False),
        ('#!/bin/sh\nexec /usr/bin/srun --multi-prog "$@"\n', False),
        ('#!/bin/sh\nexec /usr/bin/srun --wrap "$@"\n', False),
        ('#!/bin/sh\nexec /usr/bin/srun numactl "$@"\n', False),
        ('#!/bin/sh\nexec /usr/bin/srun $OPTIONS "$@"\n', False),
        ('#!/bin/sh\nexport SLURM_BCAST=1\nexec /usr/bin/srun "$@"\n', False),
        ('#!/bin/sh\nexec sudo /usr/bin/srun "$@"\n', False),
        ('#!/bin/sh\nexec /usr/bin/srun "$@" &\n', False),
        ('#!/bin/sh\nsudo \\\n  srun "$@"\n', False),
        ("#!/usr/bin/env python3\nimport os, sys\nos.execv('/usr/bin/srun', sys.argv)\n", False),
        ("#!/bin/sh\n", False),
    ],
)
def test_a_site_that_has_a_script_for_srun(script: str, is_put: bool) -> None:
    found = verdict("srun -n2 python a", script=script)
    assert found.is_put is is_put
    assert bool(found.why_not) is not is_put
