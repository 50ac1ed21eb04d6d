"""How fast and how small: one table, medians of runs that take turns (see bin/bench --help)."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from kempnerforge.launcher.processes import libc

from . import bootstrap, idle, latency, polling, startup, sweep
from .installation import Installation, InstallError
from .rows import Row, render

Part = Callable[[Installation, bool], list[Row]]


def main() -> int:
    """Run what was asked for; 1 if a limit is missed."""
    parts: dict[str, Part] = {
        "startup": lambda installation, quick: startup.measure(installation, quick, options.torchrun),
        "latency": latency.measure,
        "bootstrap": bootstrap.measure,
        "idle": idle.measure,
        "memory": idle.measure_memory,
        "sweep": sweep.measure,
        "should_shutdown": lambda _installation, _quick: polling.measure(),
    }
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: half a minute, and noisier")
    parser.add_argument("--only", action="append", choices=parts, metavar="NAME", help=f"one of {', '.join(parts)}")
    parser.add_argument("--torchrun", metavar="PATH", help="a torchrun to compare with; default: the one on PATH")
    parser.add_argument("--keep", action="store_true", help="keep the installation and kforge-run's log")
    options = parser.parse_args()

    # Whatever goes wrong, the leftovers of a sweep are still below us.
    libc.become_child_subreaper()
    # Not below /tmp: nobody installs there, and PYTHONPATH would not lead there (docs/security.md).
    folder = Path(tempfile.mkdtemp(prefix=".kforge-bench-", dir=Path.home()))
    started = time.monotonic()
    table: list[Row] = []
    try:
        _progress("installing")
        installation = Installation(folder)
        for name in options.only or parts:
            _progress(name)
            try:
                table += parts[name](installation, options.quick)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                table.append(Row(f"{name}: {error}", "failed", ok=False))  # the others can be measured all the same
    except InstallError as error:
        parser.exit(2, f"{parser.prog}: {error} (hint: pip needs a package index)\n")
    finally:
        _progress("")
        _kill_everybody()
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    print(render(table))
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    print(
        f"\n{time.monotonic() - started:.0f} s on {os.cpu_count()} processors, load {load}, "
        f"Python {platform.python_version()}, Linux {platform.release()}"
    )
    missed = [row for row in table if row.ok is False]
    if missed:
        print(f"{len(missed)} of {sum(row.ok is not None for row in table)} limits missed")
    return 1 if missed else 0


def _progress(what: str) -> None:
    """Show on a terminal what takes so long."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="… " if what else "", file=sys.stderr, flush=True)


def _kill_everybody() -> None:
    below = psutil.Process().children(recursive=True)
    for process in below:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(below, 10)


if __name__ == "__main__":
    sys.exit(main())
