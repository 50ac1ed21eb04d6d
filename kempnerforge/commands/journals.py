"""What the journals tell, read back: the attempts of a job, one by one.

Nothing in a journal is relied on. A line may be cut short (a full disk, a node that died), be written by a newer
version, or be no line of a journal at all: it is passed over and counted, and the others still tell what they tell.
What is read, and what is kept of it, has bounds: what is left out is counted, too.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..launcher.policy import facts
from ..launcher.policy.words import never
from ..launcher.telling.wording import line_of
from . import files
from .trouble import FAILED, Trouble

Entry = dict[str, Any]

#: Longer than a line of ours: a command line has at most 2 MiB (execve(2)), and is made longer by JSON.
_LONGEST_LINE = 4 << 20  # bytes
#: Nothing shorter has a time, an attempt and an event (bytes).
_SHORTEST_LINE = 36
#: Of a longer journal only its end is read: this holds ten thousand attempts (bytes).
MOST = 32 << 20
#: Of more attempts the latest are kept, of longer texts their beginning (letters), of all commands so many words.
#: Guesses.
_MOST_ATTEMPTS, _LONGEST_TEXT, _MOST_WORDS = 20_000, 1000, 500_000
#: Suspensions after the notice, one by one, as many as a person may want to see; more are added up.
_MOST_PAUSES = 100
#: So many files of a folder are looked at, and so many of an array's tasks looked for. Guesses.
_MOST_FILES, _MOST_TASKS = 250_000, 10_000
#: What a process says of its own state is kept as far as a person may want to read it: a guess.
_MOST_STATUSES = 20
#: So many warnings of an attempt are kept: the same ones come again in each. A guess.
_MOST_WARNINGS = 20
#: And so many that were told: a job may have a thousand ranks. A guess.
_MOST_RECEIVERS = 20
#: Year 9000 begins: a date shows no more than four digits, and what is drawn needs some room (s, epoch).
_LAST_MOMENT = 221_845_392_000.0

#: Everybody can give a file a name, and a shell offers what is in it: nothing but the cluster's part is free.
_NAME = re.compile(r"(?P<cluster>.+)-(?P<job>[0-9]+)(?:\.(?P<task>[A-Za-z0-9_+]+\.[0-9]+))?\.jsonl")
#: kforge-run outside Slurm: when it started, and its pid.
_LOCAL_NAME = re.compile(r"local-[0-9]{9,}-[0-9]+\.jsonl")
_ARRAY = re.compile(r"([0-9]+)(?:_([0-9]+))?")
_ARRAY_TASK = re.compile(rb'"array_task": "(\d+_\d+)"')
#: Within so many bytes a journal tells of which array it is: on its first line.
_HEAD = 1 << 16
#: How a line begins. Inside a JSON string its quotes would be escaped, so this finds the line behind a broken one.
_LINE_BEGINS = b'{"time": '


def _integer(digits: str) -> float:
    """Return a number, infinity for one with so many digits that reading them would take long."""
    return int(digits) if len(digits) < 20 else math.inf


_DECODER = json.JSONDecoder(parse_int=_integer)


class Notice(NamedTuple):
    """What told the run to stop."""

    #: Epoch (s), like all times here.
    time: float
    signal: str
    sender: str


class Stage(NamedTuple):
    """A stage of the escalation: `terminate` or `kill`."""

    time: float
    stage: str


class Heard(NamedTuple):
    """Who has noticed, and by which door, as `inject/doors.py` names them."""

    pid: int | None
    program: str
    door: str


class Status(NamedTuple):
    """What a process said of itself."""

    time: float
    pid: int | None
    text: str


class Attempt(NamedTuple):
    """One attempt, as far as its lines tell: what they do not is None, False or empty."""

    #: The field `attempt` of all its lines.
    key: str
    #: Counted from 1, by the job's Restarts where they were read.
    number: int
    #: By its start, or else by the first line there is.
    started: float
    #: Of its last line.
    last_time: float
    job: str = ""
    name: str = ""
    #: What Slurm calls an array's task, ARRAY_TASK; empty: it is none.
    array_task: str = ""
    node: str = ""
    command: list[str] = []  # noqa: RUF012 - it is never changed
    version: str = ""
    place: str = ""
    armed: bool = False
    registered: bool = False
    #: The first poll that said "go on": the run had come as far as its loop.
    first_ready_poll: float | None = None
    #: The one that counts: any other signal counts instead of an earlier Ctrl-C.
    notice: Notice | None = None
    reason: str | None = None
    #: The first poll that said "stop".
    first_poll: float | None = None
    #: The first `finish()`, and the last one of several ranks.
    finished: float | None = None
    last_finished: float | None = None
    stages: tuple[Stage, ...] = ()
    exit_time: float | None = None
    #: The child's exit status, or minus the signal it died of.
    exit_status: int | None = None
    #: When kforge-run ended; None: it still runs, or was killed.
    end_time: float | None = None
    outcome: str | None = None
    because: str = ""
    requeued: bool = False
    #: kforge-run's own exit status.
    status: int | None = None
    #: The job's Restarts while it ran.
    restarts: int | None = None
    #: It completed a step; None: unknown.
    progress: bool | None = None
    #: It was requeued by `--retry-failures`.
    retried: bool = False
    #: From the notice to the child's end, without suspensions (s); None: no notice, or it had to be killed.
    shutdown: float | None = None
    #: From the end of it all to the deadline (s).
    slack: float | None = None
    #: The latest ones.
    statuses: tuple[Status, ...] = ()
    #: How long it was suspended (s), and how much of that after the notice: (when it went on, for how long).
    suspended: float = 0.0
    pauses: tuple[tuple[float, float], ...] = ()
    #: Who was told of the notice, in kforge-run's words, and who has said how it hears it.
    delivered: tuple[str, ...] = ()
    heard: tuple[Heard, ...] = ()
    #: A process ended itself: its shutdown took too long.
    forced_exit: bool = False
    #: What kforge-run warned of, in its words.
    warnings: tuple[str, ...] = ()
    #: Why the command could not be executed; empty: it could.
    not_started: str = ""

    @property
    def runs_again(self) -> bool:
        """Whether the job was to run again, by kforge-run's doing or by Slurm's own."""
        return self.requeued or self.reason == "requeued"

    @property
    def unsaved(self) -> bool:
        """Whether it has a ShutdownHandler, was told to stop, and ended with its save not finished."""
        told = self.registered and self.notice is not None and self.reason != "interrupt"
        return told and self.last_finished is None and self.outcome in ("interrupted", "forced")

    def after_notice(self, moment: float) -> float | None:
        """Return how long after the notice that was, not counting suspensions (s); None: there was no notice.

        Slurm may have told the program a moment before kforge-run, and clocks are set back: never less than 0.
        """
        if self.notice is None:
            return None
        paused = sum(seconds for resumed, seconds in self.pauses if resumed <= moment)
        return max(moment - self.notice.time - paused, 0.0)


class Journal(NamedTuple):
    """One file: what one kforge-run of a job wrote, over all attempts."""

    path: Path
    cluster: str
    #: Empty outside Slurm.
    job: str
    #: Empty for the job's own; STEP.TASK for one of a step's tasks.
    task: str
    #: In the order in which they began.
    attempts: tuple[Attempt, ...]
    #: Lines passed over because they cannot be read.
    unreadable: int = 0
    #: Lines of kinds that this version does not know.
    unknown: int = 0
    #: How much of it was not read (bytes), and how many attempts were not kept: the earliest.
    unread: int = 0
    forgotten: int = 0

    @property
    def newer(self) -> bool:
        """Whether a newer version wrote some of it."""
        return self.unknown > 0

    @property
    def label(self) -> str:
        """What `find` finds it by."""
        return label_of(self.path)

    @property
    def of_this_job(self) -> tuple[Attempt, ...]:
        """The attempts without those of an older job: job numbers come round again, and Restarts falls there."""
        latest: int | None = None
        for index in range(len(self.attempts) - 1, -1, -1):
            restarts = self.attempts[index].restarts
            if restarts is not None and latest is not None and restarts > latest:
                return self.attempts[index + 1 :]
            latest = latest if restarts is None else restarts
        return self.attempts


def with_tasks(journal: Journal, tasks: Sequence[Journal]) -> Journal:
    """Return a job's journal with what only the kforge-runs of its steps' tasks know of its attempts.

    Args:
        journal: of the kforge-run that owns the job.
        tasks: of those below it.
    """
    order = sorted(range(len(journal.attempts)), key=lambda index: journal.attempts[index].started)
    starts = [journal.attempts[index].started for index in order]
    below: dict[int, list[Attempt]] = {}
    for one in tasks:
        for task in one.attempts:
            if (later := bisect.bisect_right(starts, task.started)) > 0:
                below.setdefault(order[later - 1], []).append(task)
    attempts = (_with_tasks(attempt, below.get(index, ())) for index, attempt in enumerate(journal.attempts))
    return journal._replace(attempts=tuple(attempts))


def _with_tasks(attempt: Attempt, below: Sequence[Attempt]) -> Attempt:
    """Fill in what an attempt does not know; of several tasks the slowest counts."""
    notices = [task.notice for task in below if task.notice is not None]
    polls = [task.first_poll for task in below if task.first_poll is not None]
    saves = [task.last_finished for task in below if task.last_finished is not None]
    progress = {task.progress for task in below}
    known: dict[str, Any] = {
        "notice": min(notices, key=lambda notice: notice.time, default=None),
        "first_poll": max(polls, default=None),
        "last_finished": max(saves, default=None),
        "progress": True if True in progress else False if progress == {False} else None,
    }
    return attempt._replace(**{name: value for name, value in known.items() if getattr(attempt, name) is None})


# --- finding -------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """What a journal's file name tells."""

    #: CLUSTER-JOB, or local-TIME-PID.
    stem: str
    #: Empty outside Slurm.
    job: str = ""
    #: STEP.TASK, or empty.
    task: str = ""

    @property
    def answers_to(self) -> set[str]:
        suffix = f".{self.task}" if self.task else ""
        return {self.stem, self.job, self.stem + suffix, self.job + suffix} - {""}


def _ignore(_what: str) -> None:
    pass


def find(folder: str | Path, job: str, tell: Callable[[str], None] = _ignore) -> list[Path]:
    """Return the journals of a job: its own first, then its steps' tasks, in their order.

    Args:
        folder: where journals are.
        job: its number, or an array's for all its tasks; a task as ARRAY_TASK; a journal's name with or without its
            ending, or its path.
        tell: gets what was left out, in words.

    Raises:
        Trouble: the folder cannot be read.
    """
    if os.sep in job or job.endswith(".jsonl"):
        return [path for path in (Path(job), Path(folder, job)) if path.exists()][:1]
    array = _ARRAY.fullmatch(job)
    found: set[Path] = set()
    later: list[tuple[int, str]] = []
    for entry, name in _journals(folder, tell):
        if job in name.answers_to:
            found.add(Path(entry))
        elif array and name.job and int(name.job) >= int(array[1]):
            later.append((int(name.job), entry.path))
    if array and (not found or any(_array_task(path) for path in found if not task_of(path))):
        # It may be an array's. A task has a job number of its own, not below its array's, and not far above it.
        nearest = (Path(path) for _job, path in heapq.nsmallest(_MOST_TASKS, later))
        found.update(path for path in nearest if _is_task_of(job, _array_task(path)))
        if len(later) > _MOST_TASKS:
            tell(f"{len(later) - _MOST_TASKS:,} journals of later jobs were not looked into for tasks of {job}")
    return sorted(found, key=_order)


def tasks_beside(folder: str | Path, jobs: Iterable[Journal]) -> list[Path]:
    """Return the journals of the tasks of some jobs' steps, in their order.

    Raises:
        Trouble: the folder cannot be read.
    """
    wanted = {f"{journal.cluster}-{journal.job}" for journal in jobs if journal.job}
    return sorted((Path(entry) for entry, name in _journals(folder) if name.task and name.stem in wanted), key=_order)


def latest(folder: str | Path, most: int, tell: Callable[[str], None] = _ignore) -> list[Path]:
    """Return the journals of the jobs that wrote last, latest first: for each job one, its own if there is one.

    Args:
        folder: where journals are.
        most: of how many jobs.
        tell: gets what was left out, in words.

    Raises:
        Trouble: the folder cannot be read.
    """
    newest: dict[tuple[str, bool], tuple[int, str]] = {}
    for entry, name in _journals(folder, tell):
        try:
            written = entry.stat().st_mtime_ns
        except OSError:
            continue  # it was tidied away, just now
        kind = (name.stem, name.task == "")
        newest[kind] = max(newest.get(kind, (0, "")), (written, entry.path))
    ours = (found for (stem, own), found in newest.items() if own or (stem, True) not in newest)
    return [Path(path) for _written, path in heapq.nlargest(most, ours)]


def label_of(path: Path) -> str:
    """Return what a user calls a journal: the job's number, for one of its tasks with STEP.TASK, or else its name."""
    name = _named(path.name)
    if name is None or not name.job:
        return path.name.removesuffix(".jsonl")
    return f"{name.job}.{name.task}" if name.task else name.job


def task_of(path: Path) -> str:
    """Return which task of a job's steps a journal is from, as STEP.TASK; empty: it is the job's own."""
    return (_named(path.name) or _Name("")).task


def _journals(folder: str | Path, tell: Callable[[str], None] = _ignore) -> Iterator[tuple[os.DirEntry[str], _Name]]:
    try:
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, _MOST_FILES):
                if (name := _named(entry.name)) is not None:
                    yield entry, name
            if next(entries, None) is not None:
                tell(f"{folder} has more than {_MOST_FILES:,} files: the others were not looked at")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Trouble(f"cannot read {folder}: {error.strerror}", status=FAILED) from None


def _named(file: str) -> _Name | None:
    """Return what a file's name tells; None: it is none of ours."""
    if _LOCAL_NAME.fullmatch(file):
        return _Name(file.removesuffix(".jsonl"))
    if (name := _NAME.fullmatch(file)) is None:
        return None
    return _Name(f"{name['cluster']}-{name['job']}", name["job"], name["task"] or "")


def _order(path: Path) -> list[tuple[int, int, str]]:
    """Sort 2.10 behind 2.9."""
    parts = re.split(r"(\d+)", path.name.removesuffix(".jsonl"))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _is_task_of(job: str, array_task: str) -> bool:
    return array_task == job or array_task.startswith(f"{job}_")


def _array_task(path: Path) -> str:
    """Return which task of an array wrote a journal, as ARRAY_TASK; empty: none did."""
    try:
        with files.open_to_read(path) as file:
            told = _ARRAY_TASK.search(file.read(_HEAD) or b"")
    except (Trouble, OSError):
        return ""  # it is another user's
    return "" if told is None else told[1].decode()


# --- reading -------------------------------------------------------------------------------------


def read(path: str | Path, most: int = MOST) -> Journal:
    """Read a journal, as far as it can be read.

    Args:
        path: of it.
        most: of a longer one only the end is read (bytes).

    Raises:
        Trouble: it is no file, is not there, or may not be read.
    """
    path = Path(path)
    attempts: dict[str, Attempt] = {}
    unreadable = unknown = forgotten = 0
    commands = _Commands()
    with files.open_to_read(path, "give a job's number, or a journal's file") as file:
        unread = _go_to_end(file, most)
        for line in _lines(file, most):
            entry, whole = _entry(line)
            fact = None if entry is None else facts.read(entry)
            if isinstance(fact, facts.Started):
                shared = commands.share(fact)
                whole = whole and shared is not None
                fact = shared or fact._replace(command=[])
            if not whole:
                unreadable += 1
            if entry is None:
                continue
            key, time = entry["attempt"], entry["time"]
            attempt = attempts.get(key) or Attempt(key, 0, time, time, _text(entry, "job"))
            unknown += fact is None
            attempts[key] = attempt._replace(last_time=time, **(_told(attempt, time, fact) if fact is not None else {}))
            if len(attempts) > _MOST_ATTEMPTS:
                del attempts[next(iter(attempts))]
                forgotten += 1
    name = _named(path.name) or _Name("")
    cluster = name.stem.removesuffix(f"-{name.job}") if name.job else ""
    numbered = tuple(_numbered(attempts.values()))
    job = name.job or next((attempt.job for attempt in numbered if attempt.job), "")
    return Journal(path, cluster, job, name.task, numbered, unreadable, unknown, unread, forgotten)


class _Commands:
    """The commands of a journal's attempts: most have the same, and one list will do for them."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._words = 0

    def share(self, fact: facts.Started) -> facts.Started | None:
        """Return a start with the command of the one before, if that is the same; None: there is no room for it."""
        if fact.command == self._last:
            return fact._replace(command=self._last)
        self._words += len(fact.command)
        if self._words > _MOST_WORDS:
            return None
        self._last = fact.command
        return fact


def _go_to_end(file: BinaryIO, most: int) -> int:
    """Go to where the end of a file begins that is to be read; return how much is before that (bytes)."""
    try:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            return 0
        file.seek(size - most - 1)
        # What is left of a line there; with a line end before it, that is nothing.
        file.readline(most)
        return file.tell()
    except OSError as error:
        raise Trouble(f"cannot read {file.name}: {error.strerror}", status=FAILED) from None


def _lines(file: BinaryIO, most: int) -> Iterator[bytes | None]:
    """Yield the lines that are not empty; None for one that is too long to be ours.

    Args:
        most: so much is read, however fast it grows (bytes).
    """
    left = most
    try:
        while left > 0 and (line := file.readline(_LONGEST_LINE)):
            left -= len(line)
            if len(line) == _LONGEST_LINE:
                while left > 0 and line and not line.endswith(b"\n"):
                    line = file.readline(_LONGEST_LINE)
                    left -= len(line)
                yield None
            elif line != b"\n":
                yield line
    except OSError as error:
        raise Trouble(f"cannot read {file.name}: {error.strerror}", status=FAILED) from None


def _entry(line: bytes | None) -> tuple[Entry | None, bool]:
    """Return what a line says, None if nothing, and whether that is all that is in it."""
    if line is None:
        return None, False
    if (entry := _parse(line)) is not None:
        return entry, True
    # What was cut short has no line end, and the next line was put behind it.
    begin = line.rfind(_LINE_BEGINS)
    return (_parse(line[begin:]) if begin > 0 else None), False


def _parse(text: bytes) -> Entry | None:
    if len(text) < _SHORTEST_LINE:
        return None
    try:
        entry = _DECODER.decode(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    time = facts.as_number(entry.get("time"))
    if time is None or not 0 <= time <= _LAST_MOMENT or not _text(entry, "attempt") or not _text(entry, "event"):
        return None
    entry["time"] = time
    return entry


def _numbered(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    number = 0
    for attempt in attempts:
        number = number + 1 if attempt.restarts is None else attempt.restarts + 1
        yield attempt._replace(number=number)


# --- what each fact tells ------------------------------------------------------------------------


def _told(attempt: Attempt, time: float, fact: facts.Journaled) -> dict[str, Any]:
    """Return what a fact changes in what is known of its attempt."""
    match fact:
        case facts.Started(command, version, place, name, array_task, node):
            origin = {"version": version, "place": place, "name": name, "array_task": array_task, "node": node}
            return {"started": time, "command": command, **{field: _short(text) for field, text in origin.items()}}
        case facts.NotStarted(why):
            return {"not_started": _short(why), "end_time": time, "outcome": "failed"}
        case facts.Armed():
            return {"armed": True}
        case facts.HandedOn(receivers, again):
            return {} if again else {"delivered": (*attempt.delivered, _short(receivers))[:_MOST_RECEIVERS]}
        case facts.Heard(pid, program, door):
            others = (one for one in attempt.heard if one.pid != pid)
            heard = (*others, Heard(pid, _short(program), _short(door)))
            return {"armed": True, "heard": heard[:_MOST_RECEIVERS]}
        case facts.Registered():
            return {"registered": True}
        case facts.Polled(_, stop):
            return _polled(attempt, time, stop)
        case facts.NoticeCame(signal, sender):
            return {"notice": Notice(time, _short(signal), _short(sender)), "pauses": (), "delivered": (), "heard": ()}
        case facts.ReasonFound(reason):
            return {"reason": _short(reason) or attempt.reason}
        case facts.StageBegan(stage):
            return _staged(attempt, Stage(time, _short(stage)))
        case facts.Finished():
            return {"finished": time if attempt.finished is None else attempt.finished, "last_finished": time}
        case facts.ChildEnded(status):
            return {"exit_time": time, "exit_status": status}
        case facts.RequeueAsked():
            return {}  # how it ended tells whether it was requeued
        case facts.Joined() | facts.Agreed() | facts.RanksGoOn() | facts.RanksLost():
            return {}
        case facts.Continued(stopped_for):
            return _continued(attempt, time, max(stopped_for, 0.0))
        case facts.ForcedExit():
            return {"forced_exit": True}
        case facts.Status(pid, text):
            return {"statuses": (*attempt.statuses[1 - _MOST_STATUSES :], Status(time, pid, _short(text)))}
        case (
            facts.Warned() | facts.SlurmIsSilent() | facts.KeptFromSrun() | facts.StepWasEnded() | facts.RequeueFailed()
        ):
            return _warned(attempt, fact)
        case facts.Ended():
            return _ended(attempt, time, fact)
        case _:
            return never(fact)


def _polled(attempt: Attempt, time: float, stop: bool | None) -> dict[str, Any]:
    if stop and attempt.first_poll is None:
        return {"first_poll": time}
    if stop is False and attempt.first_ready_poll is None:
        return {"first_ready_poll": time}
    return {}


def _staged(attempt: Attempt, stage: Stage) -> dict[str, Any]:
    new = stage.stage in ("terminate", "kill") and stage.stage not in (seen.stage for seen in attempt.stages)
    return {"stages": (*attempt.stages, stage)} if new else {}


def _continued(attempt: Attempt, time: float, seconds: float) -> dict[str, Any]:
    pauses = attempt.pauses
    if attempt.notice is None:
        pauses = ()
    elif len(pauses) < _MOST_PAUSES:
        pauses = (*pauses, (time, seconds))
    else:
        pauses = (*pauses[:-1], (time, pauses[-1][1] + seconds))
    return {"suspended": attempt.suspended + seconds, "pauses": pauses}


def _warned(attempt: Attempt, fact: facts.Fact) -> dict[str, Any]:
    line = line_of(fact)
    if line is None or line.level != "warning" or len(attempt.warnings) >= _MOST_WARNINGS:
        return {}
    return {"warnings": (*attempt.warnings, _short(line.text))}


def _ended(attempt: Attempt, time: float, fact: facts.Ended) -> dict[str, Any]:
    told = {name: _short(value) if isinstance(value, str) else value for name, value in fact._asdict().items()}
    restarts = fact.restarts if fact.restarts is None or fact.restarts >= 0 else None
    reason = told["reason"] or attempt.reason
    return {**told, "end_time": time, "outcome": told["outcome"] or None, "reason": reason, "restarts": restarts}


def _short(text: str) -> str:
    return text[:_LONGEST_TEXT]


def _text(entry: Entry, name: str) -> str:
    value = entry.get(name)
    return _short(value) if isinstance(value, str) else ""
