"""Journals as kforge-run writes them, for tests of who reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

#: 2026-11-25 09:46:40 UTC.
START = 1_795_600_000.0
COMMAND = ["python", "train.py", "--config", "big model.yaml"]


class Writer:
    """Collects the lines of one job's journal; times are seconds after START."""

    def __init__(self, job: str = "4242", name: str = "pretrain", array_task: str = "") -> None:
        self.job = job
        self.name, self.array_task = name, array_task
        self.lines: list[str] = []
        self.key = ""

    def record(self, at: float, event: str, **fields: Any) -> None:
        entry = {"time": round(START + at, 3), "event": event, "job": self.job, "attempt": self.key, **fields}
        self.lines.append(json.dumps(entry))

    def start(self, at: float, *, node: str = "n1", command: list[str] = COMMAND, place: str = "batch") -> None:
        """An attempt begins, and has soon come as far as its loop."""
        self.key = f"{START + at:.0f}-{1000 + len(self.lines)}"
        origin = {"place": place, "name": self.name, "array_task": self.array_task, "node": node}
        self.record(at, "start", command=command, version="0.1.0", **origin)
        self.record(at + 0.3, "armed", pid=9, program="train.py")
        self.record(at + 2, "registered", pid=9, program="train.py", timeout=600.0)
        self.record(at + 9, "polled", pid=9, stop=False)

    def notice(self, at: float, signal: str = "SIGUSR1", reason: str = "time_limit") -> None:
        self.record(at, "notice", signal=signal, sender="slurmstepd (pid 77)")
        self.record(at + 0.1, "reason", reason=reason)

    def end(self, at: float, outcome: str, reason: str | None, restarts: int | None = 0, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "requeued": False,
            "because": "it completed",
            "status": 0,
            "progress": True,
            "retried": False,
            "shutdown": None,
            "slack": None,
        }
        self.record(at, "end", outcome=outcome, reason=reason, restarts=restarts, **{**usual, **fields})

    def checkpoint(
        self, at: float, restarts: int, *, poll: float = 0.2, finish: float = 2.1, lead: float = 118
    ) -> None:
        """A shutdown as it should be: saved, and requeued 0.2 s after the finish."""
        self.notice(at)
        self.record(at + poll, "polled", pid=9, stop=True)
        self.record(at + finish, "finished", pid=9)
        self.record(at + finish + 0.1, "exit", status=0)
        self.record(at + finish + 0.1, "requeue", because="checkpointed after time_limit", job=self.job)
        end = finish + 0.2
        said = {"requeued": True, "because": "requeued", "shutdown": finish + 0.1, "slack": round(lead - end, 3)}
        self.end(at + end, "checkpointed", "time_limit", restarts, **said)

    @property
    def text(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode()

    def write(self, folder: Path, cluster: str = "slurm") -> Path:
        path = folder / f"{cluster}-{self.job}.jsonl"
        path.write_bytes(self.text)
        return path


class Eventful(NamedTuple):
    """When what happens in `eventful` (s after START)."""

    second: float = 3611.0
    third: float = 5993.0
    fourth: float = 9619.0
    fifth: float = 13619.0
    sixth: float = 14245.0
    end: float = 16648.3


def eventful(job: str = "4242", name: str = "pretrain") -> Writer:
    """A job with something of everything, over six attempts."""
    at = Eventful()
    job_of = Writer(job, name)
    job_of.start(0)
    job_of.checkpoint(3478, 0)
    job_of.start(at.second, node="n2")
    job_of.checkpoint(5321, 1, poll=4.8, finish=31.0, lead=40)
    job_of.start(at.third)
    job_of.notice(9463, "SIGTERM")
    job_of.record(9477.9, "stage", stage="terminate")
    job_of.record(9487.6, "stage", stage="kill")
    job_of.record(9487.8, "exit", status=-9)
    job_of.record(9487.9, "requeue", because="forced after time_limit", job=job)
    job_of.end(9488.1, "forced", "time_limit", 2, requeued=True, because="requeued", slack=4.9)
    job_of.start(at.fourth)  # then its node fails
    job_of.start(at.fifth)
    job_of.record(at.fifth + 500, "exit", status=1)
    said = {"requeued": True, "because": "requeued", "progress": False, "retried": True}
    job_of.end(at.fifth + 500.8, "failed", None, 4, **said)
    job_of.start(at.sixth)
    job_of.record(15145, "continued", stopped_for=240.0)
    job_of.notice(16645, "SIGTERM", "cancelled")
    job_of.record(16645.1, "polled", pid=9, stop=True)
    job_of.record(16648, "finished", pid=9)
    job_of.record(16648.2, "exit", status=0)
    said = {"because": "its owner cancelled it", "status": 85, "shutdown": 3.2, "slack": 26.7}
    job_of.end(at.end, "checkpointed", "cancelled", 5, **said)
    return job_of


def many(attempts: int, job: str = "4242", hours: float = 1.0) -> Writer:
    """A job that was requeued again and again, some two minutes after each time limit."""
    job_of = Writer(job)
    at = 0.0
    for number in range(attempts):
        job_of.start(at, node=f"n{number % 4}")
        notice = at + hours * 3600 - 60 * (number % 7)
        finish = 2.0 + number % 40
        job_of.checkpoint(notice, number, finish=finish)
        at = notice + finish + 125 + number % 30
    return job_of
