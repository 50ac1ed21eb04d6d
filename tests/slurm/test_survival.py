"""The survival matrix: every event that Slurm has for a job, through to the end of the last attempt."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.slurm.runs import BEYOND_A_MINUTE, ENDED_IN_TIME, Run, kforge_run, program, script, training
from tests.slurm.sandbox import Sandbox, installed_version

#: Longer than what any test does before its notice, short enough to finish soon after the resume.
STEPS = 90


def test_time_limit_with_a_signal_before_it(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(350)), "--time=1", "--signal=B:USR1@20")
    # 22.05 may send the signal up to a minute early, so that there may be more than two attempts.
    run.says("reason: time limit").ends("COMPLETED").lost_nothing(steps=350)
    assert int(run.record["Restarts"]) >= 1
    assert "notice: SIGUSR1 from slurmstepd" in run.output
    assert re.search(r"checkpointed: SIGUSR1 → first poll .* → finish .* → exit .* → requeued .* to spare", run.output)


def test_time_limit_without_any_signal_before_it(slurm: Sandbox) -> None:
    # Saving takes 3 of the 8 s of KillWait.
    run = Run(slurm, kforge_run(training(BEYOND_A_MINUTE, save_seconds=3)), "--time=1")
    run.says("reason: time limit").ends(*ENDED_IN_TIME, at_least=1, timeout=300).lost_nothing(steps=BEYOND_A_MINUTE)
    assert "notice: SIGTERM from slurmstepd" in run.output


def test_time_limit_with_a_sigterm_before_it(slurm: Sandbox) -> None:
    batch = kforge_run(training(350)).replace("--requeue\n", "--requeue\n#SBATCH --signal=B:TERM@20\n")
    run = Run(slurm, batch, "--time=1")
    run.says("reason: time limit").ends("COMPLETED").lost_nothing(steps=350)
    assert int(run.record["Restarts"]) >= 1
    assert (
        "warning: the batch script's --signal=B:TERM is taken for the time limit if it comes when it is due"
        in run.output
    )


def test_a_log_through_tee(slurm: Sandbox) -> None:
    batch = kforge_run(training(STEPS)).replace("exec kforge-run", "exec > >(tee -a tee.log) 2>&1\nexec kforge-run")
    run = Run(slurm, batch, "--time=10").says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert re.search(r"checkpointed: SIGUSR1 → first poll .* → finish .* → exit .* → requeued .* to spare", run.output)


def test_preemption_when_its_grace_is_over(slurm: Sandbox) -> None:
    batch = kforge_run(training(STEPS * 4), "--no-early-notice")
    run = Run(slurm, batch, "--partition=preemptible", "--time=10").says("step 3 ")
    slurm.preempt(run.job)
    # Slurm tells the batch process only when it kills, and requeues it itself.
    run.says("reason: requeued").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS * 4)
    assert "not requeued: Slurm requeues it already" in run.output


@pytest.fixture
def slurm_that_sends_the_user_signal() -> Iterator[Sandbox]:
    newer = installed_version() >= (23, 2)
    parameter = "PreemptParameters=send_user_signal" if newer else "SlurmctldParameters=preempt_send_user_signal"
    with Sandbox(nodes=1, extra_conf=parameter) as sandbox:
        yield sandbox


def test_preemption_with_the_user_signal_sent(slurm_that_sends_the_user_signal: Sandbox) -> None:
    slurm = slurm_that_sends_the_user_signal
    options = ("--partition=preemptible", "--time=10", "--signal=B:USR1@30")
    run = Run(slurm, kforge_run(training(STEPS)), *options).says("step 3 ")
    slurm.preempt(run.job)
    run.says("reason: preempted").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "notice: SIGUSR1" in run.output and "not requeued" not in run.output


def test_preemption_that_ends_the_job_for_good_is_requeued(slurm: Sandbox) -> None:
    batch = kforge_run(training(STEPS * 4), "--no-early-notice")
    run = Run(slurm, batch, "--partition=preemptible-cancel", "--time=10").says("step 3 ")
    slurm.preempt(run.job)
    # 24.11 keeps the mark of a preemption through our requeue. Nobody can take it off, and it names the end.
    state = "PREEMPTED" if slurm.version == (24, 11) else "COMPLETED"
    # 22.05 sometimes calls the end of the grace the time limit.
    run.says("notice: SIGTERM").ends(state, restarts=1).lost_nothing(steps=STEPS * 4)
    assert "reason: preempted" in run.output or "reason: time limit" in run.output


def test_cancelled_in_the_grace_of_a_preemption(slurm: Sandbox) -> None:
    batch = kforge_run(training(STEPS * 2), "--no-early-notice")
    run = Run(slurm, batch, "--partition=preemptible-cancel", "--time=10").says("step 3 ")
    slurm.preempt(run.job)
    # Within its first second nobody could tell a person's scancel from Slurm's own end of the job.
    since = slurm.wait_for("the preemption", lambda: run.record.get("PreemptTime", "None").replace("None", ""))
    wait_until_after(run, since, 3)
    run.cancel().says("reason: cancelled").ends("CANCELLED", restarts=0).lost_nothing()


def test_cancelled(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training()), "--time=10").says("step 3 ").cancel()
    run.ends("CANCELLED", restarts=0).says("not requeued: its owner cancelled it").lost_nothing()


@pytest.mark.parametrize(
    ("name", "state", "restarts"), [("USR1", "COMPLETED", 1), ("TERM", "FAILED", 0)], ids=["USR1", "TERM"]
)
def test_signalled_by_hand(slurm: Sandbox, name: str, state: str, restarts: int) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=60").says("step 3 ").signal(name)
    run.says("reason: manual").ends(state, restarts=restarts)
    run.lost_nothing(steps=STEPS if restarts else None)
    if not restarts:
        assert run.record["ExitCode"] == "85:0"


def test_requeued_by_somebody_else(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10").says("step 3 ")
    slurm.requeue(run.job)
    run.says("reason: requeued").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_a_job_that_may_not_be_requeued(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training()), "--time=10", "--no-requeue").says("step 3 ")
    assert "warning: this job may not be requeued: add `#SBATCH --requeue`" in run.output
    run.signal("USR1").ends("FAILED", restarts=0).lost_nothing()
    assert run.record["ExitCode"] == "85:0"
    assert "not requeued: the job may not be requeued: submit it with --requeue" in run.output


def test_no_requeue_asked_of_kforge_run(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(), "--no-requeue"), "--time=10").says("step 3 ").signal("USR1")
    run.ends("FAILED", restarts=0).lost_nothing()
    assert "not requeued: --no-requeue" in run.output


def test_max_requeues(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(), "--max-requeues", "1"), "--time=10").says("step 3 ").signal("USR1")
    run.says("resumed at").says("step", count=8).signal("USR1")
    run.ends("FAILED", restarts=1).lost_nothing()
    assert "not requeued: --max-requeues 1 is reached" in run.output


def test_one_task_of_an_array(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10", "--array=1-3", "--output=array-%A_%a.out")
    tasks = [Run.of(slurm, f"{run.job}_{number}") for number in (1, 2, 3)]
    for task in tasks:
        task.says("step 3 ")
    # The last task has the array's own number: a requeue of that number would start all three again.
    tasks[2].signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    for task in tasks[:2]:
        task.ends("COMPLETED", restarts=0).lost_nothing(steps=STEPS)


def test_stuck_in_c_with_the_gil_held(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(program("stuck_in_c.py"), "--term-grace", "3"), "--time=1", "--signal=B:USR1@20")
    run.says("stuck").ends("COMPLETED", restarts=1)
    assert "stuck_in_c.py" in run.output.partition("SIGKILL")[0].partition("most recent call first")[2]
    assert "forced: SIGUSR1" in run.output
    assert "finished" in run.output.splitlines()


def test_ignores_everything(slurm: Sandbox) -> None:
    # Nothing but KillWait, 8 s, to give up on it and requeue.
    run = Run(slurm, kforge_run(program("ignore_everything.py")), "--time=1")
    run.says("ignoring").ends("COMPLETED", restarts=1, timeout=300)
    told = run.output
    assert told.index("notice") < told.index("stack dump and SIGTERM") < told.index("still running: SIGKILL")
    assert told.index("still running: SIGKILL") < told.index("forced: SIGTERM") < told.index("finished")


def test_a_crash_is_not_requeued(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run("sh -c 'echo crashing; exit 3'"), "--time=10").ends("FAILED", restarts=0)
    assert run.record["ExitCode"] == "3:0"


def test_a_crash_is_retried_as_often_as_asked(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run("sh -c 'echo crashing; exit 3'", "--retry-failures", "1"), "--time=10")
    run.says("crashing", count=2).ends("FAILED", restarts=1)
    assert "it failed, and all its retries are used" in run.output


def test_daemons_left_in_sessions_of_their_own(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(program("leave_daemons.py"), "--verbose", "--term-grace", "1"), "--time=10")
    run.ends("COMPLETED", restarts=0)
    assert "still running: SIGKILL" in run.output
    assert "could not be killed" not in run.output


def test_suspended_and_resumed(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10").says("step 3 ")
    suspend_for_a_while(run)
    run.says("step 10 ").signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_suspended_during_a_shutdown(slurm: Sandbox) -> None:
    # With --timeout 12 the save of 5 s would be given up after 8 s, were the suspension counted.
    options = ("--timeout", "12", "--term-grace", "2", "--verbose")
    run = Run(slurm, kforge_run(training(STEPS, save_seconds=5), *options), "--time=10").says("step 3 ")
    run.signal("USR1").says("saving")
    suspend_for_a_while(run, seconds=20)
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "continued after" in run.output
    assert "still running" not in run.output


def suspend_for_a_while(run: Run, seconds: float = 5) -> None:
    """Suspend a job until Slurm has counted so many seconds of it."""
    slurm = run.slurm
    slurm.suspend(run.job)
    wait_until_after(run, slurm.wait_for_state(run.job, "SUSPENDED")["SuspendTime"], seconds)
    slurm.resume(run.job)


def wait_until_after(run: Run, moment: str, seconds: float) -> None:
    """Wait until it is so many seconds after a moment as Slurm prints it."""
    then = datetime.fromisoformat(moment).timestamp() + seconds
    run.slurm.wait_for(f"{seconds:g} s after {moment}", lambda: time.time() > then, timeout=seconds + 90)


def test_suspended_past_its_end_then_cancelled(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(), "--verbose"), "--time=1").says("step 3 ")
    suspend_for_a_while(run, seconds=65)
    run.says("step 6 ").cancel().ends("CANCELLED", restarts=0).lost_nothing()
    assert "reason: cancelled" in run.output


def test_cancelled_while_suspended_past_its_end(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(), "--verbose"), "--time=1").says("step 3 ")
    slurm.suspend(run.job)
    wait_until_after(run, run.record["EndTime"], 5)
    run.cancel().ends("CANCELLED", restarts=0)
    assert "requeued →" not in run.output


def test_limit_extended_then_cancelled_past_the_first_end(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training()), "--time=1").says("step 3 ")
    end = run.record["EndTime"]
    slurm.run("scontrol", "update", f"JobId={run.job}", "TimeLimit=10")
    wait_until_after(run, end, 5)
    run.cancel().ends("CANCELLED", restarts=0).lost_nothing()


def test_cancelled_during_the_shutdown_that_a_signal_began(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(save_seconds=3)), "--time=10").says("step 3 ")
    run.signal("USR1").says("saving").cancel().ends("CANCELLED", restarts=0).lost_nothing()
    assert run.output.index("notice: SIGUSR1") < run.output.index("SIGTERM too") < run.output.index("reason: cancelled")


@pytest.fixture
def slurm_of_its_own() -> Iterator[Sandbox]:
    with Sandbox(nodes=1) as sandbox:
        yield sandbox


def test_controller_away_during_the_notice_and_back_before_the_deadline(slurm_of_its_own: Sandbox) -> None:
    slurm = slurm_of_its_own
    run = Run(slurm, kforge_run(training(STEPS)), "--time=10").says("step 3 ")
    output = slurm.work / f"slurm-{run.job}.out"
    launcher = pid_of(run, r"\S+ \S+/kforge-run ")
    slurm.stop_controller()
    os.kill(launcher, signal.SIGUSR1)
    slurm.wait_for("kforge-run to find it away", lambda: "Slurm does not answer" in output.read_text())
    slurm.start_controller()
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def pid_of(run: Run, command: str) -> int:
    """Return the one process of a job whose command line begins with a pattern."""
    (pid,) = [pid for pid, line in run.slurm.processes_of_job(run.job).items() if re.match(command, line)]
    return pid


def test_kforge_run_itself_killed(slurm: Sandbox) -> None:
    run = Run(slurm, kforge_run(training(save_seconds=1)), "--time=10").says("step 3 ")
    launcher = pid_of(run, r"\S+ \S+/kforge-run ")
    os.kill(launcher, signal.SIGKILL)
    if slurm.process_tracking == "cgroup":
        # Slurm kills all that is below at that moment: what was not saved is lost.
        assert "checkpoint saved" not in run.ends("FAILED", restarts=0).output
        return
    run.says("checkpoint saved")
    # No kforge-run is left to wait for what it ran: that ends by itself, a moment before or after the job.
    slurm.wait_for("the program to end", lambda: not slurm.processes_of_job(run.job), job=run.job)
    run.ends("FAILED", restarts=0).lost_nothing()


def test_a_batch_shell_in_between_is_warned_about(slurm: Sandbox) -> None:
    run = Run(slurm, script("true\nkforge-run true").replace("exec true", "true"), "--time=10")
    run.ends("COMPLETED", restarts=0)
    assert re.search(r"warning: the batch script's bash \(pid \d+\) dies of SIGUSR1, .* `exec kforge-run", run.output)


def test_a_save_that_outlives_the_shell_around_it(slurm: Sandbox) -> None:
    command = f"bash -c '{training(STEPS, save_seconds=4)}; exit $?'"
    run = (
        Run(slurm, kforge_run(command, "--term-grace", "1"), "--time=10").says("step 3 ").signal("USR1").says("saving")
    )
    # As Slurm does to every process of a step, and at the time limit to every process of the job.
    os.kill(pid_of(run, r"bash -c python "), signal.SIGUSR1)
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "the child died of SIGUSR1" in run.output
    assert "what it ran still saves" in run.output


def test_a_kforge_run_inside_a_script_below_another(slurm: Sandbox) -> None:
    command = f"bash -c 'kforge-run {training(STEPS, save_seconds=4)}; exit $?'"
    run = Run(slurm, kforge_run(command, "--term-grace", "1"), "--time=10").says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "delivered to kforge-run (pid " in run.output


def test_a_lead_shorter_than_the_time_to_stop_is_warned_about(slurm: Sandbox) -> None:
    batch = kforge_run("sleep 2", "--timeout", "300").replace("--requeue\n", "--requeue\n#SBATCH --signal=B:USR1@120\n")
    run = Run(slurm, batch, "--time=10").ends("COMPLETED", restarts=0)
    assert "stopping may take 300 s, but the batch script's --signal gives 120 s" in run.output
    enough = Run(slurm, batch.replace("@120", "@360"), "--time=10").ends("COMPLETED", restarts=0)
    assert "stopping may take" not in enough.output


@pytest.mark.parametrize("inner", [True, False], ids=["with inner kforge-runs", "without"])
class TestTwoNodesWithTwoTasksEach:
    """`exec kforge-run srun kforge-run python train.py`, and `exec kforge-run srun python train.py`."""

    SIZE = ("--nodes=2", "--ntasks=4", "--ntasks-per-node=2")

    def start(self, slurm: Sandbox, inner: bool, steps: int | str, *options: str) -> Run:
        ranks = f"{'kforge-run ' if inner else ''}sh -c 'exec {training(steps, ranked=True)}'"
        run = Run(slurm, kforge_run(f"srun --label {ranks}"), *self.SIZE, *options)
        for task in range(4):
            run.says(f"{task}: step 3 ")
        return run

    def each_lost_nothing(self, run: Run, *, steps: int | None) -> None:
        for task in range(4):
            run.lost_nothing(steps=steps, task=str(task))

    def test_time_limit(self, slurm: Sandbox, inner: bool) -> None:
        # The first attempt does not finish, and the second does so at once: told in the very end, one task may have
        # finished and another not.
        steps = "$((SLURM_RESTART_COUNT ? 1 : 100000))"
        run = self.start(slurm, inner, steps, "--time=1", "--signal=B:USR1@20").ends("COMPLETED", restarts=1)
        self.each_lost_nothing(run, steps=None)
        assert run.output.count(": finished at step ") == 4
        assert "as SIGUSR1" in run.output
        assert "reason: time limit" in run.output

    def test_preemption_with_grace(self, slurm: Sandbox, inner: bool) -> None:
        run = self.start(slurm, inner, STEPS * 2, "--partition=preemptible", "--time=10")
        slurm.preempt(run.job)
        # The tasks are told when the grace begins, and end at once.
        run.says("reason: preempted").ends("COMPLETED", restarts=1)
        self.each_lost_nothing(run, steps=STEPS * 2)

    def test_cancelled(self, slurm: Sandbox, inner: bool) -> None:
        run = self.start(slurm, inner, 350, "--time=10").cancel()
        run.ends("CANCELLED", restarts=0)
        self.each_lost_nothing(run, steps=None)


def test_tasks_of_an_srun_that_kills_on_a_bad_exit(slurm: Sandbox) -> None:
    """Each task saves for another time: an 85 from the first would kill the others in the middle of it."""
    task = f"sh -c 'exec {training(STEPS, ranked=True)} --save-seconds $SLURM_PROCID'"
    command = f"srun --label --kill-on-bad-exit kforge-run {task}"
    run = Run(slurm, kforge_run(command), "--nodes=1", "--ntasks=3", "--time=10")
    for number in range(3):
        run.says(f"{number}: step 3 ")
    run.signal("USR1").ends("COMPLETED", restarts=1)
    for number in range(3):
        run.lost_nothing(steps=STEPS, task=str(number))
