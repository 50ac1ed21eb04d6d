"""What Python this is, where that is not plain to see."""

import os


def command_line() -> "list[str]":
    """Return the whole command line, for Pythons that do not have `sys.orig_argv`."""
    with open("/proc/self/cmdline", "rb") as stream:
        return [os.fsdecode(argument) for argument in stream.read().split(b"\0")[:-1]]


def is_python() -> bool:
    """Return whether this is an interpreter, and not a debugger or an editor of which Python is a part."""
    name = os.path.basename(os.readlink("/proc/self/exe"))
    return "python" in name or "pypy" in name
