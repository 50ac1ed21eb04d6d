"""The launch shapes: what a user starts, who holds work in it, and who must not be hurt before that is saved.

A report of a lost run becomes a row. The programs are in programs/, and each trial has a copy of them in a folder of
its own. In every row the processes that hold work save when they hear of the end, in the way that they know of; nothing
else is changed for kforge-run's sake.
"""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """One way to start a training."""

    #: Of the test.
    name: str
    #: What the user does, for the page.
    sentence: str
    #: What stands behind `exec kforge-run`, in a batch script.
    command: str
    #: Who says SAVED, once each.
    holders: tuple[str, ...] = ("run",)
    #: Helpers that say that they are up before the notice is given.
    helpers: tuple[str, ...] = ()
    #: Lines of the batch script before that.
    before: str = ""
    #: Programs that may be missing, and modules ("import torch").
    needs: tuple[str, ...] = ()
    #: Saves as well when the first that anybody hears is Slurm's SIGTERM, to every process at once. The outermost
    #: processes are Pythons that the bootstrap is in, or have a handler: a shell or another program dies of it.
    without_lead: bool = False
    #: Slurm's SIGTERM kills what holds work, or what it needs to save, or what would start what comes then; nothing
    #: can keep it from that.
    dies_of_sigterm: bool = False
    #: What starts after the notice, or does not end of itself, gets its chance at the final stage only, so that this
    #: takes half a minute, and is tried once.
    late: bool = False
    #: What is around the training fails after the save, as without kforge-run: a run that goes on, too.
    fails_at_the_end: bool = False


class Group(NamedTuple):
    title: str
    shapes: tuple[Shape, ...]


def _methods(shape: Shape) -> tuple[Shape, ...]:
    """Return a row for each of multiprocessing's start methods."""
    return tuple(
        shape._replace(
            name=f"{shape.name}_{method}",
            sentence=f"{shape.sentence} ({method})",
            command=f"{shape.command} {method}",
        )
        for method in ("fork", "spawn", "forkserver")
    )


def _wrapper(way: str, sentence: str, *, without_lead: bool = True) -> Shape:
    return Shape(f"wrapper_{way}", sentence, f"python wrapper.py {way}", without_lead=without_lead)


def _door(door: str, sentence: str, *, without_lead: bool = True, needs: tuple[str, ...] = ()) -> Shape:
    return Shape(f"door_{door}", sentence, f"python doors.py {door}", without_lead=without_lead, needs=needs)


def _service(kind: str, sentence: str, *helpers: str, without_lead: bool = True) -> Shape:
    return Shape(f"helper_{kind}", sentence, f"python services.py {kind}", helpers=helpers, without_lead=without_lead)


RANKS = ("rank0", "rank1")
THREE = (*RANKS, "rank2")

ALONE = (
    Shape("alone", "the script itself", "python train.py", without_lead=True),
    Shape("alone_module", "`python -m`", "python -m train", without_lead=True),
    Shape("alone_code", "`python -c`", "python -c 'import train; train.train()'", without_lead=True),
    Shape("alone_stdin", "a script on standard input", "python - < train.py", without_lead=True),
    Shape("alone_profiled", "`python -m cProfile`", "python -m cProfile -o profile train.py", without_lead=True),
    Shape("alone_isolated", "`python -I`", "python -I train.py", dies_of_sigterm=True),
    Shape("alone_no_environment", "`python -E`", "python -E train.py", dies_of_sigterm=True),
    Shape("alone_no_site", "`python -S`", "python -S train.py", dies_of_sigterm=True),
    Shape("alone_empty_environment", "`env -i`", 'env -i PATH="$PATH" python train.py', dies_of_sigterm=True),
    Shape("alone_no_write", "`python -B -u -X dev`", "python -B -u -X dev train.py", without_lead=True),
    Shape("alone_exec", "a script that becomes the trainer", "python wrapper.py execs", without_lead=True),
    Shape("cooperative", "polls `shutdown_handler`", "python cooperative.py plain", without_lead=True),
    Shape(
        "cooperative_thread", "polls it in a thread, while the main thread waits", "python cooperative.py in_a_thread"
    ),
    Shape(
        "cooperative_descriptors",
        "polls it, and has closed every descriptor that it does not know",
        "python cooperative.py without_descriptors",
    ),
    Shape("names_us", "names kempnerforge, and does not use it", "python names_us.py", without_lead=True),
)

PYTHONS = (
    _wrapper("run", "`subprocess.run`"),
    _wrapper("run_checked", "`subprocess.run(check=True)`"),
    _wrapper("run_captured", "`subprocess.run(capture_output=True)`"),
    _wrapper("run_with_timeout", "`subprocess.run(timeout=…)`"),
    _wrapper("call", "`subprocess.call`"),
    _wrapper("check_call", "`subprocess.check_call`"),
    _wrapper("check_output", "`subprocess.check_output`"),
    _wrapper("shell", "`shell=True`", without_lead=False),
    _wrapper("shell_exec", "`shell=True`, with `exec`"),
    _wrapper("wait", "`Popen.wait`"),
    _wrapper("context", "`with Popen(…)`"),
    _wrapper("poll", "`Popen.poll` now and then"),
    _wrapper("poll_with_finally", "`Popen.poll` now and then, and `kill` in `finally`"),
    _wrapper("lines", "reads its output line by line"),
    _wrapper("communicate", "`Popen.communicate`"),
    _wrapper("communicate_in_a_thread", "`Popen.communicate` in a thread"),
    _wrapper("new_session", "`start_new_session=True`"),
    _wrapper("run_in_a_thread", "`subprocess.run` in a thread"),
    _wrapper("run_in_an_executor", "`subprocess.run` in a `ThreadPoolExecutor`"),
    _wrapper("system", "`os.system`", without_lead=False),
    _wrapper("popen", "`os.popen`", without_lead=False),
    _wrapper("spawn", "`os.spawnv`"),
    _wrapper("fork", "`os.fork`, `os.execv` and `os.waitpid`"),
    _wrapper("posix_spawn", "`os.posix_spawn`"),
    _wrapper("terminal", "`pty.spawn`"),
    _wrapper("coroutine", "`asyncio.create_subprocess_exec`"),
    _wrapper("coroutine_reads", "the same, reading its output"),
    _wrapper(
        "coroutine_beside_a_timer", "`asyncio.create_subprocess_shell`, with something else to do", without_lead=False
    ),
    _wrapper("logs_an_interrupt", "kills its trainer when it is interrupted itself"),
    _wrapper("restarts", "starts again what has failed"),
    Shape("wrapper_uploads", "uploads the checkpoint afterwards", "python wrapper.py uploads", ("run", "upload")),
    Shape(
        "wrapper_uploads_itself",
        "uploads the checkpoint afterwards, in its own process",
        "python wrapper.py uploads_itself",
        ("run", "upload"),
    ),
    Shape(
        "wrapper_of_wrappers",
        "Python, bash, Python, bash and the trainer",
        "python agents.py ignore bash -c 'python agents.py forward bash run.sh; exit $?'",
        before="printf 'python train.py\\nexit $?\\n' > run.sh",
    ),
)

SHELLS = (
    Shape("shell", "a shell that waits", "bash -c 'python train.py; exit $?'"),
    Shape("shell_exec", "a shell that becomes the trainer", "bash -c 'exec python train.py'", without_lead=True),
    Shape("shell_background", "in the background, and `wait`", "bash -c 'python train.py & wait $!'"),
    Shape("shell_function", "a function", "bash -c 't() { python train.py; }; t; exit $?'"),
    Shape("shell_tee", "a pipe to `tee`", "bash -c 'set -o pipefail; python train.py | tee log; exit $?'"),
    Shape("shell_stdin", "a pipe from a feeder", "bash -c 'yes | python train.py; exit $?'"),
    Shape(
        "shell_trap",
        "a trap that hands SIGTERM on",
        "bash -c 'trap \"kill -TERM \\$pid\" TERM; python doors.py sigterm & pid=$!; wait $pid; wait $pid'",
    ),
    Shape("shell_trap_empty", "`trap '' TERM`", "bash -c 'trap \"\" TERM; python train.py; exit $?'"),
    Shape(
        "shell_pythonpath",
        "sets PYTHONPATH anew",
        "bash -c 'export PYTHONPATH=$PWD; python train.py; exit $?'",
        dies_of_sigterm=True,
    ),
    Shape("shell_tmpdir", "empties TMPDIR", "bash -c 'rm -rf $TMPDIR/* $TMPDIR/.[!.]*; python train.py; exit $?'"),
    Shape(
        "shell_two",
        "two ranks in the background",
        "bash -c 'for r in 0 1; do RANK=$r python train.py rank$r & done; wait'",
        RANKS,
    ),
    Shape(
        "shell_log",
        "`exec > >(tee log) 2>&1` before it",
        "python doors.py prints_much",
        before="exec > >(tee log) 2>&1",
        dies_of_sigterm=True,
    ),
    Shape(
        "shell_monitor",
        "a monitor beside the trainer",
        "bash -c 'while :; do sleep 0.2; done & python train.py; kill %1; exit 0'",
    ),
    Shape(
        "shell_server",
        "a server beside the trainer",
        "bash -c 'python helper.py serve & python train.py; exit $?'",
        helpers=("server",),
    ),
    Shape(
        "shell_upload",
        "uploads the checkpoint afterwards",
        "bash -c 'python train.py && python upload.py; exit $?'",
        ("run", "upload"),
        dies_of_sigterm=True,
    ),
    Shape(
        "shell_one_after_another",
        "one training after another",
        "bash -c 'for s in 1 2; do python train.py $s; done'",
        ("1", "2"),
        late=True,
    ),
)

TOOLS = (
    Shape("tool_env", "`env`", "env A=b python train.py", without_lead=True),
    Shape("tool_nice", "`nice`", "nice python train.py", without_lead=True),
    Shape("tool_nohup", "`nohup`", "nohup python train.py", without_lead=True),
    Shape("tool_stdbuf", "`stdbuf`", "stdbuf -oL python train.py", without_lead=True),
    Shape("tool_timeout", "`timeout`", "timeout 100 python train.py"),
    Shape("tool_setsid", "`setsid`", "setsid -w python train.py"),
    Shape("tool_setsid_fork", "`setsid --fork --wait`", "setsid --fork --wait python train.py"),
    Shape("tool_time", "`time`", "bash -c 'time python train.py'"),
    Shape("tool_gnu_time", "GNU time", "env time -v python train.py", needs=("time",)),
    Shape(
        "tool_script", "`script`", "script -qec 'python train.py' /dev/null", needs=("script",), dies_of_sigterm=True
    ),
    Shape("tool_xargs", "`xargs`", "bash -c 'echo run | xargs python train.py'"),
    Shape("tool_xargs_ranks", "`xargs -P`", "bash -c 'printf \"rank0 rank1\" | xargs -n1 -P2 python train.py'", RANKS),
    Shape(
        "tool_parallel",
        "GNU parallel",
        "parallel --will-cite -j2 python train.py ::: rank0 rank1",
        RANKS,
        needs=("parallel",),
    ),
    Shape("tool_make", "`make`", "make train", needs=("make",)),
    Shape("tool_flock", "`flock`", "flock lock python train.py", needs=("flock",)),
    Shape("tool_taskset", "`taskset`", "taskset -c 0 python train.py", needs=("taskset",), without_lead=True),
    Shape("tool_numactl", "`numactl`", "numactl --all python train.py", needs=("numactl",), without_lead=True),
    Shape("tool_strace", "`strace`", "strace -f -o trace -e trace=none python train.py", needs=("strace",)),
    Shape(
        "tool_unshare",
        "a PID namespace",
        "unshare --fork --pid --mount-proc python train.py",
        needs=("root", "unshare"),
    ),
    Shape("tool_su", "`su`", 'su root -s /bin/bash -c "PATH=$PATH python train.py"', needs=("root", "su")),
    Shape("tool_tini", "`dumb-init`", "dumb-init python train.py", needs=("dumb-init",)),
    Shape(
        "tool_mpirun",
        "`mpirun`",
        "mpirun --allow-run-as-root --oversubscribe -n 2 bash -c 'python train.py rank$OMPI_COMM_WORLD_RANK; exit $?'",
        RANKS,
        needs=("mpirun",),
    ),
    Shape("tool_py_spy", "`py-spy record`", "py-spy record -o profile -f raw -- python train.py", needs=("py-spy",)),
)

LAUNCHERS = (
    Shape(
        "launcher_forwards",
        "starts it and hands signals on, as `conda run` does",
        "python agents.py forward python train.py",
        without_lead=True,
    ),
    Shape(
        "launcher_forwards_perl",
        "the same in a program that is no Python, as `uv run` does",
        "perl forward.pl python train.py",
        needs=("perl",),
    ),
    Shape(
        "launcher_becomes",
        "becomes it, as `poetry run` does",
        "python agents.py becomes python train.py",
        without_lead=True,
    ),
    Shape("launcher_ignores", "ignores Ctrl-C and waits", "python agents.py ignore python train.py", without_lead=True),
    Shape(
        "launcher_deadline",
        "a rank agent with a SIGTERM handler and too short a deadline",
        "python agents.py deadline",
        RANKS,
        without_lead=True,
    ),
    Shape(
        "launcher_sessions",
        "the same, with a session for each rank",
        "python agents.py deadline_sessions",
        RANKS,
        without_lead=True,
    ),
    Shape(
        "launcher_all_fail",
        "a rank agent that kills all ranks when one has failed",
        "python agents.py one_fails_all_fail",
        RANKS,
        without_lead=True,
    ),
    Shape(
        "launcher_uv",
        "`uv run`",
        'env UV_CACHE_DIR=cache uv run --no-project --offline --python "$(command -v python)" python train.py',
        needs=("uv",),
    ),
    Shape(
        "launcher_torchrun",
        "`torchrun`",
        "torchrun --standalone --log-dir=logs --nproc-per-node=2 agents.py ranked",
        RANKS,
        needs=("import torch",),
        without_lead=True,
    ),
    Shape(
        "launcher_accelerate",
        "`accelerate launch`",
        "accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no train.py",
        needs=("import accelerate",),
    ),
    Shape(
        "launcher_papermill",
        "`papermill`",
        "papermill train.ipynb out.ipynb",
        needs=("import papermill", "import ipykernel"),
        fails_at_the_end=True,
    ),
    Shape(
        "launcher_nbconvert",
        "`jupyter nbconvert --execute`",
        "jupyter nbconvert --to notebook --execute --output out.ipynb train.ipynb",
        needs=("import nbconvert", "import ipykernel"),
        fails_at_the_end=True,
    ),
    Shape("launcher_ipython", "`ipython`", "ipython train.py", needs=("import IPython",)),
    Shape("launcher_snakemake", "`snakemake`", "snakemake --cores 1 --quiet", needs=("import snakemake",)),
    Shape("launcher_hydra", "`@hydra.main`", "python hydra_train.py", needs=("import hydra",), without_lead=True),
)

PROCESSES = (
    *_methods(
        Shape(
            "process_join",
            "trains in a `multiprocessing.Process` and waits in `join()`",
            "python process.py join",
            without_lead=True,
        )
    ),
    *_methods(
        Shape(
            "process_timeout",
            "looks for its end again and again",
            "python process.py joins_with_timeout",
            without_lead=True,
        )
    ),
    *_methods(
        Shape(
            "process_results",
            "waits for what it puts into a queue",
            "python process.py reads_results",
            without_lead=True,
        )
    ),
    *_methods(
        Shape("process_ranks", "two ranks, and waits for both", "python process.py ranks", RANKS, without_lead=True)
    ),
    *_methods(
        Shape("process_nested", "a process that trains in a process", "python process.py nested", without_lead=True)
    ),
    *_methods(
        Shape(
            "world",
            "rank 0 in the parent, the others in its processes; all meet to save",
            "python worlds.py processes",
            THREE,
            without_lead=True,
        )
    ),
    Shape(
        "world_programs",
        "rank 0 starts the script once more for each other rank; all meet to save",
        "python worlds.py programs",
        THREE,
        without_lead=True,
    ),
    Shape(
        "process_torch",
        "`torch.multiprocessing.spawn`",
        "python torch_spawn.py",
        RANKS,
        needs=("import torch",),
        without_lead=True,
    ),
)

HELPERS = (
    *_methods(
        Shape(
            "pool_worker",
            "a daemonic worker with queues",
            "python pools.py worker",
            helpers=("worker",),
            without_lead=True,
        )
    ),
    *_methods(Shape("pool", "`multiprocessing.Pool`", "python pools.py pool", helpers=("worker",), without_lead=True)),
    *_methods(
        Shape(
            "pool_executor", "`ProcessPoolExecutor`", "python pools.py executor", helpers=("worker",), without_lead=True
        )
    ),
    *_methods(
        Shape(
            "pool_waited_for",
            "workers that are busier than the trainer",
            "python pools.py waits_for_data",
            helpers=("worker",),
            without_lead=True,
        )
    ),
    *_methods(
        Shape(
            "pool_nested",
            "a trainer in a process, with a `Pool`",
            "python pools.py nested",
            helpers=("worker",),
            without_lead=True,
        )
    ),
    _service("evaluation_run", "an evaluation by `subprocess.run(check=True)`", "evaluation"),
    _service("evaluation_output", "an evaluation by `subprocess.check_output`", "evaluation"),
    _service("evaluation_wait", "an evaluation by `Popen.wait`", "evaluation"),
    _service("tracker", "a tracker's service, to which the last metrics go"),
    _service("tracker_in_a_session", "the same in a session of its own"),
    _service("compiler", "a compile worker that ignores Ctrl-C"),
    _service("sink", "a service that is no Python", without_lead=False)._replace(dies_of_sigterm=True),
    _service("server", "a server that it starts and ends", "server"),
    _service("loader", "data by a pipe from a program that is busier", "loader"),
    _service("upload_in_a_thread", "an upload of the checkpoint before", "evaluation"),
    *(
        Shape(
            f"helper_dataloader_{method}",
            f"torch's DataLoader ({method})",
            f"python dataloader.py {method}",
            needs=("import torch",),
            without_lead=True,
        )
        for method in ("fork", "spawn", "forkserver")
    ),
    Shape("helper_joblib", "joblib's workers", "python joblib_train.py", needs=("import joblib",), without_lead=True),
    Shape("helper_wandb", "wandb's service", "python wandb_train.py", needs=("import wandb",), dies_of_sigterm=True),
    Shape("helper_ray", "a driver of ray's that trains itself", "python ray_driver.py", needs=("import ray",)),
    Shape(
        "helper_gunicorn",
        "gunicorn beside the trainer",
        "bash -c 'gunicorn -b 127.0.0.1:0 app:wsgi & python train.py; exit $?'",
        helpers=("server",),
        needs=("import gunicorn",),
    ),
    Shape(
        "helper_uvicorn",
        "uvicorn beside the trainer",
        "bash -c 'uvicorn --port 0 app:asgi & python train.py; exit $?'",
        helpers=("server",),
        needs=("import uvicorn",),
    ),
)

DOORS = (
    _door("sigterm", "a SIGTERM handler"),
    _door("sigusr1", "a SIGUSR1 handler"),
    _door("sigint", "a SIGINT handler"),
    _door("sigterm_and_sigusr1", "one handler for both"),
    _door("sigterm_not_sigint", "a SIGTERM handler, and SIGINT ignored"),
    _door("leaves_at_sigterm", "`sys.exit` at SIGTERM, and the save in `finally`"),
    _door("saves_in_the_handler", "the save in the handler itself"),
    _door("raises_at_sigterm", "an exception of its own at SIGTERM"),
    _door("saves_at_exit", "`atexit` after Ctrl-C"),
    _door("saves_in_a_context", "a context manager's `__exit__`"),
    _door("saves_whatever_comes", "`except BaseException`"),
    _door("stacks_on_sigusr1", "`faulthandler.register(SIGUSR1)`, and Ctrl-C"),
    _door("swallows_the_first", "the first Ctrl-C swallowed by a bare `except`"),
    _door("handler_in_c", "a SIGTERM handler in C"),
    _door("sigterm_waited_for", "SIGTERM blocked, and `sigwait` in a thread"),
    _door("sigusr1_waited_for", "SIGUSR1 blocked, and `sigwait` in a thread"),
    _door("sigterm_looked_for", "SIGTERM blocked, and `sigtimedwait` after each step"),
    _door("wakeup_fd", "`signal.set_wakeup_fd`"),
    _door("asyncio_sigterm", "asyncio's `add_signal_handler(SIGTERM)`"),
    _door("asyncio_sigusr1", "asyncio's `add_signal_handler(SIGUSR1)`"),
    _door("asyncio_sigint", "asyncio's `add_signal_handler(SIGINT)`"),
    _door("uvloop_sigterm", "uvloop's `add_signal_handler(SIGTERM)`", needs=("import uvloop",)),
    _door("asyncio_ctrl_c", "Ctrl-C around `asyncio.run`"),
    _door("hook_of_a_tracker", "a tracker's SIGTERM hook that flushes and dies, and Ctrl-C"),
    _door("in_a_thread", "a thread that trains, and a main thread that tells it"),
    _door("in_a_joined_thread", "Ctrl-C in `Thread.join`"),
    _door("among_zombies", "fifty zombies below it"),
    _door("among_comers_and_goers", "processes that come and go below it"),
    Shape("foreign_bash", "a bash script with a trap for SIGTERM", "bash save.sh", without_lead=True),
    Shape(
        "foreign_perl", "a Perl program with a SIGTERM handler", "perl save.pl TERM", needs=("perl",), without_lead=True
    ),
    Shape(
        "foreign_perl_int",
        "a Perl program with a SIGINT handler",
        "perl save.pl INT",
        needs=("perl",),
        dies_of_sigterm=True,
    ),
    Shape(
        "foreign_c",
        "a C program with a SIGTERM handler",
        "./save",
        before="cc -o save save.c",
        needs=("cc",),
        without_lead=True,
    ),
    Shape(
        "foreign_below",
        "the same below a shell",
        "bash -c './save; exit $?'",
        before="cc -o save save.c",
        needs=("cc",),
    ),
)

#: In this order on the page.
GROUPS = (
    Group("The program itself", ALONE),
    Group("Below a Python", PYTHONS),
    Group("Below a shell", SHELLS),
    Group("Below a tool", TOOLS),
    Group("Below a launcher, a workflow or a notebook", LAUNCHERS),
    Group("In processes of its own", PROCESSES),
    Group("With helpers below it", HELPERS),
    Group("How it hears of the end", DOORS),
)
SHAPES = tuple(shape for group in GROUPS for shape in group.shapes)
#: Shapes whose outermost process holds no work: in the others a signal to the child is one to all who matter.
WRAPPED = frozenset(shape.name for shapes in (PYTHONS, SHELLS, TOOLS, LAUNCHERS) for shape in shapes)
