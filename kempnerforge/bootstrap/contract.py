"""The contract between the launcher and the training process: the names, and where the two find each other.

Both sides import this module and ``wire``, which has the messages, and nothing else of each other. Standard library
only, Python 3.8.
"""

from __future__ import annotations

import errno
import os
import signal
import stat

# --- environment -------------------------------------------------------------------------------

#: ``NODE:JOB:FOLDER``: the launcher's private folder, and where it is: on another node, or in a job that was submitted
#: from this one and inherited the variable, it is ignored. The folder's name is ``.kforge-UID-PID-START-RANDOM``. It is
#: 0700 and ours, which everybody asks of what it has opened before it uses anything in it.
CONTROL_VARIABLE = "KFORGE_CONTROL"
#: JSON object: what an inner kforge-run needs of the job's facts, read once by the outer one.
JOB_FACTS_VARIABLE = "KFORGE_JOB_FACTS"
#: ``USR1``, ``TERM`` or ``INT``: the door by which the user wants whoever holds work to be told.
DOOR_VARIABLE = "KFORGE_NOTIFY"

#: Of the private folder: no other user may enter it, connect in it or read it.
PRIVATE_MODE = 0o700

# --- files in the private folder -----------------------------------------------------------------

#: The control socket: a Unix ``SOCK_SEQPACKET`` socket, on which one packet is one message of ``wire``.
SOCKET_FILE = "control"
#: The notice, once there is one: a message of ``wire``, without the times.
NOTICE_FILE = "notice"
#: The SIGTERM that comes now is the last word before SIGKILL.
TERMINATE_FILE = "terminate"
#: Made anew whenever kforge-run gets SIGTERM or SIGUSR1: what comes to a process at that time is Slurm's, to every one.
SIGNALLED_FILE = "signalled"
#: A FIFO on which processes tell news, a line each: a word and ``PID.START``, where the start is field 22 of
#: /proc/PID/stat. No process below kforge-run writes anything else into the folder: its file system may hang.
NEWS_FIFO = "news"
#: A process is armed.
ARMED_NEWS = "armed"
#: An armed process has noticed that it is told. A letter more: by which door it acts (`inject/notice.py`).
SEEN_NEWS = "seen"
#: What an armed process is and does, as it was asked: letters (`inject/probe.py`), and the pids that it waits for.
ANSWER_NEWS = "answer"
#: What the letters of an answer say, in this order: it helps another process, multiprocessing has started it, it names
#: KeyboardInterrupt where it is, it has a handler of its own, it is inside a try, it has a tensor library,
#: it has hardly had a processor since it was asked before.
ANSWER_LETTERS = "hmndtlw"
#: A process that was told has come to a regular end.
DONE_NEWS = "done"
#: The rest of the bootstrap: what every armed process needs, and what is needed later. Each file has the path of the
#: launcher's own ``kempnerforge``, for a child that has none or runs another Python, a NUL, the magic number of the
#: launcher's bytecode, and what ``marshal`` makes of a dictionary: of modules, and what it makes of their code.
CODE_FILE = "code"
LATER_CODE_FILE = "later code"
#: All of them.
FILES = (SOCKET_FILE, NOTICE_FILE, TERMINATE_FILE, SIGNALLED_FILE, NEWS_FIFO, CODE_FILE, LATER_CODE_FILE)

# --- files of the installation -------------------------------------------------------------------

#: The folder, beside this module, that is put on PYTHONPATH: it holds ``sitecustomize.py`` alone.
SITE_FOLDER = "site"

# --- signals -------------------------------------------------------------------------------------

#: kforge-run's word to an armed process: save and end. Default dispositions are fatal, so that it goes only to who
#: catches both: that nobody else does by accident is what two of them are for, beside what they say.
WORD_SIGNAL = signal.SIGRTMAX - 2
#: Asks an armed process what it is and does.
PROBE_SIGNAL = signal.SIGRTMAX - 3
#: Who catches them all is armed.
ARMED_SIGNALS = frozenset({WORD_SIGNAL, PROBE_SIGNAL})

# --- in an armed process -------------------------------------------------------------------------

#: The bootstrap's name in ``sys.modules``.
BOOTSTRAP_MODULE = "_kempnerforge_bootstrap"


def node_name() -> str:
    """Return the name of this node as Slurm calls it, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def control_address(folder: str) -> str:
    """Return the value of CONTROL_VARIABLE for a private folder of this process's."""
    return f"{node_name()}:{os.environ.get('SLURM_JOB_ID', '')}:{folder}"


def control_folder() -> str | None:
    """Return the private folder of the launcher above this process; None: there is none that is meant for it."""
    node, _, rest = os.environ.get(CONTROL_VARIABLE, "").partition(":")
    job, _, folder = rest.partition(":")
    # Scripts unset SLURM_JOB_ID to hide Slurm from a framework: then it tells nothing.
    if node != node_name() or os.environ.get("SLURM_JOB_ID", job) != job:
        return None
    return folder or None


def open_private_folder(folder: str, dir_fd: int | None = None) -> int:
    """Open a private folder and return its descriptor (O_PATH).

    Raises:
        OSError: it is not there, or not ours alone: a stranger may have made what now has its name.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    status = os.fstat(descriptor)
    # A set-group-ID bit is inherited from a folder around it, and says nothing.
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o777 == PRIVATE_MODE:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "not a private folder of ours", folder)


def socket_address(folder_fd: int) -> str:
    """Return the address of the control socket in the folder open at ``folder_fd``.

    It goes through ``/proc/self/fd``, because a Unix socket's address is limited to 107 bytes (unix(7)) and
    TMPDIR is not.
    """
    return f"/proc/self/fd/{folder_fd}/{SOCKET_FILE}"
