"""The embed: the bootstrap in the private folder, and the variables that lead the child to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ..bootstrap import contract
from . import tree
from .private_folder import PrivateFolder

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SOURCES = os.path.join(_PACKAGE, "bootstrap", "inject")
#: What goes where: only the first is on PYTHONPATH.
_FILES = {
    contract.SITE_FOLDER: ("sitecustomize",),
    contract.CODE_FOLDER: ("process", "package", "dispositions", "notice", "shield"),
}


def install_bootstrap(folder: PrivateFolder) -> None:
    """Put the bootstrap where PYTHONPATH will lead, compiled for the Python that we run on ourselves.

    It is copied, because the folder is node-local, and our own files may be on a network or not shown by a container.

    Raises:
        OSError: it cannot be put there.
    """
    for name in contract.FOLDERS:
        os.mkdir(name, 0o700, dir_fd=folder.fd)
    for place, modules in _FILES.items():
        for module in modules:
            _copy(module, folder, place)
    folder.write(contract.EMPTY_FILE, b"")
    folder.write(contract.PACKAGE_FILE, os.fsencode(_PACKAGE))


def _copy(module: str, folder: PrivateFolder, place: str) -> None:
    source = os.path.join(_SOURCES, module + ".py")
    status = os.stat(source)
    bytecode = os.path.join("__pycache__", f"{module}.{sys.implementation.cache_tag}.pyc")
    without_docstrings = bytecode.replace(".pyc", ".opt-2.pyc")
    with open(source, "rb") as file:
        folder.write(os.path.join(place, module + ".py"), file.read())
    # Compiled code is good for a source of this very time and size.
    os.utime(os.path.join(folder.path, place, module + ".py"), ns=(status.st_atime_ns, status.st_mtime_ns))
    compiled = _compiled(source, status, os.path.join(_SOURCES, without_docstrings))
    if compiled is not None:
        folder.write(os.path.join(place, bytecode), compiled)


def _compiled(source: str, status: os.stat_result, path: str) -> bytes | None:
    """Return a module compiled without docstrings, which is kept beside its source; None: it cannot be."""
    for attempt in range(2):
        try:
            with open(path, "rb") as file:
                compiled = file.read()
        except OSError:
            compiled = b""
        # PEP 552: a magic number, no flags, and the time and size of the source.
        header = [int.from_bytes(compiled[at : at + 4], "little") for at in (4, 8, 12)]
        if header == [0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF]:
            return compiled
        if attempt == 0:
            import py_compile

            try:
                py_compile.compile(source, cfile=path, doraise=True, optimize=2)
            except (OSError, py_compile.PyCompileError):
                break  # an installation that we may not write to: the child compiles it for itself
    return None


def child_environment(
    environment: Mapping[str, str], folder: PrivateFolder | None, embed: bool, job_facts: str | None
) -> dict[str, str]:
    """Return the environment of the training process.

    Args:
        folder: None: there is none, and nobody can register.
        embed: the bootstrap is in the folder.
        job_facts: what inner kforge-runs need to know of the job; None: what is inherited stays.
    """
    child = dict(environment)
    # What a kforge-run above us has put there: whatever is below belongs to us now.
    outer_folder = child.pop(contract.CONTROL_VARIABLE, "").partition(":")[2].partition(":")[2]
    child.pop(contract.CLAIM_VARIABLE, None)
    path = child["PYTHONPATH"].split(":") if child.get("PYTHONPATH") else []
    if outer_folder and (outer_site := os.path.join(outer_folder, contract.SITE_FOLDER)) in path:
        path.remove(outer_site)
        child["PYTHONPATH"] = ":".join(path)
    if "LC_CTYPE" in child and tree.was_given(os.getpid(), "LC_CTYPE") is False:
        del child["LC_CTYPE"]  # Python sets it for itself where there is no locale (PEP 538)
    if folder is not None:
        child[contract.CONTROL_VARIABLE] = contract.control_address(folder.path)
        if embed:
            # No entry must be left empty: that would be the working directory.
            child["PYTHONPATH"] = ":".join([folder.site, *path])
    if job_facts is not None:
        child[contract.JOB_FACTS_VARIABLE] = job_facts
    return child
