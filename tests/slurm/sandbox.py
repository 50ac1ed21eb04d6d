"""A Slurm of one's own: munged, slurmctld and several slurmd on this machine, below one temporary folder.

    with Sandbox(nodes=2) as slurm:
        job = slurm.sbatch(script="#!/bin/sh\\nexec sleep 60\\n")
        slurm.wait_for_state(job, "RUNNING")

It works for root and for an ordinary user. For root each node has a /tmp of its own (see PRIVATE); for others the nodes
share this machine's. The nodes share process numbers, the host name and the network in any case.

`tests.slurm.guardian` keeps the promise that nothing is left behind.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from tests.slurm import guardian

T = TypeVar("T")
JobId = int | str
#: How Slurm knows what belongs to a job: by who is whose child, or by the cgroup, which freezes and kills as well.
Tracking = Literal["linuxproc", "cgroup"]

DAEMONS = ("munged", "slurmctld", "slurmd")
#: The folders of which each node has its own.
PRIVATE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
#: What of them the nodes see all the same: this checkout, and the Python that runs it.
SHARED = (Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix))
#: Variables that change what Slurm's commands do or print, or that kforge-run would take for its own.
DROPPED = ("KFORGE_", "SALLOC_", "SBATCH_", "SCANCEL_", "SINFO_", "SLURM", "SPANK_", "SQUEUE_", "SRUN_")
POLL = 0.2  # s
#: Of the first generation of cgroups, what proctrack/cgroup needs; and where the second is, if it is alone.
FREEZER = Path("/sys/fs/cgroup/freezer")
SECOND_GENERATION = Path("/sys/fs/cgroup")
#: What a job's record looks like: NAME=VALUE NAME=VALUE …, and a value may hold spaces.
FIELD = re.compile(r"(?:^| )([A-Z][A-Za-z0-9/:_]*)=")


class SandboxError(Exception):
    """A command or a daemon of the sandbox has failed."""


def missing() -> list[str]:
    """The daemons that are not installed here."""
    return [daemon for daemon in DAEMONS if shutil.which(daemon, path=_search_path()) is None]


def installed_version() -> tuple[int, int]:
    """The version of the Slurm that is installed here."""
    # Of all its programs this one needs no slurm.conf for that.
    said = subprocess.check_output(["slurmctld", "-V"], env={"PATH": _search_path()}, text=True)
    year, month, *_ = re.findall(r"\d+", said)
    return int(year), int(month)


def no_cgroups() -> str | None:
    """Why Slurm cannot track processes by cgroups here; None: it can."""
    if os.getuid() != 0:
        return "only root may make cgroups"
    where = SECOND_GENERATION if is_second_generation() else FREEZER
    trial = where / f"trial-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError as error:
        beside = "the second generation's are beside others, and Slurm takes them only alone"
        return f"no freezer of the first generation of cgroups can be written here ({error}), and {beside}"
    try:
        known = trial / ("cgroup.freeze" if is_second_generation() else "freezer.state")
        return None if known.exists() else f"{where} is no freezer of cgroups"
    finally:
        trial.rmdir()


def is_second_generation() -> bool:
    """Whether the cgroups here are those of the second generation, and no others."""
    return (SECOND_GENERATION / "cgroup.controllers").exists()


def _search_path() -> str:
    """PATH, and where the daemons are, also for who is not root."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class Sandbox:
    """Starts a Slurm, and offers what tests do with it.

    Args:
        nodes: How many; they are called n1, n2, …, and with cgroups by numbers that no other sandbox uses.
        cpus: How many CPUs Slurm believes each node to have.
        gpus: How many GPUs Slurm believes each node to have. They are empty files: nothing can be computed on them.
        kill_wait: Slurm's KillWait in seconds: from SIGTERM to SIGKILL.
        grace: The preemptible partitions' GraceTime in seconds.
        scheduler_parameters: Added to SchedulerParameters.
        controller_parameters: SlurmctldParameters, for instance ``["preempt_send_user_signal"]``.
        extra_conf: Lines for slurm.conf. One that is already there is replaced.
        shared: What of /tmp, /var/tmp and /dev/shm the nodes see, besides the sandbox's own folder.
        prepare: Commands that change what each node sees, before its slurmd starts: mounts. For root only.
        process_tracking: Slurm's ProctrackType. With cgroups for root only, see no_cgroups().
        conf_files: Text for further files beside slurm.conf, by their names; for cgroup.conf it is added.
        below: Where the sandbox's folder is made. With a short name, for the sockets in it.

    Attributes:
        root: The sandbox's folder: configuration, logs, spool.
        work: A folder that every node sees, for scripts and logs. All commands run in it.
        environment: For commands: SLURM_CONF is set, and no inherited variable changes what Slurm does.
        guardian: The pid of the process above everything that the sandbox runs.
        version: Slurm's, (24, 11) for instance.
        submitted: The ids of the jobs that sbatch() has submitted.
        private: Whether each node has its own /tmp, /var/tmp and /dev/shm. See node_folder().

    Raises:
        SandboxError: On entry or from open(), with the daemons' last words, when they do not come up.
    """

    root: Path
    work: Path
    environment: dict[str, str]
    guardian: int
    private: bool
    version: tuple[int, int]

    def __init__(
        self,
        nodes: int = 2,
        *,
        cpus: int = 32,
        gpus: int = 8,
        kill_wait: int = 8,
        grace: int = 20,
        scheduler_parameters: Iterable[str] = (),
        controller_parameters: Iterable[str] = (),
        extra_conf: str = "",
        shared: Sequence[Path] = SHARED,
        prepare: Sequence[Sequence[str]] = (),
        process_tracking: Tracking = "linuxproc",
        conf_files: Mapping[str, str] | None = None,
        below: Path = Path("/tmp"),
    ) -> None:
        self.version = installed_version()
        self.process_tracking = process_tracking
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.submitted: list[int] = []
        self._cpus = cpus
        self._gpus = gpus
        self._kill_wait = kill_wait
        self._grace = grace
        self._scheduler_parameters = list(scheduler_parameters)
        self._controller_parameters = list(controller_parameters)
        self._extra_conf = extra_conf
        self._shared = shared
        self._prepare = prepare
        self._conf_files = dict(conf_files or {})
        self._below = below
        self._socket: socket.socket | None = None

    # Start and end

    def __enter__(self) -> Sandbox:
        if self._socket is None:
            self.open()
        return self

    def open(self) -> None:
        """Start it, and return when jobs can run."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Its own environment must not name a sandbox that this one may be inside of, and that kills by it.
            command = [sys.executable, "-I", guardian.__file__, str(self._below)]
            subprocess.run(command, stdin=theirs.fileno(), env=_clean_environment(), check=True)
        try:
            self._lines = self._socket.makefile("rw")
            greeting = json.loads(self._lines.readline())
            self.guardian = greeting["pid"]
            self._set_root(Path(greeting["root"]))
            self._start()
        except BaseException:  # KeyboardInterrupt too: nobody else would end what has been started
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def join(cls, root: Path) -> Sandbox:
        """Connect to a sandbox that another process has started; it then lasts until both have closed it.

        Raises:
            ConnectionError: It has ended.
            FileNotFoundError: It has ended.
        """
        sandbox = cls()
        sandbox.root = root
        sandbox._socket = socket.socket(socket.AF_UNIX)
        try:
            sandbox._socket.connect(str(root / guardian.SOCKET))
        except OSError:
            sandbox._socket.close()
            raise
        sandbox._lines = sandbox._socket.makefile("rw")
        try:
            # Once it has answered it cannot end before we leave. Before, it may be about to.
            sandbox._ask("status")
        except ConnectionError:
            sandbox.close()
            raise
        facts = json.loads((root / "facts.json").read_text())
        sandbox.nodes, sandbox.guardian, sandbox.private = facts["nodes"], facts["guardian"], facts["private"]
        sandbox.process_tracking = facts["process_tracking"]
        sandbox._set_root(root)
        return sandbox

    def close(self) -> None:
        """Leave the sandbox. The last one to leave waits until nothing of it is left."""
        if self._socket is None:
            return
        self._socket.shutdown(socket.SHUT_WR)
        try:
            while self._socket.recv(4096):
                pass
        except ConnectionResetError:
            pass  # also an end
        self._lines.close()
        self._socket.close()
        self._socket = None

    def _set_root(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.environment = {
            **_clean_environment(),
            "PATH": _search_path(),
            "SLURM_CONF": str(root / "slurm.conf"),
            guardian.MARK: str(root),
        }

    def _start(self) -> None:
        self.work.mkdir()
        self.private = can_unshare()
        controller_port, *node_ports = self._ask("reserve", count=1 + len(self.nodes))
        if self.process_tracking == "cgroup":
            # A node's name is all that tells its cgroups from those of another sandbox, which would be killed with it.
            self.nodes = [f"n{port}" for port in sorted(node_ports)]
            self._ask("own_cgroups", paths=[str(_cgroup_of(node)) for node in self.nodes])
        for folder in ("state", *self.nodes):
            (self.root / folder).mkdir()
        (self.root / "slurm.conf").write_text(self._configuration(controller_port, node_ports))
        # Slurm looks for these beside slurm.conf.
        files = {"gres.conf": self._devices(), **self._conf_files}
        files["cgroup.conf"] = self._cgroup_configuration() + self._conf_files.get("cgroup.conf", "")
        for name, text in files.items():
            (self.root / name).write_text(text)
        facts = {"nodes": self.nodes, "guardian": self.guardian, "private": self.private}
        facts["process_tracking"] = self.process_tracking
        (self.root / "facts.json").write_text(json.dumps(facts))

        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        munge = [
            f"--socket={self.root / 'munge.socket'}",
            f"--key-file={key}",
            f"--seed-file={self.root / 'munge.seed'}",
            f"--pid-file={self.root / 'munge.pid'}",
            f"--log-file={self.root / 'log' / 'munged.log'}",
        ]
        self._spawn("munged", "munged", "--foreground", *munge)
        self._await("munged's socket", (self.root / "munge.socket").exists)
        self.start_controller()
        for node in self.nodes:
            command = ["slurmd", "-D", "-N", node]
            self._spawn(node, *(self._in_namespace(node, command) if self.private else command))
        self._await("every node to be idle", self._nodes_are_idle)

    def _cgroup_configuration(self) -> str:
        if self.process_tracking == "cgroup" and is_second_generation():
            # What systemd would do for each node it could do for one only.
            return "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
        if self.process_tracking == "cgroup":
            return f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={FREEZER.parent}\n"
        # Newer slurmds do not start without cgroups unless this says so.
        return "CgroupPlugin=disabled\n" if self.version >= (23, 2) else ""

    def _configuration(self, controller_port: int, node_ports: Sequence[int]) -> str:
        user, host, root = getpass.getuser(), socket.gethostname().partition(".")[0], self.root
        scheduler = ["batch_sched_delay=0", "sched_interval=1", "sched_min_interval=0", "bf_interval=1"]
        settings = {
            "ClusterName": "sandbox",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": str(controller_port),
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            # cred_expire is also how long a requeued job waits; Slurm takes nothing below 5 s.
            "AuthInfo": f"socket={root}/munge.socket,cred_expire=5",
            "StateSaveLocation": f"{root}/state",
            "SlurmctldPidFile": f"{root}/slurmctld.pid",
            "SlurmctldLogFile": f"{root}/log/slurmctld.log",
            "SlurmctldDebug": "verbose",
            "SlurmctldParameters": ",".join(self._controller_parameters),
            "SlurmdSpoolDir": f"{root}/%n",
            "SlurmdPidFile": f"{root}/%n.pid",
            "SlurmdLogFile": f"{root}/log/%n.log",
            "SlurmdDebug": "debug",
            "SlurmdParameters": "config_overrides",
            "MailProg": "/bin/true",
            "MpiDefault": "none",
            "ProctrackType": f"proctrack/{self.process_tracking}",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "JobRequeue": "1",
            "KillWait": str(self._kill_wait),
            # Tests look at jobs that have ended.
            "MinJobAge": "3600",
            "ReturnToService": "2",
            "GresTypes": "gpu" if self._gpus else "",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": ",".join([*scheduler, *self._scheduler_parameters]),
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
        }
        has = f"CPUs={self._cpus} RealMemory=65536" + (f" Gres=gpu:{self._gpus}" if self._gpus else "")
        entities = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {has}"
            for node, port in zip(self.nodes, node_ports, strict=True)
        ]
        # A job to be preempted, and the one it makes way for, have their nodes to themselves, so that no other job
        # (another test's, in a sandbox that tests share) is preempted with it.
        alone = "OverSubscribe=EXCLUSIVE"
        partitions = {
            "main": "Default=YES PriorityTier=1 PreemptMode=OFF",
            "preemptible": f"{alone} PriorityTier=1 PreemptMode=REQUEUE GraceTime={self._grace}",
            "preemptible-cancel": f"{alone} PriorityTier=1 PreemptMode=CANCEL GraceTime={self._grace}",
            "urgent": f"{alone} PriorityTier=10 PreemptMode=OFF",
        }
        entities += [
            f"PartitionName={name} Nodes=ALL MaxTime=UNLIMITED DefaultTime=60 {options}"
            for name, options in partitions.items()
        ]
        for line in self._extra_conf.splitlines():
            name, _, value = line.strip().partition("=")
            if name in {"NodeName", "PartitionName"}:
                entities.append(line)
            elif name:
                settings[name] = value
        return "\n".join([*(f"{name}={value}" for name, value in settings.items() if value), *entities, ""])

    def _devices(self) -> str:
        """Make the GPUs, and return gres.conf: slurmd believes in one only if it has a file."""
        for number in range(self._gpus):
            (self.root / f"gpu{number}").touch()
        return f"Name=gpu File={self.root}/gpu[0-{self._gpus - 1}]\n" if self._gpus else ""

    def node_folder(self, node: str, folder: str | Path) -> Path:
        """Where a node's own /tmp, /var/tmp or /dev/shm is, seen from outside (if the nodes are private)."""
        return self.root / node / str(folder).strip("/").replace("/", "-")

    def _in_namespace(self, node: str, command: Sequence[str]) -> list[str]:
        """``command`` in a mount namespace where PRIVATE are folders of ``node``'s."""
        steps = []
        for folder in PRIVATE:
            own = self.node_folder(node, folder)
            own.mkdir()
            own.chmod(0o1777)
            for path in {self.root, *self._shared}:
                if folder in path.parents:
                    seen = own / path.relative_to(folder)
                    seen.mkdir(parents=True, exist_ok=True)
                    steps.append(["mount", "--bind", str(path), str(seen)])
            steps.append(["mount", "--rbind", str(own), str(folder)])
        # /tmp last: below it is what the other steps name.
        steps = [step for step in steps if step[-1] != "/tmp"] + [step for step in steps if step[-1] == "/tmp"]
        script = "\n".join(shlex.join(step) for step in [*steps, *self._prepare, ["exec", *command]])
        return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]

    def _nodes_are_idle(self) -> bool:
        # Not run(): the controller may not be listening yet.
        result = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return result.stdout.split("\n")[:-1] == [f"{node} idle" for node in self.nodes]

    # The daemons

    def _ask(self, do: str, **arguments: object) -> Any:
        self._lines.write(json.dumps({"do": do, **arguments}) + "\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError(f"the sandbox in {self.root} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise SandboxError(f"the sandbox's guardian: {answer['error']}")
        return answer["reply"]

    def _spawn(self, name: str, *command: str) -> None:
        self._ask("start", name=name, command=command, environment=self.environment)

    def _await(self, what: str, probe: Callable[[], bool]) -> None:
        """Wait for a daemon to be ready, which it never is if one has ended."""

        def ready() -> bool:
            ended = {name: status for name, status in self._ask("status").items() if status is not None}
            if ended:
                raise SandboxError(f"ended while waiting for {what}: {ended}\n{self.logs()}")
            return probe()

        self.wait_for(what, ready, timeout=60, poll=0.02)

    def stop_controller(self) -> None:
        """End slurmctld, which saves its state. Jobs go on; Slurm's commands fail."""
        self._ask("signal", name="slurmctld", number=signal.SIGTERM)
        self.wait_for("slurmctld to end", lambda: self._ask("status")["slurmctld"] is not None)

    def start_controller(self) -> None:
        """Start slurmctld, with the state that it had when it was stopped, if it was."""
        self._spawn("slurmctld", "slurmctld", "-D")
        self._await("slurmctld to answer", self._controller_answers)

    def _controller_answers(self) -> bool:
        # A command would try for many seconds before it gives up: ask only who listens.
        port = re.search(r"^SlurmctldPort=(\d+)$", (self.root / "slurm.conf").read_text(), re.MULTILINE)
        assert port is not None
        try:
            socket.create_connection(("127.0.0.1", int(port[1]))).close()
        except ConnectionRefusedError:
            return False
        # One that listens may still find its configuration wrong, and end.
        ping = subprocess.run(["scontrol", "ping"], env=self.environment, capture_output=True, check=False)
        return ping.returncode == 0

    def logs(self, lines: int = 15) -> str:
        """The last lines of each daemon's log, or of what it has printed if it did not get as far as that."""
        printed = sorted((self.root / "log").glob("*.out"))
        paths = [log if (log := path.with_suffix(".log")).exists() else path for path in printed]
        return "\n".join(f"--- {path.name}\n{tail(path, lines)}" for path in paths)

    # Slurm's commands

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in the sandbox.

        Args:
            command: With its arguments.
            timeout: In seconds.

        Raises:
            SandboxError: It has failed; the message has its output.
            subprocess.TimeoutExpired: It has not ended in time, and was killed.
        """
        result = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if result.returncode != 0:
            raise SandboxError(
                f"{shlex.join(command)} ended with {result.returncode}: {result.stderr.strip()} {result.stdout.strip()}"
            )
        return result

    def sbatch(self, *arguments: str, script: str | None = None) -> int:
        """Submit a job, and return its id.

        Args:
            arguments: sbatch's own, and unless ``script`` is given the script or ``--wrap=…``.
            script: The batch script's text.
        """
        if script is None:
            command = ["sbatch", "--parsable", *arguments]
        else:
            # sbatch reads a script from its standard input, but then calls the job "sbatch".
            path = self.work / f"script-{os.getpid()}-{time.monotonic_ns()}.sh"
            path.write_text(script)
            command = ["sbatch", "--parsable", *arguments, str(path)]
        job = int(self.run(*command).stdout.partition(";")[0])
        self.submitted.append(job)
        return job

    def jobs(self, job: JobId) -> list[dict[str, str]]:
        """The fields of ``scontrol show job -o``, for each task of an array, each component of a het job."""
        return [fields(line) for line in self.run("scontrol", "show", "job", "-o", str(job)).stdout.splitlines()]

    def job(self, job: JobId) -> dict[str, str]:
        """One job's record. ``12_3`` is a task of an array, whose last task Slurm also calls by the array's id."""
        records = self.jobs(job)
        own = [record for record in records if record["JobId"] == str(job)] or records
        if len(own) != 1:
            raise SandboxError(f"expected one record of job {job}, got {len(own)}: {own}")
        return own[0]

    def scancel(self, *arguments: JobId) -> None:
        self.run("scancel", *map(str, arguments))

    def requeue(self, job: JobId) -> None:
        self.run("scontrol", "requeue", str(job))

    def suspend(self, job: JobId) -> None:
        self.run("scontrol", "suspend", str(job))

    def resume(self, job: JobId) -> None:
        self.run("scontrol", "resume", str(job))

    def preempt(self, job: JobId) -> int:
        """Submit an urgent job that needs the nodes on which ``job`` runs, and is done as soon as it runs itself."""
        record = self.job(job)
        if not record["Partition"].startswith("preemptible"):
            raise SandboxError(f"job {job} is in partition {record['Partition']}, where nothing is preempted")
        nodes = record["NodeList"]
        return self.sbatch("--partition=urgent", f"--nodelist={nodes}", "--output=/dev/null", "--wrap=true")

    def release(self, job: JobId) -> None:
        """Let a requeued job start now, not seconds later (``Reason=BeginTime``)."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def end_in(self, job: JobId, seconds: int) -> None:
        """Let the job's time limit be reached ``seconds`` from now, for the shortest limit is one minute.

        Slurm sees it at its next check, which it makes every 30 s from slurmctld's start on.
        """
        end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))
        self.run("scontrol", "update", f"JobId={job}", f"EndTime={end}")

    def output(self, job: JobId) -> str:
        """What the job has written to its output file so far."""
        path = Path(self.job(job)["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def processes_of_job(self, job: JobId) -> dict[int, str]:
        """The job's processes by pid, with their command lines, also those that Slurm has lost sight of."""
        own = self.job(job)["JobId"]
        return {
            pid: command_line(pid)
            for pid in guardian.descendants(self.guardian)
            if guardian.environment_of(pid).get("SLURM_JOB_ID") == own
        }

    # Waiting

    def wait_for(
        self,
        what: str,
        probe: Callable[[], T | None],
        *,
        job: JobId | None = None,
        timeout: float = 90,
        poll: float = POLL,
    ) -> T:
        """Wait until ``probe`` returns something true, and return that.

        Args:
            what: What is waited for, in words, for the message.
            probe: Called again and again.
            job: Whose record and output the message shows.
            timeout: In seconds.
            poll: Seconds from one call to the next.

        Raises:
            SandboxError: It did not come true in time; the message shows the job and the ends of the daemons' logs.
        """
        deadline = time.monotonic() + timeout
        while True:
            late = time.monotonic() > deadline
            result = probe()
            if result:
                return result
            if late:
                about = "" if job is None else self._describe(job)
                raise SandboxError(f"waited {timeout:g} s for {what}\n{about}{self.logs()}")
            time.sleep(poll)

    def wait_for_state(self, job: JobId, *states: str, timeout: float = 90) -> dict[str, str]:
        """Wait until the job's state is one of ``states``, and return its record."""

        def probe() -> dict[str, str] | None:
            record = self.job(job)
            return record if record["JobState"] in states else None

        return self.wait_for(f"job {job} to be {' or '.join(states)}", probe, job=job, timeout=timeout)

    def wait_for_output(self, job: JobId, text: str, *, count: int = 1, timeout: float = 90) -> str:
        """Wait until the job has written ``text``, ``count`` times, and return all that it has written."""

        def probe() -> str | None:
            output = self.output(job)
            return output if output.count(text) >= count else None

        return self.wait_for(f"{text!r} in the output of job {job}", probe, job=job, timeout=timeout)

    def _describe(self, job: JobId) -> str:
        try:
            record = self.job(job)
        except (SandboxError, subprocess.TimeoutExpired) as error:
            return f"--- job {job}: {error}\n"
        lines = " ".join(f"{name}={value}" for name, value in record.items())
        return f"--- job {job}\n{lines}\n--- {record['StdOut']}\n{tail(Path(record['StdOut']), 40)}\n"


def fields(record: str) -> dict[str, str]:
    """A line of ``scontrol show job -o`` by field."""
    _, *parts = FIELD.split(record)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


def tail(path: Path, lines: int) -> str:
    if not path.is_file():
        return "(no such file)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended since


def _cgroup_of(node: str) -> Path:
    """Where Slurm makes the cgroups of a node's jobs."""
    if is_second_generation():
        return SECOND_GENERATION / "system.slice" / f"{node}_slurmstepd.scope"
    return FREEZER / f"slurm_{node}"


def _clean_environment() -> dict[str, str]:
    # TMPDIR may name a folder that the nodes do not see.
    dropped = (*DROPPED, guardian.MARK, "TMPDIR")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def can_unshare() -> bool:
    """Whether we are root, and in no container that forbids mounts."""
    test = ["unshare", "--mount", "--propagation=private", "mount", "--bind", "/tmp", "/var/tmp"]
    return os.getuid() == 0 and subprocess.run(test, capture_output=True, check=False).returncode == 0
