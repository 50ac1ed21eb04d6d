"""`python -m kempnerforge.launcher`: kforge-run where its script is not on PATH."""

import signal

# As in bin/kforge-run: a notice that comes while we start waits for the loop.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))

from .cli import main  # noqa: E402 - this import takes most of the start

main()
