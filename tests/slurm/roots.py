"""Other Slurms than this machine's own: Debian's, each in a root folder with a Python and what the tests need.

A root folder is made once, kept in the user's cache, and made anew when its recipe has changed. What runs in one sees
the checkout and /tmp as they are; whatever else it changes is gone when it ends, so any number may run at once.

It works for root on Debian, with debootstrap. Elsewhere `Unavailable` says what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Which of Debian's releases has which Slurm. A new one is a line here.
RELEASES = {"22.05": "bookworm", "24.11": "trixie", "26.05": "forky"}
PACKAGES = ("slurm-wlm", "slurm-wlm-basic-plugins", "munge", "python3", "python3-venv", "procps", "git")
#: What else, from sid because no release has it, and so only where that is nearest.
FROM_SID = {"26.05": ("apptainer", "squashfuse")}
#: In the root: the tests' Python.
VENV = "/opt/kforge-run"
#: How the folder becomes a root: with what the project and its tests need, of this checkout.
_FURNISH = f"""
requirements=$(python3 -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["test"], sep="\\n")
')
python3 -m venv {VENV}
printf '%s\\n' "$requirements" | {VENV}/bin/pip install --quiet -r /dev/stdin
"""
#: Then, where something is wanted from sid. Without it the root is good for all else, and its own tests are skipped.
_ADD_FROM_SID = """
sed 's/ {release} / sid /' /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list
printf '%s\\n' 'Package: *' 'Pin: release n=sid' 'Pin-Priority: 100' >/etc/apt/preferences.d/sid
# Like debootstrap, which takes an archive that is a copy of an older day.
apt-get update -qq -o Acquire::Check-Valid-Until=false || exit 0
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends {packages} || exit 0
apt-get clean
rm -rf /var/lib/apt/lists/*
"""
#: With a new checkout, in a copy that is thrown away.
_INSTALL = f"{VENV}/bin/pip install --quiet --no-deps --no-build-isolation --editable ."
#: What a root takes while it is made, and some (bytes).
_ROOM = 3 << 30
#: Roots of other recipes are kept so long after their last use (s): another checkout may use them.
_KEPT = 7 * 86400

CHECKOUT = Path(__file__).parents[2]
#: So that names are resolved, and pip finds its index, as outside.
_SETTINGS = ("/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf", "/etc/xdg/pip", os.path.expanduser("~/.config/pip"))


class Unavailable(Exception):
    """This machine cannot have that Slurm."""


def versions() -> list[str]:
    """Every Slurm that the tests know, and this machine's own if it is another one."""
    own = own_version()
    return [*RELEASES, *([own] if own and own not in RELEASES else [])]


def own_version() -> str | None:
    """The Slurm that is installed here, `22.05` for instance; None: there is none."""
    slurmctld = shutil.which("slurmctld", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return None if slurmctld is None else _version_in(subprocess.check_output([slurmctld, "-V"], text=True))


def command_in(version: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command with a Slurm, in the checkout.

    Raises:
        Unavailable: see `make`.
    """
    if version == own_version():
        return list(command)
    return _command_in(make(version), _INSTALL, command, keep=False)


def make(version: str) -> Path:
    """Return the root folder with a Slurm, made if need be.

    Raises:
        Unavailable: it cannot be here, or could not be made.
    """
    release, mirror = _requirements(version)
    root = place(version)
    cache = root.parent
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(Path(f"{root}.lock")) as lock:
        if not root.exists():
            if shutil.disk_usage(cache).free < _ROOM:
                raise Unavailable(f"no room for it in {cache}: {_ROOM >> 30} GB are needed")
            _make(version, release, mirror, root, lock)
        os.utime(root)
    _remove_old(cache, version, root)
    return root


def place(version: str) -> Path:
    """Where the root folder with a Slurm is as soon as it is made. Another recipe has another place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kforge" / "slurm-roots"
    needs = re.findall(
        r"^(?:dependencies|test) = \[.*?\]$", (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    recipe = (RELEASES[version], *PACKAGES, _furnishing(version), *needs)
    return cache / f"{version}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def _furnishing(version: str) -> str:
    """Return the commands that make a root of what debootstrap has made."""
    if version not in FROM_SID:
        return _FURNISH
    return _FURNISH + _ADD_FROM_SID.format(release=RELEASES[version], packages=" ".join(FROM_SID[version]))


def _requirements(version: str) -> tuple[str, str]:
    """Return the release, and whence it is to be had."""
    if version not in RELEASES:
        raise Unavailable(f"no release of Debian is known to have it (known: {', '.join(RELEASES)})")
    if os.getuid() != 0:
        raise Unavailable("only root can make and enter a root folder")
    if shutil.which("debootstrap") is None:
        raise Unavailable("debootstrap is not installed (hint: bin/test --slurm installs it)")
    test = ["unshare", "--mount", "--propagation=private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if (trial := subprocess.run(test, capture_output=True, text=True, check=False)).returncode != 0:
        raise Unavailable(f"nothing can be mounted here: {trial.stderr.strip()}")
    mirror = archive()
    if mirror is None:
        raise Unavailable("apt's sources name no archive of Debian's here")
    return RELEASES[version], mirror


def archive(etc: Path = Path("/etc")) -> str | None:
    """The archive that this machine's own Debian is from; None: it is no Debian, or apt has no such source."""
    facts: dict[str, str] = dict(re.findall(r'^(\w+)="?(.*?)"?$', (etc / "os-release").read_text(), re.MULTILINE))
    if facts.get("ID") != "debian":
        return None
    for path in (etc / "apt/sources.list", *(etc / "apt/sources.list.d").glob("*")):
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", path.read_text()):
                fields: dict[str, str] = dict(re.findall(r"^(\w+):[ \t]*(.*?)[ \t]*$", stanza, re.MULTILINE))
                suites, components = fields.get("Suites", "").split(), fields.get("Components", "").split()
                if facts.get("VERSION_CODENAME") in suites and "main" in components:
                    return fields["URIs"].split()[0]
        elif path.suffix == ".list" and path.exists():
            for line in path.read_text().splitlines():
                words = re.sub(r"\[.*?\]", "", line.partition("#")[0]).split()
                if words[:1] == ["deb"] and words[2:3] == [facts.get("VERSION_CODENAME")] and "main" in words[3:]:
                    return words[1]
    return None


def _make(version: str, release: str, mirror: str, root: Path, lock: int) -> None:
    said = f"Making a root folder with Slurm {version}, of Debian's {release}; the next time it is there."
    print(said, file=sys.stderr, flush=True)
    unfinished, log_path = Path(f"{root}.unfinished"), Path(f"{root}.log")
    shutil.rmtree(unfinished, ignore_errors=True)
    # debootstrap of an older Debian does not know the newer releases' names; they are all made like sid.
    scripts = Path("/usr/share/debootstrap/scripts")
    script = scripts / (release if (scripts / release).exists() else "sid")
    include = f"--include={','.join(PACKAGES)}"
    program = shutil.which("debootstrap")
    assert program is not None
    debootstrap = [program, "--variant=minbase", include, release, str(unfinished), mirror, str(script)]
    with log_path.open("w") as log:
        for command in (
            # In a namespace of its own, so that nothing stays mounted when it is interrupted.
            ["unshare", "--mount", "--propagation=private", *debootstrap],
            _command_in(unfinished, _furnishing(version), ["true"], keep=True),
        ):
            # The lock is inherited: a debootstrap that has outlived us is waited for.
            done = subprocess.run(command, stdout=log, stderr=log, env=_environment(), pass_fds=[lock], check=False)
            if done.returncode != 0:
                lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
                raise Unavailable(f"it could not be made: {' '.join(lines[-1:])} (see {log_path})")
    got = _version_in(subprocess.check_output(["chroot", str(unfinished), "slurmctld", "-V"], text=True))
    if got != version:
        raise Unavailable(f"Debian's {release} has Slurm {got} by now")
    unfinished.rename(root)


def numbers(version: str) -> tuple[int, int]:
    """`22.05` as numbers, which can be compared."""
    year, month = version.split(".")
    return int(year), int(month)


def _version_in(text: str) -> str:
    found = re.search(r"(\d+\.\d+)\.\d", text)
    assert found is not None, text
    return found[1]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _remove_old(cache: Path, version: str, root: Path) -> None:
    """Remove roots of the same Slurm and another recipe that nobody has used for a while."""
    for other in cache.glob(f"{version}-*"):
        if other.is_dir() and other != root and time.time() - other.stat().st_mtime > _KEPT:
            shutil.rmtree(other, ignore_errors=True)


def _command_in(root: Path, first: str, command: Sequence[str], *, keep: bool) -> list[str]:
    """Return a command line that enters a root folder, prepares it, and becomes a command there, in the checkout.

    Args:
        first: for the shell, in the root.
        keep: what is changed stays changed.
    """
    above = root.parent / "above"
    above.mkdir(exist_ok=True)
    # $1 is the root, $2 where it is mounted, in a namespace of its own. Nothing of that is seen outside.
    script = ["cd $2", "mount -t tmpfs tmpfs .", "cd $2", "mkdir changes work root"]
    overlay = "mount -t overlay -o lowerdir=$1,upperdir=changes,workdir=work overlay root"
    script += ["mount --bind $1 root" if keep else overlay]
    script += [f"mount --rbind {folder} root{folder}" for folder in ("/proc", "/sys", "/dev", "/tmp")]
    for path in dict.fromkeys([str(CHECKOUT), *_pips_files()]):
        if not path.startswith("/tmp/"):
            source, target = shlex.quote(path), f"root{shlex.quote(path)}"
            make_file = f"mkdir -p root{shlex.quote(os.path.dirname(path))} && touch {target}"
            script += [f"mkdir -p {target}" if os.path.isdir(path) else make_file, f"mount --rbind {source} {target}"]
    # Not chroot: who enters a mount namespace made inside, a job's own /tmp for instance, would be outside again.
    script += ["shift 2", "cd root", "pivot_root . mnt", "cd /", "umount -l /mnt", 'exec sh -ec "$@"']
    inside = f'cd {shlex.quote(str(CHECKOUT))}\n{first}\nexec "$@"'
    namespace = ["unshare", "--mount", "--propagation=private"]
    return [*namespace, "sh", "-ec", "\n".join(script), "sh", str(root), str(above), inside, "sh", *command]


def _pips_files() -> list[str]:
    """Return what pip's settings name of this machine, and those themselves."""
    files = [path for path in _SETTINGS if os.path.exists(path)]
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=False).stdout
    # An index keeps its files beside its list, which is called "simple".
    words = [word.removesuffix("/simple") for word in re.findall(r"(?:file://)?(/[^\s'\"]+)", listed)]
    return files + [word for word in words if os.path.exists(word)]


def _environment() -> dict[str, str]:
    """Return this process's environment without what is true outside only."""
    outside = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    ours = {name: value for name, value in os.environ.items() if name not in outside}
    folders = (f"{VENV}/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return {**ours, "PATH": ":".join(folders), "LC_ALL": "C.UTF-8"}


def become(version: str, command: Sequence[str]) -> None:
    """Go on as a command with a Slurm.

    Raises:
        Unavailable: see `make`.
    """
    words = command_in(version, command)
    os.execvpe(words[0], words, os.environ if version == own_version() else _environment())
