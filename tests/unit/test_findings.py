"""What the doctor finds: each thing that would lose a run, put alone into a script that would not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.batch import templates
from kempnerforge.commands.batch.sbatch_options import Option
from kempnerforge.commands.diagnosis import cluster, findings
from kempnerforge.commands.diagnosis.finding import Finding, Past
from kempnerforge.commands.diagnosis.findings import Subject
from kempnerforge.commands.trouble import Trouble

GOOD = """#!/bin/bash
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
module load python
exec kforge-run python train.py
"""
#: The same with srun's tasks, and with torchrun.
RANKS = GOOD.replace("python train.py", "srun kforge-run python train.py")
TORCHRUN = GOOD.replace("python train.py", "torchrun train.py").replace(
    "module load", "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=180; module load"
)
THREE_LINES = "#!/bin/bash\n#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\nexec kforge-run python train.py\n"


def find(script: str, **about: object) -> list[Finding]:
    return findings.find(Subject(script.encode("utf-8", "surrogateescape")), **about)  # type: ignore[arg-type]


@pytest.mark.parametrize("script", [GOOD, RANKS, TORCHRUN], ids=["one process", "srun", "torchrun"])
def test_nothing_is_found_where_nothing_is_wrong(script: str) -> None:
    assert find(script) == []


def test_the_three_lines_lose_no_run() -> None:
    assert [finding for finding in find(THREE_LINES) if finding.loses] == []


@pytest.mark.parametrize("name", templates.names())
def test_nothing_is_found_in_a_template(name: str) -> None:
    assert find((templates.FOLDER / f"{name}.sbatch").read_text()) == []


RUN = "exec kforge-run python train.py"
PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
#: What is replaced in GOOD, by what, on which line that is found, and what the finding and its cure say.
LOSES: dict[str, tuple[str, str, int, str, str]] = {
    "no exec": ("exec kforge-run", "kforge-run", 7, "no exec", "exec kforge-run python train.py"),
    "in a pipeline": ("train.py", "train.py | tee log", 7, "in a pipeline", "--output"),
    "in the background": ("train.py", "train.py & wait", 7, "in the background", "exec kforge-run"),
    "behind conda run": ("exec kforge-run", "exec conda run kforge-run", 7, "conda stands between", "exec"),
    "only tasks": ("exec kforge-run", "exec srun -n4 kforge-run", 7, "nothing requeues", "exec kforge-run srun -n4"),
    "not at all": ("exec kforge-run python", "python", 7, "does not run under", "exec kforge-run python"),
    "not at all, before it": ("module load", "exec python train.py\nmodule load", 6, "to this exec", "leave it out"),
    "an end before it": ("module load", "exit 0; module load", 6, "to this exit", "leave it out"),
    "a variable before it": ("exec kforge", "exec A=1 kforge", 7, "A=1 stands between", "exec kforge-run A=1"),
    "unset": ("module", "unset ${!SLURM_@}\nmodule", 6, "without SLURM_JOB_ID", "env -u"),
    "env -i": ("exec kforge-run", "exec env -i kforge-run", 7, "without SLURM_JOB_ID", "env -u"),
    "srun --wait": ("python train", "srun --wait=30 python train", 7, "30 s after the first", "--wait=0"),
    "a deaf srun": ("python train", "srun --ignore-signals=USR1 python train", 7, "hand the notice", "USR1 out"),
    "srun with other programs": ("python train.py", "srun ./a.out", 7, "srun's tasks, which", "srun kforge-run ./"),
    "--multi-prog": ("python train.py", "srun --multi-prog x", 7, "with --multi-prog", "before each program"),
    "an option of a plugin": ("python train", "srun --auks=yes python train", 7, "--auks is no", "srun … kforge-run …"),
    "many tasks": ("=append", "=append -n 17\nexec kforge-run srun python x", 6, "17 tasks", "srun kforge-run python"),
    "a container": ("=append", "=append --container=/x\nexec kforge-run srun python x", 6, "CONTAINER", "the image"),
    "a short timeout": ("kforge-run", "kforge-run --timeout=6", 7, "leaves 4 s", "leave it out"),
    "KFORGE_TIMEOUT": ("exec", "KFORGE_TIMEOUT=6 exec", 7, "leaves 4 s", "leave it out"),
    "joined": ("kforge-run", "kforge-run --max-requeues=0", 7, "never brings", "leave it out"),
    "a log in a numbered folder": ("=append", "=append -o logs/%j/x.log", 5, "cannot be there yet", "name of the file"),
    "a log that is a folder": ("=append", "=append -o .", 5, ". is a folder", "./%x-%j.log"),
    "all output redirected": ("module", "exec > all.log 2>&1\nmodule", 6, "empties all.log", ">>all.log"),
    "&> redirected": ("train.py", "train.py >& x.log", 7, "empties x.log", "&>>x.log"),
    "no lead": ("#SBATCH --signal=B:USR1@120\n", "", 0, "no --signal", "#SBATCH --signal=B:USR1@120"),
    "no B:": ("B:USR1@120", "USR1@120", 3, "without B:", "#SBATCH --signal=B:USR1@120"),
    "USR2": ("B:USR1@120", "B:USR2@120", 3, "does not requeue after USR2", "#SBATCH --signal=B:USR1@120"),
    "too short": ("@120", "@15", 3, "too short", "#SBATCH --signal=B:USR1@120"),
    "longer than the job": ("@120", "@40000\n#SBATCH -t 60", 3, "as soon as the run starts", "longer --time"),
    "no signal at all": ("B:USR1@120", "B:NONSENSE", 3, "cannot be understood", "#SBATCH --signal=B:USR1@120"),
    "no --requeue": ("#SBATCH --requeue\n", "", 0, "no --requeue", "#SBATCH --requeue"),
    "--no-requeue": ("#SBATCH --requeue", "#SBATCH --no-requeue", 4, "--no-requeue", "#SBATCH --requeue"),
    "kforge-run --no-requeue": ("kforge-run", "kforge-run -v --no-requeue", 7, "never brings", "leave it out"),
    "a typing error": ("kforge-run", "kforge-run --timout 9", 7, "will not start: No such option", "kforge-run --help"),
    "no value": ("kforge-run", "kforge-run --max-requeues 0", 7, "never brings", "leave it out"),
    "KFORGE_REQUEUE": ("module", "export KFORGE_REQUEUE=off\nmodule", 8, "KFORGE_REQUEUE=off", "unset"),
    "python -I": ("python train", "python -I train", 7, "python -I keeps the notice", "leave it out"),
    "a clean container": ("python train", "apptainer exec -e x.sif python train", 7, "apptainer -e", "leave"),
    "truncated": ("=append", "=truncate", 5, "empties the log", "#SBATCH --open-mode=append"),
    "redirected": ("train.py", "train.py > train.log", 7, "empties train.log", ">>train.log"),
    "a folder that is not there": ("=append", "=append -o nowhere/%j.log", 5, "no folder nowhere", "mkdir -p nowhere"),
    "a late directive": ("exec", "#SBATCH --mem=9G\nexec", 7, "behind the first command", "above line 6"),
    "a bad directive": ("=append", "=append extra", 5, "'extra' is no option", "--key=value"),
    "an open quote": ("=append", '="append', 5, "quote", "--key=value"),
    "Windows": ("\n", "\r\n", 1, "Windows", "sed -i"),
    "no #!": ("#!/bin/bash\n", "\n", 1, "does not begin with #!", "#!/bin/bash"),
    "scancel": ("exec", "scancel -s USR1 $JOB\nexec", 7, "without -b", "scancel -b -s USR1"),
    "--kill-on-bad-exit": ("python train", "env srun --kill-on-bad-exit=1 python train", 7, "--kill-on-bad-exit", "=0"),
    "-K": ("python train", "env srun -K python train", 7, "--kill-on-bad-exit", "=0"),
    "torchrun": ("python train", "torchrun train", 7, "torchrun kills", "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=180"),
    "impatient": ("exec kforge-run python", f"export {PATIENCE}=60; exec kforge-run torchrun", 7, "60 s after", "=180"),
    "torch.distributed.run": ("python train", "python -m torch.distributed.run train", 7, "run kills", "TORCH"),
    "python -u -m": ("python train", "python -u -m torch.distributed.run train", 7, "run kills", "TORCH"),
    "uv run -m": ("python train", "uv run -m torch.distributed.run train", 7, "torch.distributed.run kills", "TORCH"),
    "fabric": ("python train", "fabric run train", 7, "fabric kills", "TORCH"),
    "composer": ("exec kforge-run python train", "composer train", 7, "composer does not run", "exec kforge-run"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "what", "cure"), LOSES.values(), ids=LOSES)
def test_what_would_lose_a_run_is_found(old: str, new: str, line: int, what: str, cure: str) -> None:
    script = GOOD.replace(old, new)
    assert script != GOOD
    losing = [finding for finding in find(script) if finding.loses]
    assert len(losing) == 1
    assert (losing[0].line, what in losing[0].what, cure in losing[0].cure) == (line, True, True), losing[0]


def test_a_sigterm_before_the_end_is_only_worth_knowing() -> None:
    (finding,) = find(GOOD.replace("B:USR1@120", "B:TERM@120"))
    assert (finding.line, finding.loses, finding.cure) == (3, False, "#SBATCH --signal=B:USR1@120")
    assert "TERM is taken for the time limit if it comes when it is due" in finding.what


def test_a_trap_swallows_the_signal_where_the_shell_stays() -> None:
    for trap, does in {"trap '' USR1": "ignores", "trap 'echo saving' SIGUSR1 TERM": "has ended"}.items():
        script = GOOD.replace("module load", f"{trap}\nmodule load").replace("exec ", "")
        assert any(finding.line == 6 and does in finding.what for finding in find(script) if finding.loses)


def test_a_trap_before_exec_is_only_worth_knowing() -> None:
    (finding,) = find(GOOD.replace("module load", "trap '' USR1\nmodule load"))
    assert (finding.line, finding.loses) == (6, False)
    assert find(GOOD.replace("module load", "trap 'rm -rf x' EXIT; trap - USR1; module load")) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("#SBATCH --open-mode=append\n", "", "no --open-mode"),
        ("#SBATCH --open", "# SBATCH --mem=1\n#SBATCH --open", "does not read this line"),
        ("=append", "=append --array=0-3 --output=x-%x.log", "one log"),
        ("exec", "scontrol requeue 5\nexec", "what its owner has cancelled"),
        ("python train.py", "srun -K kforge-run python train.py", "--kill-on-bad-exit"),
        ("python train.py", "srun -n4 -- python train.py", "too: srun -n4 -- kforge-run python train.py"),
        ("python train.py", "-v srun composer.sh x", "too: srun kforge-run composer.sh x"),
        ("python train.py", "srun ./train.py : bash run.sh", "too: srun kforge-run ./train.py : kforge-run bash"),
    ],
)
def test_what_is_only_worth_knowing_does_not_count(old: str, new: str, what: str) -> None:
    (finding,) = find(GOOD.replace(old, new))
    assert what in finding.what and not finding.loses


@pytest.mark.parametrize(
    "launch",
    [
        "exec nice -n 5 kforge-run python train.py",
        "exec env A=1 numactl kforge-run python train.py",
        "exec uv run kforge-run python train.py",
        "exec python -m kempnerforge.launcher python train.py",
        "exec /opt/env/bin/kforge-run --timeout 90 python train.py",
        "if true; then\n  module load more\nfi\nexec kforge-run \\\n    python train.py",
        "echo 'no kforge-run here'\nexec kforge-run python train.py 2>>errors.log",
        'conda activate x\nexec "$(which kforge-run)" python train.py',
        "command exec kforge-run python train.py",
        "exec -a name kforge-run python train.py",
        'eval "$(conda shell.bash hook)"\nsource /opt/kforge-run/bin/activate\nexec kforge-run python train.py',
        "exec > >(tee -a log) 2>&1\nexec kforge-run python train.py",
        "exec kforge-run apptainer exec --nv --bind a:b image.sif python train.py -e 5",
        "exec kforge-run bash -c 'python train.py > numbers.txt'",
        "exec kforge-run python train.py > >(tee -a log)",
        "exec kforge-run python train.py --strategy deepspeed --launcher torchrun",
        "exec kforge-run deepspeed train.py",
        "exec kforge-run composer train.py",
        "command -v kforge-run || exit 1\nexec kforge-run python train.py",
        "pip install kforge-run accelerate\ncd ~/deepspeed\nkforge-run --version\nexec kforge-run python train.py",
        "uv tool install kforge-run || exit\nexec kforge-run python train.py",
        "exec kforge-run env -u SLURM_JOB_ID python train.py",
        "exec kforge-run srun --wait=0 kforge-run python train.py",
        "(( n = 1 << 3 ))\nexec kforge-run python train.py",
    ],
)
def test_a_launch_that_keeps_the_notice_is_left_alone(launch: str) -> None:
    assert find(GOOD.replace("exec kforge-run python train.py", launch)) == []


@pytest.mark.parametrize("number", ["$SLURM_NTASKS", "${SLURM_NTASKS}", "8"])
def test_what_the_options_of_a_job_mean_for_its_srun(number: str) -> None:
    script = GOOD.replace("=append\n", "=append\n#SBATCH -n 8\n").replace(
        "python train", f"srun -n {number} python train"
    )
    (finding,) = find(script)
    assert (finding.line, finding.loses, finding.is_unclear) == (8, False, False)
    assert finding.what == "kforge-run runs in srun's tasks, too: srun -n 8 kforge-run python train.py"


@pytest.mark.parametrize(
    ("words", "why"), [("$OPTIONS python", "$OPTIONS is neither"), ("-n $N python", "an unknown number of tasks")]
)
def test_an_srun_whose_words_are_not_known(words: str, why: str) -> None:
    (finding,) = find(GOOD.replace("python train", f"srun {words} train"))
    assert (finding.line, finding.loses, finding.is_unclear) == (7, False, True)
    assert finding.what.startswith(f"cannot tell whether kforge-run runs in srun's tasks: {why}")
    assert "kforge-run" in finding.cure


#: What is in place of the launch in GOOD, on which line that is unclear, and why.
UNCLEAR: dict[str, tuple[int, str]] = {
    "if false; then\n  exec kforge-run python train.py\nfi\npython train.py": (8, "comes to this kforge-run"),
    "if true; then\n  exec kforge-run \\\n    python train.py\nfi": (8, "comes to this kforge-run"),
    "case $X in\n  a) exec kforge-run python train.py ;;\nesac": (8, "comes to this kforge-run"),
    "true && exec kforge-run python train.py": (7, "comes to this kforge-run"),
    "main() { exec kforge-run python train.py; }": (7, "comes to this kforge-run"),
    "main() { exec kforge-run python train.py; }\nmain | tee log": (7, "comes to this kforge-run"),
    "( exec kforge-run python train.py )": (7, "comes to this kforge-run"),
    "{ exec kforge-run python train.py; } & wait": (7, "comes to this kforge-run"),
    "return\nexec kforge-run python train.py": (7, "further than to this return"),
    "if [ -f done ]; then exit 0; fi\nexec kforge-run python train.py": (7, "further than to this exit"),
    "[ -f done ] && exec python eval.py\nexec kforge-run python train.py": (7, "further than to this exec"),
    "exec() { :; }\nexec kforge-run python train.py": (7, "exec is a function"),
    "eval 'exit 0'\nexec kforge-run python train.py": (7, "what eval runs"),
    'eval "exec kforge-run python train.py"': (7, "what eval runs"),
    "bash -c 'kforge-run python train.py'": (7, "becomes of this kforge-run"),
    "exec bash -c 'kforge-run python train.py'": (7, "becomes of this kforge-run"),
    "cmd=(kforge-run python train.py)\nexec ${cmd[@]}": (7, "becomes of this kforge-run"),
    "RUN=kforge-run\nexec $RUN python train.py": (8, "what $RUN runs"),
    "exec $LAUNCHER python train.py": (7, "what $LAUNCHER runs"),
    "source run.sh": (7, "what source runs"),
    "cat <<E\nexec kforge-run python train.py\n": (8, "no end of the here document E"),
    "if true; then\n  exec kforge-run python train.py": (7, "no end of then"),
    "echo 'it\nexec kforge-run python train.py": (7, "no end of '"),
}


@pytest.mark.parametrize("launch", UNCLEAR)
def test_what_is_not_surely_understood_is_neither_safe_nor_wrong(launch: str) -> None:
    line, what = UNCLEAR[launch]
    (finding,) = find(GOOD.replace(RUN, launch))
    assert (finding.line, finding.loses, finding.is_unclear) == (line, False, True)
    assert finding.what.startswith("cannot tell wh") and what in finding.what
    assert finding.cure.splitlines()[1:] == THREE_LINES.splitlines()[1:]


def test_a_here_document_is_no_command() -> None:
    (finding,) = find(GOOD.replace(RUN, f"python train.py\ncat <<E\n{RUN}\nE"))
    assert finding.loses and "python does not run under kforge-run" in finding.what


# --- what is known besides the script ------------------------------------------------------------------


def test_options_and_variables_of_sbatch_count_more_than_the_script() -> None:
    script = GOOD.replace("B:USR1@120", "USR1@120")
    assert find(script, given=[Option("signal", "B:USR1@120")]) == []
    assert find(script, environment={"SBATCH_SIGNAL": "B:USR1@120"}) == []
    assert find(GOOD, environment={"KFORGE_REQUEUE": "1"}) == []
    (finding,) = find(GOOD, environment={"KFORGE_MAX_REQUEUES": "0"})
    assert finding.loses and "KFORGE_MAX_REQUEUES=0" in finding.what
    (finding,) = find(GOOD, environment={"SBATCH_NO_REQUEUE": ""})
    assert (finding.line, finding.loses) == (0, True)


def test_a_lead_that_past_attempts_have_shown_to_be_too_short() -> None:
    (finding,) = find(GOOD, past=Past("4711", 110.0, was_killed=False))
    assert finding.loses and finding.line == 3
    assert "job 4711 took 110 s to stop" in finding.what
    assert finding.cure == "#SBATCH --signal=B:USR1@170"
    assert find(GOOD, past=Past("4711", 100.0, was_killed=False)) == []
    (killed,) = find(GOOD, past=Past("4711", 110.0, was_killed=True))
    assert "was killed after 110 s" in killed.what


def test_a_job_of_the_same_name_that_ran_something_else_is_only_worth_knowing() -> None:
    (finding,) = find(GOOD, past=Past("7", 300.0, was_killed=False, same_command=False))
    assert not finding.loses and "ran something else" in finding.what


def test_a_log_folder_is_looked_for_where_the_job_will_be(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert find(GOOD.replace("=append", f"=append --chdir={tmp_path} -o logs/%x.log")) == []


def test_what_a_script_gives_kforge_run() -> None:
    assert Subject(GOOD.encode()).launched == ("python", "train.py")


def test_a_short_lead_is_long_enough_where_past_attempts_have_shown_it() -> None:
    assert find(GOOD.replace("@120", "@30"), past=Past("4711", 5.0, was_killed=False)) == []
    assert find(TORCHRUN.replace("export TORCH", "export NO"), past=Past("4711", 5.0, was_killed=False)) == []


CONFIG = "KillWait = 30 sec\nJobRequeue = 1\nJobFileAppend = 1\nKillOnBadExit = {bad_exit}\n"


def test_what_the_cluster_does_by_itself() -> None:
    here = cluster.parse(CONFIG.format(bad_exit=0), "")
    assert find(GOOD.replace("#SBATCH --open-mode=append\n", ""), cluster=here) == []
    without_lead = GOOD.replace("#SBATCH --signal=B:USR1@120\n", "")
    (finding,) = find(without_lead, cluster=here)
    assert finding.loses and "30 s (KillWait)" in finding.what
    (finding,) = find(without_lead, cluster=here, past=Past("1", 4.0, was_killed=False))
    assert not finding.loses
    (finding,) = find(RANKS, cluster=cluster.parse(CONFIG.format(bad_exit=1), ""))
    assert "--kill-on-bad-exit" in finding.what


@pytest.mark.parametrize(
    ("version", "name", "found"),
    [
        ("26.05.5", "%x-%j-%r.log", 0),
        ("26.05.5", "%x-%j-%2r.log", 0),
        ("26.05.5", "%x-%S.log", 0),
        ("26.05.5", "%x-%j-%%r.log", 1),
        ("26.05.5", "%x-%j.log", 1),
        ("24.11.5", "%x-%j-%r-%S.log", 1),  # there they stay as they are
    ],
)
def test_each_attempt_may_have_a_log_of_its_own(version: str, name: str, found: int) -> None:
    here = cluster.parse(f"SLURM_VERSION = {version}\nJobFileAppend = 0\n", "")
    script = GOOD.replace("#SBATCH --open-mode=append\n", f"#SBATCH --output={name}\n")
    assert len([one for one in find(script, cluster=here) if "--open-mode" in one.what]) == found


@pytest.mark.parametrize(
    ("version", "log", "said"),
    [
        ("26.05.5", "%x-%S.log", ""),
        ("26.05.5", "logs-%S/%a.log", "cannot be there yet"),
        ("24.11.5", "%x-%S.log", "one log"),
        ("24.11.5", "logs-%S/%a.log", ""),
    ],
)
def test_the_sluid_in_the_log_of_an_array(version: str, log: str, said: str) -> None:
    here = cluster.parse(f"SLURM_VERSION = {version}\n", "")
    found = find(GOOD.replace("=append\n", f"=append\n#SBATCH --array=0-3 --output={log}\n"), cluster=here)
    assert (found == []) if not said else (said in found[0].what)


def test_sbatch_reads_a_backslash_before_a_blank_by_its_version() -> None:
    script = GOOD.replace("module", "#SBATCH --comment=a\\ b\nmodule")
    (finding,) = find(script, cluster=cluster.parse("SLURM_VERSION = 22.05.8\nJobFileAppend = 1\n", ""))
    assert "'b' is no option" in finding.what
    assert find(script, cluster=cluster.parse("SLURM_VERSION = 26.05.5\nJobFileAppend = 1\n", "")) == []


def test_an_expedited_requeue_is_worth_knowing() -> None:
    (finding,) = find(GOOD.replace("--requeue", "--requeue=expedite"))
    assert not finding.loses and "holds it" in finding.what


# --- scripts that are none of bash's ---------------------------------------------------------------------


def test_a_python_script_is_the_batch_process_itself() -> None:
    script = GOOD.replace("/bin/bash", "/usr/bin/env python3").replace("exec kforge-run python train.py", "train()")
    (finding,) = (finding for finding in find(script) if finding.loses)
    assert finding.line == 1 and "python3 is the batch process" in finding.what


def test_a_python_script_that_may_become_kforge_run_is_unclear() -> None:
    script = GOOD.replace("/bin/bash", "/usr/bin/python3").replace(RUN, "import kempnerforge.launcher.cli")
    (finding,) = find(script)
    assert finding.is_unclear and "whether python3 becomes kforge-run" in finding.what


def test_a_csh_script_is_read_too() -> None:
    csh = GOOD.replace("/bin/bash", "/bin/csh").replace("module load", "setenv A 1\nmodule load")
    assert find(csh) == []
    assert [finding.what[:7] for finding in find(csh.replace("exec ", ""))] == ["no exec"]


def test_ten_megabytes_are_refused_by_sbatch_and_read_in_part() -> None:
    found = find(GOOD + "# filler\n" * (10 << 17))
    assert [(finding.loses, finding.is_unclear) for finding in found] == [(True, False), (False, True)]
    assert "sbatch takes 4 MB" in found[0].what


def test_a_binary_is_no_script() -> None:
    with pytest.raises(Trouble, match="no script"):
        findings.find(Subject(b"\x7fELF\0\0"))


@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_script_holds_it_is_read(content: bytes, in_a_script: bool) -> None:
    whole = THREE_LINES.encode() + content if in_a_script else content
    try:
        found = findings.find(Subject(whole))
    except Trouble:
        assert b"\0" in whole
    else:
        assert all(0 <= finding.line <= whole.count(b"\n") + 1 for finding in found)
