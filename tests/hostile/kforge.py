"""kforge as a program, measured: what it says, and what it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

BIN = Path(sys.prefix) / "bin"
KFORGE = BIN / "kforge"
#: Within so many seconds and bytes kforge has to be done, whatever it is given: a busy machine takes its time.
LONGEST, LARGEST = 20.0, 300 << 20


class Answer(NamedTuple):
    status: int
    output: str
    errors: str
    #: Of the processor (s), and the most of the memory (bytes).
    took: float
    size: int

    @property
    def said(self) -> str:
        """What a person reads, in one line."""
        return " ".join(f"{self.output} {self.errors}".split())


def environment(path: str | Path = BIN, **more: str) -> dict[str, str]:
    """Return an environment that knows of no job, and of no Slurm unless ``path`` has it."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "KFORGE"))}
    return {**ours, "PATH": str(path), "PYTHONPATH": str(Path(__file__).parents[2]), **more}


def kforge(*arguments: str | bytes | Path, given: Mapping[str, str] | None = None, cwd: Path | None = None) -> Answer:
    """Run kforge, and kill it where it takes too much time."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [KFORGE, *arguments],
            env=given or environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=lambda: signal.alarm(round(2 * LONGEST)),  # noqa: PLW1509 - there is no other thread
        )
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said, complained = (_content(file) for file in (output, errors))
    return Answer(process.returncode, said, complained, used.ru_utime + used.ru_stime, used.ru_maxrss << 10)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")


def assert_bounded(answer: Answer) -> None:
    """Check that it came to an end of its own, in time, and took no more than it may."""
    assert answer.status in (0, 1, 2, 3, 125), answer
    assert answer.took < LONGEST and answer.size < LARGEST, (answer.took, answer.size, answer.said[:200])
    assert "Traceback" not in answer.errors


def assert_harmless(text: str) -> None:
    """Check that a terminal would only show it."""
    assert all(letter == "\n" or letter.isprintable() for letter in text), ascii(text)
