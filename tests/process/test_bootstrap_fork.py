"""What is forked from an armed process: none of it holds our signals, and multiprocessing's helpers are shielded."""

from __future__ import annotations

import sys

import pytest

from tests.process.launch import Launch

COOPERATIVE = "from kempnerforge.resilience import shutdown_handler\n"
HAS = {"armed": "", "cooperative": COOPERATIVE}


def says(launch: Launch, code: str, *expected: str) -> None:
    """Run a program under kforge-run, and compare what it says."""
    (launch.folder / "program.py").write_text(code)
    run = launch(sys.executable, "program.py")
    assert run.rest() == list(expected), run.log
    run.ends(0)


@pytest.mark.parametrize("kind", HAS)
@pytest.mark.parametrize("how", ["fork", "fork in a thread"])
@pytest.mark.parametrize("chunk", range(2))
def test_a_forked_child_ends_at_sigterm_however_soon(launch: Launch, kind: str, how: str, chunk: int) -> None:
    del chunk
    code = """
import os, signal, threading, time
def once():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
ended = []
for _ in range(100):
    %s
print(ended.count(-signal.SIGTERM))
"""
    call = "once()" if how == "fork" else "t = threading.Thread(target=once); t.start(); t.join()"
    says(launch, HAS[kind] + code % call, "100")


@pytest.mark.parametrize("kind", HAS)
def test_a_stray_sigusr1_does_not_end_a_forked_child(launch: Launch, kind: str) -> None:
    code = """
import os, signal, time
pid = os.fork()
if pid == 0:
    print(repr(signal.getsignal(signal.SIGTERM)), flush=True)
    time.sleep(0.2)
    os._exit(7)
for _ in range(10):
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.01)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    says(launch, HAS[kind] + code, "<Handlers.SIG_DFL: 0>", "7")


@pytest.mark.parametrize("kind", HAS)
def test_a_program_that_is_executed_starts_clean(launch: Launch, kind: str) -> None:
    show = "import os; print(*[l.split()[1] for l in open('/proc/self/status') if l[:6] in ('SigBlk', 'SigIgn')])"
    code = f"""
import os, subprocess, sys
show = [sys.executable, "-IS", "-c", {show!r}]
subprocess.run(show)
sys.stdout.flush()
if os.fork() == 0: os.execv(show[0], show)
os.wait()
"""
    clean = "0000000000000000 0000000001001000"  # Python itself ignores SIGPIPE and SIGXFSZ
    says(launch, HAS[kind] + code, clean, clean)


def test_the_programs_own_handlers_are_inherited_as_without_us(launch: Launch) -> None:
    code = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    says(launch, code, "5")


WORKERS = """
import multiprocessing as mp, os, signal, sys, time
def work(started):
    started.set()
    time.sleep(60)
if __name__ == '__main__':
    context = mp.get_context(sys.argv[1])
    %s
"""


@pytest.mark.parametrize("kind", HAS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_only_its_parent_ends_a_worker(launch: Launch, short_tmpdir: dict[str, str], kind: str, method: str) -> None:
    code = """
    started = context.Event()
    worker = context.Process(target=work, args=(started,), daemon=True)
    worker.start()
    started.wait()
    for _ in range(5):  # as Slurm does: neither the parent nor the worker itself
        os.system(f'kill -TERM {worker.pid}; kill -USR1 {worker.pid}')
        time.sleep(0.02)
    print('lives', worker.is_alive(), flush=True)
    worker.terminate()
    worker.join(10)
    print(worker.exitcode)
"""
    (launch.folder / "program.py").write_text(HAS[kind] + WORKERS % code)
    run = launch(sys.executable, "program.py", method, variables=short_tmpdir)
    assert run.rest() == ["lives True", "-15"], run.log
    run.ends(0)


@pytest.mark.parametrize("kind", HAS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_terminate_without_delay_ends_every_worker(launch: Launch, kind: str, method: str) -> None:
    code = """
    ended = []
    for _ in range(60 if sys.argv[1] == 'fork' else 5):
        worker = context.Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
        worker.terminate()
        worker.join(10)
        ended.append(worker.exitcode)
    print(set(ended))
"""
    (launch.folder / "program.py").write_text(HAS[kind] + WORKERS % code)
    run = launch(sys.executable, "program.py", method)
    assert run.rest() == ["{-15}"], run.log
    run.ends(0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_workers_own_handler_gets_every_sigterm(launch: Launch, method: str) -> None:
    code = """
import multiprocessing as mp, os, signal, sys, time
def work(started):
    def handler(*_):
        os.write(1, b'told\\n')
        os._exit(3)
    signal.signal(signal.SIGTERM, handler)
    started.set()
    while True:
        time.sleep(0.01)  # Python may enter a longer one just when a signal has come, and then sleeps it out
if __name__ == '__main__':
    context = mp.get_context(sys.argv[1])
    for sender in (os.system, None):
        started = context.Event()
        worker = context.Process(target=work, args=(started,))
        worker.start()
        started.wait()
        if sender:
            os.system(f'kill -TERM {worker.pid}')
        else:
            worker.terminate()
        worker.join(10)
        print(worker.exitcode, flush=True)
"""
    (launch.folder / "program.py").write_text(code)
    run = launch(sys.executable, "program.py", method)
    assert run.rest() == ["told", "3"] * 2, run.log
    run.ends(0)


def test_what_a_worker_starts_can_be_ended(launch: Launch) -> None:
    code = """
import multiprocessing as mp, os, signal, subprocess, time
def work():
    helper = subprocess.Popen(['sleep', '60'])
    helper.terminate()
    print(helper.wait(10), flush=True)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
worker = mp.get_context('fork').Process(target=work)
worker.start()
worker.join()
print(worker.exitcode)
"""
    says(launch, code, "-15", "-15", "0")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_registers_only_when_it_asks_for_it(launch: Launch, method: str) -> None:
    """A spawned worker imports the main program again, and with it the two lines."""
    code = """
from kempnerforge.resilience import shutdown_handler
import multiprocessing as mp, sys
def work(queue):
    queue.put(shutdown_handler._is_registered())
    shutdown_handler.register()
    queue.put(shutdown_handler._is_registered())
if __name__ == '__main__':
    context = mp.get_context(sys.argv[1])
    queue = context.Queue()
    worker = context.Process(target=work, args=(queue,))
    worker.start()
    print(shutdown_handler._is_registered(), queue.get(), queue.get())
    worker.join()
"""
    (launch.folder / "program.py").write_text(code)
    run = launch(sys.executable, "program.py", method, options=("--verbose",))
    assert run.rest() == ["True False True"], run.log
    run.ends(0)
    assert run.log.count(" has a ShutdownHandler") == 2


@pytest.mark.parametrize("kind", HAS)
def test_a_handler_that_forks_during_a_fork_leaves_no_signal_blocked(launch: Launch, kind: str) -> None:
    code = """
import os, signal, time
started = time.monotonic()
def start_another(*_):
    while os.waitpid(-1, os.WNOHANG)[0]:
        if time.monotonic() < started + 1 and os.fork() == 0:
            os._exit(0)
def reap(*_):
    try:
        start_another()
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
while time.monotonic() < started + 1:
    if os.fork() == 0:
        os._exit(0)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    says(launch, HAS[kind] + code, "set()")
