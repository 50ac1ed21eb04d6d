"""The bootstrap below what people really train with: torchrun, accelerate, uv, DataLoaders, Lightning, Hugging Face."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.process.launch import Launch, Launched, descendants, reap_orphans, run_below

BIN = Path(sys.prefix) / "bin"
PROGRAMS = Path(__file__).parent / "programs"
CHECKPOINTED = 85
#: The log names who is armed, and a run that is not told ends soon.
OPTIONS = ("-v", "--timeout", "30")


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where a package is missing. It is not imported here."""
    return pytest.mark.skipif(
        find_spec(package) is None, reason=f"{package} is not installed (hint: bin/test --frameworks)"
    )


def python(name: str, *arguments: object) -> list[str]:
    """Return the command line of one of the programs."""
    return [sys.executable, str(PROGRAMS / name), *map(str, arguments)]


def line_of(run: Launched, wanted: str) -> list[str]:
    """Return the words of the next line that begins with a word; frameworks say much else."""
    while (words := run.line().split())[:1] != [wanted]:
        assert words or run.process.poll() is None, f"no {wanted!r}:\n{run.log}"
    return words


class Rank(NamedTuple):
    """What cooperative.py and ctrl_c.py say when they are ready."""

    number: int
    restarts: int
    pid: int
    parent: int


def ranks_of(run: Launched, count: int, *, restarts: int = 0) -> list[Rank]:
    """Wait until so many ranks are ready, after so many restarts of all of them."""
    found: list[Rank] = []
    while len(found) < count:
        rank = Rank(*map(int, line_of(run, "ready")[1:]))
        if rank.restarts == restarts:
            found.append(rank)
    return found


def signal_all(run: Launched, agent: int, ranks: list[Rank], *, slurm_first: bool = False) -> None:
    """Send the notice, and at the same moment what Slurm may send to every process of a job."""
    if not slurm_first:
        run.send(signal.SIGUSR1)
    os.kill(agent, signal.SIGTERM)
    os.kill(agent, signal.SIGUSR1)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGTERM)
    if slurm_first:
        run.send(signal.SIGUSR1)


def each_is_told_once_and_saves(run: Launched, ranks: list[Rank], program: str) -> None:
    """Check that, and that there were no others."""
    assert sorted(run.rest()) == sorted(f"{what} {rank.number}" for rank in ranks for what in ("told", "saved")), (
        run.log
    )
    run.ends(CHECKPOINTED)
    pids = {rank.pid for rank in ranks}
    assert pids_of(run, "can be interrupted") == pids
    assert pids_of(run, "has a ShutdownHandler") == (pids if program == "cooperative.py" else set())


def pids_of(run: Launched, said: str) -> set[int]:
    """Return of which processes the log says something, and check that it says so once of each."""
    pids = [int(pid) for pid in re.findall(rf"^kforge-run \S+ .* \(pid (\d+)\) {said}$", run.log, re.MULTILINE)]
    assert len(pids) == len(set(pids))
    return set(pids)


both_programs = pytest.mark.parametrize("program", ["cooperative.py", "ctrl_c.py"])

# --- torchrun ------------------------------------------------------------------------------------------


def torchrun(*arguments: object) -> list[str]:
    # Without --log-dir it leaves a folder behind in TMPDIR.
    return [str(BIN / "torchrun"), "--standalone", "--log-dir=logs", *map(str, arguments)]


@needs("torch")
@both_programs
@pytest.mark.parametrize("slurm_first", [False, True], ids=["kforge-run first", "Slurm first"])
@pytest.mark.parametrize("count", [1, 2])
def test_every_rank_of_torchrun_is_told_once_and_saves(
    launch: Launch, count: int, slurm_first: bool, program: str
) -> None:
    run = launch(*torchrun(f"--nproc-per-node={count}", PROGRAMS / program), options=OPTIONS)
    ranks = ranks_of(run, count)
    signal_all(run, ranks[0].parent, ranks, slurm_first=slurm_first)
    each_is_told_once_and_saves(run, ranks, program)


@needs("torch")
def test_torchrun_as_a_module_is_an_agent_too(launch: Launch) -> None:
    module = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--log-dir=logs"]
    run = launch(*module, "--nproc-per-node=2", str(PROGRAMS / "ctrl_c.py"), options=OPTIONS)
    ranks = ranks_of(run, 2)
    signal_all(run, ranks[0].parent, ranks)
    each_is_told_once_and_saves(run, ranks, "ctrl_c.py")


@needs("torch")
@both_programs
def test_the_ranks_of_a_restarted_torchrun_are_told(launch: Launch, program: str) -> None:
    failing = ["--nproc-per-node=2", "--max-restarts=1", PROGRAMS / "fail_once.py", PROGRAMS / program]
    run = launch(*torchrun(*failing), options=OPTIONS)
    ranks = ranks_of(run, 2, restarts=1)
    signal_all(run, ranks[0].parent, ranks)
    assert sorted(run.rest()) == ["saved 0", "saved 1", "told 0", "told 1"], run.log
    run.ends(CHECKPOINTED)
    pids = {rank.pid for rank in ranks}
    assert pids < pids_of(run, "can be interrupted")
    if program == "cooperative.py":
        assert pids <= pids_of(run, "has a ShutdownHandler")
    delivered = run.logs(r"delivered to (.*)")[1]
    assert set(map(int, re.findall(r"\(pid (\d+)", delivered))) == pids


# --- accelerate and uv -----------------------------------------------------------------------------------


def accelerate(*arguments: object) -> list[str]:
    plain = ["--num_machines", "1", "--log_dir", "logs", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [str(BIN / "accelerate"), "launch", *plain, *map(str, arguments)]


@needs("accelerate")
@both_programs
def test_the_one_process_of_accelerate_is_told_once_and_saves(launch: Launch, program: str) -> None:
    run = launch(*accelerate("--cpu", "--num_processes", 1, PROGRAMS / program), options=OPTIONS)
    ranks = ranks_of(run, 1)
    signal_all(run, ranks[0].parent, ranks)
    each_is_told_once_and_saves(run, ranks, program)


@needs("accelerate")
@both_programs
def test_every_process_of_accelerate_is_told_once_and_saves(launch: Launch, program: str) -> None:
    # --cpu would leave the start of more than one to mpirun. The ranks do not look for a GPU.
    run = launch(*accelerate("--multi_gpu", "--num_processes", 2, PROGRAMS / program), options=OPTIONS)
    ranks = ranks_of(run, 2)
    signal_all(run, ranks[0].parent, ranks)
    each_is_told_once_and_saves(run, ranks, program)


@needs("uv")
@both_programs
def test_what_uv_runs_is_told_once_and_saves(launch: Launch, program: str) -> None:
    uv = [str(BIN / "uv"), "run", "--no-project", "--offline", "--python", sys.executable]
    cache = {"UV_CACHE_DIR": str(launch.folder / "uv")}
    run = launch(*uv, "python", str(PROGRAMS / program), options=OPTIONS, variables=cache)
    ranks = ranks_of(run, 1)
    run.send(signal.SIGUSR1)
    for pid in (ranks[0].parent, ranks[0].pid):
        os.kill(pid, signal.SIGTERM)
    each_is_told_once_and_saves(run, ranks, program)


# --- multiprocessing -------------------------------------------------------------------------------------

methods = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
both_kinds = pytest.mark.parametrize("kind", ["cooperative", "ctrl_c"])


def saves_once(run: Launched) -> None:
    """Check that the run is told, and comes to its end by itself."""
    line_of(run, "told")
    assert run.rest() == ["saved"], run.log
    run.wait()
    # A worker's thread that hands out descriptors complains if Ctrl-C comes while the main process takes one.
    run.ends(CHECKPOINTED, buggy="resource_sharer.py" in run.log)
    assert len(pids_of(run, "can be interrupted")) == 1


@needs("torch")
@both_kinds
@methods
def test_a_sigterm_to_every_process_does_not_come_between_a_dataloader_and_its_checkpoint(
    launch: Launch, short_tmpdir: dict[str, str], method: str, kind: str
) -> None:
    run = launch(*python("dataloader.py", kind, method), options=OPTIONS, variables=short_tmpdir)
    line_of(run, "ready")
    processes = run_below(run.pid)
    assert len(processes) >= 3
    run.send(signal.SIGUSR1)
    # The workers first: that one has died must not reach the main process before the notice.
    for pid in reversed(processes):
        os.kill(pid, signal.SIGTERM)
    saves_once(run)


@needs("torch")
@methods
def test_training_goes_on_when_workers_of_a_dataloader_get_stray_signals(
    launch: Launch, short_tmpdir: dict[str, str], method: str
) -> None:
    run = launch(*python("dataloader.py", "ctrl_c", method), options=OPTIONS, variables=short_tmpdir)
    line_of(run, "ready")
    (main,) = pids_of(run, "can be interrupted")
    for pid in descendants(main):
        # That one does not look after itself, and torch does without it.
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGTERM)
    for _ in range(5):
        line_of(run, "epoch")
    run.send(signal.SIGUSR1)
    saves_once(run)


@pytest.mark.parametrize(
    ("kind", "method", "count"),
    [
        ("process", "fork", 60),
        ("process", "spawn", 10),
        ("process", "forkserver", 60),
        ("busy_process", "fork", 30),
        ("busy_process", "spawn", 5),
        ("busy_process", "forkserver", 20),
        ("pool", "fork", 15),
        ("pool", "spawn", 4),
        ("pool", "forkserver", 10),
        ("executor", "fork", 30),
        ("executor", "spawn", 5),
        ("executor", "forkserver", 20),
        pytest.param("loky", "loky", 5, marks=needs("loky")),
        pytest.param("dataloader", "fork", 20, marks=needs("torch")),
        pytest.param("dataloader", "spawn", 2, marks=needs("torch")),
        pytest.param("dataloader", "forkserver", 2, marks=needs("torch")),
    ],
)
def test_whoever_starts_a_worker_can_terminate_it_at_once(
    launch: Launch, short_tmpdir: dict[str, str], kind: str, method: str, count: int
) -> None:
    command, variables = python("terminate_workers.py", kind, method, count), short_tmpdir
    run, without_us = launch(*command, options=OPTIONS, variables=variables), launch.start(command, variables=variables)
    # 255: the executor's other thread was quicker to ask. 0: a pool's worker saw first that its queue was closed.
    said, expected = ([set(line.split()) - {"0", "255"} for line in one.rest()] for one in (run, without_us))
    assert said == expected != [], run.log
    run.ends(0)
    without_us.ends(0)
    reap_orphans()  # multiprocessing's helpers may outlive their program where nobody sweeps


@pytest.mark.parametrize("closing", ["close", "keep"])
@methods
def test_a_program_that_a_worker_starts_has_no_signal_blocked(
    launch: Launch, short_tmpdir: dict[str, str], method: str, closing: str
) -> None:
    run = launch(*python("run_from_worker.py", method, closing), options=OPTIONS, variables=short_tmpdir)
    assert run.rest() == ["SigBlk:\t" + "0" * 16, "exit code 0"], run.log
    run.ends(0)


# --- frameworks with handlers of their own ---------------------------------------------------------------


def frameworks_in(folder: Path) -> dict[str, str]:
    """Return variables that keep frameworks from the network, and from leaving anything in TMPDIR."""
    return {"HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}


@needs("pytorch_lightning")
def test_lightning_finds_default_dispositions_and_its_own_handler_is_told(launch: Launch) -> None:
    run = launch(*python("lightning_train.py"), options=OPTIONS, variables=frameworks_in(launch.folder))
    assert line_of(run, "found") == ["found", "SIG_DFL", "SIG_DFL"]
    line_of(run, "ready")
    run.send(signal.SIGUSR1)
    assert line_of(run, "told") == ["told", "by", "SIGTERMException"]
    assert run.rest() == []
    run.ends(CHECKPOINTED)


@needs("transformers")
def test_hugging_face_makes_its_checkpoint_just_in_time(launch: Launch) -> None:
    output = launch.folder / "output"
    run = launch(*python("hugging_face_train.py", output), options=OPTIONS, variables=frameworks_in(launch.folder))
    line_of(run, "ready")
    run.send(signal.SIGUSR1)
    line_of(run, "ended")
    run.ends(CHECKPOINTED)
    (checkpoint,) = output.iterdir()
    assert (checkpoint / "trainer_state.json").exists()
    assert not (checkpoint / "checkpoint-is-incomplete.txt").exists()


# --- import torch ------------------------------------------------------------------------------------------


@needs("torch")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (hint: apt install strace)")
def test_import_torch_makes_hardly_more_system_calls(launch: Launch) -> None:
    with_us = import_torch(launch)
    without_us = import_torch(launch, "--no-embed")
    assert with_us <= without_us + 20


def import_torch(launch: Launch, *options: str) -> int:
    """Return how many system calls the import makes, at the least of a few times."""

    def traced() -> int:
        file = launch.folder / "trace"
        run = launch("strace", "-f", "-o", str(file), *python("import_torch.py"), options=(*OPTIONS, *options))
        run.ends(0)
        calls = file.read_text().partition('"/import begins"')[2].partition('"/import ends"')[0].splitlines()
        return sum(" resumed>" not in call for call in calls)

    return min(traced() for _ in range(3))


@needs("torch")
@pytest.mark.parametrize("form", ["two lines", "four lines"])
@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
def test_a_notice_that_comes_while_torch_is_imported_is_not_lost(
    launch: Launch, form: str, notice: signal.Signals
) -> None:
    run = launch(*python("notice_during_import.py", form), options=OPTIONS)
    run.says("importing")
    run.send(notice)
    run.logs(r"delivered to \S*notice_during_import\.py \(pid \d+\)")
    run.says("imported")
    assert run.rest() == [f"first poll True {notice.name}"], run.log
    run.ends(CHECKPOINTED)
