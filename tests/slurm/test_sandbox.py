"""The sandbox keeps its promises."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm import guardian, roots
from tests.slurm.conftest import join_or_start
from tests.slurm.sandbox import Sandbox, SandboxError, fields, missing

CHECKOUT = Path(__file__).parents[2]
SLURM_SANDBOX = CHECKOUT / "bin" / "slurm-sandbox"
#: Any ordinary one whom Slurm lets run its daemons: 26.05 refuses nobody.
USER = pwd.getpwnam("games")

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not found: {', '.join(missing())}")

#: Ends on SIGTERM at once, and says which attempt it is.
ATTEMPT = """#!/bin/sh
#SBATCH --open-mode=append
trap 'exit 1' TERM
echo attempt ${SLURM_RESTART_COUNT:-0}
sleep 600 &
wait
"""


def eventually(what: str, probe: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.02)


def belonging_to(root: str) -> dict[int, dict[str, str]]:
    """Processes that were started for the sandbox in ``root``, wherever they are now."""
    environments = {pid: guardian.environment_of(pid) for pid in guardian.processes()}
    return {pid: found for pid, found in environments.items() if found.get(guardian.MARK) == root}


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def own() -> Iterator[Sandbox]:
    """For tests that stop daemons, or count processes."""
    with Sandbox() as sandbox:
        yield sandbox


def test_a_job_runs(slurm: Sandbox) -> None:
    job = slurm.sbatch("--comment=a b=c", script="#!/bin/sh\necho ran on $SLURMD_NODENAME\n")
    record = slurm.wait_for_state(job, "COMPLETED")
    assert record["ExitCode"] == "0:0"
    assert record["Comment"] == "a b=c"
    assert slurm.output(job) == f"ran on {record['NodeList']}\n"


def test_srun_reaches_two_nodes(slurm: Sandbox) -> None:
    seen = slurm.run(
        "srun", "--nodes=2", "--ntasks-per-node=2", "sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME"
    ).stdout
    ranks = dict(line.split() for line in seen.splitlines())
    assert sorted(ranks) == ["0", "1", "2", "3"]
    assert len(set(ranks.values())) == 2


def test_a_job_step_reaches_two_nodes(slurm: Sandbox) -> None:
    job = slurm.sbatch("--nodes=2", "--ntasks=2", script="#!/bin/sh\nsrun sh -c 'echo rank $SLURM_PROCID'\n")
    slurm.wait_for_state(job, "COMPLETED")
    assert sorted(slurm.output(job).splitlines()) == ["rank 0", "rank 1"]


def test_nodes_have_folders_of_their_own(slurm: Sandbox) -> None:
    if not slurm.private:
        pytest.skip("only root may give each node a /tmp of its own")
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        mark = Path(folder, f"mark-{os.getpid()}")
        slurm.run("srun", "--nodes=1", "--nodelist=n1", "touch", str(mark))
        slurm.run("srun", "--nodes=1", "--nodelist=n1", "test", "-e", str(mark))
        slurm.run("srun", "--nodes=1", "--nodelist=n2", "test", "!", "-e", str(mark))
        assert not mark.exists()
        assert slurm.node_folder("n1", folder).joinpath(mark.name).exists()


def test_nodes_share_the_work_folder_and_this_python(slurm: Sandbox) -> None:
    mark = slurm.work / f"mark-{os.getpid()}"
    slurm.run("srun", "--nodes=1", "--nodelist=n1", "touch", str(mark))
    slurm.run("srun", "--nodes=1", "--nodelist=n2", "test", "-e", str(mark))
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import tests.slurm.sandbox"
    slurm.run("srun", "--nodes=1", "--nodelist=n2", sys.executable, "-c", program)


def test_nothing_inherited_reaches_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "KFORGE_ATTEMPT", "TMPDIR"):
        monkeypatch.setenv(name, "inherited")
    with Sandbox() as slurm:
        assert "inherited" not in slurm.environment.values()
        job = slurm.sbatch(script="#!/bin/sh\nenv\n")
        slurm.wait_for_state(job, "COMPLETED")
        assert not [line for line in slurm.output(job).splitlines() if line.endswith("=inherited")]


def test_requeue_starts_the_job_again_within_seconds(slurm: Sandbox) -> None:
    job = slurm.sbatch(script=ATTEMPT)
    slurm.wait_for_output(job, "attempt 0")
    slurm.requeue(job)
    slurm.wait_for_output(job, "attempt 1", timeout=20)
    assert slurm.job(job)["Restarts"] == "1"


def test_preemption_requeues() -> None:
    with Sandbox(kill_wait=2, grace=1) as slurm:
        job = slurm.sbatch("--partition=preemptible", script=ATTEMPT)
        slurm.wait_for_output(job, "attempt 0")
        urgent = slurm.preempt(job)
        slurm.wait_for("the preemption", lambda: slurm.job(job)["Restarts"] == "1", job=job)
        slurm.wait_for_state(urgent, "COMPLETED")
        slurm.wait_for_output(job, "attempt 1")


def test_preemption_cancels() -> None:
    with Sandbox(kill_wait=2, grace=1) as slurm:
        job = slurm.sbatch("--partition=preemptible-cancel", script=ATTEMPT)
        slurm.wait_for_output(job, "attempt 0")
        slurm.preempt(job)
        assert slurm.wait_for_state(job, "PREEMPTED", "CANCELLED")["Restarts"] == "0"


def test_preemption_sends_the_signal_that_was_asked_for() -> None:
    script = "#!/bin/sh\n#SBATCH --signal=B:USR1@60\ntrap 'echo got USR1' USR1\necho ready\nsleep 600 &\nwait\nwait\n"
    with Sandbox(kill_wait=2, grace=600, controller_parameters=["preempt_send_user_signal"]) as slurm:
        job = slurm.sbatch("--partition=preemptible", script=script)
        slurm.wait_for_output(job, "ready")
        slurm.preempt(job)
        slurm.wait_for_output(job, "got USR1", timeout=20)


def test_a_time_limit_of_seconds(slurm: Sandbox) -> None:
    job = slurm.sbatch(script=ATTEMPT)
    slurm.wait_for_output(job, "attempt")
    slurm.end_in(job, 1)
    assert slurm.wait_for_state(job, "TIMEOUT")["Reason"] == "TimeLimit"


def test_extra_conf_replaces_and_adds() -> None:
    extra = "KillWait=33\nOverTimeLimit=7\nPartitionName=extra Nodes=n1 State=UP"
    with Sandbox(extra_conf=extra) as slurm:
        assert re.findall(r"(KillWait|OverTimeLimit) += (\d+)", slurm.run("scontrol", "show", "config").stdout) == [
            ("KillWait", "33"),
            ("OverTimeLimit", "7"),
        ]
        assert "extra" in slurm.run("sinfo").stdout


def test_a_suspended_job_stands_still(slurm: Sandbox) -> None:
    job = slurm.sbatch(script=ATTEMPT)
    slurm.wait_for_output(job, "attempt")

    def states() -> set[str]:
        return {
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in slurm.processes_of_job(job)
        }

    slurm.suspend(job)
    slurm.wait_for_state(job, "SUSPENDED")
    slurm.wait_for("all processes to be stopped", lambda: states() == {"T"}, job=job)
    slurm.resume(job)
    slurm.wait_for_state(job, "RUNNING")
    slurm.wait_for("all processes to go on", lambda: states() == {"S"}, job=job)


def test_processes_of_a_job_include_those_that_left_their_session(slurm: Sandbox) -> None:
    script = "#!/bin/sh\nsetsid sh -c 'sleep 601 & sleep 602 & wait' &\necho ready\nsleep 603\n"
    job = slurm.sbatch(script=script)
    slurm.wait_for_output(job, "ready")
    slurm.wait_for(
        "three sleepers",
        lambda: {"sleep 601", "sleep 602", "sleep 603"} <= set(slurm.processes_of_job(job).values()),
    )
    slurm.scancel(job)
    slurm.wait_for_state(job, "CANCELLED")
    slurm.wait_for("no survivors", lambda: not slurm.processes_of_job(job), job=job)


def test_the_tasks_of_an_array_have_records_of_their_own(slurm: Sandbox) -> None:
    job = slurm.sbatch("--array=0-1", "--wrap=true")
    slurm.wait_for("both tasks", lambda: {record["JobState"] for record in slurm.jobs(job)} == {"COMPLETED"})
    assert {slurm.job(f"{job}_{task}")["ArrayTaskId"] for task in (0, 1)} == {"0", "1"}
    assert slurm.job(job)["JobId"] == str(job)


def test_the_controller_can_be_away(own: Sandbox) -> None:
    job = own.sbatch(script="#!/bin/sh\necho ready\nuntil [ -e go ]; do sleep 0.1; done\necho done\n")
    own.wait_for_output(job, "ready")
    output = Path(own.job(job)["StdOut"])
    own.stop_controller()
    with pytest.raises(subprocess.TimeoutExpired):
        own.run("scontrol", "show", "job", str(job), timeout=1)
    (own.work / "go").touch()
    eventually("the job to go on without a controller", lambda: "done" in output.read_text())
    own.start_controller()
    own.wait_for_state(job, "COMPLETED")


def test_a_failure_says_what_happened(slurm: Sandbox) -> None:
    job = slurm.sbatch(script=ATTEMPT)
    slurm.wait_for_output(job, "attempt")
    with pytest.raises(SandboxError, match=rf"(?s)job {job} to be FAILED.*JobState=RUNNING.*attempt 0.*slurmctld\.log"):
        slurm.wait_for_state(job, "FAILED", timeout=0.5)
    with pytest.raises(SandboxError, match="invalid partition"):
        slurm.sbatch("--partition=none", "--wrap=true")


def test_a_daemon_that_fails_to_start_is_named_with_its_last_words() -> None:
    with (
        pytest.raises(SandboxError, match=r"(?s)'slurmctld': 1.*--- slurmctld\.log.*select/none"),
        Sandbox(extra_conf="SelectType=select/none"),
    ):
        pass


def test_a_setting_that_no_slurm_has_any_more_is_named() -> None:
    with (
        pytest.raises(SandboxError, match="unrecognized key: CacheGroups"),
        Sandbox(nodes=1, extra_conf="CacheGroups=0"),
    ):
        pass


def test_two_at_once() -> None:
    with Sandbox() as one, Sandbox() as two:
        assert one.sbatch("--wrap=true") == two.sbatch("--wrap=true")
        one.wait_for_state(1, "COMPLETED")
        one.close()
        two.wait_for_state(1, "COMPLETED")


def test_two_of_different_versions_at_once(own: Sandbox) -> None:
    others = [version for version in roots.RELEASES if version != roots.own_version() and roots.place(version).exists()]
    if not others:
        pytest.skip("no root folder with another Slurm is seen here (hint: bin/slurm-root make 24.11)")
    job = own.sbatch(script=ATTEMPT)
    own.wait_for_output(job, "attempt")
    command = [sys.executable, str(SLURM_SANDBOX), "--slurm", others[0], "--nodes=1", "srun", "scontrol", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0 and f" {others[0]}." in said.stdout, said
    assert own.job(job)["JobState"] == "RUNNING"
    own.run("srun", "true")


def test_many_starting_at_the_same_moment() -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            with Sandbox(nodes=1) as sandbox:
                sandbox.run("srun", "true")
        except SandboxError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_nothing_is_left() -> None:
    with Sandbox() as slurm:
        job = slurm.sbatch(script="#!/bin/sh\nsetsid sleep 600 &\necho ready\nsleep 600\n")
        slurm.wait_for_output(job, "ready")
        suspended = slurm.sbatch(script=ATTEMPT)
        slurm.wait_for_output(suspended, "attempt")
        slurm.suspend(suspended)
        below = guardian.descendants(slurm.guardian)
    assert not slurm.root.exists()
    assert not [pid for pid in below if exists(pid)]
    assert not belonging_to(str(slurm.root))
    eventually("the guardian's end", lambda: not exists(slurm.guardian))


OWNER = f"""
import subprocess, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.slurm.sandbox import Sandbox
with Sandbox() as slurm:
    subprocess.Popen(["srun", "sleep", "600"], cwd=slurm.work, env=slurm.environment)
    job = slurm.sbatch(script={ATTEMPT!r})
    slurm.wait_for_output(job, "attempt")
    slurm.wait_for("srun's job", lambda: slurm.job(1)["JobState"] == "RUNNING")
    print(slurm.root, slurm.guardian, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        root, guard = owner.stdout.readline().split()
        below = guardian.descendants(int(guard))
        assert len(below) >= 4 and belonging_to(root)
        owner.send_signal(end)
    # It removes the folder after the processes, and ends after that.
    eventually("the guardian's end", lambda: not exists(int(guard)))
    assert not Path(root).exists()
    assert not [pid for pid in below if exists(pid)]
    assert not belonging_to(root)


def test_signals_from_a_terminal_do_not_end_it(own: Sandbox) -> None:
    for number in guardian.IGNORED:
        os.kill(own.guardian, number)
    own.run("srun", "true")


def test_shared_until_the_last_one_leaves(tmp_path: Path) -> None:
    first = join_or_start(tmp_path / "note")
    second = join_or_start(tmp_path / "note")
    assert second.root == first.root
    first.close()
    second.run("srun", "true")
    assert second.nodes == first.nodes
    second.close()
    assert not first.root.exists()
    with pytest.raises(FileNotFoundError):
        Sandbox.join(first.root)
    with join_or_start(tmp_path / "note") as third:
        assert third.root != first.root


def test_an_ordinary_user_can_have_one() -> None:
    if os.getuid() != 0:
        pytest.skip("every other test here is run by an ordinary user already")
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("needs /usr/bin/python3, as the one that runs the tests may be in root's home")
    script = "id -u; srun -N2 id -u; cd $SANDBOX/work && sbatch --wait --wrap='id -u' && cat slurm-2.out; echo $SANDBOX"
    result = subprocess.run(
        [
            *("setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"),
            *(str(python), "-B", str(SLURM_SANDBOX), "sh", "-c", script),
        ],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    *lines, root = result.stdout.splitlines()
    assert lines == [*[str(USER.pw_uid)] * 3, "Submitted batch job 2", str(USER.pw_uid)]
    assert not Path(root).exists()


def test_by_hand_with_a_command() -> None:
    result = subprocess.run(
        [sys.executable, str(SLURM_SANDBOX), "--nodes=3", "sh", "-c", "sinfo -h -p main -o %D; exit 7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (7, "3\n")


def test_by_hand_until_interrupted() -> None:
    with subprocess.Popen([sys.executable, str(SLURM_SANDBOX)], stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        export = sandbox.stdout.readline()
        while "Ctrl-C" not in sandbox.stdout.readline():
            pass
        printed = subprocess.run(
            ["sh", "-c", f"{export}\nsinfo -h -p main -o %D"], capture_output=True, text=True, check=True
        )
        assert printed.stdout == "2\n"
        sandbox.send_signal(signal.SIGINT)
    assert sandbox.returncode == 0


def test_fields() -> None:
    assert fields("JobId=3 JobName=a b=c Socks/Node=* ReqB:S:C:T=0:0:*:* Power= ") == {
        "JobId": "3",
        "JobName": "a b=c",
        "Socks/Node": "*",
        "ReqB:S:C:T": "0:0:*:*",
        "Power": "",
    }
