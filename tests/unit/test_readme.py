"""What the README says of this checkout."""

from __future__ import annotations

import subprocess
import sys

from tests.slurm import tried

MADE_ANEW = "from tests.slurm import tried; print(tried.with_table(tried.README.read_text()), end='')"


def test_it_has_the_table_of_what_was_tried_on_which_slurm() -> None:
    # In a process of its own: a pytest inside of this one would share its state.
    made = subprocess.run(
        [sys.executable, "-c", MADE_ANEW], cwd=tried.README.parent, capture_output=True, text=True, check=True
    )
    assert made.stdout == tried.README.read_text(), "python -m tests.slurm.tried writes it"
