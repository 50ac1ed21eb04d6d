"""Mutation testing of the policy: which small changes to it do its unit tests not notice?

    python -m tests.mutants [FILE...] [--jobs N] [--every N]

Each mutant negates a condition, drops an operand of `and` or `or`, moves a comparison's edge, or deletes an assignment
to an attribute or a call. The tests run in a process of its own, with the changed module in the place of the real one.
What is listed is alive.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import signal
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings

from kempnerforge.launcher import policy

POLICY = Path(__file__).parents[1] / "kempnerforge/launcher/policy"
FILES = (
    *("machine.py", "inquiry.py", "escalation.py", "ledger.py", "turns.py", "conclusion.py"),
    *("tables.py", "timers.py", "facts.py"),
)
TESTS = [
    f"tests/unit/test_{name}.py"
    for name in ("facts", "decision_tables", "turns", "ledger", "policy_state_machine", "policy_world")
]
#: A mutant that keeps the tests busy for so long is dead, too (s): it never ends.
PATIENCE = 600
#: That a story fails is enough: how short it could be is not asked.
settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
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
            yield Mutant(
                path.name,
                getattr(node, "lineno", 0) or _first_line(node),
                what,
                ast.unparse(ast.fix_missing_locations(changed)),
            )


def _first_line(node: ast.AST) -> int:
    """Return where something begins that has no line of its own: an arm of a `match`, a part of a comprehension."""
    return next(child.lineno for child in ast.walk(node) if isinstance(child, (ast.expr, ast.stmt)))


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


def start(mutant: Mutant) -> int:
    """Fork a process in which the tests run on a mutant; return its pid. It exits with 0 if they pass all the same."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(PATIENCE)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    name = f"{policy.__name__}.{mutant.file.removesuffix('.py')}"
    module = types.ModuleType(name)
    module.__package__ = policy.__name__
    sys.modules[name] = module
    setattr(policy, mutant.file.removesuffix(".py"), module)
    status = 1
    settings.load_profile("mutants")
    try:
        exec(compile(mutant.source, mutant.file, "exec"), module.__dict__)
        status = pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *TESTS])
    finally:
        os._exit(status)


def survivors(found: Sequence[Mutant], jobs: int) -> list[Mutant]:
    """Return those mutants on which the tests pass."""
    waiting, running, alive = list(reversed(found)), dict[int, Mutant](), []
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[start(mutant)] = mutant
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            alive.append(mutant)
            if mutant.line:
                print(f"{mutant.file}:{mutant.line}: {mutant.what}", flush=True)
    return alive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", default=FILES, metavar="FILE", help=f"default: {' '.join(FILES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try only every Nth, for a first look")
    options = parser.parse_args()
    began = time.monotonic()
    for file in options.files:
        unchanged = Mutant(file, 0, "nothing", (POLICY / file).read_text())
        assert survivors([unchanged], 1), f"the tests fail on {file} as it is"
        found = list(mutants(POLICY / file))[:: options.every]
        alive = survivors(found, options.jobs)
        print(f"{file}: {len(alive)} of {len(found)} mutants are alive", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
