"""What kforge-run does while the training runs: nothing, in little memory."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from . import rows
from .installation import Installation
from .subject import Receiver

SECONDS = 30
QUICK_SECONDS = 3
#: kforge-runs of which the memory is taken, and interpreters.
INSTANCES = 5
MEMORY_LIMIT = 1.15

#: Longer than all that kforge-run does when its child has started (s).
_SETTLED = 2.0


def measure(installation: Installation, quick: bool) -> list[rows.Row]:
    """Return the rows. One kforge-run is watched from outside, and another by strace, which would disturb it."""
    seconds = QUICK_SECONDS if quick else SECONDS
    kinds = ("plain", "cooperative")
    strace = shutil.which("strace")
    watched, traced = {}, {}
    for kind in kinds:
        watched[kind] = Receiver(installation, kind)
        if strace:
            # From its start: attaching to it later would wake it.
            traced[kind] = Receiver(installation, kind, under=(strace, "-q", "-o", str(_trace(installation, kind))))
    time.sleep(_SETTLED)
    before = {kind: (_switches(watched[kind].pid), _calls(installation, kind)) for kind in kinds}
    time.sleep(seconds)
    found = []
    for kind in kinds:
        switches, calls = _switches(watched[kind].pid) - before[kind][0], _calls(installation, kind) - before[kind][1]
        what = f"idle {seconds} s, {kind} child"
        found.append(rows.at_most(f"{what}: context switches", switches, "", 0))
        called = f"{what}: system calls"
        found.append(rows.at_most(called, calls, "", 0) if strace else rows.absent(called, "strace"))
    for subject in (*watched.values(), *traced.values()):
        subject.stop()
    return found


def _switches(pid: int) -> int:
    """Return the context switches so far, voluntary and not, of all threads of a process."""
    status = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(map(int, re.findall(r"voluntary_ctxt_switches:\s*(\d+)", status)))


def _trace(installation: Installation, kind: str) -> Path:
    return installation.folder / f"trace-{kind}"


def _calls(installation: Installation, kind: str) -> int:
    """Return the system calls so far that have come back: the one wait has not."""
    trace = _trace(installation, kind)
    return trace.read_bytes().count(b"\n") if trace.exists() else 0


def measure_memory(installation: Installation, _quick: bool) -> list[rows.Row]:
    """Return the rows: kforge-run, idle, beside an interpreter that imported its two dependencies."""
    waits = "import click, psutil, signal; print('ready', flush=True); signal.pause()"
    subjects, interpreters = [], []
    for _ in range(INSTANCES):
        subjects.append(Receiver(installation, "plain"))
        interpreter = subprocess.Popen(
            [installation.python, "-c", waits],
            env=installation.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        interpreters.append(interpreter)
        assert interpreter.stdout is not None
        interpreter.stdout.readline()
    time.sleep(_SETTLED)
    found = []
    # Rss is what top shows. Pss shares what processes have in common, of which there are as many of either kind.
    for kind in ("Rss", "Pss"):
        measured = statistics.median(_memory(subject.pid, kind) for subject in subjects)
        reference = statistics.median(_memory(interpreter.pid, kind) for interpreter in interpreters)
        name = "python, click, psutil"
        found.append(rows.ratio(f"resident memory, {kind}", measured, reference, name, "MiB", MEMORY_LIMIT))
    for subject in subjects:
        subject.stop()
    for interpreter in interpreters:
        interpreter.kill()
        interpreter.communicate()
    return found


def _memory(pid: int, kind: str) -> float:
    """Return a line of /proc/PID/smaps_rollup (MiB)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{kind}:\s*(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
