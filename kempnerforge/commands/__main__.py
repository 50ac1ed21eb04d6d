"""`python -m kempnerforge.commands`: the same as the command `kforge`."""

import os
import sys

# As in kempnerforge/launcher/__main__.py: no other user may write what is compiled, and no module comes from the
# working directory.
umask = os.umask(0o022)
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from .cli import main  # noqa: E402

main(umask)
