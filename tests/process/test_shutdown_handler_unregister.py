"""A signal that came before unregister() and that the program has not seen: it goes where it would have gone."""

from __future__ import annotations

import signal

import pytest

from tests.process.handling import Run
from tests.process.test_shutdown_handler_launcher import REGISTER, FakeLauncher, launcher

__all__ = ["launcher"]  # the fixture

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]
#: A handler of the program's own, in place of the default; and a signal that comes.
MINE = """
def mine(signum, frame): say("mine", signal.Signals(signum).name)
for signum in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(signum, mine)
"""
COMES = "os.kill(os.getpid(), signal.SIGTERM)\n"


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("way", ["unregister", "with"])
def test_the_process_dies_of_it_as_without_a_handler(run: Run, signum: signal.Signals, way: str) -> None:
    child = run(f"""
        handler = ShutdownHandler()
        if {way == "with"}:
            with handler:
                os.kill(os.getpid(), {signum:d})
                say("trained")
        else:
            handler.register()
            os.kill(os.getpid(), {signum:d})
            say("trained")
            handler.unregister()
        say("not reached")
    """)
    child.says("trained")
    child.ends(-signum)
    assert child.rest() == []


@pytest.mark.parametrize("thread", ["main", "other"])
def test_the_handler_that_was_there_before_gets_it(run: Run, thread: str) -> None:
    child = run(f"""{MINE}
handler = ShutdownHandler()
handler.register()
for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
    os.kill(os.getpid(), signum)
say("trained")
if {thread == "other"}:
    leaving = threading.Thread(target=handler.unregister)
    leaving.start()
    leaving.join()
else:
    handler.unregister()
wait_until(lambda: signal.getsignal(signal.SIGTERM) is mine)
say("alive", threading.active_count())
""")
    child.says("trained")
    heard = {child.line() for _ in range(2)}
    assert heard == {"mine SIGUSR1", "mine SIGTERM"}
    child.says("alive", 1)
    child.ends()


def test_a_handler_that_raises_raises_from_unregister(run: Run) -> None:
    child = run(f"""
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(7))
        with ShutdownHandler():
            {COMES}
        time.sleep(60)
    """)
    child.ends(7)


def test_a_handler_written_in_c_gets_it(run: Run) -> None:
    child = run("""
        faulthandler.register(signal.SIGUSR1, file=1)
        with ShutdownHandler():
            os.kill(os.getpid(), signal.SIGUSR1)
            say("trained")
    """)
    child.says("trained")
    assert "most recent call first" in "\n".join(child.rest())
    child.ends()


def test_who_ignored_it_goes_on_ignoring_it(run: Run) -> None:
    child = run(f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with ShutdownHandler():
            {COMES}
        say("alive")
    """)
    child.says("alive")
    child.ends()


@pytest.mark.parametrize(
    "sees",
    [
        "handler.should_shutdown()",
        "handler.shutdown_requested",
        "handler.signal_received",
        "handler.finish()",
        f"handler.should_shutdown(); {COMES}",
    ],
)
def test_what_the_program_has_seen_does_not_come_again(run: Run, sees: str) -> None:
    child = run(f"""{MINE}
handler = ShutdownHandler()
handler.register()
handler.should_shutdown()
{COMES}
{sees}
handler.unregister()
handler.register()
handler.unregister()
say("alive")
""")
    child.says("alive")
    child.ends()


# --- several handlers --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["first, second", "second, first"])
@pytest.mark.parametrize("seen_by", ["first", "second", "neither"])
def test_of_two_handlers_one_that_has_seen_it_is_enough(run: Run, order: str, seen_by: str) -> None:
    child = run(f"""{MINE}
first, second = ShutdownHandler(), ShutdownHandler()
first.register()
second.register()
{COMES}
if {seen_by != "neither"}:
    {seen_by.replace("neither", "first")}.should_shutdown()
for handler in ({order}):
    say("leaves")
    handler.unregister()
say("alive")
""")
    child.says("leaves")
    child.says("leaves")
    if seen_by == "neither":
        child.says("mine", "SIGTERM")
    child.says("alive")
    child.ends()


def test_a_handler_that_came_later_gets_it_first(run: Run) -> None:
    child = run(f"""{MINE}
earlier, later = ShutdownHandler(timeout_sec=60), ShutdownHandler(timeout_sec=0.5)
earlier.register()
{COMES}
later.register()
earlier.unregister()
say("left")
time.sleep(60)
""")
    child.says("left")
    child.ends(1)
    assert "longer than 0.5 s" in child.log


def test_a_signal_after_one_that_was_seen_is_a_new_one(run: Run) -> None:
    child = run(f"""{MINE}
outer, inner = ShutdownHandler(), ShutdownHandler()
outer.register()
with inner:
    {COMES}
    say(inner.should_shutdown())
{COMES}
outer.unregister()
say("alive")
""")
    child.says(True)
    child.says("mine", "SIGTERM")
    child.says("alive")
    child.ends()


def test_who_calls_us_from_our_place_has_had_it(run: Run) -> None:
    child = run("""
        handler = ShutdownHandler()
        handler.register()
        def theirs(signum, frame):
            say("theirs")
            before(signum, frame)
        before = signal.signal(signal.SIGTERM, theirs)
        os.kill(os.getpid(), signal.SIGTERM)
        say(handler.reason)
        handler.unregister()
        say("left")
        os.kill(os.getpid(), signal.SIGTERM)  # and may go on calling us
        say("alive")
    """)
    child.says("theirs")
    child.says(None)
    child.says("left")
    child.says("theirs")
    child.says("alive")
    child.ends()


def test_who_calls_us_from_our_place_reaches_who_was_there_before(run: Run) -> None:
    child = run(f"""{MINE}
handler = ShutdownHandler()
handler.register()
before = signal.signal(signal.SIGTERM, lambda signum, frame: before(signum, frame))
handler.unregister()
{COMES}
say("alive")
""")
    child.says("mine", "SIGTERM")
    child.says("alive")
    child.ends()


def test_a_forked_child_has_none_of_it(run: Run) -> None:
    child = run(f"""{MINE}
handler = ShutdownHandler()
handler.register()
{COMES}
pid = os.fork()
if pid == 0:
    handler.unregister()
    with handler:
        pass
    os._exit(5)
say(os.waitpid(pid, 0)[1] >> 8)
handler.unregister()
say("alive")
""")
    child.says(5)
    child.says("mine", "SIGTERM")
    child.says("alive")
    child.ends()


# --- under kforge-run --------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", SIGNALS)
def test_under_kforge_run_it_kills_nobody(run: Run, launcher: FakeLauncher, signum: signal.Signals) -> None:
    child = run(
        REGISTER + f"os.kill(os.getpid(), {signum:d})\nhandler.unregister()\nsay('done')\n",
        KFORGE_CONTROL=launcher.variable,
    )
    assert launcher.accept()["verb"] == "registered"
    child.says("ready")
    child.says("done")
    child.ends()
    assert [launcher.hear()["verb"] for _ in range(2)] == ["left", "the end"]


def test_under_kforge_run_the_handler_that_was_there_before_gets_it(run: Run, launcher: FakeLauncher) -> None:
    child = run(MINE + REGISTER + COMES + "handler.unregister()\nsay('done')\n", KFORGE_CONTROL=launcher.variable)
    launcher.accept()
    child.says("ready")
    child.says("mine", "SIGTERM")
    child.says("done")
    child.ends()


@pytest.mark.parametrize("what", ["a message", "its end"])
def test_what_kforge_run_said_is_no_signal(run: Run, launcher: FakeLauncher, what: str) -> None:
    child = run(
        REGISTER + "wait_until(lambda: handler.reason)\nhandler.unregister()\nsay('done')\n",
        KFORGE_CONTROL=launcher.variable,
    )
    launcher.accept()
    child.says("ready")
    if what == "a message":
        launcher.tell(reason="preempted")
    else:
        launcher.close()
    child.says("done")
    child.ends()
