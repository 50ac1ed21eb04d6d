"""Has a multiprocessing worker start a program, which says which signals are blocked in it.

`run_from_worker.py METHOD close|keep`: while it keeps descriptors open, `subprocess` uses posix_spawn(3).
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys


def work(close_fds: bool) -> None:
    subprocess.run(["/bin/grep", "SigBlk", "/proc/self/status"], close_fds=close_fds, check=True)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    worker = multiprocessing.Process(target=work, args=(sys.argv[2] == "close",))
    worker.start()
    worker.join()
    print("exit code", worker.exitcode, flush=True)
