"""The arrows of design.md: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import click
import pytest

from kempnerforge.launcher import cli, options

#: The modules of `bootstrap` that both sides import.
SHARED = {"contract", "forks", "proc", "programs", "wire"}
PACKAGE = Path(__file__).parents[2] / "kempnerforge"
MODULES = sorted(PACKAGE.rglob("*.py"))
THIRD_PARTY = {
    "click": {
        "launcher/completion.py",
        "launcher/options.py",
        *(f"commands/{name}.py" for name in ("cli", "completion", "sbatch_arguments")),
        *(f"commands/{name}.py" for name in ("doctor", "drill", "report", "submit", "template")),
    },
    "psutil": {"launcher/tree.py"},
    "sitecustomize": {"bootstrap/site/sitecustomize.py"},  # the user's own, behind ours
}


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
def test_the_child_side_never_imports_the_launcher(path: Path) -> None:
    if name_of(path).startswith(("resilience/", "bootstrap/", "examples/")):
        assert not any(name.startswith(("kempnerforge.launcher", "kempnerforge.commands")) for name in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_launcher_knows_of_the_child_side_only_what_both_share(path: Path) -> None:
    if name_of(path).startswith("launcher/"):
        child_side = ("kempnerforge.resilience", "kempnerforge.bootstrap")
        ours = {name for name in imports(path) if name.startswith(child_side)} - {"kempnerforge.bootstrap"}
        assert {name.split(".")[2] for name in ours} <= SHARED


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_a_process_is_stands_in_one_place(path: Path) -> None:
    if name_of(path) != "bootstrap/proc.py":
        assert not re.search(r"""/proc/[^\s"]+/(stat|status|cmdline|exe)["']""", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_exit_statuses_have_names(path: Path) -> None:
    numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert name_of(path) == "launcher/policy/tables.py" or not numbers & {125, 126, 127}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_launcher_knows_nothing_of_the_companion(path: Path) -> None:
    if name_of(path).startswith("launcher/"):
        assert not any(name.startswith("kempnerforge.commands") for name in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_policy_is_pure(path: Path) -> None:
    if name_of(path).startswith("launcher/policy/"):
        allowed = {"__future__", "collections", "enum", "math", "signal", "typing"}
        outside = {name for name in imports(path) if not name.startswith("kempnerforge.launcher.policy")}
        assert {name.partition(".")[0] for name in outside} <= allowed


def test_only_the_supervisor_knows_all_rooms() -> None:
    rooms = {
        "child",
        "control",
        "delivery",
        "early_notice",
        "inject",
        "journal",
        "outer",
        "place",
        "signals",
        "slurm",
        "surroundings",
        "tree",
    }
    for path in sorted((PACKAGE / "launcher").glob("*.py")):
        if path.stem in rooms:
            names = imports(path)
            assert "kempnerforge.launcher.supervisor" not in names
            assert "kempnerforge.launcher.cli" not in names
            assert "kempnerforge.launcher.options" not in names


def test_whatever_may_set_an_option_has_the_options_read() -> None:
    """Where nothing does, kforge-run starts without click."""
    given = [one for one in options.kforge_run.params if isinstance(one, click.Option) and one.allow_from_autoenv]
    assert {f"KFORGE_{(one.name or '').upper()}" for one in given} <= cli.VARIABLES
