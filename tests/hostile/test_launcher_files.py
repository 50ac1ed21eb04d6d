"""Nothing of a stranger's is written to or deleted, and what we make is for nobody else to read."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.hostile.users import User, become
from tests.process.launch import Launched

#: A program below kforge-run that says where the private folder is, and goes on until its input ends.
WAIT = ("sh", "-c", 'echo "$KFORGE_CONTROL"; cat >/dev/null')


def start_waiting(victim: User, tmp: Path) -> tuple[Launched, Path]:
    """Start a kforge-run and return it with its private folder."""
    run = victim.begin(*victim.kforge_run, *WAIT, variables={"TMPDIR": str(tmp)}, stdin=subprocess.PIPE)
    return run, Path(run.line().rpartition(":")[2])


def stop_waiting(run: Launched) -> None:
    run.end_input()
    run.ends()


def test_the_end_deletes_nothing_through_a_link(victim: User, attacker: User, open_tmp: Path) -> None:
    data = victim.home / "data"
    victim.does('mkdir -m 755 "$DATA"; touch "$DATA/weights" "$DATA/control"', DATA=data)
    run, folder = start_waiting(victim, open_tmp)
    attacker.does('mv "$D" "$D.old"; ln -s "$DATA" "$D"', D=folder, DATA=data)
    stop_waiting(run)
    assert run.log == ""
    assert sorted(file.name for file in data.iterdir()) == ["control", "weights"]


def test_no_private_folder_where_others_could_replace_it(victim: User, open_tmp: Path, common: Path) -> None:
    """The sticky bit is what makes /tmp usable."""
    of_the_attackers = common / "theirs"
    of_the_attackers.mkdir()
    os.chown(of_the_attackers, 60_002, 60_002)
    of_the_attackers.chmod(0o1777)
    for tmp in (open_tmp, of_the_attackers):
        run, folder = start_waiting(victim, tmp)
        assert folder.parent != tmp
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.name.startswith(".")
        stop_waiting(run)
        assert list(tmp.iterdir()) == [] and not folder.exists()


@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_what_is_kept_is_for_nobody_else(victim: User, umask: str) -> None:
    """The command line of a run may have a key in it."""
    variables = {"XDG_STATE_HOME": str(victim.home / "new/state"), "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}
    command = (*victim.kforge_run, "sh", "-c", "umask", "key=secret")
    output, _ = victim.run(*command, shell=f"umask {umask}", variables=variables)
    assert output == f"0{umask}\n"  # the training process has the user's own
    made = list((victim.home / "new").rglob("*"))
    (journal,) = [path for path in made if path.is_file()]
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600 and "secret" in journal.read_text()
    for folder in (victim.home / "new", *(path for path in made if path.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@pytest.mark.parametrize("way", ["option", "variable"])
def test_no_command_in_the_journal(victim: User, way: str) -> None:
    options = ("--journal", "journals", *(("--no-command-in-journal",) if way == "option" else ()))
    variables = {"KFORGE_COMMAND_IN_JOURNAL": "0"} if way == "variable" else {}
    victim.run(*victim.kforge_run, *options, "true", "key=secret", variables=variables)
    (journal,) = (victim.home / "journals").iterdir()
    text = journal.read_text()
    assert "secret" not in text and json.loads(text.splitlines()[0])["command"] == ["true"]


def in_step(folder: Path) -> dict[str, str]:
    """Variables with which a journal is always the same file of a folder."""
    return {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "KFORGE_JOURNAL": str(folder)}


JOURNAL = "slurm-77.0.0.jsonl"


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        ('ln -s "$BASHRC" "$J/{name}"', "is a link"),
        ('ln -s "$J/new" "$J/{name}"', "is a link"),
        ('ln "$BASHRC" "$J/{name}"', "has a second name|belongs to"),
        ('touch "$J/{name}"; chmod 666 "$J/{name}"', "belongs to uid 60002"),
        ('mkfifo -m 666 "$J/{name}"', "is no plain file|belongs to"),
        ('mkdir -m 777 "$J/{name}"', "[Ii]s a directory"),
    ],
    ids=["link", "dangling link", "hard link", "file", "FIFO", "folder"],
)
def test_a_journal_among_others_files(victim: User, attacker: User, open_tmp: Path, plant: str, why: str) -> None:
    bashrc = victim.home / ".bashrc"
    victim.does('echo alias >"$B"; chmod 666 "$B"; chmod 755 "$HOME"', B=bashrc)
    attacker.does(plant.format(name=JOURNAL), J=open_tmp, BASHRC=bashrc)
    assert os.path.lexists(open_tmp / JOURNAL) or "ln " in plant  # hard links to others' files may be forbidden
    output, errors = victim.run(*victim.kforge_run, "echo", "ran", variables=in_step(open_tmp))
    assert output == "ran\n" and bashrc.read_text() == "alias\n" and not (open_tmp / "new").exists()
    if (os.path.lexists(open_tmp / JOURNAL) and not (open_tmp / JOURNAL).is_file()) or "touch" in plant:
        assert re.search(rf"no journal: .*({why})", errors) and errors.count("\n") == 1


def test_a_journal_of_ones_own_in_a_folder_of_all(victim: User, open_tmp: Path) -> None:
    for _attempt in range(2):
        _, errors = victim.run(*victim.kforge_run, "true", variables=in_step(open_tmp))
        assert errors == ""
    journal = open_tmp / JOURNAL
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert journal.read_text().count('"event": "end"') == 2


def test_a_journal_that_others_could_have_written_is_not_believed(victim: User, open_tmp: Path) -> None:
    victim.run(*victim.kforge_run, "true", variables=in_step(open_tmp))
    (open_tmp / JOURNAL).chmod(0o622)
    _, errors = victim.run(*victim.kforge_run, "true", variables=in_step(open_tmp))
    assert "may be written to by others" in errors


def test_a_journals_folder_through_a_strangers_link(victim: User, attacker: User, open_tmp: Path) -> None:
    victim.does('mkdir -m 700 "$HOME/data"; chmod 711 "$HOME"')
    attacker.does('ln -s "$TARGET" "$J/journals"', TARGET=victim.home / "data", J=open_tmp)
    _, errors = victim.run(*victim.kforge_run, "true", variables=in_step(open_tmp / "journals"))
    assert "is a link of uid 60002" in errors and errors.count("\n") == 1
    assert list((victim.home / "data").iterdir()) == []
    # One's own may lead anywhere.
    victim.does('ln -s "$HOME/data" "$J/mine"', J=open_tmp)
    _, errors = victim.run(*victim.kforge_run, "true", variables=in_step(open_tmp / "mine"))
    assert errors == "" and [file.name for file in (victim.home / "data").iterdir()] == [JOURNAL]


def test_the_private_folder_is_closed_to_others(victim: User, attacker: User, open_tmp: Path) -> None:
    run, folder = start_waiting(victim, open_tmp)
    listing = [*become(attacker.uid), "ls", str(folder)]
    assert subprocess.run(listing, capture_output=True, check=False).returncode != 0
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in folder.iterdir()}
    stop_waiting(run)
    assert {name: mode for name, mode in modes.items() if name != "control"} == dict.fromkeys(
        ("code", "later code", "news"), 0
    )
