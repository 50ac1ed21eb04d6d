"""The embed: the bootstrap in the private folder, and the variables that lead the child to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ..bootstrap import contract
from . import tree
from .private_folder import PrivateFolder

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BOOTSTRAP = os.path.join(_PACKAGE, "bootstrap", "inject", "sitecustomize.py")


def install_bootstrap(folder: PrivateFolder) -> None:
    """Put the bootstrap where PYTHONPATH will lead, compiled for the Python that we run on ourselves.

    It is copied, because the folder is node-local and our own files may be on a network, or not shown by a container.

    Raises:
        OSError: it cannot be put there.
    """
    bytecode = os.path.join("__pycache__", f"sitecustomize.{sys.implementation.cache_tag}.pyc")
    for name in (*contract.FOLDERS, os.path.join(contract.SITE_FOLDER, "__pycache__")):
        os.mkdir(name, 0o700, dir_fd=folder.fd)
    source = os.stat(_BOOTSTRAP)
    with open(_BOOTSTRAP, "rb") as file:
        folder.write(os.path.join(contract.SITE_FOLDER, "sitecustomize.py"), file.read())
    # Compiled code is good for a source of this very time and size.
    os.utime(os.path.join(folder.site, "sitecustomize.py"), ns=(source.st_atime_ns, source.st_mtime_ns))
    compiled = _compiled(os.path.join(os.path.dirname(_BOOTSTRAP), bytecode), source)
    if compiled is not None:
        folder.write(os.path.join(contract.SITE_FOLDER, bytecode), compiled)
    folder.write(contract.PACKAGE_FILE, os.fsencode(_PACKAGE))


def _compiled(path: str, source: os.stat_result) -> bytes | None:
    """Return the compiled bootstrap from beside its source, compiled now if need be; None: it cannot be kept there."""
    for attempt in range(2):
        try:
            with open(path, "rb") as file:
                compiled = file.read()
        except OSError:
            compiled = b""
        # PEP 552: a magic number, no flags, and the time and size of the source.
        header = [int.from_bytes(compiled[at : at + 4], "little") for at in (4, 8, 12)]
        if header == [0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF]:
            return compiled
        if attempt == 0:
            import py_compile

            try:
                py_compile.compile(_BOOTSTRAP, cfile=path, doraise=True)
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
