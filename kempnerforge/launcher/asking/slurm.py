"""Slurm: where we are in it, what it knows of our job, and the requeue.

scontrol runs as a child of the loop, one at a time, so that a slow controller never delays a signal.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...bootstrap import proc
from ..policy.tables import NOT_FOUND
from ..policy.words import JobRead, Place, RequeueAnswered, Site
from ..processes import child, tree
from . import job_record

#: After this long an scontrol is killed (s). It retries by itself for minutes when the controller is down. A guess.
_PATIENCE = 10.0
#: More than any record of one job, or of an array's tasks, takes (bytes): a guess, with a lot of room.
_LONGEST_ANSWER = 1 << 24
#: Blocks read before the loop has its turn again: it must not hang on one that writes for ever. A guess.
_MOST_AT_A_TIME = 64
#: Variables that change what scontrol asks, and whom (scontrol(1)).
_MISLEADING = ("SLURM_CLUSTERS", "SCONTROL_")
#: A variable that tells what an scontrol of ours has started.
_HELPERS_MARK = "KFORGE_SCONTROL"
#: What scontrol says of a requeue that it will refuse for ever (slurm-facts, "Requeueing").
_REFUSED_FOR_EVER = (
    "presently disabled",
    "Only batch jobs",
    "Access/permission denied",
    "Invalid job id",
    "already finished",
    "not found",
)
#: SLURM_STEP_ID of a batch script on newer versions: SLURM_BATCH_SCRIPT in slurm.h.
_BATCH_STEP = "-5"
#: Steps that are none, by name. The extern step holds what pam_slurm_adopt brought in from outside.
_PLACES: Mapping[str, Place] = {"batch": "batch", "extern": "outside"}
#: What slurmd executes for a batch job, in its spool folder.
_SPOOLED_SCRIPT = re.compile(r"/job[0-9]+/slurm_script$")


#: How Slurm prints a number that has no limit: INFINITE in slurm.h.
UNLIMITED = 2**32 - 1


class Identity(NamedTuple):
    """Where in Slurm this process is."""

    place: Place
    #: SLURM_JOB_ID; empty outside Slurm.
    job_id: str


def identify(environment: Mapping[str, str]) -> Identity:
    """Find out whether this is the batch process, a step's task or neither.

    The nearest slurmstepd above is asked, by its title. Only where /proc does not show it (hidepid, another PID
    namespace) the rest counts, see `place_unseen`.

    Raises:
        ValueError: SLURM_JOB_ID is not a number.
    """
    job_id = environment.get("SLURM_JOB_ID", "")
    if job_id and not re.fullmatch("[0-9]+", job_id):
        raise ValueError(f"SLURM_JOB_ID is {job_id!r}, not a number")
    if not job_id:
        return Identity("outside", "")
    lineage = {os.getpid(): sys.argv}
    for pid in ancestors():
        lineage[pid] = proc.command_line(pid)
        title = re.match(r"slurmstepd: \[([0-9]+)\.(\S+)\]", " ".join(lineage[pid]))
        if title:
            return Identity(_PLACES.get(title[2], "step"), job_id)
    return Identity(place_unseen(environment, tree.cgroups(), lineage, tree.in_pid_namespace()), job_id)


def place_unseen(
    environment: Mapping[str, str], cgroups: str, lineage: Mapping[int, list[str]], renumbered: bool
) -> Place:
    """Return where we are by what is left when no slurmstepd can be seen above us, the surest first.

    Variables are handed down: an sbatch from inside an srun gives a batch script of 22.05, which sets none itself,
    SLURM_STEP_ID=0 (slurm-facts, "Who receives what"). A cgroup is not, and neither is a process that we come from.

    Args:
        environment: of this process.
        cgroups: /proc/self/cgroup.
        lineage: command lines of this process and of those above it, as far as /proc shows them.
        renumbered: this process is in a PID namespace of its own, a container's maybe.
    """
    if cgroup := re.search(r"/job_[0-9]+/step_(\w+)", cgroups):
        return _PLACES.get(cgroup[1], "step")
    if any(_SPOOLED_SCRIPT.search(argument) for arguments in lineage.values() for argument in arguments[:2]):
        return "batch"
    step, task = environment.get("SLURM_STEP_ID", ""), environment.get("SLURM_TASK_PID", "")
    if step:
        return "batch" if step == _BATCH_STEP else "step"
    # What slurmstepd executed finds its own pid there. salloc does not set it, but may hand it down from a job in which
    # it was typed: there the pid is neither ours nor above us. (In a container that cannot be told; Slurm then refuses
    # to requeue what is no batch job.)
    is_below = task in map(str, lineage) or (task != "" and renumbered)
    return "batch" if is_below else "outside"


def ancestors() -> Iterator[int]:
    """Yield the pids above this process, nearest first, as far as /proc shows them."""
    pid: int | None = os.getppid()
    while pid:
        yield pid
        pid = tree.parent(pid)


# --- asking --------------------------------------------------------------------------------------


class SiteFacts(NamedTuple):
    """What `scontrol show config` and `show partition` tell."""

    site: Site
    kill_on_bad_exit: bool
    #: A preemption gives more time to whoever is told when its grace begins, as a job's steps are.
    early_notice_helps: bool = False


class NoScontrol(NamedTuple):
    """scontrol cannot be executed on this node."""

    why: str


class _Query(NamedTuple):
    kind: str
    arguments: tuple[str, ...]
    #: Behind each time in the answer (`job_record`).
    seal: str = ""


class BatchScript(NamedTuple):
    """The job's script as Slurm keeps it."""

    text: str


Answer = JobRead | RequeueAnswered | SiteFacts | BatchScript | NoScontrol


class Controller:
    """Asks Slurm's controller about one job, one scontrol at a time.

    Args:
        job_id: SLURM_JOB_ID.
        partition: SLURM_JOB_PARTITION; empty: its grace time is not read.
        environment: in which scontrol runs.
        poller: gets the descriptor of a running scontrol's output.
        helpers: of kforge-run's own children those that are no part of the run; gets a running scontrol.
    """

    def __init__(
        self,
        job_id: str,
        partition: str,
        environment: Mapping[str, str],
        poller: select.poll,
        helpers: set[int],
    ) -> None:
        self._job_id = job_id
        self._partition = partition
        # Messages in the language that is looked for above. What sends scontrol to another cluster is dropped: the job
        # is on this one.
        ours = {key: value for key, value in environment.items() if not key.startswith(_MISLEADING)}
        self._environment = {**ours, "LC_ALL": "C", _HELPERS_MARK: "1"}
        # This job as one task or component of what it belongs to: less sure than its number, for a submission from
        # inside an array inherits these variables, but it never means several.
        self._alone = array_task(environment) or f"{job_id}+0"
        self._poller = poller
        self._queue: list[_Query] = []
        self._running: child.Child | None = None
        self._query: _Query | None = None
        self._output: int | None = None
        self._answer = bytearray()
        self._kill_at: float | None = None
        self._config = ""
        self._told_missing = False
        self._helpers = helpers

    @property
    def due(self) -> float | None:
        """When the running scontrol's patience is over (s, monotonic)."""
        return self._kill_at

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._queue)

    def ask_job(self) -> None:
        """Read the job's record anew: an answer that is under way may be older than what made us ask."""
        job = self._job_query(self._job_id)
        self._queue = [job] + [query for query in self._queue if query.kind != "job"]
        if self._query is not None and self._query.kind != "requeue":
            if self._query.kind != "job":
                self._queue.insert(1, self._query)
            self._give_up_running()

    @staticmethod
    def _job_query(job_id: str) -> _Query:
        return _Query("job", ("show", "job", "-o", job_id), job_record.new_seal())

    def ask_site(self) -> None:
        """Read the cluster's and the partition's settings."""
        self._queue.append(_Query("config", ("show", "config")))

    def ask_script(self) -> None:
        """Read the job's script: `scontrol write batch_script`, to standard output."""
        self._queue.append(_Query("script", ("write", "batch_script", self._job_id, "-")))

    def requeue(self, job_id: str) -> None:
        self._queue = [_Query("requeue", ("requeue", job_id))]

    def start_next(self, now: float) -> list[Answer]:
        """Start the next scontrol unless one is running; return answers where it could not be started."""
        answers: list[Answer] = []
        while self._queue and self._running is None:
            query = self._queue.pop(0)
            try:
                read_end, write_end = os.pipe()
            except OSError as error:
                answers += _failed(query, str(error))
                continue
            try:
                command = ["scontrol", *query.arguments]
                environment = {**self._environment, "SLURM_TIME_FORMAT": job_record.time_format(query.seal)}
                self._running = child.spawn_helper(command, environment, write_end)
            except OSError as error:
                os.close(read_end)
                answers += _failed(query, str(error))
            else:
                os.set_blocking(read_end, False)
                self._poller.register(read_end, select.POLLIN)
                self._output, self._query, self._answer = read_end, query, bytearray()
                self._kill_at = now + _PATIENCE
                self._helpers.add(self._running.pid)
            finally:
                os.close(write_end)
        return answers

    def owns(self, descriptor: int) -> bool:
        return descriptor == self._output

    def read(self) -> None:
        """Take in what the running scontrol has written."""
        if self._output is None:
            return
        for _turn in range(_MOST_AT_A_TIME):
            try:
                block = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            if not block:
                self._poller.unregister(self._output)
                os.close(self._output)
                self._output = None
                return
            self._answer += block
            if len(self._answer) > _LONGEST_ANSWER:
                self._answer.clear()
                self._kill_running()

    def check_patience(self, now: float) -> None:
        """Kill a running scontrol that has taken too long; its end is then an answer like any other."""
        if self._kill_at is not None and now >= self._kill_at and self._running is not None:
            self._kill_at = None
            self._kill_running()

    def ended(self, pid: int) -> list[Answer]:
        """Reap one of our scontrols that has ended, and return what it answered."""
        self._end_what_it_left(pid)
        running, query = self._running, self._query
        if running is None or query is None or running.pid != pid:
            os.waitpid(pid, 0)  # one that was given up
            self._helpers.discard(pid)
            return []
        running.reap()
        self.read()
        answer, gave_up = self._answer.decode("utf-8", "replace"), self._kill_at is None
        self._helpers.discard(pid)
        self._forget_running()
        if gave_up:
            return _failed(query, f"scontrol did not answer within {_PATIENCE:.0f} s")
        if running.status == NOT_FOUND:
            missing: list[Answer] = [] if self._told_missing else [NoScontrol(answer)]
            self._told_missing = True
            return [*missing, *_failed(query, answer)]
        return self._understand(query, running.status, answer)

    def _end_what_it_left(self, pid: int) -> None:
        """Kill what a site's script has left running: it would be swept at our end, and ignores SIGTERM as we asked.

        Args:
            pid: of an scontrol that has ended. It is not reaped yet, so its group is its own.
        """
        os.killpg(pid, signal.SIGKILL)
        # One that was given up may end when the next is at it already.
        scontrols = (pid, self._running and self._running.pid)
        for orphan in tree.children():
            if orphan not in scontrols and tree.was_given(orphan, _HELPERS_MARK):
                os.kill(orphan, signal.SIGKILL)

    def close(self) -> None:
        """Kill whatever scontrol is running: its answer would come too late."""
        self._queue.clear()
        self._give_up_running()

    def _give_up_running(self) -> None:
        if self._running is not None:
            self._kill_running()
            self._forget_running()

    def _kill_running(self) -> None:
        """Kill the running scontrol, which may be a site's script, with all that it started in its group."""
        if self._running is not None and self._running.status is None:
            os.killpg(self._running.pid, signal.SIGKILL)

    def _forget_running(self) -> None:
        if self._output is not None:
            self._poller.unregister(self._output)
            os.close(self._output)
        self._running = self._query = self._output = self._kill_at = None

    def _understand(self, query: _Query, status: int | None, answer: str) -> list[Answer]:
        if query.kind == "requeue":
            text = " ".join(answer.split()) or f"scontrol ended with {status}"
            return [RequeueAnswered(status == 0, any(words in answer for words in _REFUSED_FOR_EVER), text)]
        if query.kind == "job" and status == 0:
            return self._read_job(query, answer)
        if status != 0:
            return _failed(query, " ".join(answer.split())[:200] or f"scontrol ended with {status}")
        if query.kind == "script":
            return [BatchScript(answer)]
        if query.kind == "config":
            self._config = answer
            if self._partition:
                self._queue.append(_Query("partition", ("show", "partition", "-o", self._partition)))
                return []
        return [parse_site(self._config, answer if query.kind == "partition" else "")]

    def _read_job(self, query: _Query, answer: str) -> list[Answer]:
        try:
            return [JobRead(job_record.parse(answer, self._job_id, query.seal, time.time() - time.monotonic()))]
        except job_record.Ambiguous as error:
            if self._alone in query.arguments:
                return [JobRead(None, str(error), answered=True)]
            self._queue.insert(0, self._job_query(self._alone))
            return []
        except job_record.Unreadable as error:
            return [JobRead(None, str(error), answered=True)]


def _failed(query: _Query, why: str) -> list[Answer]:
    if query.kind == "job":
        return [JobRead(None, why)]
    if query.kind == "requeue":
        return [RequeueAnswered(False, False, why)]
    return []


# --- understanding -------------------------------------------------------------------------------


def requeue_id_by_environment(environment: Mapping[str, str]) -> str:
    """Return the job's id for `scontrol requeue`, good enough for a hint while its record is unread."""
    return array_task(environment) or environment.get("SLURM_JOB_ID", "")


def array_task(environment: Mapping[str, str]) -> str:
    """Return what Slurm calls an array's task, ARRAY_TASK; empty: this is none."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else ""


def end_by_environment(environment: Mapping[str, str], epoch_offset: float, now: float) -> float | None:
    """Return when the job ends as Slurm knew it at its start (s, monotonic): better than nothing without a controller.

    Args:
        epoch_offset: epoch time minus monotonic time (s).
        now: an end before it says nothing: it was handed down from another job, or moved (s, monotonic).
    """
    text = environment.get("SLURM_JOB_END_TIME", "")
    end = float(text) - epoch_offset if re.fullmatch("[0-9]{1,12}", text) else None
    return end if end is not None and end > now else None


def kills_on_bad_exit(command: list[str], environment: Mapping[str, str], configured: bool) -> bool:
    """Return whether an srun command line kills all tasks when one ends with another status than 0.

    The last of its options counts, then SLURM_KILL_BAD_EXIT, then KillOnBadExit (srun(1)).
    """
    chosen = configured
    if environment.get("SLURM_KILL_BAD_EXIT", ""):
        chosen = environment["SLURM_KILL_BAD_EXIT"] != "0"
    for argument in _options_of_srun(command):
        name, _, value = argument.partition("=")
        # Like getopt: short options come in clusters, long ones may be cut short.
        if option := re.fullmatch(r"-[A-Za-z]*K=?([01])?", argument):
            chosen = option[1] != "0"
        elif name.startswith("--k") and "--kill-on-bad-exit".startswith(name):
            chosen = value != "0"
    return chosen


def keeps_notices_back(command: list[str]) -> bool:
    """Return whether an srun command line has srun hand no SIGUSR1 on (srun(1), --ignore-signals; 26.05)."""
    listed = before = ""
    for argument in _options_of_srun(command):
        option, value = argument.split("=", 1) if "=" in argument else (before, argument)
        if option.startswith("--ig") and "--ignore-signals".startswith(option):
            listed = value
        before = argument
    return any(re.fullmatch("(SIG)?USR1|10", name, re.IGNORECASE) for name in listed.split(","))


def _options_of_srun(command: list[str]) -> list[str]:
    """Return the words between `srun` and its program.

    A word behind an option is taken for its value: reading too far makes tasks end with 0 for nothing, but stopping
    early gets them killed.
    """
    words = command[1:]
    for number, word in enumerate(words):
        if not word.startswith("-") and not (number and words[number - 1].startswith("-")):
            return words[:number]
    return words


def parse_site(config: str, partition: str) -> SiteFacts:
    """Return what `scontrol show config` and `show partition -o` tell, Slurm's defaults where they tell nothing."""
    defaults = Site()
    preemption = re.search(r"^PreemptType\s*=\s*preempt/(\w+)", config, re.MULTILINE)
    kill_wait = re.search(r"^KillWait\s*=\s*(\d+)", config, re.MULTILINE)
    bad_exit = re.search(r"^KillOnBadExit\s*=\s*(\d+)", config, re.MULTILINE)
    grace = re.search(r"\bGraceTime=(\d+)", partition)
    if preemption is not None and preemption[1] == "qos":
        grace = None  # then the QOS's counts, whatever the partition says
    site = Site(
        float(kill_wait[1]) if kill_wait else defaults.kill_wait,
        float(grace[1]) if grace else defaults.grace_time,
        _requeue_exits(config),
    )
    modes = re.search(r"\bPreemptMode=(\S+)", partition) or re.search(r"^PreemptMode\s*=\s*(\S+)", config, re.MULTILINE)
    by_partition = preemption is not None and preemption[1] == "partition_prio"
    mode = preempted_by(modes[1] if modes else "")
    helps = by_partition and early_notice_helps(mode, site.grace_time or 0, site.kill_wait)
    return SiteFacts(site, bool(bad_exit and bad_exit[1] != "0"), helps)


def preempted_by(mode: str) -> str:
    """Return what a PreemptMode does to a job that makes way: REQUEUE, CANCEL, SUSPEND; empty: none has to."""
    return next((name for name in ("REQUEUE", "CANCEL", "SUSPEND") if name in mode.upper()), "")


def early_notice_helps(mode: str, grace: float, kill_wait: float) -> bool:
    """Return whether a batch process that hears of a preemption when its grace begins has longer to save.

    Args:
        mode: see `preempted_by`.
        grace: of the partition (s), if that is what counts and not the QOS's.
        kill_wait: what the batch process has from its own SIGTERM on (s).
    """
    return mode in ("REQUEUE", "CANCEL") and kill_wait < grace < UNLIMITED


def _requeue_exits(config: str) -> frozenset[int]:
    """Return the statuses that RequeueExit and RequeueExitHold list: `85`, `1-9,18` (slurm.conf(5))."""
    found: set[int] = set()
    for listed in re.findall(r"^RequeueExit(?:Hold)?\s*=\s*([0-9,-]+)\s*$", config, re.MULTILINE):
        for first, last in re.findall(r"(\d{1,3})(?:-(\d{1,3}))?", listed):
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
