"""Where `kforge doctor` calls a script safe, a real bash becomes kforge-run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kempnerforge.commands.diagnosis import findings
from kempnerforge.commands.diagnosis.findings import Subject
from tests.process.launch import PATIENCE, reap_orphans

HEAD = "#!/bin/bash\n#SBATCH --time=24:00:00 --signal=B:USR1@120 --requeue --open-mode=append\n"
LAUNCH = "exec kforge-run python train.py"
#: What users have before it.
HARMLESS = [
    "module load a",
    "source ./activate",
    "conda activate a",
    'eval "$(conda shell.bash hook)"',
    "export A=1 B='x y'",
    "cd . || exit 7",
    "cd . || { echo 'no such folder'; exit 8; }",
    "if [ $# -gt 7 ]; then echo usage >&2; exit 8; fi",
    "set -euo pipefail",
    "# exec python train.py",
    "echo \"it's $(date) \\\" exit\"; echo 'exit 0'",
    "a=(1 ')' '2')",
    "[[ 1 < 2 && -n a ]] || exit 7",
    "(( n = 1 << 3 )) # it's",
    'x=$(echo "a)" # it\'s )\n)',
    "y=${x:-$(echo ')')}",
    "cat <<E >all.log\nexec python train.py\nexit\nE",
    "cat <<-'E F'\n\tit's\n\tE F",
    "if true; then echo a; fi",
    "for i in 1 2; do echo $i; done",
    "for ((i = 0; i < 2; i++)); do echo $i; done",
    "case a in a|b) echo b;; (c) ;; esac",
    "while read -r line; do echo $line; done </dev/null",
    "f() { echo; }",
    "function g {\n  echo\n}\ng",
    "{ echo a; } | cat",
    "( echo b ) && echo c",
    "true && echo \\\n  c",
    "echo a |\n  cat",
    "exec 2>&1",
    "exec > >(cat)",
    "python prepare.py",
    'sleep 0 & wait "$!"',
    "trap 'echo bye' EXIT",
]
#: What a doctor is easily wrong with.
TREACHEROUS = [
    "exit 0",
    "exec python train.py",
    "return",
    "if true; then exit 0; fi",
    "case a in a) exec python train.py;; esac",
    "{ exit 0; }",
    "true && exit 0",
    "false || exit 0",
    "eval 'exec python train.py'",
    "command exec python train.py",
    "builtin exit 0",
    "! exit 0",
    "f() { exec python train.py; }; f",
    "exec() { :; }",
    *("if false; then", "for i in; do", "until true; do", "case a in", "case a in b)", "f() {", "{", "(", "[[ a", "(("),
    *(
        "then",
        "else",
        "fi",
        "done",
        "esac",
        ";;",
        "}",
        ")",
        "]]",
        "|",
        "&&",
        "||",
        "&",
        "!",
        "\\",
        "false &&",
        "true ||",
    ),
    *("cat <<E", "cat <<'E'", "E", "'", '"', "x=$(cat <<E\n)\nE\n)", "$'\\'"),
]
LAUNCHES = [
    LAUNCH,
    f"if false; then {LAUNCH}; fi; python train.py",
    f"if true; then python train.py; else {LAUNCH}; fi",
    f"case a in b) {LAUNCH};; *) python train.py;; esac",
    f"false && {LAUNCH}",
    f"true || {LAUNCH}",
    f"{LAUNCH} &",
    f"{LAUNCH} | cat",
    f"( {LAUNCH} )",
    f"main() {{ {LAUNCH}; }}",
    f"cat <<E\n{LAUNCH}\nE",
    f"echo '\n{LAUNCH}\n'",
    f"eval 'false && {LAUNCH}'",
    "kforge-run python train.py",
    "exec A=1 kforge-run python train.py",
    *(f"echo {begin}\n{LAUNCH}\n" for begin in ("`", "$(", "${", "x=(", "'", '"')),
]


#: How those end that refuse to run at all, or do not find what they need: nothing is lost by that.
REFUSED = (7, 8, 127)


class Bash(NamedTuple):
    """A folder with stand-ins for all that a script runs."""

    folder: Path

    def becomes_kforge_run(self, script: str, *, or_refuses: bool = False) -> bool:
        """Run a script as slurmd does, and return whether its very process is kforge-run in the end."""
        (self.folder / "script").write_text(script)
        with subprocess.Popen(
            ["bash", self.folder / "script"],
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
        reap_orphans()  # what it has started in the background
        told = self.folder / "kforge-run.pid"
        became = told.exists() and told.read_text() == f"{process.pid}\n"
        told.unlink(missing_ok=True)
        return became or (or_refuses and process.returncode in REFUSED)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    folder = tmp_path_factory.mktemp("bash")
    programs = {"kforge-run": f'echo $$ >"{folder}/kforge-run.pid"', "python": ":", "module": ":", "conda": "echo :"}
    for name, code in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    (folder / "activate").write_text("")
    return Bash(folder)


#: With `set -e` a script may end anywhere, and with nothing lost.
FRAGMENTS = st.sampled_from([one for one in HARMLESS if one[:4] != "set "]) | st.sampled_from(TREACHEROUS)


def is_safe(script: str) -> bool:
    return not any(finding.loses or finding.is_unclear for finding in findings.find(Subject(script.encode())))


@pytest.mark.parametrize("before", [*HARMLESS, "\n".join(HARMLESS)])
def test_what_users_write_is_safe(bash: Bash, before: str) -> None:
    script = f"{HEAD}{before}\n{LAUNCH}\n"
    assert bash.becomes_kforge_run(script)
    assert is_safe(script)


@pytest.mark.parametrize("launch", [*LAUNCHES[1:], f"exit\n{LAUNCH}"])
def test_a_launch_that_bash_does_not_become_is_not_safe(bash: Bash, launch: str) -> None:
    script = f"{HEAD}{launch}\n"
    assert not bash.becomes_kforge_run(script)
    assert not is_safe(script)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(
        st.tuples(FRAGMENTS, st.sampled_from(["\n", "\n", "; ", " "])),
        max_size=4,
    ),
    launch=st.sampled_from([LAUNCH, LAUNCH, *LAUNCHES]),
    behind=st.sampled_from(["", "\n", "\necho done\n", "\n}\n", "\nfi\n", "\nE\n", "\n'\n", "\n)\n", "\nmain\n"]),
)
def test_what_is_called_safe_becomes_kforge_run(
    bash: Bash, before: list[tuple[str, str]], launch: str, behind: str
) -> None:
    script = HEAD + "".join(fragment + end for fragment, end in before) + launch + behind
    if is_safe(script):
        assert bash.becomes_kforge_run(script, or_refuses=True), script
