"""The bootstrap is a polite guest: nothing but a signal tells whether it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from kempnerforge.bootstrap import contract
from kempnerforge.bootstrap.inject import notice, package, process
from kempnerforge.bootstrap.site import sitecustomize
from kempnerforge.launcher.meeting import inject
from tests.process.launch import (
    KFORGE_RUN,
    ROOT,
    Launch,
    Launched,
    kill_kforge_run,
    reap,
    reap_orphans,
    tidy_after,
    wait_until,
)
from tests.process.pythons import VERSIONS, python_of_version

#: kforge-run, also where PYTHONPATH does not lead to it.
KFORGE_RUN_BY_PATH = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from kempnerforge.launcher.cli import main; main()",
)
SITE = ROOT / "kempnerforge/bootstrap" / contract.SITE_FOLDER


def compare(launch: Launch, *command: str, shell: str = "", variables: dict[str, str] | None = None) -> Launched:
    """Run a command with and without kforge-run: what it writes and how it ends must be the same, byte for byte."""
    run = launch(*command, shell=shell, variables=variables, options=("--quiet",))
    out = run.rest_of_bytes()
    status = run.wait()
    without = launch.start(command, shell=shell, variables=variables)
    assert out == without.rest_of_bytes()
    ended = without.wait()
    assert status == (ended if ended >= 0 else 128 - ended)
    assert run.log_file.read_bytes() == without.log_file.read_bytes()
    return run


def code(text: str) -> tuple[str, str, str]:
    return sys.executable, "-c", text


# --- nothing shows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print(sys.path, sys.argv, sys.flags, sys.orig_argv)",
        "import sys; print([p for p in sys.path_importer_cache if 'kforge' in p])",
        # atexit is a part of the interpreter, and most programs have it.
        "import sys, atexit; print(sorted(m for m in sys.modules if not m.startswith(('sitecustomize', '_kemp'))))",
        "import sys; print(__name__, __file__ if '__file__' in globals() else None, __spec__, sys.modules['__main__'])",
        "def f(): 1/0\nf()",
        "import signal, os; os.kill(os.getpid(), signal.SIGKILL)",
        "import sys; sys.exit('over')",
        "raise SystemExit(3)",
        "import threading; print(len(threading.enumerate()), threading.active_count())",
        "import os; print(sorted(os.listdir('/proc/self/fd')))",
        "print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn', 'Thread')])",
        "import warnings, os\nwarnings.simplefilter('error')\npid = os.fork()\nif pid: print(os.waitpid(pid, 0)[1])",
        "import pickle, os; print(pickle.loads(pickle.dumps(os.getcwd)))",
        "import inspect, signal; print(inspect.signature(signal.signal), signal.signal.__doc__)",
    ],
)
def test_output_and_status_are_those_without_us(launch: Launch, text: str) -> None:
    compare(launch, *code(text))


def test_a_script_and_a_module_are_what_they_are_without_us(launch: Launch) -> None:
    package = launch.folder / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    text = "import sys\nprint(__name__, __package__, __spec__ and __spec__.name, sys.argv, sys.path[0])\n1/0\n"
    (package / "__main__.py").write_text(text)
    compare(launch, sys.executable, "-m", "pkg", "a", "b")
    compare(launch, sys.executable, str(package / "__main__.py"), "a b", "")


def test_nothing_is_imported_for_it(launch: Launch) -> None:
    run = launch(
        *code("import sys; print(*sorted({'enum', 'signal', 'threading', 'logging', 'ctypes'} & set(sys.modules)))")
    )
    run.says("")
    run.ends(0)


def test_spawned_and_forked_processes_pickle_and_import_as_without_us(
    launch: Launch, short_tmpdir: dict[str, str]
) -> None:
    (launch.folder / "train.py").write_text(
        "import multiprocessing as mp, os, sys\n"
        "def work(number): return number * 2, __name__, [p for p in sys.path if 'kforge' in p], len(sys.path)\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn', 'forkserver'):\n"
        "        with mp.get_context(method).Pool(1) as pool:\n"
        "            print(pool.map(work, [1, 2]))\n"
    )
    compare(launch, sys.executable, "train.py", variables=short_tmpdir)
    reap_orphans()  # multiprocessing's helpers may outlive their program where nobody sweeps


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors_stay_closed(launch: Launch, closed: str) -> None:
    (launch.folder / "show.py").write_text("import os\nopen('seen', 'w').write(str(os.listdir('/proc/self/fd')))\n")
    seen = launch.folder / "seen"
    found = []
    for with_us in (True, False):
        command = [sys.executable, "show.py"]
        run = launch(*command, shell=f"exec {closed}") if with_us else launch.start(command, shell=f"exec {closed}")
        assert run.wait() == 0
        found.append(seen.read_text())
        seen.unlink()
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "PYTHONSAFEPATH", "PYTHONNOUSERSITE"])
def test_pythons_own_variables_change_nothing(launch: Launch, name: str) -> None:
    compare(launch, *code("import sys; print(sys.flags, sys.path)"), variables={name: "1"})


@pytest.mark.parametrize("path", ["", ":", "here:", f"{ROOT}::here"])
def test_pythonpath_means_what_it_did(launch: Launch, path: str) -> None:
    """An empty entry is the working directory; none may come in."""
    compare(launch, *code("import sys; print(sys.path)"), variables={"PYTHONPATH": path})


def test_odd_bytes_in_arguments_environment_and_paths(launch: Launch) -> None:
    odd = launch.folder / os.fsdecode(b"tmp \xff'\"")
    odd.mkdir()
    variables = {"TMPDIR": str(odd), os.fsdecode(b"ODD\xfe"): os.fsdecode(b"\xff")}
    text = "import os, sys; print(sys.argv[1:], os.environb[b'ODD\\xfe'])"
    compare(launch, *code(text), os.fsdecode(b"\xff\xfe"), variables=variables)
    run = launch(*code("print('ready', flush=True); input()"), options=("--verbose",), variables=variables, stdin=-1)
    run.says("ready")
    run.armed()
    run.end_input()
    assert run.wait() == 1  # EOFError


# --- other people's sitecustomize ------------------------------------------------------------------------

SHOW_CUSTOM = "import sys; print(sys.modules['sitecustomize'].__file__, sys.modules['sitecustomize'].WHO)"


@pytest.mark.parametrize("form", ["sitecustomize.py", "sitecustomize/__init__.py"])
def test_a_users_own_sitecustomize_runs(launch: Launch, form: str) -> None:
    file = launch.folder / "mine" / form
    file.parent.mkdir(parents=True)
    file.write_text("import sys\nWHO = 'mine'\nprint('from mine', __name__, __file__, 'kforge' in repr(sys.path))\n")
    run = compare(launch, *code(SHOW_CUSTOM), variables={"PYTHONPATH": f"{ROOT}:{launch.folder}/mine"})
    assert run.process.returncode == 0


def test_a_virtual_environments_own_sitecustomize_runs(launch: Launch) -> None:
    venv.create(launch.folder / "venv", symlinks=True)
    (site_packages,) = (launch.folder / "venv").glob("lib/python*/site-packages")
    (site_packages / "sitecustomize.py").write_text("WHO = 'the environment'\n")
    run = compare(launch, str(launch.folder / "venv/bin/python"), "-c", SHOW_CUSTOM)
    assert run.process.returncode == 0


def test_debians_own_sitecustomize_runs(launch: Launch) -> None:
    python = "/usr/bin/python3"
    ask = [python, "-c", "import sys; sys.exit('sitecustomize' not in sys.modules)"]
    if not os.path.exists(python) or subprocess.run(ask, env={}, check=False).returncode:
        pytest.skip("no Debian Python with a sitecustomize on this machine")
    compare(launch, python, "-c", "import sys; print(sys.modules['sitecustomize'].__file__)")


@pytest.mark.parametrize(
    "what",
    ["raise ValueError('mine')", "raise SystemExit(3)", "import no_such_module", "1/0", "raise KeyboardInterrupt"],
)
def test_what_a_users_sitecustomize_raises_goes_where_it_went(launch: Launch, what: str) -> None:
    (launch.folder / "sitecustomize.py").write_text(what + "\n")
    variables = {"PYTHONPATH": f"{ROOT}:{launch.folder}"}
    run = launch(*code("print('here')"), variables=variables, options=("--quiet",))
    without = launch.start(code("print('here')"), variables=variables)
    assert run.rest() == without.rest()
    assert run.wait() == without.wait() % 256
    # A traceback, where there is one, names the frames that it went through.
    assert run.log.splitlines()[-1:] == without.log.splitlines()[-1:]


def test_a_usercustomize_runs(launch: Launch) -> None:
    user_base = launch.folder / "user"
    # Not a virtual environment's: that knows no usercustomize.
    python = str(Path(sys.base_prefix, "bin", "python3"))
    ask = [python, "-c", "import site; print(site.getusersitepackages())"]
    answer = subprocess.run(ask, env={"PYTHONUSERBASE": str(user_base)}, capture_output=True, text=True, check=True)
    folder = answer.stdout.strip()
    Path(folder).mkdir(parents=True)
    (Path(folder) / "usercustomize.py").write_text("print('from usercustomize')\n")
    run = compare(launch, python, "-c", "import usercustomize", variables={"PYTHONUSERBASE": str(user_base)})
    assert run.process.returncode == 0


# --- a package of the same name ----------------------------------------------------------------------------


def test_the_users_own_kempnerforge_is_not_shadowed(launch: Launch) -> None:
    theirs = launch.folder / "theirs/kempnerforge"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("WHO = 'theirs'\n")
    text = "import kempnerforge; print(kempnerforge.WHO)"
    run = launch.start([*KFORGE_RUN_BY_PATH, *code(text)], variables={"PYTHONPATH": str(theirs.parent)})
    run.says("theirs")
    run.ends(0)


def test_ours_is_offered_where_there_is_none(launch: Launch) -> None:
    bare = launch.folder / "venv"
    venv.create(bare, symlinks=True)
    text = "from kempnerforge.resilience import shutdown_handler as h; print(type(h).__name__, h.should_shutdown())"
    run = launch.start([*KFORGE_RUN_BY_PATH, str(bare / "bin/python"), "-c", text], variables={"PYTHONPATH": ""})
    run.says("ShutdownHandler", "False")
    run.ends(0)


# --- where it is not meant to be ---------------------------------------------------------------------------


def armed_with(launch: Launch, variables: dict[str, str]) -> bool:
    """Start a Python with the bootstrap on its path and these variables, and return whether it holds the signals."""
    text = "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith('SigCgt')])"
    run = launch.start(code(text), variables={"PYTHONPATH": str(SITE), **variables})
    (caught,) = run.rest()
    run.ends(0)
    assert run.log == ""
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def test_inert_unless_all_of_it_is_meant_for_this_process(launch: Launch) -> None:
    run = launch(*code("import os; print(os.environ['KFORGE_CONTROL'], flush=True); input()"), stdin=-1)
    control = run.line()
    node, _, rest = control.partition(":")
    folder = rest.partition(":")[2]
    assert armed_with(launch, {"KFORGE_CONTROL": control})
    for stale in (
        {},
        {"KFORGE_CONTROL": ""},
        {"KFORGE_CONTROL": "rubbish"},
        {"KFORGE_CONTROL": f"{node}x:{rest}"},
        {"KFORGE_CONTROL": control, "SLURMD_NODENAME": "elsewhere"},
        {"KFORGE_CONTROL": f"{node}:12:{folder}", "SLURM_JOB_ID": "13"},
        {"KFORGE_CONTROL": f"{node}::{folder}x"},
        {"KFORGE_CONTROL": f"{node}::/tmp/.kforge-0-1-1-x"},
    ):
        assert not armed_with(launch, stale), stale
    run.end_input()
    run.wait()
    # It has ended, and with it the folder.
    assert not armed_with(launch, {"KFORGE_CONTROL": control})


def test_inert_when_kforge_run_was_killed(launch: Launch) -> None:
    run = launch("sh", "-c", 'echo "$KFORGE_CONTROL"; exec sleep 1000')
    control = run.line()
    reap(kill_kforge_run(run))
    assert os.path.exists(control.rpartition(":")[2])
    assert not armed_with(launch, {"KFORGE_CONTROL": control})
    tidy_after(run.pid)


def test_no_embed(launch: Launch) -> None:
    text = "import os, sys; print(os.environ.get('PYTHONPATH'), 'sitecustomize' in sys.modules)"
    for with_option in (
        launch(*code(text), options=("--no-embed",)),
        launch(*code(text), variables={"KFORGE_EMBED": "0"}),
    ):
        assert with_option.line().startswith(f"{ROOT} ")
        with_option.ends(0)
        assert with_option.log == ""


def test_an_inner_kforge_run_puts_its_own_in_the_place_of_the_outers(launch: Launch) -> None:
    inner = [sys.executable, "-m", "kempnerforge.launcher"]
    run = launch(*inner, *code("import os; print(os.environ['PYTHONPATH'])"))
    run.says(f"{launch.site}:{ROOT}")
    run.ends(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_silent_on_every_python(launch: Launch, version: str) -> None:
    python = python_of_version(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    variables = {"PYTHONPATH": ""}
    text = "import sys; print([p for p in sys.path if 'kforge' in p], sys.flags); sys.stdout.flush(); sys.stdin.read()"
    run = launch.start([*KFORGE_RUN_BY_PATH, "--verbose", python, "-c", text], variables=variables, stdin=-1)
    without = launch.start([python, "-c", text], variables=variables)
    said = run.line()
    can_be_armed = tuple(map(int, version.split("."))) >= (3, 7)
    if can_be_armed:
        run.armed()
    run.end_input()
    assert [said, *run.rest()] == without.rest()
    run.ends(0)
    without.ends(0)
    assert [line for line in run.log.splitlines() if not line.startswith("kforge-run ")] == []
    assert (") can be interrupted" in run.log) == can_be_armed


def test_it_parses_as_python_2() -> None:
    source = (SITE / "sitecustomize.py").read_bytes()
    assert source.isascii()


# --- what it says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-I", "-E", "-S", "-uE"])
def test_a_python_that_does_not_read_pythonpath_is_warned_about(launch: Launch, option: str) -> None:
    run = launch(sys.executable, option, "-c", "print('ready', flush=True); input()", stdin=-1)
    run.says("ready")
    letter = next(letter for letter in option if letter in "IES")
    run.logs(rf"warning: -c \(pid \d+\) can only be interrupted from outside: started with -{letter}; a notice gets")
    end(run)


def end(run: Launched) -> None:
    run.end_input()
    run.wait()
    assert run.log.count("warning") == 1


def test_what_is_not_python_is_warned_about(launch: Launch) -> None:
    run = launch("cat", stdin=-1)
    run.logs(r"warning: nothing can be interrupted: no Python runs in cat \(pid \d+\), nor what handles SIGTERM")
    end(run)


def test_a_cleaned_environment_is_warned_about(launch: Launch) -> None:
    run = launch("env", "-i", *code("print('ready', flush=True); input()"), stdin=-1)
    run.says("ready")
    run.logs(r"warning: -c \(pid \d+\) can only be interrupted from outside: its environment was cleaned; ")
    end(run)


@pytest.mark.parametrize(
    "command",
    [
        code("print('ready', flush=True); input()"),
        ("sh", "-c", "echo ready; read line; exit 1"),
        (*KFORGE_RUN, "-q", *code("print('ready', flush=True); input()")),
        (
            "env",
            "-i",
            f"PYTHONPATH={ROOT}",
            sys.executable,
            "-c",
            "import signal, sys\nsignal.signal(signal.SIGUSR1, print)\nprint('ready', flush=True); input()",
        ),
    ],
    ids=["armed", "a shell that may start one", "another kforge-run", "cleaned, but with a handler"],
)
def test_nobody_is_warned_for_nothing(launch: Launch, command: tuple[str, ...]) -> None:
    run = launch(*command, stdin=-1)
    run.says("ready")
    looked = time.monotonic() + 2
    wait_until(lambda: time.monotonic() > looked)
    run.end_input()
    run.wait()
    assert "warning" not in run.log


def test_with_nothing_armed_a_notice_is_warned_about_when_it_comes(launch: Launch) -> None:
    """Of a shell it is not known before whether it will start a Python."""
    run = launch("sh", "-c", "trap '' USR1; echo ready; read line; exit 9", stdin=subprocess.PIPE)
    run.says("ready")
    assert run.log == ""
    run.send(signal.SIGUSR1)
    run.logs(r"warning: nothing can be interrupted: no Python runs in \w+ \(pid \d+\), nor what handles SIGTERM")
    run.give(b"\n")
    run.ends(9)


def test_the_names_are_those_of_the_contract() -> None:
    shared = set()
    for module in (sitecustomize, process, notice, package):
        for name, value in vars(module).items():
            if name.isupper() and hasattr(contract, name):
                assert value == getattr(contract, name)
                shared.add(name)
    assert len(shared) >= 9


def test_what_kforge_run_imports_as_well_is_found_in_the_same_place() -> None:
    injected = {module for modules in inject.MODULES.values() for module in modules}
    assert {module for module in injected if "/" not in module} == set(sitecustomize.SHARED)
    assert all((SITE.parent / f"{module}.py").is_file() for module in injected)
