"""The arrows of design.md: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import click
import pytest

from kempnerforge.launcher import cli, options

PACKAGE = Path(__file__).parents[2] / "kempnerforge"
MODULES = sorted(PACKAGE.rglob("*.py"))
THIRD_PARTY = {
    "click": {
        "launcher/completion.py",
        "launcher/options.py",
        *(f"commands/{name}.py" for name in ("cli", "completion", "sbatch_arguments")),
        *(f"commands/{name}.py" for name in ("doctor", "drill", "report", "submit", "template")),
    },
    "psutil": {"launcher/processes/tree.py"},
    "torch": {"examples/train_ddp.py", "examples/train_fsdp.py"},
    "sitecustomize": {"bootstrap/site/sitecustomize.py"},  # the user's own, behind ours
}

LAUNCHER = frozenset({f"launcher/{room}" for room in ("asking", "meeting", "policy", "processes", "telling")})
#: kforge's commands bring several rooms together; the other files beside them are what all of these stand on.
COMMANDS = frozenset(
    [
        "__main__",
        "cli",
        "completion",
        "doctor",
        "drill",
        "job_state",
        "report",
        "sbatch_arguments",
        "submit",
        "template",
    ]
)
#: Whom the files of each room may import, beside each other.
ARROWS = {
    "": frozenset(),
    "bootstrap": frozenset({""}),
    "bootstrap/site": frozenset(),
    "bootstrap/inject": frozenset({"bootstrap", "bootstrap/site"}),
    "resilience": frozenset({"bootstrap"}),
    "examples": frozenset({"resilience"}),
    # Of that, only what a word of the page says (`test_the_policy_is_pure`).
    "launcher/policy": frozenset({"bootstrap"}),
    "launcher/processes": frozenset({"bootstrap", "launcher/policy"}),
    "launcher/telling": frozenset({"launcher/policy", "launcher/processes"}),
    "launcher/asking": frozenset({"bootstrap", "launcher/policy", "launcher/processes"}),
    "launcher/meeting": frozenset({"", "bootstrap"}) | LAUNCHER - {"launcher/meeting", "launcher/asking"},
    # What the options are, and what is known of surroundings: kforge reads these, too.
    "launcher/settings": frozenset({"launcher/telling"}),
    "launcher/surroundings": frozenset({"bootstrap", "launcher/policy", "launcher/processes", "launcher/asking"}),
    "launcher/options": frozenset({"", "launcher/settings", "launcher/policy", "launcher/telling"}),
    # The loop and the start.
    "launcher": frozenset({"", "bootstrap", "launcher/settings", "launcher/surroundings", "launcher/options"})
    | LAUNCHER,
    "commands/leaves": frozenset(
        {"bootstrap", "launcher/asking", "launcher/policy", "launcher/processes", "launcher/telling"}
    ),
    "commands/batch": frozenset({"bootstrap", "commands/leaves", "launcher/policy", "launcher/surroundings"}),
    "commands/timeline": frozenset({"", "commands/leaves", "launcher/policy", "launcher/telling"}),
    "commands/diagnosis": frozenset(
        {"bootstrap", "commands/batch", "commands/leaves", "launcher/asking", "launcher/policy"}
        | {"launcher/options", "launcher/settings", "launcher/surroundings"}
    ),
    "commands/rehearsal": frozenset({"bootstrap", "commands/batch", "commands/leaves"})
    | LAUNCHER - {"launcher/asking"},
    "commands": frozenset(
        {"", *(f"commands/{room}" for room in ("batch", "diagnosis", "leaves", "rehearsal", "timeline"))}
        | {"launcher/options", *LAUNCHER}
    ),
}


def room_of(name: str) -> str:
    """Return the room of a file of the package."""
    folder, _, file = name.removesuffix(".py").rpartition("/")
    if folder == "launcher" and file in ("options", "completion"):
        return "launcher/options"
    if folder == "launcher" and f"launcher/{file}" in ARROWS:
        return f"launcher/{file}"
    if folder == "commands" and file not in COMMANDS:
        return "commands/leaves"
    return folder


def imported_files(path: Path) -> set[str]:
    """Return those files of the package that one imports."""
    files = set()
    for name in imports(path):
        package, *parts = name.split(".")
        file = PACKAGE.joinpath(*parts).with_suffix(".py") if package == "kempnerforge" and parts else None
        if file is not None and file.exists():
            files.add(name_of(file))
    return files


def imports(path: Path) -> set[str]:
    """Return the absolute names of all modules that a file imports, also inside functions and for types only."""
    package = ["kempnerforge", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.add(name)
            found.update(f"{name}.{alias.name}" for alias in node.names)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_third_party_packages_stay_in_their_rooms(path: Path) -> None:
    outside = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"kempnerforge"}
    assert {package for package in outside if name_of(path) not in THIRD_PARTY.get(package, ())} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows(path: Path) -> None:
    room = room_of(name_of(path))
    for name in imported_files(path):
        other = room_of(name)
        assert other == room or other in ARROWS[room], f"{name_of(path)} imports {name}"


def test_every_room_has_its_arrows() -> None:
    assert {room_of(name_of(path)) for path in MODULES} == set(ARROWS)
    assert all(room not in ARROWS[other] for room in ARROWS for other in ARROWS[room]), "arrows point one way"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_a_process_is_stands_in_one_place(path: Path) -> None:
    if name_of(path) != "bootstrap/proc.py":
        assert not re.search(r"""/proc/[^\s"]+/(stat|status|cmdline|exe)["']""", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_exit_statuses_have_names(path: Path) -> None:
    numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert name_of(path) == "launcher/policy/tables.py" or not numbers & {125, 126, 127}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_policy_is_pure(path: Path) -> None:
    if name_of(path).startswith("launcher/policy/"):
        allowed = {"__future__", "collections", "enum", "math", "signal", "typing", "kempnerforge"}
        assert {name.partition(".")[0] for name in imports(path)} <= allowed
        assert {name for name in imported_files(path) if room_of(name) == "bootstrap"} <= {"bootstrap/page.py"}


def test_whatever_may_set_an_option_has_the_options_read() -> None:
    """Where nothing does, kforge-run starts without click."""
    given = [one for one in options.kforge_run.params if isinstance(one, click.Option) and one.allow_from_autoenv]
    assert {f"KFORGE_{(one.name or '').upper()}" for one in given} <= cli.VARIABLES
