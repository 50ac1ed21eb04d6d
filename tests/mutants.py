"""Mutation testing of the policy: which small changes to it do its unit tests not notice?

    python -m tests.mutants [FILE...] [--jobs N]

Each mutant negates a condition, drops an operand of `and` or `or`, moves a comparison's edge, or deletes an assignment
to an attribute or a call. The tests run in a process of its own, with the changed module in the place of the real one.
What is listed at the end is alive.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

POLICY = Path(__file__).parents[1] / "kempnerforge/launcher/policy"
FILES = ("machine.py", "tables.py", "timers.py")
TESTS = [f"tests/unit/test_{name}.py" for name in ("decision_tables", "policy_state_machine", "policy_world")]
#: A mutant that keeps the tests busy for so long is dead, too (s): it never ends.
PATIENCE = 120.0
_EDGES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


class Mutant(NamedTuple):
    file: str
    line: int
    what: str
    source: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every change of a file, one at a time."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    for index, node in enumerate(nodes):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(list(ast.walk(changed))[index])
            yield Mutant(path.name, getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed)))


def _changes(node: ast.AST):  # type: ignore[no-untyped-def]
    """Yield what can be changed about a node, and how."""
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield f"negated: {ast.unparse(node.test)}", _negate
    if isinstance(node, ast.BoolOp):
        for place, operand in enumerate(node.values):
            yield f"dropped: {ast.unparse(operand)}", lambda twin, place=place: twin.values.pop(place)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _EDGES:
        yield f"moved the edge of: {ast.unparse(node)}", _move_edge
    if isinstance(node, ast.comprehension) and node.ifs:
        yield f"kept all: {ast.unparse(node.ifs[0])}", lambda twin: twin.ifs.clear()
    for field in ("body", "orelse"):
        for place, statement in enumerate(getattr(node, field, None) or [] if not isinstance(node, ast.IfExp) else []):
            if _is_deletable(statement):
                yield (
                    f"deleted: {ast.unparse(statement)}",
                    lambda twin, field=field, place=place: getattr(twin, field).__setitem__(place, ast.Pass()),
                )


def _is_deletable(statement: object) -> bool:
    """Whether a statement sets an attribute, or calls for its effect: without it the rest still runs."""
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Attribute) for target in statement.targets)
    if isinstance(statement, ast.AugAssign):
        return isinstance(statement.target, ast.Attribute)
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def _negate(node) -> None:  # type: ignore[no-untyped-def]
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _move_edge(node) -> None:  # type: ignore[no-untyped-def]
    node.ops[0] = _EDGES[type(node.ops[0])]()


_RUN = """
import sys, types
file, source = sys.argv[1], sys.stdin.read()
name = "kempnerforge.launcher.policy." + file.removesuffix(".py")
import importlib.util
spec = importlib.util.find_spec(name)
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
exec(compile(source, spec.origin, "exec"), module.__dict__)
setattr(sys.modules["kempnerforge.launcher.policy"], file.removesuffix(".py"), module)
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", *sys.argv[2:]]))
"""


def survives(mutant: Mutant) -> bool:
    """Return whether the tests pass all the same."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RUN, mutant.file, *TESTS],
            input=mutant.source,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=POLICY.parents[2],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", default=FILES, metavar="FILE", help=f"default: {' '.join(FILES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    options = parser.parse_args()
    began = time.monotonic()
    for file in options.files:
        found = list(mutants(POLICY / file))
        with ThreadPoolExecutor(options.jobs) as pool:
            alive = [mutant for mutant, lives in zip(found, pool.map(survives, found), strict=True) if lives]
        for mutant in alive:
            print(f"{mutant.file}:{mutant.line}: {mutant.what}")
        print(f"{file}: {len(alive)} of {len(found)} mutants are alive", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
