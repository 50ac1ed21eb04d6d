"""`python -m kempnerforge.launcher`: kforge-run where its script is not on PATH."""

import os
import signal
import sys

# As in bin/kforge-run: a notice that comes while we start waits for the loop, and no other user may write what is
# compiled.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
umask = os.umask(0o022)

# Python puts the working directory first on its path (unless told not to), where a file could pass for a module.
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from .cli import main  # noqa: E402 - this import takes most of the start

main(umask)
