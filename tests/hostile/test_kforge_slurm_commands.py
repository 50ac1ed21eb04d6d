"""Slurm's commands that are not what they should be: a site's wrapper, one that never ends, one that never stops."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kempnerforge.commands import slurm_commands
from kempnerforge.commands.diagnosis import cluster
from kempnerforge.commands.trouble import Trouble
from tests.hostile.kforge import BIN, assert_bounded, environment, kforge
from tests.process.launch import PATIENCE, reap_orphans

#: A process of the test's is told by this variable.
MARK = "KFORGE_TEST_MARK"


def marked(mark: str) -> list[int]:
    """Return the living processes that have inherited a mark."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            has = f"{MARK}={mark}".encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if has and int(name) != os.getpid():
                found.append(int(name))
    return found


class Site:
    """A site whose commands of Slurm's are scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, command: str, script: str) -> None:
        (self.folder / command).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / command).chmod(0o755)

    def left(self) -> list[int]:
        """Return what is still there after a while: SIGKILL takes one."""
        until = time.monotonic() + PATIENCE
        while marked(str(self.folder)) and time.monotonic() < until:
            os.sched_yield()
        return marked(str(self.folder))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(MARK, str(tmp_path))
    yield Site(tmp_path)
    for pid in marked(str(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    reap_orphans()


def test_an_answer_without_end_is_no_answer(site: Site) -> None:
    site.has("scontrol", "exec yes")
    with pytest.raises(Trouble, match="says more than any answer has"):
        slurm_commands.run(["scontrol", "show", "config"], patience=1000)
    assert site.left() == []


def test_complaints_without_end_are_no_answer(site: Site) -> None:
    site.has("scontrol", "exec yes >&2")
    with pytest.raises(Trouble, match="says more than any answer has"):
        slurm_commands.run(["scontrol", "show", "config"], patience=1000)
    assert site.left() == []


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "job.sbatch"), ("report", "7")])
def test_kforge_is_bounded_by_what_it_asks(site: Site, arguments: tuple[str, ...]) -> None:
    site.has("scontrol", "exec yes 'PartitionName=x  = y'")
    (site.folder / "job.sbatch").write_text("#!/bin/bash\n#SBATCH --requeue\nexec kforge-run x\n")
    answer = kforge(*arguments, given=environment(f"{site.folder}:{BIN}:/usr/bin:/bin"), cwd=site.folder)
    assert_bounded(answer)


@pytest.mark.parametrize(
    "wrapper",
    [
        "sleep 1000",
        "timeout 1000 sleep 1000",
        "(trap '' TERM HUP; sleep 1000) & wait",
        "trap '' TERM; sleep 1000 | cat",
    ],
)
def test_at_the_end_of_the_patience_the_real_program_ends_with_its_wrapper(site: Site, wrapper: str) -> None:
    site.has("scontrol", wrapper)
    with pytest.raises(Trouble, match="did not answer within 1 s"):
        slurm_commands.run(["scontrol", "show", "config"], patience=1)
    assert site.left() == []


@pytest.mark.parametrize("daemon", ["sleep 1000 &", "(sleep 1000 &) ; (exec yes &)", "timeout 1000 sleep 1000 &"])
def test_what_a_wrapper_leaves_in_the_background_holds_up_nothing(site: Site, daemon: str) -> None:
    site.has("scontrol", f"{daemon}\necho ClusterName = here; echo 'scontrol: error: bad' >&2; exit 3")
    answer = slurm_commands.run(["scontrol", "show", "config"], patience=1000)
    assert "ClusterName = here\n" in answer.output
    assert (answer.status, answer.errors) == (3, "bad")
    assert site.left() == []


def test_sbatch_that_may_have_submitted_is_heard_to_its_end(site: Site) -> None:
    """It says far too much and then the number: it was not killed before that."""
    site.has("sbatch", f"cat >{site.folder}/script\nhead -c 40000000 /dev/zero >&2\necho 4242 | tee {site.folder}/done")
    script = b"#!/bin/bash\n" + b"# long\n" * 500_000
    assert slurm_commands.submit(script, []) == "4242"
    assert (site.folder / "done").read_text() == "4242\n"
    assert (site.folder / "script").read_bytes() == script


#: What a site's wrapper may print first, to both outputs.
GREETING = """echo 'Welcome to Alpha = the best! JobState=COMPLETED'; echo
echo '{"warnings": ["KillWait"]}' | tee /dev/stderr
echo 'scontrol: warning: SelectType is deprecated = gone' >&2
"""


def test_words_before_an_answer_are_not_taken_for_it(site: Site) -> None:
    site.has("sbatch", f"{GREETING}echo '4242;alpha'")
    assert slurm_commands.submit(b"#!/bin/sh\n", []) == "4242;alpha"
    settings = "ClusterName = alpha; echo KillWait = 45 sec; echo SLURM_VERSION = 24.11.5"
    partitions = "PartitionName=gpu GraceTime=60 PreemptMode=REQUEUE State=UP"
    site.has("scontrol", f"{GREETING}if [ $2 = config ]; then echo {settings}; else echo {partitions}; fi")
    here = cluster.read()
    assert (here.name, here.kill_wait, here.version) == ("alpha", 45, "24.11.5")
    assert [(partition.name, partition.grace) for partition in here.partitions] == [("gpu", 60)]


def test_no_descriptor_is_left(site: Site) -> None:
    site.has("scontrol", "sleep 1000 & echo x")
    before = os.listdir("/proc/self/fd")
    slurm_commands.run(["scontrol"])
    with pytest.raises(Trouble, match="cannot execute"):
        slurm_commands.run(["no-such-scontrol"])
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "config",
    ["a =" + " " * 2_000_000 + "x", "a" * 2_000_000, "AuthInfo = cred_expire=" + "9" * 100_000, "KillWait\n" * 200_000],
)
def test_settings_of_any_form_are_read_in_time(config: str) -> None:
    begin = time.process_time()
    read = cluster.parse(config, f"PartitionName={config}")
    assert time.process_time() - begin < 5
    assert read.requeue_wait < 1e12


def test_a_log_is_found_behind_any_number_of_lines() -> None:
    begin = time.process_time()
    assert slurm_commands.log_in("\n" * 1_000_000 + "   StdOut=/a b\n") == "/a b"
    assert time.process_time() - begin < 5
