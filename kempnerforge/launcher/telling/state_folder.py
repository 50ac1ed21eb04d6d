"""Where kforge-run keeps what outlasts a run: in the user's XDG state folder (XDG Base Directory Specification)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping


def state_folders(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield kforge's folders in the user's state folders, the proper one first.

    The last one is for who has the first below a passing folder, as containers do with a HOME in /tmp.
    """
    state, home = environment.get("XDG_STATE_HOME", ""), environment.get("HOME", "")
    if os.path.isabs(state):
        yield os.path.join(state, "kforge")
    elif os.path.isabs(home):
        yield os.path.join(home, ".local", "state", "kforge")
    import pwd

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return  # a user that this system does not know
    yield os.path.join(home, ".local", "state", "kforge")
