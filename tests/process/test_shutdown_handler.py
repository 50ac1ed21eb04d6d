"""ShutdownHandler on its own: real processes that say ``ready`` before anything is done to them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from kempnerforge.resilience import ShutdownHandler
from tests.process.handling import Run, wait_for_sleep
from tests.process.launch import takes_at_least

# --- the interface -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "120", None, [], 1j, -(10**400), 10**400])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: object) -> None:
    with pytest.raises(ValueError, match="timeout_sec"):
        ShutdownHandler(timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, 0.0, 1, 600.0, 1e300, float("inf")])
def test_a_timeout_in_seconds_is_accepted(timeout: float) -> None:
    handler = ShutdownHandler(timeout)
    assert (handler.should_shutdown(), handler.shutdown_requested) == (False, False)
    assert (handler.signal_received, handler.reason, handler.remaining()) == (None, None, None)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_seen_by_the_next_poll(run: Run, signum: signal.Signals) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=120)
        handler.register()
        say("ready", handler.should_shutdown())
        wait_until(handler.should_shutdown)
        say(repr(handler.signal_received), handler.shutdown_requested, handler.reason, 119 < handler.remaining() <= 120)
        handler.finish()
        say(handler.should_shutdown(), handler.remaining(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    """)
    child.says("ready", False)
    child.send(signum)
    child.says(repr(signum), True, None, True)
    child.says(True, None, True)
    child.ends()


def test_repeats_belong_to_the_first(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=60)
        handler.register()
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(handler.should_shutdown)
        left = handler.remaining()
        time.sleep(0.05)  # so that a timer which starts again shows
        for signum in [signal.SIGTERM, signal.SIGUSR1] * 20:
            os.kill(os.getpid(), signum)
        say(repr(handler.signal_received), handler.remaining() <= left - 0.05)
    """)
    child.says(repr(signal.SIGUSR1), True)
    child.ends()


def test_registering_twice_and_again(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.unregister()
        handler.register()
        handler.register()
        handler.unregister()
        say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        with handler as same:
            os.kill(os.getpid(), signal.SIGTERM)
            say(same is handler, handler.should_shutdown())
        handler.register()
        say(handler.should_shutdown(), handler.signal_received)
        handler.finish()
        handler.finish()
        os.kill(os.getpid(), signal.SIGTERM)
    """)
    child.says(True)
    child.says(True, True)
    child.says(False, None)
    child.ends(-signal.SIGTERM)


def test_registering_works_in_the_main_thread_only(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        def register():
            try:
                handler.register()
            except ValueError:
                say("refused", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, len(threading.enumerate()))
        thread = threading.Thread(target=register)
        thread.start()
        thread.join()
    """)
    child.says("refused", True, 2)
    child.ends()


def test_asking_for_time(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.3)
        handler.register()
        handler.ask_for_time(100)
        say(handler.remaining())
        os.kill(os.getpid(), signal.SIGTERM)
        handler.ask_for_time(50)
        say(49 < handler.remaining() <= 50)
        handler.ask_for_time(1)
        say(49 < handler.remaining() <= 50)
        handler.status("saving")
        for seconds in (-1, float("nan"), "soon"):
            try:
                handler.ask_for_time(seconds)
            except ValueError:
                say("refused")
        time.sleep(0.6)  # the old limit passes
        say("alive")
    """)
    child.says(None)
    for _ in range(2):
        child.says(True)
    for _ in range(3):
        child.says("refused")
    child.says("alive")
    child.ends()


# --- the forced exit ---------------------------------------------------------------------------------


def test_a_shutdown_that_stalls_is_ended_with_all_stacks(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        def helper_that_hangs():
            threading.Event().wait()
        threading.Thread(target=helper_that_hangs, daemon=True).start()
        say("ready")
        while True:
            time.sleep(1)
    """)
    child.says("ready")
    with takes_at_least(0.5):
        child.send(signal.SIGTERM)
        child.ends(1)
    first, *stacks = child.log.splitlines()
    assert first == (
        "kempnerforge: graceful shutdown took longer than 0.5 s: forced exit, stacks of all threads follow"
    )
    assert any("in helper_that_hangs" in line for line in stacks) and any("in <module>" in line for line in stacks)


@pytest.mark.parametrize("timeout", ["0", "30"])
def test_without_a_timeout_or_before_it_nobody_is_forced(run: Run, timeout: str) -> None:
    child = run(f"""
        handler = ShutdownHandler(timeout_sec={timeout})
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        say(handler.should_shutdown(), handler.remaining() is None)
    """)
    child.says(True, timeout == "0")
    child.ends()


def test_finish_cancels_it(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.3)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        handler.finish()
        time.sleep(0.7)
        say("alive")
    """)
    child.says("alive")
    child.ends()


def test_main_thread_stuck_in_c_with_the_gil_released(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        say("ready")
        stuck(ctypes.CDLL(None))
    """)
    child.says("ready")
    wait_for_sleep(child.pid)
    with takes_at_least(0.5):
        child.send(signal.SIGTERM)
        child.ends(1)
    assert "in stuck" in child.log


def test_main_thread_stuck_in_c_with_the_gil_held_after_arming(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        say("ready")
        wait_until(handler.should_shutdown)
        stuck(ctypes.PyDLL(None))
    """)
    child.says("ready")
    with takes_at_least(0.5):
        child.send(signal.SIGTERM)
        child.ends(1)
    assert "in stuck" in child.log


def test_a_timer_that_the_program_takes_over(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        faulthandler.dump_traceback_later(100)
        say("ready")
        stuck(ctypes.CDLL(None))
    """)
    child.says("ready")
    child.ends(1)
    assert "in stuck" in child.log


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"])
def test_a_log_that_nobody_reads(run: Run, library: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    with open(reader, "rb"), open(writer, "wb", buffering=0) as full:
        child = run(
            f"""
            handler = ShutdownHandler(timeout_sec=0.3)
            handler.register()
            os.kill(os.getpid(), signal.SIGTERM)
            say("ready")
            stuck(ctypes.{library}(None))
            """,
            stderr=full,
        )
        child.says("ready")
        child.ends(1)


def test_a_socket_as_log(run: Run) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = run(
            """
            handler = ShutdownHandler(timeout_sec=0.3)
            handler.register()
            os.kill(os.getpid(), signal.SIGTERM)
            stuck(ctypes.CDLL(None))
            """,
            stderr=theirs.fileno(),
        )
        theirs.close()
        child.ends(1)
        assert b"in stuck" in ours.makefile("rb").read()


@pytest.mark.parametrize("closed", ["at the start", "before register", "after register"])
def test_stacks_never_land_in_a_file_of_the_user(run: Run, tmp_path: Path, closed: str) -> None:
    # The child closes stderr, and the checkpoint that it opens then gets descriptor 2.
    at_start = "os.close(2)\nos.execv(sys.executable, [sys.executable, '-B', __file__, 'again'])"
    close = {
        "at the start": f"if len(sys.argv) == 1:\n    {at_start.replace(chr(10), chr(10) + '    ')}",
        "before register": "os.close(2)",
        "after register": "pass",
    }[closed]
    code = f"""
handler = ShutdownHandler(timeout_sec=0.3)
{close}
{"handler.register()" if closed != "at the start" else "pass"}
if {closed == "after register"}:
    os.close(2)
fd = os.open({str(tmp_path / "checkpoint")!r}, os.O_WRONLY | os.O_CREAT, 0o600)
handler.register()
os.kill(os.getpid(), signal.SIGTERM)
say("ready", fd)
stuck(ctypes.PyDLL(None))
"""
    child = run(code)
    child.says("ready", 2)
    child.ends(1)
    assert (tmp_path / "checkpoint").read_bytes() == b""
    assert ("in stuck" in child.log) == (closed == "after register")


def test_time_in_which_the_process_was_stopped_does_not_count(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=2.5)
        handler.register()
        say("ready")
        wait_until(handler.should_shutdown)
        time.sleep(0.3)  # only a slice of the watcher, once begun, can be seen to be too long
        say("stop me")
        time.sleep(30)
    """)
    child.says("ready")
    child.send(signal.SIGTERM)
    child.says("stop me")
    child.send(signal.SIGSTOP)
    time.sleep(1.6)  # the stop itself
    with takes_at_least(1.4):  # without the stop it would have 0.6 s left, and the accuracy is half a second
        child.send(signal.SIGCONT)
        child.ends(1)
    assert "longer than 2.5 s" in child.log


def test_the_gil_held_by_the_main_thread_is_not_a_stop(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=60)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        import itertools
        time.sleep(0.2)  # the watcher is in its first slice
        worked, left = time.thread_time(), handler.remaining()
        max(itertools.repeat(0, 200_000_000))  # one call in C, which nothing interrupts
        worked = time.thread_time() - worked  # on a busy machine less than the time that passed
        time.sleep(0.1)
        say(worked > 1.3, left - handler.remaining() > worked - 0.5)  # the accuracy is half a second
    """)
    child.says(True, True)
    child.ends()


def test_idle_it_makes_no_system_call(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.register()
        say("ready", *(task.native_id for task in threading.enumerate() if task is not threading.main_thread()))
        time.sleep(30)
    """)
    _ready, watcher = child.line().split()
    wait_for_sleep(child.pid, watcher, "poll")
    switches = [line for line in _status(child.pid, watcher) if "ctxt_switches" in line]
    time.sleep(1.5)  # what it would do in that time
    assert [line for line in _status(child.pid, watcher) if "ctxt_switches" in line] == switches


# --- leaving no trace --------------------------------------------------------------------------------


def test_nothing_is_left(run: Run) -> None:
    child = run("""
        import multiprocessing, socket, json  # whatever they open is open before
        files, threads = open_files(), tasks()
        handler = ShutdownHandler()
        for _ in range(20):
            handler.register()
            os.kill(os.getpid(), signal.SIGTERM)
            handler.finish()
        wait_until(lambda: tasks() == threads)
        say(open_files() == files, signal.set_wakeup_fd(-1), len(threading.enumerate()))
    """)
    child.says(True, -1, 1)
    child.ends()


@pytest.mark.parametrize("order", ["a b a b", "a b b a"])
def test_two_handlers_in_either_order(run: Run, order: str) -> None:
    child = run(f"""
        def mine(signum, frame): pass
        signal.signal(signal.SIGTERM, mine)
        handlers = {{"a": ShutdownHandler(), "b": ShutdownHandler(timeout_sec=20)}}
        for name in {order.split()[:2]!r}:
            handlers[name].register()
        os.kill(os.getpid(), signal.SIGTERM)
        say(*(handler.should_shutdown() for handler in handlers.values()))
        for name in {order.split()[2:]!r}:
            say(signal.getsignal(signal.SIGTERM) is not mine)
            handlers[name].unregister()
        say(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)
        say(signal.set_wakeup_fd(-1), len(threading.enumerate()))
    """)
    child.says(True, True)
    child.says(True)
    child.says(True)
    child.says(True, True)
    child.says(-1, 1)
    child.ends()


def test_a_handler_that_somebody_installed_since_is_theirs(run: Run) -> None:
    child = run("""
        def theirs(signum, frame): say("theirs")
        handler = ShutdownHandler()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        handler.register()
        ours = signal.signal(signal.SIGTERM, theirs)
        handler.unregister()
        say(signal.getsignal(signal.SIGTERM) is theirs, signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, ours)  # they restore what they saw: it acts like what was there before us
        os.kill(os.getpid(), signal.SIGTERM)
    """)
    child.says(True, True)
    child.says("theirs")
    child.ends(-signal.SIGTERM)


def test_a_handler_written_in_c_comes_back(run: Run) -> None:
    child = run("""
        faulthandler.register(signal.SIGUSR1, file=1)
        handler = ShutdownHandler()
        for _ in range(2):
            handler.register()
            os.kill(os.getpid(), signal.SIGUSR1)
            say("python", handler.should_shutdown())
            handler.unregister()
        os.kill(os.getpid(), signal.SIGUSR1)
    """)
    child.says("python", True)
    child.says("python", True)
    assert "most recent call first" in "\n".join(child.rest())
    child.ends()


def test_a_wakeup_fd_of_somebody_else_is_left_alone(run: Run) -> None:
    child = run("""
        reader, writer = os.pipe2(os.O_NONBLOCK)
        handler = ShutdownHandler()
        signal.set_wakeup_fd(writer)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        say(handler.should_shutdown(), os.read(reader, 9) == bytes([signal.SIGTERM]))
        handler.unregister()
        say(signal.set_wakeup_fd(-1) == writer)

        handler.register()
        signal.set_wakeup_fd(writer)
        handler.unregister()
        say(signal.set_wakeup_fd(-1) == writer)
    """)
    child.says(True, True)
    child.says(True)
    child.says(True)
    child.ends()


def test_asyncio_before_and_after(run: Run) -> None:
    child = run("""
        import asyncio
        handler = ShutdownHandler()

        async def before():
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, told.set)
            handler.register()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(told.wait(), 5)
            say("before", handler.should_shutdown())
            handler.unregister()
            told.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(told.wait(), 5)

        async def after():
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, told.set)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(told.wait(), 5)
            os.kill(os.getpid(), signal.SIGUSR1)
            say("after", handler.should_shutdown(), repr(handler.signal_received))

        asyncio.run(before())
        handler.register()
        asyncio.run(after())
        handler.unregister()
        say(signal.set_wakeup_fd(-1))
    """)
    child.says("before", True)
    child.says("after", True, repr(signal.SIGUSR1))
    child.says(-1)
    child.ends()


@pytest.mark.parametrize("end", ["finish", "unregister"])
def test_leaving_off_the_main_thread(run: Run, end: str) -> None:
    child = run(f"""
        def mine(signum, frame): say("mine")
        signal.signal(signal.SIGUSR1, mine)
        handler = ShutdownHandler(timeout_sec=0.4)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        handler.should_shutdown()
        thread = threading.Thread(target=handler.{end})
        thread.start()
        thread.join()
        time.sleep(0.6)  # the limit passes
        os.kill(os.getpid(), signal.SIGUSR1)
        say(signal.getsignal(signal.SIGUSR1) is mine, len(threading.enumerate()))
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        say(handler.should_shutdown())
        handler.unregister()
        os.kill(os.getpid(), signal.SIGTERM)
    """)
    child.says("mine")
    child.says(True, 1)
    child.says(True)
    child.ends(-signal.SIGTERM)


def test_a_program_that_closes_all_descriptors(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.register()
        os.closerange(3, 256)
        os.kill(os.getpid(), signal.SIGTERM)
        say(handler.should_shutdown())
        before = time.process_time()
        time.sleep(0.3)
        say(time.process_time() - before < 0.1)
    """)
    child.says(True)
    child.says(True)
    child.ends(buggy=True)  # Python finds its wakeup descriptor closed, and says so


@pytest.mark.parametrize("moment", ["atexit", "__del__"])
def test_signals_while_python_ends(run: Run, moment: str) -> None:
    child = run(f"""
        import atexit
        handler = ShutdownHandler()
        handler.register()
        def late(kill=os.kill, pid=os.getpid(), signum=signal.SIGTERM, handler=handler):
            kill(pid, signum)
            handler.should_shutdown()
            handler.finish()
        class Late:
            __del__ = lambda self, late=late: late()
        if {moment == "atexit"}:
            atexit.register(late)
        else:
            sys.late = Late()
    """)
    # When modules are taken apart, the guard may be gone, and the signal does what it does by default.
    assert child.wait() in ((0,) if moment == "atexit" else (0, -signal.SIGTERM))
    assert child.log == ""


def _status(pid: int, task: str) -> list[str]:
    return Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines()
