"""Forked children are not handlers: they end when told to, and leave the parent's things alone."""

from __future__ import annotations

import signal

import pytest

from tests.process.handling import Run


@pytest.mark.parametrize("where", ["main thread", "other thread"])
@pytest.mark.parametrize("pending", [False, True])
def test_terminate_works_at_zero_delay(run: Run, where: str, pending: bool) -> None:
    child = run(f"""
        import multiprocessing
        handler = ShutdownHandler()
        handler.register()
        if {pending}:
            os.kill(os.getpid(), signal.SIGTERM)  # workers that start during a shutdown
        context = multiprocessing.get_context("fork")
        def many():
            lost = 0
            for _ in range({150 if not pending else 50}):
                process = context.Process(target=time.sleep, args=(20,))
                process.start()
                process.terminate()
                process.join(5)
                lost += process.exitcode != -signal.SIGTERM
                process.kill()
            say(lost)
        thread = threading.Thread(target=many)
        thread.start() if {where == "other thread"} else many()
        if thread.ident:
            thread.join()
        say(handler.should_shutdown(), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """)
    child.says(0)
    child.says(pending, set())
    child.ends()


def test_a_handler_that_raises_still_ends_the_child(run: Run) -> None:
    child = run("""
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(3))
        handler = ShutdownHandler()
        handler.register()
        lost = 0
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                try:
                    time.sleep(20)
                finally:
                    os._exit(3)
            os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
            # Of the signal, or, where the handler came after the hook, by the handler.
            lost += status not in (signal.SIGTERM, 3 << 8)
        say(lost)
    """)
    child.says(0)
    child.ends()


def test_sigusr1_does_not_kill_a_worker_but_a_program_it_executes(run: Run) -> None:
    child = run("""
        import subprocess
        handler = ShutdownHandler()
        handler.register()
        for command in (None, ["bash", "-c", "trap 'exit 7' USR1; kill -USR1 $$; exit 0"]):
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
                if command:
                    os.execvp(command[0], command)
                os._exit(5)
            say(os.waitpid(pid, 0)[1] >> 8)
    """)
    child.says(5)
    child.says(7)
    child.ends()


@pytest.mark.parametrize("shape", ["python", "ignored", "c"])
def test_a_child_has_what_was_there_before(run: Run, shape: str) -> None:
    child = run(f"""
        def mine(signum, frame): say("mine")
        if {shape == "c"}:
            faulthandler.register(signal.SIGUSR1, file=1)
        else:
            signal.signal(signal.SIGUSR1, {"mine" if shape == "python" else "signal.SIG_IGN"})
        handler = ShutdownHandler()
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        pid = os.fork()
        if pid == 0:
            say(handler.should_shutdown(), handler.signal_received, handler.remaining())
            say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.set_wakeup_fd(-1), threading.active_count())
            os.kill(os.getpid(), signal.SIGUSR1)
            say("alive")
            handler.register()
            os.kill(os.getpid(), signal.SIGUSR1)
            say(repr(handler.signal_received))
            handler.unregister()
            os._exit(0)
        say(os.waitpid(pid, 0)[1])
        say(handler.should_shutdown())
    """)
    child.says(False, None, None)
    child.says(True, -1, 1)
    heard = ""
    while (line := child.line()) != "alive":
        assert line, child.log
        heard += line
    if shape == "c":
        assert "most recent call first" in heard
    else:
        assert heard == {"python": "mine", "ignored": ""}[shape]
    child.says(repr(signal.SIGUSR1))
    child.says(0)
    child.says(True)
    child.ends()


def test_a_child_keeps_no_descriptor_and_ends_by_itself_during_a_shutdown(run: Run) -> None:
    # Python cancels faulthandler's timer when it ends, and would wait for a thread that the child does not have.
    child = run("""
        handler = ShutdownHandler(timeout_sec=30)
        files = open_files()
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        pid = os.fork()
        if pid == 0:
            say(open_files() == files)
            sys.exit(0)
        say(os.waitpid(pid, 0)[1])
        handler.finish()
    """)
    child.says(True)
    child.says(0)
    child.ends()


def test_the_forced_exit_survives_a_fork(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler(timeout_sec=0.5)
        handler.register()
        os.kill(os.getpid(), signal.SIGTERM)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        say("ready")
        stuck(ctypes.PyDLL(None))
    """)
    child.says("ready")
    child.ends(1)


def test_the_hooks_are_inert_when_nobody_is_registered(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.register()
        handler.unregister()
        def mine(signum, frame): pass
        signal.signal(signal.SIGUSR1, mine)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        pid = os.fork()
        say(signal.getsignal(signal.SIGUSR1) is mine, *map(repr, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    for _ in range(2):
        child.says(True, repr(signal.SIGTERM))
    child.ends()


def test_the_mask_of_the_forking_thread_comes_back(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.register()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGINT])
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        say(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))
        os._exit(0)
    """)
    for _ in range(2):
        child.says(sorted([int(signal.SIGUSR1), int(signal.SIGINT)]))
    child.ends()
