"""Trains, and hears of the end in one of many ways. `doors.py DOOR`."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import faulthandler
import os
import select
import signal
import subprocess
import sys
import threading
import time

from train import LONG, begin, save, say, step, train, work


class Flag:
    """A handler that only takes note, and says each time that it was called."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self, *_: object) -> None:
        say("told run")
        self.is_set = True


def until(flag: Flag) -> None:
    """Train until the flag is set, then save."""
    end = time.monotonic() + LONG
    while not flag.is_set and time.monotonic() < end:
        step()
    time.sleep(0.3)
    say("SAVED run" if flag.is_set else "ENDED")


def handled(*signums: int) -> None:
    flag = Flag()
    for signum in signums:
        signal.signal(signum, flag)
    begin("run", signal.Signals(signums[0]).name[3:])
    until(flag)


def sigterm() -> None:
    handled(signal.SIGTERM)


def sigusr1() -> None:
    handled(signal.SIGUSR1)


def sigint() -> None:
    handled(signal.SIGINT)


def sigterm_and_sigusr1() -> None:
    handled(signal.SIGTERM, signal.SIGUSR1)


def sigterm_not_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sigterm()


def leaves_at_sigterm() -> None:
    """`sys.exit` in the handler, and the save in `finally`."""

    def leave(*_: object) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        begin("run", "TERM")
        work()
    finally:
        save("run")


def saves_in_the_handler() -> None:
    def handler(*_: object) -> None:
        save("run")
        sys.exit(0)

    signal.signal(signal.SIGTERM, handler)
    begin("run", "TERM")
    work()


def raises_at_sigterm() -> None:
    """An exception of its own."""

    class Preempted(Exception):
        pass

    def handler(*_: object) -> None:
        raise Preempted

    signal.signal(signal.SIGTERM, handler)
    try:
        begin("run", "TERM")
        work()
    except Preempted:
        save("run")


def saves_at_exit() -> None:
    """Ctrl-C ends it quietly, and what it registered saves."""
    atexit.register(save, "run")
    try:
        begin("run")
        work()
    except KeyboardInterrupt:
        sys.exit(0)


def saves_in_a_context() -> None:
    class Checkpointing:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, *_: object) -> bool:
            save("run")
            return kind is KeyboardInterrupt

    with Checkpointing():
        begin("run")
        work()


def saves_whatever_comes() -> None:
    try:
        begin("run")
        work()
    except BaseException:  # noqa: BLE001 - as scripts have it
        save("run")


def stacks_on_sigusr1() -> None:
    faulthandler.register(signal.SIGUSR1)
    train()


def swallows_the_first() -> None:
    """A bare `except` around a download takes the first Ctrl-C for a failure; the second would save."""
    try:
        begin("run", "-")
        for _ in range(600):
            while True:
                try:
                    time.sleep(0.1)
                    break
                except:  # noqa: E722 - as scripts have it
                    pass
            sum(range(100000))
    except KeyboardInterrupt:
        save("run")


def handler_in_c() -> None:
    """A SIGTERM handler that Python does not know of."""
    flag = Flag()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = prototype(lambda _: setattr(flag, "is_set", True))
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, prototype)
    library.signal(signal.SIGTERM, handler)
    begin("run", "TERM")
    end = time.monotonic() + LONG
    while not flag.is_set and time.monotonic() < end:
        step()
    flag()  # the handler itself does as little as one in C
    until(flag)


def _waits_in_a_thread(signum: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    flag = Flag()

    threading.Thread(target=lambda: flag(signal.sigwait({signum})), daemon=True).start()
    begin("run", signum.name[3:])
    until(flag)


def sigterm_waited_for() -> None:
    _waits_in_a_thread(signal.SIGTERM)


def sigusr1_waited_for() -> None:
    _waits_in_a_thread(signal.SIGUSR1)


def sigterm_looked_for() -> None:
    """Blocked, and looked for after each step."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    flag = Flag()
    begin("run", "TERM")
    end = time.monotonic() + LONG
    while signal.sigtimedwait({signal.SIGTERM}, 0) is None and time.monotonic() < end:
        step()
    flag()
    until(flag)


def wakeup_fd() -> None:
    """A loop that is woken up by a pipe, as servers have it."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs)
    signal.signal(signal.SIGTERM, lambda *_: None)
    begin("run", "TERM")
    end = time.monotonic() + LONG
    flag = Flag()
    while time.monotonic() < end:
        step()
        if select.select([ours], [], [], 0)[0] and signal.SIGTERM in os.read(ours, 1):
            flag()
            break
    until(flag)


def _in_a_loop(signum: signal.Signals) -> None:
    async def main() -> None:
        flag = Flag()
        asyncio.get_running_loop().add_signal_handler(signum, flag)
        begin("run", signum.name[3:])
        end = time.monotonic() + LONG
        while not flag.is_set and time.monotonic() < end:
            step()
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        say("SAVED run" if flag.is_set else "ENDED")

    asyncio.run(main())


def asyncio_sigterm() -> None:
    _in_a_loop(signal.SIGTERM)


def asyncio_sigusr1() -> None:
    _in_a_loop(signal.SIGUSR1)


def asyncio_sigint() -> None:
    _in_a_loop(signal.SIGINT)


def uvloop_sigterm() -> None:
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    _in_a_loop(signal.SIGTERM)


def asyncio_ctrl_c() -> None:
    async def main() -> None:
        begin("run")
        while True:
            step()
            await asyncio.sleep(0)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        save("run")


def hook_of_a_tracker() -> None:
    """A tracker flushes at SIGTERM, steps aside and dies as before; the script saves at Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM)

    def hook(signum: int, _: object) -> None:
        signal.signal(signum, before if callable(before) else signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    signal.signal(signal.SIGTERM, hook)
    train()


def in_a_thread() -> None:
    """The main thread waits, and tells the one that trains."""
    flag, stop = Flag(), threading.Event()

    def steps() -> None:
        begin("run")
        while not stop.is_set():
            step()

    thread = threading.Thread(target=steps)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        flag()
        stop.set()
    thread.join()
    until(flag)


def in_a_joined_thread() -> None:
    """The same, in a `join()` without a timeout."""
    threading.Thread(target=work, daemon=True).start()
    waits = threading.Thread(target=time.sleep, args=(LONG,), daemon=True)
    waits.start()
    try:
        begin("run")
        waits.join()
    except KeyboardInterrupt:
        save("run")


def among_zombies() -> None:
    """It does not look after what it has started."""
    for _ in range(50):
        subprocess.Popen(["true"], close_fds=False)
    train()


def among_comers_and_goers() -> None:
    """It starts something all the time, so that no two looks at the tree are alike."""
    try:
        begin("run")
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            subprocess.run(["true"], check=True, close_fds=False)
            step()
    except KeyboardInterrupt:
        save("run")


def prints_much() -> None:
    """It saves, and then prints a lot; the last line counts."""
    try:
        begin("run")
        work()
    except KeyboardInterrupt:
        say("told run")
        for number in range(500):
            print("line", number, "x" * 100)
        sys.stdout.flush()
        say("SAVED run")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
