"""What a notice does in a program that knows nothing of us, and in one that does."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.process.launch import Launch, Launched

CHECKPOINTED = 85
#: After which notice a program that ends with 0 is taken to have saved; a SIGTERM outside Slurm was sent by a person.
ENDED: dict[int, int] = {signal.SIGUSR1: CHECKPOINTED, signal.SIGTERM: 0}
#: Ends a test soon where the notice is lost.
OPTIONS = ("--timeout", "20", "--verbose")

#: Says `ready` and waits until it is interrupted, then takes some time to save.
INTERRUPTED = """
import os, sys, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
try:
    say("ready")
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    time.sleep(0.3)
    say("saved")
"""
HANDLER = """
import os, signal, sys, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def handler(signum, frame):
    say("told", signal.Signals(signum).name)
    global told
    told = True
told = False
"""
UNTIL_TOLD = """
say("ready")
while not told:
    time.sleep(0.01)
time.sleep(0.2)
say("saved")
"""


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def both_signal_it(run: Launched, *, first: str) -> None:
    """Send the notice, and what Slurm sends straight to every process of the job, a moment apart."""
    (child,) = run.armed()
    if first == "slurm":
        signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
    run.send(signal.SIGUSR1)
    if first == "kforge-run":
        signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)


# --- programs that know nothing of us ------------------------------------------------------------------


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
def test_an_unmodified_script_is_interrupted_and_saves(launch: Launch, notice: int) -> None:
    run = launch(*python(INTERRUPTED), options=OPTIONS)
    run.says("ready")
    run.send(notice)
    run.says("saved")
    run.ends(ENDED[notice])
    run.logs(r"delivered to -c \(pid \d+\)")


@pytest.mark.parametrize("proc", ["--mount-proc", "--propagation=unchanged"], ids=["its own /proc", "the old /proc"])
def test_one_with_process_ids_of_its_own(launch: Launch, proc: str) -> None:
    """As in a container: what it calls itself is not what kforge-run knows it by."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", proc]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces can be made here")
    run = launch(*unshare, *python(INTERRUPTED), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)
    run.logs(r"delivered to -c \(pid \d+\)")


@pytest.mark.parametrize("first", ["slurm", "kforge-run"])
@pytest.mark.parametrize("chunk", range(3))
def test_a_second_signal_does_not_kill_the_save(launch: Launch, first: str, chunk: int) -> None:
    del chunk
    runs = [launch(*python(INTERRUPTED), options=OPTIONS) for _ in range(4)]
    for run in runs:
        run.says("ready")
        both_signal_it(run, first=first)
    for run in runs:
        run.says("saved")
        run.ends(CHECKPOINTED)


@pytest.mark.parametrize("chunk", range(4))
def test_a_notice_interrupts_a_system_call_that_begins_at_the_same_moment(launch: Launch, chunk: int) -> None:
    """Python may have looked for signals for the last time, and sleeps on although one has come."""
    del chunk
    code = (
        "import os, time\n"
        "try:\n    os.write(1, b'ready\\n'); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    os.write(1, b'saved\\n')"
    )
    for _ in range(5):
        runs = [launch(*python(code), options=OPTIONS) for _ in range(5)]
        for run in runs:
            run.says("ready")
            run.send(signal.SIGUSR1)
        for run in runs:
            run.says("saved")
            run.ends(CHECKPOINTED)


def test_without_a_handler_of_any_kind_it_ends_like_by_ctrl_c(launch: Launch) -> None:
    code = "import atexit, time; atexit.register(print, 'at exit'); print('ready', flush=True)\ntime.sleep(60)"
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("at exit")
    assert run.wait() == 128 + signal.SIGINT
    assert run.log.count("Traceback") == 1 and "\nKeyboardInterrupt\n" in run.log


def test_ctrl_c_reaches_a_program_in_a_shells_background_too(launch: Launch) -> None:
    """There SIGINT is ignored, and Python installs no handler for it."""
    run = launch("sh", "-c", 'trap "" INT; "$@"', "sh", *python(INTERRUPTED), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize(
    ("own", "best"),
    [
        (["SIGUSR1"], "SIGUSR1"),
        (["SIGTERM"], "SIGTERM"),
        (["SIGINT"], "SIGINT"),
        (["SIGTERM", "SIGINT"], "SIGTERM"),
    ],
)
def test_the_best_handler_gets_it_whatever_came(launch: Launch, notice: int, own: list[str], best: str) -> None:
    registered = "".join(f"signal.signal(signal.{name}, handler)\n" for name in own)
    run = launch(*python(HANDLER + registered + UNTIL_TOLD), options=OPTIONS)
    run.says("ready")
    run.send(notice)
    assert run.rest() == [f"told {best}", "saved"]
    run.ends(ENDED[notice])


@pytest.mark.parametrize("notice", [signal.SIGUSR1, signal.SIGTERM])
def test_with_handlers_for_both_each_gets_its_own(launch: Launch, notice: signal.Signals) -> None:
    registered = "signal.signal(signal.SIGUSR1, handler)\nsignal.signal(signal.SIGTERM, handler)\n"
    run = launch(*python(HANDLER + registered + UNTIL_TOLD), options=OPTIONS)
    run.says("ready")
    run.send(notice)
    assert run.rest() == [f"told {notice.name}", "saved"]
    run.ends(ENDED[notice])


@pytest.mark.parametrize("first", ["slurm", "kforge-run"])
def test_a_handler_that_raises_is_called_once(launch: Launch, first: str) -> None:
    code = """
import os, signal, time
def stop(*_): raise TimeoutError
signal.signal(signal.SIGTERM, stop)
try:
    os.write(1, b"ready\\n")
    time.sleep(60)
except TimeoutError:
    time.sleep(0.3)
    os.write(1, b"saved\\n")
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    both_signal_it(run, first=first)
    run.says("saved")
    run.ends(CHECKPOINTED)


def test_asyncio_cancels_its_task(launch: Launch) -> None:
    code = """
import asyncio, os
async def main():
    try:
        os.write(1, b"ready\\n")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)
        os.write(1, b"saved\\n")
asyncio.run(main())
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    assert run.wait() in (CHECKPOINTED, 128 + signal.SIGINT)


def test_asyncio_with_a_signal_handler_of_its_own(launch: Launch) -> None:
    code = """
import asyncio, os, signal
async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    os.write(1, b"ready\\n")
    await told.wait()
    os.write(1, b"saved\\n")
asyncio.run(main())
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


def test_a_program_that_goes_on_is_interrupted_once_more_and_then_killed(launch: Launch) -> None:
    code = """
import os, time
while True:
    try:
        os.write(1, b"ready\\n")
        time.sleep(60)
    except KeyboardInterrupt:
        os.write(1, b"no\\n")
"""
    run = launch(*python(code), options=("--timeout", "8"))
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("no")
    run.send(signal.SIGTERM)
    run.says("ready")
    assert run.rest() == ["no", "ready"]
    run.ends(128 + signal.SIGKILL)


# --- dispositions are what they are without us -------------------------------------------------------------

SHOW = """
import signal
for name in ("SIGUSR1", "SIGTERM", "SIGINT"):
    print(name, repr(signal.getsignal(getattr(signal, name))))
"""


def test_the_program_sees_the_dispositions_it_would_see_without_us(launch: Launch) -> None:
    code = (
        SHOW
        + """
import types
def handler(*_): pass
first = signal.signal(signal.SIGTERM, handler)
print(first, signal.getsignal(signal.SIGTERM) is handler)
print(signal.signal(signal.SIGTERM, signal.SIG_IGN) is handler, signal.getsignal(signal.SIGTERM))
print(signal.signal(signal.SIGTERM, first), signal.getsignal(signal.SIGTERM))
for wrong in ((signal.SIGTERM, None), (99, handler), ("x", 0)):
    try:
        signal.signal(*wrong)
    except Exception as error:
        print(type(error), error)
"""
    )
    without = launch.start([*python(code)])
    run = launch(*python(code))
    assert run.rest() == without.rest() != []
    run.ends(0)
    without.ends(0)


def test_who_restores_what_it_found_is_armed_again(launch: Launch) -> None:
    code = "import signal\nfound = signal.signal(signal.SIGUSR1, print)\nsignal.signal(signal.SIGUSR1, found)\n"
    run = launch(*python(code + INTERRUPTED), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


def test_who_was_told_can_die_of_the_signal(launch: Launch) -> None:
    """The usual way to end with the right status: reset the handler and send the signal once more."""
    code = """
import os, signal, time
def handler(signum, _):
    signal.signal(signum, signal.SIG_DFL)
    os.write(1, b"saved\\n")
    os.kill(os.getpid(), signum)
signal.signal(signal.SIGTERM, handler)
os.write(1, b"ready\\n")
time.sleep(60)
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGTERM)
    run.says("saved")
    run.ends(128 + signal.SIGTERM)


def test_a_signal_that_is_ignored_on_purpose_stays_so(launch: Launch) -> None:
    show = "[line for line in open('/proc/self/status') if 'SigIgn' in line]"
    code = f"import signal; print(signal.getsignal(signal.SIGUSR1), {show})"
    command = ["sh", "-c", 'trap "" USR1; "$@"', "sh", *python(code)]
    run, without = launch(*command), launch.start(command)
    assert run.rest() == without.rest()
    run.ends(0)
    without.ends(0)


def test_a_notice_gets_there_by_the_signal_that_is_not_ignored(launch: Launch) -> None:
    run = launch("sh", "-c", 'trap "" USR1; "$@"', "sh", *python(INTERRUPTED), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("saved")
    run.ends(CHECKPOINTED)


def test_an_applications_own_use_of_sigusr1_is_left_alone(launch: Launch) -> None:
    code = (
        HANDLER + "signal.signal(signal.SIGUSR1, handler)\n" + "for _ in range(5): os.kill(os.getpid(), signal.SIGUSR1)"
    )
    run = launch(*python(code))
    assert run.rest() == ["told SIGUSR1"] * 5
    run.ends(0)


# --- programs that cooperate ---------------------------------------------------------------------------

TWO_LINES = "from kempnerforge.resilience import shutdown_handler as handler\n"
FOUR_LINES = "from kempnerforge.resilience import ShutdownHandler\nhandler = ShutdownHandler()\nhandler.register()\n"
UNTIL_STOP = """
import os, time
os.write(1, b"ready\\n")
while not handler.should_shutdown():
    time.sleep(0.001)
os.write(1, b"stop %s\\n" % handler.signal_received.name.encode())
handler.finish()
time.sleep(0.2)
os.write(1, b"the end\\n")
"""


@pytest.mark.parametrize("lines", [TWO_LINES, FOUR_LINES], ids=["two lines", "four lines"])
@pytest.mark.parametrize("first", ["slurm", "kforge-run"])
def test_a_program_cooperates(launch: Launch, lines: str, first: str) -> None:
    run = launch(*python(lines + UNTIL_STOP), options=OPTIONS)
    run.says("ready")
    both_signal_it(run, first=first)
    assert run.line() in ("stop SIGUSR1", "stop SIGTERM")
    run.says("the end")
    run.ends(CHECKPOINTED)
    assert "finished" in run.log


@pytest.mark.parametrize("lines", [TWO_LINES, FOUR_LINES], ids=["two lines", "four lines"])
def test_a_notice_during_the_imports_is_remembered(launch: Launch, lines: str) -> None:
    slow = launch.folder / "slow"
    slow.mkdir()
    (slow / "heavy.py").write_text("import os, time\nos.write(1, b'importing\\n')\ntime.sleep(1)\n")
    script = launch.folder / "train.py"
    script.write_text("import sys\nsys.path.append('slow')\nimport heavy\n" + lines + UNTIL_STOP)
    run = launch(sys.executable, str(script), options=OPTIONS)
    run.says("importing")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["ready", "stop SIGUSR1", "the end"]
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_without_a_notice_a_signal_does_what_it_does_without_us(launch: Launch, signum: int) -> None:
    run = launch(*python(INTERRUPTED), options=OPTIONS)
    run.says("ready")
    (child,) = run.armed()
    signal.pidfd_send_signal(child.pidfd, signum)
    assert run.rest() == []
    run.ends(128 + signum)


def test_a_notice_during_the_imports_interrupts_who_does_not_cooperate_afterwards(launch: Launch) -> None:
    """Not before the imports are over."""
    (launch.folder / "heavy.py").write_text(
        "import os, time\nos.write(1, b'importing\\n')\ntime.sleep(0.5)\nos.write(1, b'imported\\n')\n"
    )
    script = launch.folder / "train.py"
    script.write_text(INTERRUPTED.replace("try:\n", "try:\n    import heavy\n"))
    run = launch(sys.executable, str(script), options=OPTIONS)
    run.says("importing")
    run.send(signal.SIGUSR1)
    run.says("imported")
    assert run.rest()[-1] == "saved", run.log  # whether it got as far as to be ready is anybody's guess
    run.ends(CHECKPOINTED)


def test_a_handler_installed_after_the_notice_gets_it(launch: Launch) -> None:
    (launch.folder / "heavy.py").write_text("import os, time\nos.write(1, b'importing\\n')\ntime.sleep(0.5)\n")
    script = launch.folder / "train.py"
    script.write_text(f"import heavy\n{HANDLER}\nsignal.signal(signal.SIGTERM, handler)\n{UNTIL_TOLD}")
    run = launch(sys.executable, str(script), options=OPTIONS)
    run.says("importing")
    run.send(signal.SIGUSR1)
    assert sorted(run.rest()) == ["ready", "saved", "told SIGTERM"]
    run.ends(CHECKPOINTED)


def test_after_unregister_the_program_is_armed_as_before(launch: Launch) -> None:
    code = (
        TWO_LINES + "import signal\nhandler.unregister()\nprint(repr(signal.getsignal(signal.SIGTERM)), flush=True)\n"
    )
    run = launch(*python(code + INTERRUPTED), options=("--timeout", "4"))
    run.says("<Handlers.SIG_DFL: 0>")
    run.says("ready")
    run.send(signal.SIGUSR1)
    # It knew us and has taken leave: it is left to come to its end, up to the SIGTERM stage.
    run.says("saved")
    assert "stack dump and SIGTERM" in run.log
    run.ends(0)


def test_a_signal_that_was_not_seen_before_unregister_waits_for_the_next_handler(launch: Launch) -> None:
    code = """
from kempnerforge.resilience import ShutdownHandler
import time
print("ready", flush=True)
with ShutdownHandler() as handler:
    while not handler._shutdown.requested:
        time.sleep(0.01)
print("between", flush=True)
with ShutdownHandler() as handler:
    print(handler.should_shutdown(), flush=True)
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.logs("has a ShutdownHandler")
    run.send(signal.SIGUSR1)
    run.says("between")
    run.says("True")
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("option", ["--embed", "--no-embed"])
def test_a_run_that_is_done_before_it_has_seen_the_notice_is_done(launch: Launch, option: str) -> None:
    code = (
        TWO_LINES
        + """
import time
print("last step", flush=True)
while handler.reason is None: time.sleep(0.01)
handler.unregister()
print("done", flush=True)
"""
    )
    run = launch(*python(code), options=(*OPTIONS, option))
    run.says("last step")
    run.send(signal.SIGUSR1)
    run.says("done")
    run.ends(0)


def test_a_notice_to_every_process_does_not_kill_who_has_come_to_its_end(launch: Launch) -> None:
    """Python takes all handlers away, and then still tidies up, for seconds if torch is loaded."""
    run = launch(sys.executable, "-c", ENDS_SLOWLY)
    run.says("ends")
    run.ends(0)


ENDS_SLOWLY = """
import os, signal
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), usr1=signal.SIGUSR1, write=os.write):
        kill(pid, usr1)
        write(1, b"ends\\n")
signal.late = Late()
"""


def test_two_handlers_unregistered_in_either_order(launch: Launch) -> None:
    code = """
from kempnerforge.resilience import ShutdownHandler, shutdown_handler
import itertools, os, signal, time
for order in itertools.permutations((0, 1)):
    pair = [ShutdownHandler(), ShutdownHandler()]
    for one in pair: one.register()
    for number in order: pair[number].unregister()
handler = shutdown_handler
"""
    run = launch(*python(code + UNTIL_STOP), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("stop", "SIGUSR1")
    run.says("the end")
    run.ends(CHECKPOINTED)


def test_the_shared_handler_works_without_kforge_run(launch: Launch) -> None:
    code = TWO_LINES + "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n" + UNTIL_STOP
    run = launch.start([*python(code)])
    assert run.rest() == ["ready", "stop SIGTERM", "the end"]
    run.ends(0)


def test_a_thread_that_cooperates_hears_of_the_notice(launch: Launch) -> None:
    """Ranks of Ray's train in threads; the main thread waits for them, and is not interrupted."""
    code = """
import threading, time
def train():
    from kempnerforge.resilience import shutdown_handler
    print("ready", flush=True)
    while not shutdown_handler.should_shutdown():
        time.sleep(0.01)
    print(shutdown_handler.reason, flush=True)
    shutdown_handler.finish()
thread = threading.Thread(target=train); thread.start(); thread.join()
print("the end", flush=True)
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["manual", "the end"]
    run.ends(CHECKPOINTED)


def test_without_kforge_run_registering_in_a_thread_is_refused(launch: Launch) -> None:
    code = """
import threading
def register():
    try:
        from kempnerforge.resilience import shutdown_handler
    except ValueError as error:
        print(type(error).__name__)
thread = threading.Thread(target=register); thread.start(); thread.join()
from kempnerforge.resilience import shutdown_handler
print(shutdown_handler.should_shutdown())
"""
    run = launch.start(python(code))
    assert run.rest() == ["ValueError", "False"]
    run.ends(0)


def test_what_a_handler_reports_is_in_the_log(launch: Launch) -> None:
    code = (
        TWO_LINES
        + """
import os, time
os.write(1, b"ready\\n")
while not handler.should_shutdown():
    time.sleep(0.001)
handler.status("half of it is saved")
handler.ask_for_time(5)
handler.finish()
"""
    )
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.ends(CHECKPOINTED)
    assert "half of it is saved" in run.log and "asks for 5 s to save: granted" in run.log
    run.logs(r"-c \(pid \d+\) can be interrupted")
    run.logs(r"-c \(pid \d+\) has a ShutdownHandler")


def test_a_program_that_only_waits_for_another_python_hands_the_notice_on(launch: Launch) -> None:
    script = launch.folder / "train.py"
    script.write_text(INTERRUPTED)
    wrapper = launch.folder / "wrapper.py"
    wrapper.write_text(
        "import subprocess, sys\n"
        "ended = subprocess.run(['sh', '-c', f'{sys.executable} train.py; exit $?'])\n"
        "print('ended with', ended.returncode, flush=True)\n"
    )
    run = launch(sys.executable, str(wrapper), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["saved", "ended with 0"]
    run.ends(CHECKPOINTED)


# --- found by attacking it ---------------------------------------------------------------------------------


def test_asyncio_that_cancels_its_task_on_a_signal_is_not_told_again(launch: Launch) -> None:
    """It acts on what C writes into the wakeup fd: our holding back a second call would not help."""
    code = """
import asyncio, os, signal
async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        os.write(1, b"ready\\n")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.5)
        os.write(1, b"saved\\n")
asyncio.run(main())
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGTERM)
    run.says("saved")
    run.wait()


def test_a_handler_that_saves_in_one_long_c_call_is_called_once(launch: Launch) -> None:
    code = """
import ctypes, os, signal
told = []
def handler(*_):
    told.append(1)
    sleep = ctypes.PyDLL(None).usleep
    for _ in range(15):
        sleep(100_000)
signal.signal(signal.SIGTERM, handler)
os.write(1, b"ready\\n")
while not told:
    signal.pause()
os.write(1, b"told %d times\\n" % len(told))
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGTERM)
    run.says("told 1 times")
    run.ends(0)


def test_a_thread_that_waits_for_the_signal_gets_it(launch: Launch) -> None:
    code = """
import os, signal, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
def wait():
    os.write(1, b"ready\\n")
    os.write(1, b"told %d\\n" % signal.sigwait({signal.SIGUSR1, signal.SIGTERM}))
thread = threading.Thread(target=wait)
thread.start()
thread.join()
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    run.says("told", int(signal.SIGUSR1))
    run.ends(CHECKPOINTED)


@pytest.mark.parametrize("chunk", range(4))
def test_a_notice_that_meets_a_fork_is_not_lost(launch: Launch, chunk: int) -> None:
    del chunk
    code = """
import os
try:
    os.write(1, b"ready\\n")
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
except KeyboardInterrupt:
    os.write(1, b"saved\\n")
"""
    runs = [launch(*python(code), options=OPTIONS) for _ in range(4)]
    for run in runs:
        run.says("ready")
        run.send(signal.SIGUSR1)
    for run in runs:
        assert run.rest() == ["saved"], run.log
        run.ends(CHECKPOINTED)
        assert "ignored" not in run.log


def test_a_folder_that_has_vanished_costs_only_the_manners(launch: Launch) -> None:
    code = """
import os, shutil, signal, time
shutil.rmtree(os.environ["KFORGE_CONTROL"].rpartition(":")[2])
signal.signal(signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))
if os.fork() == 0:
    os._exit(0)
os.wait()
try:
    os.write(1, b"ready\\n")
    time.sleep(60)
except KeyboardInterrupt:
    os.write(1, b"saved\\n")
"""
    run = launch(*python(code), options=OPTIONS)
    run.says("ready")
    run.send(signal.SIGUSR1)
    assert run.rest() == ["saved"], run.log
    run.ends(CHECKPOINTED)


def test_what_the_last_word_interrupts_may_save(launch: Launch) -> None:
    """The shell around it dies of the same SIGTERM, and what is left is asked to end once more."""
    (launch.folder / "first.py").write_text("import os, time\nos.write(1, b'first\\n')\ntime.sleep(60)\n")
    (launch.folder / "second.py").write_text(INTERRUPTED.replace("0.3", "1"))
    run = launch("bash", "-c", f"{sys.executable} first.py; {sys.executable} second.py", options=("--timeout", "9"))
    run.says("first")
    run.send(signal.SIGUSR1)
    run.says("ready")
    run.says("saved")
    run.wait()


def test_a_rank_that_a_program_waits_for_is_told_by_kforge_run_alone(launch: Launch) -> None:
    (launch.folder / "train.py").write_text(INTERRUPTED.replace("0.3", "1"))
    starter = launch.folder / "starter.py"
    starter.write_text(
        "import os, subprocess, sys\nsubprocess.run([sys.executable, 'train.py'], env={**os.environ, 'RANK': '0'})\n"
    )
    run = launch(sys.executable, str(starter), options=OPTIONS)
    run.says("ready")
    run.armed(2)
    run.send(signal.SIGUSR1)
    assert run.rest() == ["saved"], run.log
    run.ends(CHECKPOINTED)
