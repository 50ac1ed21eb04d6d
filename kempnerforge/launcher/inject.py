"""The embed: the bootstrap in the private folder, and the variables that lead the child to it."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Mapping

from ..bootstrap import contract
from . import tree
from .private_folder import PrivateFolder

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SOURCES = os.path.join(_PACKAGE, "bootstrap", "inject")
#: What is in which file.
_MODULES = {
    contract.CODE_FILE: ("process",),
    contract.LATER_CODE_FILE: ("dispositions", "interpreter", "notice", "package", "shield"),
}


def install_bootstrap(folder: PrivateFolder) -> None:
    """Put the bootstrap where PYTHONPATH will lead, compiled for the Python that we run on ourselves.

    It is copied, because the folder is node-local, and our own files may be on a network or not shown by a container.
    Only another Python than ours reads the modules where they are.

    Raises:
        OSError: it cannot be put there.
    """
    for name in contract.FOLDERS:
        os.mkdir(name, 0o700, dir_fd=folder.fd)
    source = os.path.join(_SOURCES, "sitecustomize.py")
    status = os.stat(source)
    with open(source, "rb") as file:
        folder.create(f"{contract.SITE_FOLDER}/sitecustomize.py", file.read())
    # Compiled code is good for a source of this very time and size.
    os.utime(os.path.join(folder.site, "sitecustomize.py"), ns=(status.st_atime_ns, status.st_mtime_ns))
    tag = sys.implementation.cache_tag
    folder.create(f"{contract.SITE_FOLDER}/__pycache__/sitecustomize.{tag}.pyc", _compiled("sitecustomize"))
    for name, modules in _MODULES.items():
        compiled = {module: _compiled(module) for module in modules}
        # Of a compiled file's header, the magic number; the rest is about its source (PEP 552).
        magic = compiled[modules[0]][:4]
        code = marshal.dumps({module: one[16:] for module, one in compiled.items()})
        folder.create(name, os.fsencode(_PACKAGE) + b"\0" + magic + code)
    os.mkfifo(contract.NEWS_FIFO, 0o600, dir_fd=folder.fd)


def _compiled(module: str) -> bytes:
    """Return a module compiled without docstrings, as a .pyc file has it; one that was kept is taken if it is good."""
    source = os.path.join(_SOURCES, module + ".py")
    kept = os.path.join(_SOURCES, "__pycache__", f"{module}.{sys.implementation.cache_tag}.opt-2.pyc")
    status = os.stat(source)
    # PEP 552: behind the magic number no flags, and the time and size of the source.
    about = b"".join((int(value) & 0xFFFFFFFF).to_bytes(4, "little") for value in (0, status.st_mtime, status.st_size))
    try:
        with open(kept, "rb") as file:
            compiled = file.read()
    except OSError:
        compiled = b""
    return compiled if compiled[4:16] == about else _compile(source, about, kept)


def _compile(source: str, about: bytes, kept: str) -> bytes:
    from importlib.util import MAGIC_NUMBER

    with open(source, "rb") as file:
        code = compile(file.read(), source, "exec", dont_inherit=True, optimize=2)
    compiled = MAGIC_NUMBER + about + marshal.dumps(code)
    temporary = f"{kept}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(compiled)
        os.replace(temporary, kept)
    except OSError:
        pass  # an installation that we may not write to: compiling takes some milliseconds each time
    return compiled


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
