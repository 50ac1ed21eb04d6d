"""The bootstrap, how it is injected, and the variables that lead the child to it.

PYTHONPATH is handed on to everywhere: to other nodes, into other jobs, beyond our end. So it leads only to a place
where only root and the user can ever make anything. What the private folder holds is found by another variable,
and is used only by who has made sure of it.
"""

from __future__ import annotations

import marshal
import os
import re
import stat
import sys
from collections.abc import Mapping

from ... import __about__
from ...bootstrap import contract
from ..processes import tree
from ..telling.state_folder import state_folders
from ..telling.trust import Folder, Strange, Trust, open_folder, walk, why_not_trusted
from .private_folder import PrivateFolder

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_SOURCES = os.path.join(_PACKAGE, "bootstrap")
_SITE = os.path.join(_PACKAGE, "bootstrap", contract.SITE_FOLDER)
_CACHE = "__pycache__"
_STARTER = "sitecustomize.py"
#: What is in which file.
MODULES = {
    contract.CODE_FILE: ("programs", "proc", "inject/process"),
    contract.LATER_CODE_FILE: (
        "forks",
        "inject/dispositions",
        "inject/doors",
        "inject/notice",
        "inject/package",
        "inject/probe",
        "inject/shield",
        "inject/signals",
        "inject/wakeup",
    ),
}
#: Folders that a job or a node has of its own, whoever owns them there and now.
_PASSING = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - they are told apart, not used
#: Where PYTHONPATH leads below any kforge-run, of whatever installation and version.
_OUR_SITE = re.compile(rf"/(kempnerforge/bootstrap/{contract.SITE_FOLDER}|kforge/{contract.SITE_FOLDER}-[^/]+)$")
#: The parts of our package that a training process may import, and then compiles.
_IMPORTED = (".", "bootstrap", f"bootstrap/{contract.SITE_FOLDER}", "bootstrap/inject", "examples", "resilience")


def install_bootstrap(folder: PrivateFolder) -> None:
    """Put what the bootstrap consists of into the private folder, compiled for the Python that we run on ourselves.

    It is copied, because our own files may be on a network or not shown by a container. Only another Python than ours
    reads the modules where they are, if no other user can change them.

    Raises:
        OSError: it cannot be put there.
    """
    for name, modules in MODULES.items():
        compiled = {module: _compiled(module) for module in modules}
        # Of a compiled file's header, the magic number; the rest is about its source (PEP 552).
        magic = compiled[modules[0]][:4]
        code = marshal.dumps({os.path.basename(module): one[16:] for module, one in compiled.items()})
        folder.create(name, os.fsencode(_package_for_others()) + b"\0" + magic + code)
    os.mkfifo(contract.NEWS_FIFO, 0o600, dir_fd=folder.fd)


# --- where PYTHONPATH leads ----------------------------------------------------------------------------


def find_site(environment: Mapping[str, str]) -> str:
    """Return the folder for PYTHONPATH: where we are installed, or else a copy in the user's own state folder.

    Raises:
        OSError: there is none in which a stranger can make nothing, on any node and at any time; the message says why.
    """
    try:
        _check_name(_SITE)
        _check_always(_SITE)
        return _SITE
    except OSError as error:
        why = error
    from binascii import crc32

    with open(os.path.join(_SITE, _STARTER), "rb") as file:
        starter = file.read()
    # Two versions of us may run at the same time, and two checkouts that call themselves the same version.
    name = f"{contract.SITE_FOLDER}-{__about__.__version__}-{crc32(starter):08x}"
    for state in state_folders(environment):
        site = os.path.realpath(os.path.join(state, name))
        try:
            _check_name(site)
            os.close(open_folder(site, Trust.ALWAYS, make=True))
            _copy_starter(site, starter)
            _check_always(site)
            return site
        except OSError:
            continue  # the installation is the place that can be mended best: it is the one to warn of
    raise why


def _check_name(site: str) -> None:
    """Make sure that a name is good for PYTHONPATH, and means the same on every node.

    Raises:
        OSError: it is not.
    """
    if ":" in site:
        raise Strange(site, "has a colon in its name, which PYTHONPATH cannot say")
    check_passing(site)


def check_passing(path: str) -> None:
    """Make sure that a path is not below a folder that every job or node has of its own.

    Raises:
        OSError: it is.
    """
    for parent in {*_PASSING, *map(os.path.realpath, _PASSING)}:
        if os.path.commonpath([parent, path]) == parent:
            raise Strange(path, f"is below {parent}, which is another folder on another node")


def _check_always(site: str) -> None:
    """Make sure that only root and we can ever make something of this name, or in it.

    Raises:
        OSError: others could.
    """
    folder = walk(site, Trust.ALWAYS)
    try:
        _check_file(_STARTER, folder)
        _check_cache(folder)
    finally:
        os.close(folder.fd)


def _check_cache(folder: Folder) -> None:
    """Make sure that no other user can change the compiled starter, whatever umask it was written with.

    Raises:
        OSError: others could.
    """
    try:
        cache = os.open(_CACHE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
    except FileNotFoundError:
        return
    try:
        if why := why_not_trusted(cache, Trust.ALWAYS, folder.closed):
            raise Strange(_CACHE, why)
        for name in os.listdir(cache):
            if name.startswith("sitecustomize."):
                _check_file(name, Folder(cache, folder.closed))
    finally:
        os.close(cache)


def _check_file(name: str, folder: Folder) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        why = why_not_trusted(descriptor, Trust.ALWAYS, folder.closed) if is_file else "is no plain file"
    finally:
        os.close(descriptor)
    if why:
        raise Strange(name, why)


def _copy_starter(site: str, content: bytes) -> None:
    """Have a copy of the bootstrap's starter in a folder of ours."""
    copy = os.path.join(site, _STARTER)
    try:
        with open(copy, "rb") as file:
            if file.read() == content:
                return
    except FileNotFoundError:
        pass
    try:
        os.mkdir(os.path.join(site, _CACHE), 0o700)  # Python would make it, with the child's umask
    except FileExistsError:
        pass
    new = f"{copy}.{os.getpid()}-{os.urandom(4).hex()}"
    _write_new(new, content, 0o600)
    os.replace(new, copy)


def _write_new(path: str, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)


def protect_compiled_code() -> None:
    """Make the folders for compiled code before a training process does: Python would make them by its umask."""
    for part in _IMPORTED:
        try:
            os.mkdir(os.path.join(_PACKAGE, part, _CACHE), 0o755)
        except OSError:
            pass  # it is there, as a rule; or we may write nothing here, and nor may who imports us


def _package_for_others() -> str:
    """Return where our package is, for programs that have none and for Pythons other than ours; or "".

    It is what we run ourselves. Only what is compiled of it may have been written by others, by their umask.
    """
    for part in _IMPORTED:
        source = os.path.join(_PACKAGE, part)
        cache = os.path.join(source, _CACHE)
        try:
            if not _is_as_protected(os.lstat(cache), os.stat(source)):
                return ""
        except OSError:
            continue  # it is not compiled
    return _PACKAGE


def _is_as_protected(compiled: os.stat_result, source: os.stat_result) -> bool:
    """Return whether only who could write the source could write what is compiled of it."""
    if compiled.st_uid not in (0, os.geteuid(), source.st_uid):
        return False
    return not compiled.st_mode & ~source.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


# --- compiling -------------------------------------------------------------------------------------------


def _compiled(module: str) -> bytes:
    """Return a module compiled without docstrings, as a .pyc file has it; one that was kept is taken if it is good."""
    source = os.path.join(_SOURCES, module + ".py")
    folder, name = os.path.split(source)
    kept = os.path.join(folder, _CACHE, f"{name[:-3]}.{sys.implementation.cache_tag}.opt-2.pyc")
    status = os.stat(source)
    # PEP 552: behind the magic number no flags, and the time and size of the source.
    about = b"".join((int(value) & 0xFFFFFFFF).to_bytes(4, "little") for value in (0, status.st_mtime, status.st_size))
    compiled = _read_kept(kept, status)
    return compiled if compiled[4:16] == about else _compile(source, about, kept, status)


def _read_kept(kept: str, source: os.stat_result) -> bytes:
    """Return a compiled module that only who could write its source could write; empty: there is none."""
    try:
        descriptor = os.open(kept, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(status.st_mode) and _is_as_protected(status, source) else b""


def _compile(source: str, about: bytes, kept: str, status: os.stat_result) -> bytes:
    from importlib.util import MAGIC_NUMBER

    with open(source, "rb") as file:
        code = compile(file.read(), source, "exec", dont_inherit=True, optimize=2)
    compiled = MAGIC_NUMBER + about + marshal.dumps(code)
    temporary = f"{kept}.{os.getpid()}"
    try:
        # What may be read of the source may be read of this: a shared installation is compiled once for all.
        _write_new(temporary, compiled, stat.S_IMODE(status.st_mode) & 0o644)
        os.replace(temporary, kept)
    except OSError:
        pass  # an installation that we may not write to: compiling takes some milliseconds each time
    return compiled


# --- the child's environment ---------------------------------------------------------------------------


def child_environment(
    environment: Mapping[str, str],
    folder: PrivateFolder | None,
    site: str | None,
    job_facts: str | None,
    door: str | None,
) -> dict[str, str]:
    """Return the environment of the training process.

    Args:
        folder: None: there is none, and no process can register.
        site: what PYTHONPATH shall lead to; None: nothing is injected.
        job_facts: what inner kforge-runs need to know of the job; None: what is inherited stays.
        door: by which whoever holds the work is to be told; None: by its best.
    """
    child = dict(environment)
    # What a kforge-run above us has put there: whatever is below belongs to us now.
    child.pop(contract.CONTROL_VARIABLE, None)
    inherited = child.get("PYTHONPATH", "")
    path = [entry for entry in inherited.split(":") if not _OUR_SITE.search(entry)] if inherited else []
    if inherited:
        child["PYTHONPATH"] = ":".join(path)
    if "LC_CTYPE" in child and tree.was_given(os.getpid(), "LC_CTYPE") is False:
        del child["LC_CTYPE"]  # Python sets it for itself where there is no locale (PEP 538)
    if folder is not None:
        child[contract.CONTROL_VARIABLE] = contract.control_address(folder.path)
        if site is not None:
            # No entry must be left empty: that would be the working directory.
            child["PYTHONPATH"] = ":".join([site, *path])
    if door is not None:
        child[contract.DOOR_VARIABLE] = door
    if job_facts is not None:
        child[contract.JOB_FACTS_VARIABLE] = job_facts
    return child
