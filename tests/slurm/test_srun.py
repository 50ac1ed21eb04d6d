"""kforge-run puts itself before the program where the command is srun: scripts that know of one kforge-run only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kempnerforge.launcher.asking import srun
from tests.slurm.runs import BIN, PROGRAMS, Run, bash_around, kforge_run, training
from tests.slurm.sandbox import Sandbox

pytestmark = pytest.mark.slurm
#: Longer than what any test does before its notice, short enough to finish soon after the resume.
STEPS = 60
IS_PUT = "kforge-run runs inside srun's tasks, too"
IS_NOT_PUT = "kforge-run does not run in srun's tasks"


def python(name: str, steps: int = STEPS) -> str:
    return f"{BIN}/python {PROGRAMS / name} {steps}"


class TestTwoNodesWithTwoTasksEach:
    """`exec kforge-run srun python train.py`, and each event through to the end of the last attempt."""

    SIZE = ("--nodes=2", "--ntasks=4", "--ntasks-per-node=2")
    RANKS = f"sh -c 'exec {training(STEPS, ranked=True)}'"

    def start(self, slurm: Sandbox, everywhere: Path, ranks: str, *options: str) -> Run:
        batch = kforge_run(f"srun --label {ranks}").replace("export PATH=", f"export PATH={everywhere}/bin:")
        run = Run(slurm, batch, *self.SIZE, *options).says(IS_PUT)
        for task in range(4):
            run.says(f"{task}: step 3 ")
        return run

    def each_lost_nothing(self, run: Run, steps: int | None) -> None:
        for task in range(4):
            run.lost_nothing(steps=steps, task=str(task))
        assert set(re.findall(r"kforge-run\[task (\d)\] \S+ checkpointed: ", run.output)) <= set("0123")

    def test_time_limit(self, slurm: Sandbox, everywhere: Path) -> None:
        ranks = f"sh -c 'exec {training(300, ranked=True)}'"
        run = self.start(slurm, everywhere, ranks, "--time=1", "--signal=B:USR1@20").ends("COMPLETED")
        self.each_lost_nothing(run, 300)
        assert int(run.record["Restarts"]) >= 1
        assert "reason: time limit" in run.output

    def test_preemption_with_grace(self, slurm: Sandbox, everywhere: Path) -> None:
        run = self.start(slurm, everywhere, self.RANKS, "--partition=preemptible", "--time=10")
        slurm.preempt(run.job)
        run.says("reason: preempted").ends("COMPLETED", restarts=1)
        self.each_lost_nothing(run, STEPS)

    def test_by_hand(self, slurm: Sandbox, everywhere: Path) -> None:
        run = self.start(slurm, everywhere, self.RANKS, "--time=10").signal("USR1").ends("COMPLETED", restarts=1)
        self.each_lost_nothing(run, STEPS)
        assert len(re.findall(r"kforge-run\[task \d\] \S+ checkpointed: ", run.output)) == 4

    def test_cancelled(self, slurm: Sandbox, everywhere: Path) -> None:
        run = self.start(slurm, everywhere, self.RANKS, "--time=10").cancel().ends("CANCELLED", restarts=0)
        self.each_lost_nothing(run, None)

    @pytest.mark.parametrize("export", ["NONE", "FOO=1"])
    def test_without_our_variables(self, slurm: Sandbox, everywhere: Path, export: str) -> None:
        ranks = f"--export={export} /bin/sh -c 'exec {BIN}/{training(STEPS, ranked=True)}'"
        run = self.start(slurm, everywhere, ranks, "--time=10").signal("USR1").ends("COMPLETED", restarts=1)
        self.each_lost_nothing(run, STEPS)
        assert "[task 3]" in run.output

    def test_an_installation_that_another_node_may_not_have(self, slurm: Sandbox) -> None:
        """Nothing is run that a stranger could have put there."""
        folder = slurm.work / "bin"
        folder.mkdir(exist_ok=True)
        own = folder / "kforge-run"
        own.unlink(missing_ok=True)
        own.symlink_to(BIN / "kforge-run")
        batch = kforge_run("srun --label sh -c 'echo the task runs'")
        run = Run(slurm, batch.replace(f"PATH={BIN}:", f"PATH={folder}:{BIN}:"), *self.SIZE).ends("COMPLETED")
        assert run.output.count(": the task runs") == 4
        assert len(re.findall(f"{IS_NOT_PUT}: .* is below /tmp", run.output)) == 1


@pytest.mark.parametrize("export", ["--export=NONE", "--export=FOO=1", "SLURM_EXPORT_ENV=NONE"])
def test_one_node_without_our_variables(slurm: Sandbox, export: str) -> None:
    option, variable = (export, "") if export.startswith("--") else ("", f"env {export} ")
    batch = kforge_run(f"srun {option} {python('save_when_interrupted.py')}", "-v")
    run = Run(slurm, batch.replace("exec kforge-run", f"exec {variable}kforge-run"), "--time=10")
    run.says("step 3 ").signal("USR1").ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    # It has found the outer one, without the variable that leads there.
    assert "delivered to kforge-run (pid " in run.output and "as SIGUSR1" not in run.output


LEFT = r"kforge-run(\[task 0\])? \S+ (\d+) s left to save"


def test_options_of_ours_reach_the_tasks(slurm: Sandbox) -> None:
    batch = kforge_run("srun --export=NONE /bin/sh -c 'sleep 600; :'", "--timeout", "12", "--term-grace", "2", "-v")
    run = Run(slurm, batch, "--time=10").says("started /bin/sh (pid ").signal("USR1").says("s left to save", count=2)
    # Slurm may take its time to say why.
    left = {who: float(seconds) for who, seconds in re.findall(LEFT, run.output)}
    assert left.keys() == {"", "[task 0]"} and all(6 < seconds <= 12 for seconds in left.values()), run.output


def test_a_bash_script(slurm: Sandbox) -> None:
    """Nothing tells the bash, which would die of the notice."""
    batch = kforge_run(f"srun {bash_around(slurm, python('save_when_interrupted.py'))}")
    run = Run(slurm, batch, "--time=10").says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert run.output.count("python ended with 0") == 2
    assert "died of" not in run.output


def test_submitted_as_the_batch_script_itself(slurm: Sandbox) -> None:
    """What runs is a copy in a spool folder of the first node's."""
    variables = f"PATH={BIN}:{os.environ['PATH']},XDG_STATE_HOME={slurm.work}/state"
    command = ("srun", sys.executable, str(PROGRAMS / "save_when_interrupted.py"), str(STEPS))
    job = slurm.sbatch("--time=10", f"--export=ALL,{variables}", str(BIN / "kforge-run"), *command)
    run = Run.of(slurm, job).says(IS_PUT).says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)


def test_a_heterogeneous_step(slurm: Sandbox, everywhere: Path) -> None:
    one, other = (f"sh -c 'exec {training(STEPS)}-{number}'" for number in (0, 1))
    batch = kforge_run(f"srun --label -n1 {one} : -n1 {other}")
    batch = batch.replace("export PATH=", f"export PATH={everywhere}/bin:")
    run = (
        Run(slurm, batch, "-n1", "--time=10", ":", "-n1", "--time=10")
        .says(IS_PUT)
        .says("0: step 3 ")
        .says("1: step 3 ")
    )
    run.signal("USR1").ends("COMPLETED", restarts=1)
    for task in "01":
        run.lost_nothing(steps=STEPS, task=task)


def test_multi_prog(slurm: Sandbox) -> None:
    """A file has the programs, and says so itself."""
    file = slurm.work / "programs.conf"
    file.write_text(f"0 {BIN}/kforge-run {python('save_when_interrupted.py')}\n1 /bin/true\n")
    run = Run(slurm, kforge_run(f"srun --multi-prog {file}"), "-n2", "--time=10").says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    why = "with --multi-prog (write kforge-run before each program in its file)"
    assert run.output.count(f"{IS_NOT_PUT}: {why}") == 2


@pytest.mark.parametrize(("name", "last"), [("becomes", 'exec {} --mem=0 "$@"'), ("waits", '{} "$@"')])
def test_a_site_that_has_a_script_for_srun(slurm: Sandbox, name: str, last: str) -> None:
    folder = slurm.work / f"site-that-{name}"
    folder.mkdir()
    script = folder / "srun"
    script.write_text(f"#!/bin/bash\nexport OMP_NUM_THREADS=1\n{last.format(shutil.which('srun'))}\n")
    script.chmod(0o755)
    batch = kforge_run(f"srun {python('save_when_interrupted.py')}").replace("export PATH=", f"export PATH={folder}:")
    run = Run(slurm, batch, "--time=10").says(IS_PUT).says("step 3 ").signal("USR1")
    run.ends("COMPLETED", restarts=1).lost_nothing(steps=STEPS)
    assert "died of" not in run.output


def test_what_the_program_sees(slurm: Sandbox) -> None:
    """Words, standard input and the exit status are what they would be without kforge-run."""
    words = "'a  b' '' '*' '\"' --label -- -n4 é"
    show = '\'printf "<%s>" "$@"; cat; exit 7\''
    run = Run(slurm, kforge_run(f"srun -- sh -c {show} sh {words} <<< input"), "--time=10").ends("FAILED", restarts=0)
    assert '<a  b><><*><"><--label><--><-n4><é>input' in run.output
    assert run.record["ExitCode"] == "7:0"


def test_a_node_without_the_installation(slurm: Sandbox, everywhere: Path) -> None:
    """The task runs all the same, and says so."""
    vanishing = everywhere.with_name(f"{everywhere.name}-vanishing")
    prolog = slurm.work / "prolog.sh"
    # Its script alone: the kforge-run above the task still imports from the package.
    prolog.write_text(f"#!/bin/sh\nrm -f {vanishing}/bin/kforge-run\n")
    prolog.chmod(0o755)
    batch = kforge_run(f"srun --task-prolog={prolog} sh -c 'echo \"the task runs with $0\"' 'two  words'")
    batch = batch.replace("exec kforge-run", f"cp -r {everywhere} {vanishing}; exec {vanishing}/bin/kforge-run")
    try:
        run = Run(slurm, batch, "--time=10").says(IS_PUT).ends("COMPLETED")
    finally:
        shutil.rmtree(vanishing, ignore_errors=True)
    assert "the task runs with two  words" in run.output
    assert re.search(r"kforge-run: not on node n\d+: the task runs without it", run.output)


def test_the_table_of_options_is_that_of_this_srun(slurm: Sandbox) -> None:
    """srun says itself which options take a value, and which it does not know yet, or no more."""

    def says(*words: str) -> str:
        done = subprocess.run(["srun", *words], env=slurm.environment, capture_output=True, text=True, check=False)
        return done.stderr

    known = 0
    for name in srun.FLAGS.split():
        known += "unrecognized" not in (said := says(f"--{name}=x", "--usage"))
        assert re.search("doesn't allow an argument|unrecognized option", said), name
    for name in srun.VALUED.split():
        known += "unrecognized" not in (said := says(f"--{name}"))
        assert re.search("requires an argument|unrecognized option", said), name
    for name in srun.OPTIONAL.split():
        known += "unrecognized" not in (said := says(f"--{name}", "--usage"))
        assert "requires an argument" not in said and "allow an argument" not in says(f"--{name}=1", "--usage"), name
    for letter in srun.SHORT_VALUED:
        assert "requires an argument" in says(f"-{letter}"), letter
    for letter in srun.SHORT_FLAGS + srun.SHORT_OPTIONAL:
        assert not re.search("requires an argument|invalid option", says(f"-{letter}", "--usage")), letter
    assert known > 100
