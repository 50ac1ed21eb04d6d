"""Starts the trainer in one of many ways, waits for it, and ends as it did. `wrapper.py WAY`."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TRAIN = [sys.executable, "train.py"]


def run() -> int:
    return subprocess.run(TRAIN, check=False).returncode


def run_checked() -> int:
    return subprocess.run(TRAIN, check=True).returncode


def run_captured() -> int:
    ended = subprocess.run(TRAIN, capture_output=True, check=True)
    sys.stdout.buffer.write(ended.stdout)
    return ended.returncode


def run_with_timeout() -> int:
    """With a timeout, subprocess looks for the end again and again."""
    return subprocess.run(TRAIN, timeout=3600, check=False).returncode


def call() -> int:
    return subprocess.call(TRAIN)


def check_call() -> int:
    return subprocess.check_call(TRAIN)


def check_output() -> int:
    print(subprocess.check_output(TRAIN, text=True), end="")
    return 0


def shell() -> int:
    return subprocess.run(f"{sys.executable} train.py; exit $?", shell=True, check=False).returncode


def shell_exec() -> int:
    """The shell becomes the trainer."""
    return subprocess.run(f"exec {sys.executable} train.py", shell=True, check=False).returncode


def wait() -> int:
    return subprocess.Popen(TRAIN).wait()


def context() -> int:
    with subprocess.Popen(TRAIN) as trainer:
        pass
    return trainer.returncode


def poll() -> int:
    trainer = subprocess.Popen(TRAIN)
    while trainer.poll() is None:
        time.sleep(0.1)
    return trainer.returncode


def poll_with_finally() -> int:
    """It ends its trainer when it is itself interrupted."""
    trainer = subprocess.Popen(TRAIN)
    try:
        while trainer.poll() is None:
            time.sleep(0.1)
    finally:
        trainer.kill()
    return trainer.returncode


def lines() -> int:
    trainer = subprocess.Popen(TRAIN, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    for line in trainer.stdout:
        print(line, end="", flush=True)
    return trainer.wait()


def communicate() -> int:
    trainer = subprocess.Popen(TRAIN, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    sys.stdout.buffer.write(trainer.communicate(b"input")[0])
    return trainer.returncode


def communicate_in_a_thread() -> int:
    trainer = subprocess.Popen(TRAIN, stdout=subprocess.PIPE)
    thread = threading.Thread(target=lambda: sys.stdout.buffer.write(trainer.communicate()[0]))
    thread.start()
    thread.join()
    return trainer.returncode


def new_session() -> int:
    return subprocess.run(TRAIN, start_new_session=True, check=False).returncode


def run_in_a_thread() -> int:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return 0


def run_in_an_executor() -> int:
    with ThreadPoolExecutor() as executor:
        return executor.submit(run).result()


def system() -> int:
    return os.waitstatus_to_exitcode(os.system(" ".join(TRAIN))) if sys.version_info >= (3, 9) else 0


def popen() -> int:
    with os.popen(" ".join(TRAIN)) as output:
        print(output.read(), end="")
    return 0


def spawn() -> int:
    return os.spawnv(os.P_WAIT, sys.executable, TRAIN)


def fork() -> int:
    pid = os.fork()
    if pid == 0:
        os.execv(sys.executable, TRAIN)
    return os.waitpid(pid, 0)[1]


def posix_spawn() -> int:
    return os.waitpid(os.posix_spawn(sys.executable, TRAIN, os.environ), 0)[1]


def terminal() -> int:
    return pty.spawn(TRAIN)


def execs() -> int:
    """The script becomes the trainer."""
    os.execv(sys.executable, TRAIN)


def coroutine() -> int:
    async def main() -> int:
        return await (await asyncio.create_subprocess_exec(*TRAIN)).wait()

    return asyncio.run(main())


def coroutine_reads() -> int:
    async def main() -> int:
        trainer = await asyncio.create_subprocess_exec(*TRAIN, stdout=asyncio.subprocess.PIPE)
        assert trainer.stdout is not None
        async for line in trainer.stdout:
            print(line.decode(), end="", flush=True)
        return await trainer.wait()

    return asyncio.run(main())


def coroutine_beside_a_timer() -> int:
    """It has something else to do, again and again."""

    async def main() -> int:
        trainer = await asyncio.create_subprocess_shell(" ".join(TRAIN))
        while trainer.returncode is None:
            await asyncio.sleep(0.1)
        return trainer.returncode

    return asyncio.run(main())


def logs_an_interrupt() -> int:
    """When it is interrupted itself, it ends its trainer at once."""
    trainer = subprocess.Popen(TRAIN)
    try:
        return trainer.wait()
    except KeyboardInterrupt:
        trainer.kill()
        return 1


def restarts() -> int:
    """What ends with an error is started again, up to three times."""
    for _ in range(3):
        if subprocess.call(TRAIN) == 0:
            return 0
    return 1


def uploads() -> int:
    """When the trainer has ended, its checkpoint is uploaded."""
    status = subprocess.call(TRAIN)
    subprocess.run([sys.executable, "upload.py"], check=True)
    return status


def uploads_itself() -> int:
    """When the trainer has ended, its checkpoint is uploaded."""
    status = subprocess.call(TRAIN)
    import upload

    upload.upload()
    return status


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]]())
