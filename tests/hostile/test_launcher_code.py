"""Nothing that a stranger could have made is ever imported, executed or obeyed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.users import VICTIM, User
from tests.process.launch import Launched, kill_kforge_run, reap, tidy_after

CHECKPOINTED = 85

#: What the attacker wants to be run: it leaves a file that tells as whom.
PAYLOAD = "import os; open({mark!r} + str(os.getuid()), 'w').close()"
#: Prints what a program below kforge-run was given, and keeps that kforge-run alive until its input ends.
SHOW = (
    "import os, sys\n"
    "print(os.environ.get('PYTHONPATH', ''), os.environ['KFORGE_CONTROL'], flush=True)\n"
    "sys.stdin.read()\n"
)
#: Makes each folder, and in it a module of each name that a Python, a kforge-run or the bootstrap may look for.
PLANT = """
for folder in $FOLDERS; do
  mkdir -p "$folder/site" "$folder/kempnerforge/launcher" "$folder/launcher"; chmod -R 777 "$folder"
  for module in sitecustomize site/sitecustomize usercustomize kempnerforge/__init__ kempnerforge/launcher/__init__ \\
      kempnerforge/launcher/cli launcher/cli click psutil; do
    printf '%s\\n' "$PAYLOAD" >"$folder/$module.py"
  done
done
"""


@pytest.fixture
def marks(common: Path) -> Iterator[Path]:
    """Where the payload leaves its mark, whoever runs it. After the test there may be none."""
    folder = common / "marks"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    assert [file.name for file in folder.iterdir()] == []


def payload(marks: Path) -> str:
    return PAYLOAD.format(mark=f"{marks}/run-as-")


def folders_named_in(path: str, control: str) -> str:
    """Return every folder that the environment names, and the old place of the starter in a private folder."""
    private = control.rpartition(":")[2]
    return " ".join([*filter(None, path.split(":")), private, f"{private}/site"])


def environment_below(victim: User, open_tmp: Path) -> tuple[Launched, str, str]:
    """Start a kforge-run and return it, and PYTHONPATH and KFORGE_CONTROL as its child has them."""
    run = victim.begin(
        *victim.kforge_run,
        *(victim.python, "-c", SHOW),
        variables={"TMPDIR": str(open_tmp)},
        stdin=subprocess.PIPE,
    )
    path, control = run.line().split()
    return run, path, control


def leave(run: Launched) -> None:
    run.end_input()
    run.ends()


def test_the_environment_leads_nowhere_when_kforge_run_has_ended(
    victim: User, attacker: User, open_tmp: Path, marks: Path
) -> None:
    run, path, control = environment_below(victim, open_tmp)
    leave(run)
    attacker.does(PLANT, FOLDERS=folders_named_in(path, control), PAYLOAD=payload(marks))
    left_over = {"PYTHONPATH": path, "KFORGE_CONTROL": control, "TMPDIR": str(open_tmp)}
    victim.run(victim.python, "-c", "1", variables=left_over)
    victim.run(*victim.kforge_run, victim.python, "-c", "1", variables=left_over)
    shutil.rmtree(control.rpartition(":")[2])  # the attacker's


def test_the_environment_leads_nowhere_when_kforge_run_was_killed(
    victim: User, attacker: User, open_tmp: Path, marks: Path
) -> None:
    run, path, control = environment_below(victim, open_tmp)
    reap(kill_kforge_run(run))
    tidy_after(run.pid)  # as a cleaner of /tmp does it
    attacker.does(PLANT, FOLDERS=folders_named_in(path, control), PAYLOAD=payload(marks))
    victim.run(victim.python, "-c", "1", variables={"PYTHONPATH": path, "KFORGE_CONTROL": control})
    shutil.rmtree(control.rpartition(":")[2])  # the attacker's


def test_nothing_is_put_in_the_place_of_a_living_kforge_runs_folder(
    victim: User, attacker: User, open_tmp: Path, marks: Path
) -> None:
    run, path, control = environment_below(victim, open_tmp)
    private = control.rpartition(":")[2]
    folders = folders_named_in(path, control)
    attacker.does(f'mv "$PRIVATE" "$PRIVATE.old"\n{PLANT}', PRIVATE=private, FOLDERS=folders, PAYLOAD=payload(marks))
    # Compiled code, too: what the starter loads from a private folder.
    attacker.does(
        '"$PYTHON" -c "$MAKE"',
        PYTHON=attacker.python,
        MAKE=f"import marshal, importlib.util as u\n"
        f"code = marshal.dumps(compile({payload(marks)!r}, 'x', 'exec'))\n"
        f"for name in ('code', 'later code'):\n"
        f"    whole = b'/\\0' + u.MAGIC_NUMBER + marshal.dumps(dict(process=code, notice=code, shield=code))\n"
        f"    open({private!r} + '/' + name, 'wb').write(whole)\n",
    )
    left_over = {"PYTHONPATH": path, "KFORGE_CONTROL": control}
    victim.run(victim.python, "-c", "1", variables=left_over)
    victim.run(victim.python, "-c", "from kempnerforge.resilience import shutdown_handler", variables=left_over)
    leave(run)


def test_a_handler_does_not_obey_a_strangers_socket(victim: User, attacker: User, common: Path) -> None:
    """It would register there, and a notice would end the run."""
    folder = common / f".kforge-{VICTIM}-{os.getpid()}-1-0"
    folder.mkdir()
    os.chown(folder, attacker.uid, attacker.uid)
    folder.chmod(0o777)
    listen = (
        "import os, socket\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind('control'); os.chmod('control', 0o777)\n"
        'open(\'notice\', \'w\').write(\'{"signal": 15, "reason": "cancelled", "forced_exit_in": 0}\')\n'
        "s.listen(); print('ready', flush=True); s.settimeout(3)\n"
        "try: print(s.accept() and 'somebody came')\n"
        "except OSError: print('nobody came')\n"
    )
    server = attacker.begin(attacker.python, "-c", f"import os; os.chdir({str(folder)!r})\n{listen}")
    server.says("ready")
    obey = "from kempnerforge.resilience import shutdown_handler as h; print(h.should_shutdown())"
    control = f"{os.uname().nodename}::{folder}"
    output, _ = victim.run(victim.python, "-c", obey, variables={"KFORGE_CONTROL": control})
    assert output == "False\n"
    server.says("nobody came")
    server.ends()


def test_root_runs_nothing_of_a_users_environment(victim: User, open_tmp: Path, marks: Path) -> None:
    """As with `sudo -E`."""
    run, path, control = environment_below(victim, open_tmp)
    private = Path(control.rpartition(":")[2])
    code = (private / "code").read_bytes()
    make = (
        f"import marshal, importlib.util as u\n"
        f"code = marshal.dumps(compile({payload(marks)!r}, 'x', 'exec'))\n"
        f"for name in ('code', 'later code'):\n"
        f"    os.unlink({str(private)!r} + '/' + name)\n"
        f"    whole = b'/\\0' + u.MAGIC_NUMBER + marshal.dumps(dict(process=code, notice=code, shield=code))\n"
        f"    open({str(private)!r} + '/' + name, 'wb').write(whole)\n"
    )
    victim.run(victim.python, "-c", f"import os\n{make}")
    assert (private / "code").read_bytes() != code
    environment = {**victim.environment, "PYTHONPATH": path, "KFORGE_CONTROL": control}
    subprocess.run([victim.python, "-c", "1"], env=environment, check=True, cwd="/")
    leave(run)


def test_what_is_compiled_is_as_protected_as_its_source(installation: Path, victim: User, common: Path) -> None:
    """An installation that its first user compiles, with an open umask."""
    own = common / "home-of-code"
    shutil.copytree(installation, own, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chown", "-R", f"{victim.uid}:{victim.uid}", own], check=True)
    own.chmod(0o755)
    variables = {"PYTHONPATH": str(own)}
    script = victim.home / "train.py"
    script.write_text("from kempnerforge.resilience import shutdown_handler\n")
    script.chmod(0o644)
    victim.run(victim.python, own / "bin/kforge-run", "true", shell="umask 000", variables=variables)
    victim.run(victim.python, own / "bin/kforge-run", victim.python, script, shell="umask 000", variables=variables)
    victim.run(victim.python, own / "bin/kforge", "template", "--list", shell="umask 000", variables=variables)
    compiled = [path for path in (own / "kempnerforge").rglob("*") if "__pycache__" in path.parts]
    assert any(path.suffix == ".pyc" for path in compiled)
    assert [path for path in compiled if stat.S_IMODE(path.stat().st_mode) & 0o022] == []


def test_a_compiled_file_that_others_could_write_is_not_run(
    installation: Path, victim: User, attacker: User, marks: Path, common: Path
) -> None:
    """What an older kforge-run, or a Python, has left behind under `umask 000`."""
    own = common / "home-of-code"
    shutil.copytree(installation, own)
    subprocess.run(["chown", "-R", f"{victim.uid}:{victim.uid}", own], check=True)
    own.chmod(0o755)
    for cache in own.rglob("__pycache__"):
        cache.chmod(0o777)
    poison = (
        "import importlib.util as u, marshal, os, pathlib, sys\n"
        f"code = marshal.dumps(compile({payload(marks)!r}, 'x', 'exec'))\n"
        f"for source in pathlib.Path({str(own / 'kempnerforge')!r}).rglob('*.py'):\n"
        "    status = source.stat()\n"
        "    about = b''.join((int(n) & 0xffffffff).to_bytes(4, 'little')"
        " for n in (0, status.st_mtime, status.st_size))\n"
        "    for optimization in ('', '2'):\n"
        "        file = pathlib.Path(u.cache_from_source(str(source), optimization=optimization))\n"
        "        file.unlink(missing_ok=True)\n"
        "        file.write_bytes(u.MAGIC_NUMBER + about + code); file.chmod(0o666)\n"
    )
    attacker.run(attacker.python, "-c", poison)
    variables = {"PYTHONPATH": None}
    command = (victim.python, own / "bin/kforge-run")
    clean = {**variables, "PYTHONPATH": f"{own}/only-for-click"}
    (own / "only-for-click").mkdir()
    for package in ("click", "psutil"):
        shutil.copytree(installation / package, own / "only-for-click" / package)
    output, _ = victim.run(*command, victim.python, "-c", "print('ran')", variables=clean)
    assert output == "ran\n"
    victim.run(victim.python, own / "bin/kforge", "template", "--list", variables=clean)


@pytest.mark.parametrize("script", ["x/kforge-run", "job00077/slurm_script"])
def test_what_lies_beside_a_script_in_tmp_is_not_imported(
    victim: User, attacker: User, installation: Path, common: Path, marks: Path, script: str
) -> None:
    tmp = common / "sticky"
    tmp.mkdir()
    tmp.chmod(0o1777)
    copy = tmp / script
    copy.parent.mkdir()
    shutil.copy2(installation / "bin/kforge-run", copy)
    for path in (copy.parent, copy):
        os.chown(path, victim.uid, victim.uid)
        path.chmod(0o755)
    attacker.does(PLANT, FOLDERS=tmp, PAYLOAD=payload(marks))
    assert (tmp / "kempnerforge/launcher/cli.py").exists()
    output, _ = victim.run(victim.python, copy, "echo", "ran")
    assert output == "ran\n"


def test_the_working_directory_is_not_where_modules_come_from(
    victim: User, attacker: User, common: Path, marks: Path
) -> None:
    folder = common / "cwd"
    folder.mkdir()
    folder.chmod(0o777)
    attacker.does(
        'for module in click psutil json pwd; do printf "%s\\n" "$PAYLOAD" >"$FOLDER/$module.py"; done',
        FOLDER=folder,
        PAYLOAD=payload(marks),
    )
    output, _ = victim.run(
        victim.python, "-m", "kempnerforge.launcher", "echo", "ran", shell=f"cd {folder}", variables={"A": "b"}
    )
    assert output == "ran\n"


def test_pythonpath_leads_to_what_nobody_else_can_ever_make(victim: User, open_tmp: Path) -> None:
    """Whatever the place that kforge-run is installed in, each entry of ours stands this test."""
    run, path, _ = environment_below(victim, open_tmp)
    leave(run)
    site = Path(path.split(":")[0])
    assert (site / "sitecustomize.py").is_file() and [file.suffix for file in site.glob("*.py")] == [".py"]
    for folder in (site, *site.parents):
        status = folder.stat()
        assert status.st_uid in (0, victim.uid) and not status.st_mode & 0o022, folder


def test_an_installation_below_tmp_is_copied_to_the_users_state_folder(
    victim: User, installation: Path, common: Path
) -> None:
    """HOME is below /tmp here, too, as in some containers, and the user is not in passwd: then nothing is injected."""
    own = common / "checkout"
    shutil.copytree(installation, own)
    show = "import os; print(os.environ['PYTHONPATH'])"
    output, errors = victim.run(
        victim.python, own / "bin/kforge-run", victim.python, "-c", show, variables={"PYTHONPATH": str(own)}
    )
    assert output == f"{own}\n"
    assert "is below /tmp" in errors and errors.count("\n") == 1
    home = Path("/opt") / f"{common.name}-home"
    home.mkdir(mode=0o700)
    os.chown(home, victim.uid, victim.uid)
    try:
        variables = {"PYTHONPATH": str(own), "HOME": str(home)}
        output, errors = victim.run(
            victim.python, own / "bin/kforge-run", victim.python, "-c", show, shell="umask 000", variables=variables
        )
        site = output.split(":")[0]
        assert site.startswith(f"{home}/.local/state/kforge/site-") and errors == ""
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}
        assert {path for path, mode in modes.items() if mode not in (0o700, 0o600)} == set()
        # And the next time.
        again, errors = victim.run(
            victim.python, own / "bin/kforge-run", victim.python, "-c", show, shell="umask 000", variables=variables
        )
        assert (again, errors) == (output, "")
        # Another checkout of the same version, at the same time.
        starter = (Path(site) / "sitecustomize.py").read_bytes()
        with (own / "kempnerforge/bootstrap/site/sitecustomize.py").open("a") as file:
            file.write("# changed\n")
        other, errors = victim.run(
            victim.python, own / "bin/kforge-run", victim.python, "-c", show, variables=variables
        )
        assert other != output and errors == ""
        assert (Path(site) / "sitecustomize.py").read_bytes() == starter
    finally:
        shutil.rmtree(home)


def test_the_notice_still_gets_there(victim: User, open_tmp: Path) -> None:
    """All of the above is worth nothing if the bootstrap does not work for an ordinary user."""
    train = "import time\ntry: print('ready', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('saved')"
    run = victim.begin(*victim.kforge_run, victim.python, "-c", train, variables={"TMPDIR": str(open_tmp)})
    run.says("ready")
    victim.sends(run, signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)
