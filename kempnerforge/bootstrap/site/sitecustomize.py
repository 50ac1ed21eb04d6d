"""What kforge-run injects into every Python below it: PYTHONPATH leads here, and `site` imports it at the start.

If a kforge-run above means this process, process.py decides what it is. Whatever goes wrong, the program starts as if
we were not there: nothing is printed, nothing raised, and what is used is built in or loaded anyway. Every Python pays
for this file, so it is short. Its syntax is that of Python 2.7, because old Pythons read it too. It stands alone: the
names it shares with the launcher are those of bootstrap/contract.py, and a test compares the two.

The environment is handed on to where we are not: through srun, sbatch, sudo. So what it names is used only where it is
a private folder of the very user that runs this program.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - in comments below

CONTROL_VARIABLE = "KFORGE_CONTROL"
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"
NEWS_FIFO = "news"
CODE_FILE = "code"
LATER_CODE_FILE = "later code"

#: The modules that kforge-run imports as well: they lie beside the folder of the others.
SHARED = ("programs", "proc", "forks")
#: The oldest Python with fork hooks: without them, every forked child would inherit what we install.
_OLDEST = (3, 7)


def _start():
    path = folder_of_launcher() if sys.version_info >= _OLDEST else None
    if path is None or BOOTSTRAP_MODULE in sys.modules:
        return
    folder = open_folder(path)
    try:
        package = type(sys)(BOOTSTRAP_MODULE)  # type: Any
        package.folder, package.code = path, {}
        sys.modules[BOOTSTRAP_MODULE + ".site.sitecustomize"] = sys.modules[__name__]
        # Two names for one, so that its modules find each other where they are not injected, too.
        sys.modules[BOOTSTRAP_MODULE] = sys.modules[BOOTSTRAP_MODULE + ".inject"] = package
        package.path = _load_code(CODE_FILE, folder)
        load("programs")
        load("process").start(folder)
    finally:
        os.close(folder)


def folder_of_launcher():
    """Return the private folder of the kforge-run above us. None, or an exception: there is none that means us."""
    node, _, rest = os.environ.get(CONTROL_VARIABLE, "").partition(":")
    job, _, folder = rest.partition(":")
    if not folder:
        return None
    here = os.environ.get("SLURMD_NODENAME") or os.uname()[1]
    if node != here or os.environ.get("SLURM_JOB_ID", job) != job:
        return None
    # .kforge-UID-PID-START-RANDOM. If kforge-run was killed, the folder is still there, and the environment stale. That
    # another process has its number now is not looked for: it would take as long as all else here.
    try:
        os.kill(int(folder.rpartition("/")[2].split("-")[2]), 0)
    except OSError:
        # A container with process ids of its own does not show it. Then it lives if it reads the news.
        private = open_folder(folder)
        try:
            os.close(os.open(NEWS_FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=private))
        finally:
            os.close(private)
    return folder


def open_folder(path):
    """Open a private folder and return its descriptor; an exception: it is not there, or not ours alone.

    What is in it is code that we execute and words that we obey, so that a path is not enough.
    """
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700:
        os.close(folder)
        raise OSError
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
        inject = BOOTSTRAP_MODULE + ".inject"
        module = type(sys)(inject + "." + name)
        module.__package__ = inject  # and no __file__: `inspect` would look at it at each import of torch
        exec(code, module.__dict__)  # noqa: S102 - our own
        sys.modules[module.__name__] = module
        setattr(package, name, module)
    return module


def _code_of(name):
    """Return a module's code: what kforge-run has compiled if that is for this Python, else from its source."""
    package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
    if package.code and name not in package.code:
        try:
            folder = open_folder(package.folder)
            try:
                _load_code(LATER_CODE_FILE, folder)
            finally:
                os.close(folder)
        except OSError:
            pass  # it was tidied away: the source is still there, as a rule
    if name in package.code:
        import marshal

        return marshal.loads(package.code[name])  # noqa: S302 - see open_folder()
    if not package.path:
        raise OSError  # there is no source that only we or root could have written
    folder = "bootstrap" if name in SHARED else "bootstrap/inject"
    source = os.path.join(package.path, folder, name + ".py")
    return type(__loader__)(name, source).get_code(name)  # type: ignore[name-defined]


def _load_code(name, folder):
    """Take over what kforge-run has compiled, if that is for this Python; return where its own files are."""
    import marshal

    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        path, _, compiled = os.read(file, os.fstat(file).st_size).partition(b"\0")
    finally:
        os.close(file)
    if compiled[:4] == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER:
        package = sys.modules[BOOTSTRAP_MODULE]  # type: Any
        package.code.update(marshal.loads(compiled[4:]))  # noqa: S302 - see open_folder()
    return os.fsdecode(path)


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
