"""What kforge-run injects into every Python below it: PYTHONPATH leads here, and `site` imports it at the start.

If a kforge-run above means this process, process.py decides what it is. Whatever goes wrong, the program starts as if
we were not there: nothing is printed, nothing raised, and what is used is built in or loaded anyway. Every Python pays
for this file, so it is short. Its syntax is that of Python 2.7, because old Pythons read it too. It stands alone: the
names it shares with the launcher are those of bootstrap/contract.py, and a test compares the two.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - in comments below

CONTROL_VARIABLE = "KFORGE_CONTROL"
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
CODE_FILE = "code"
LATER_CODE_FILE = "later code"

#: The oldest Python with fork hooks: without them, every forked child would inherit what we install.
_OLDEST = (3, 7)


def _start():
    folder = folder_of_launcher()
    if folder is not None and sys.version_info >= _OLDEST:
        package = type(sys)(BOOTSTRAP_MODULE)  # type: Any
        package.folder, package.code = folder, {}
        package.sitecustomize = sys.modules[BOOTSTRAP_MODULE + ".sitecustomize"] = sys.modules[__name__]
        sys.modules[BOOTSTRAP_MODULE] = package
        load("process").start()


def folder_of_launcher():
    """Return the private folder of the kforge-run above us. None, or an exception: there is none that means us."""
    node, _, rest = os.environ.get(CONTROL_VARIABLE, "").partition(":")
    job, _, folder = rest.partition(":")
    if not folder:
        return None
    here = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    if node != here or os.environ.get("SLURM_JOB_ID", job) != job:
        return None
    # kforge-UID-PID-START-RANDOM. If kforge-run was killed, the folder is still there, and the environment stale. That
    # another process has its number now is not looked for: it would take as long as all else here.
    os.kill(int(folder.rpartition("/")[2].split("-")[2]), 0)
    return folder


def load(name):
    """Return a module of the bootstrap.

    A signal handler may come here in the middle of an import, and the import system is not made for that: in some
    versions of Python the outer import would fail. So it is loaded by hand.
    """
    package = sys.modules[BOOTSTRAP_MODULE]
    module = getattr(package, name, None)  # type: Any
    if module is None:
        code = _code_of(name)
        full_name = BOOTSTRAP_MODULE + "." + name
        module = type(sys)(full_name)
        module.__package__ = BOOTSTRAP_MODULE  # and no __file__: `inspect` would look at it at each import of torch
        exec(code, module.__dict__)  # noqa: S102 - our own
        sys.modules[full_name] = module
        setattr(package, name, module)
    return module


def _code_of(name):
    """Return a module's code: what kforge-run has compiled if that is for this Python, else from its source."""
    import marshal

    package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
    if name not in package.code:
        file = os.open(package.folder + "/" + (CODE_FILE if name == "process" else LATER_CODE_FILE), os.O_RDONLY)
        try:
            path, _, compiled = os.read(file, os.fstat(file).st_size).partition(b"\0")
        finally:
            os.close(file)
        package.path = os.fsdecode(path)
        if compiled[:4] == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER:
            package.code.update(marshal.loads(compiled[4:]))  # noqa: S302 - from a folder that only we may enter
    if name in package.code:
        return marshal.loads(package.code[name])  # noqa: S302
    source = os.path.join(package.path, "bootstrap", "inject", name + ".py")
    return type(__loader__)(name, source).get_code(name)  # type: ignore[name-defined]


def _make_way():
    """Leave no trace on the path, and import the `sitecustomize` that would have been imported without us.

    What that raises is its own, and goes to whom it would have gone to.
    """
    here = os.path.dirname(globals().pop("__file__"))  # see load()
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    us = sys.modules.pop(__name__)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", __name__) != __name__:
            raise
        sys.modules[__name__] = us  # there is none, but the import system wants to find what it has loaded


if __name__ == "sitecustomize":
    try:
        _start()
    except Exception:  # noqa: BLE001, S110 - a bug of ours must not keep a program from starting, nor be seen
        pass
    _make_way()
