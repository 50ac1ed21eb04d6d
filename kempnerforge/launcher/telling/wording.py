"""Facts in words: the lines of the log. They are for people; who wants to know what happened reads the facts."""

from __future__ import annotations

from typing import NamedTuple

from ..policy import facts
from ..policy.words import never, signal_name
from .output import Level

_WAITS = {"finish": "to finish", "first poll": "for its first poll", "end": "for the child to end"}
#: By the letters of `inject/doors.py`.
_DOORS = {
    "u": "its SIGUSR1 handler",
    "t": "its SIGTERM handler",
    "o": "a library's SIGTERM handler",
    "c": "a SIGTERM handler in C",
    "k": "Ctrl-C, which it names",
    "i": "Ctrl-C",
    "w": "a thread that waits for signals",
}
_STAGES = {"terminate": "stack dump and SIGTERM", "kill": "SIGKILL"}


class Line(NamedTuple):
    level: Level
    text: str


def hears(door: str) -> str:
    """Return how a program hears a notice."""
    if door == "-":
        return "has it, and waits until its handler is there"
    return f"hears it by {_DOORS[door]}" if door in _DOORS else "has heard it"


def line_of(fact: facts.Fact) -> Line | None:
    """Return how the log tells a fact; None: it says nothing of it."""
    match fact:
        case facts.Started() | facts.NotStarted() | facts.RequeueAsked() | facts.Ended():
            return None  # others tell it: the child's own line, click's error, the decision
        case facts.Warned(text):
            return Line("warning", text)
        case facts.Remark(text, detail):
            return Line("detail" if detail else "info", text)
        case facts.Armed(pid, program):
            return Line("detail", f"{program} (pid {pid}) can be interrupted")
        case facts.Registered(pid, program, _, is_launcher):
            does = "looks after what runs below it" if is_launcher else "has a ShutdownHandler"
            return Line("detail", f"{program} (pid {pid}) {does}")
        case facts.Joined(pid, rank, size, _):
            who = f"pid {pid} is rank {rank} of {size}, and" if size else f"pid {pid}"
            return Line("detail", f"{who} stops together with the others of its world")
        case facts.Agreed(_, ranks, how, poll):
            return Line("warning" if how == "at once" else "info", _agreed(ranks, how, poll))
        case facts.RanksGoOn():
            return Line("info", "a rank has come to its end by itself: the others are not told to stop")
        case facts.RanksLost(ranks, pids):
            who = ", ".join(_rank(rank, pid) for rank, pid in zip(ranks, pids, strict=False))
            return Line("warning", f"told to stop, and ended without having saved: {who}")
        case facts.Status(pid, text):
            return Line("info", f"pid {pid}: {text}")
        case facts.Polled(pid, _, first, after):
            return Line("info", f"first poll by pid {pid}{_after(after)}: saving") if first else None
        case facts.Finished(pid, after):
            return Line("info", f"pid {pid} finished{_after(after)}")
        case facts.ForcedExit(pid):
            return Line("info", f"pid {pid} has not saved in its time, and ends itself")
        case facts.MoreTimeAsked(pid, seconds, granted):
            enough = "granted" if granted >= seconds else f"{granted:.0f} s are all there is"
            return Line("info", f"pid {pid} asks for {seconds:.0f} s to save: {enough}")
        case facts.NoticeCame(signal, sender):
            return Line("info", f"notice: {signal} from {sender}")
        case facts.SignalledToo(signal, sender):
            return Line("info", f"{signal} too, from {sender}")
        case facts.HandedOn(receivers, again):
            return Line("detail" if again else "info", f"delivered to {receivers}")
        case facts.Heard(pid, program, door, first):
            return Line("info" if first else "detail", f"{program} (pid {pid}) {hears(door)}")
        case facts.PassedOn(signal, sender):
            return Line("detail", f"{signal} from {sender} passed on")
        case facts.KeptFromSrun(signal, sender):
            return Line("warning", f"{signal} from {sender} is not passed on: srun would kill its tasks")
        case facts.ReasonFound(reason):
            return Line("info", f"reason: {reason.replace('_', ' ')}")
        case facts.SlurmIsSilent(why, answered):
            what = "Slurm's answer cannot be read" if answered else "Slurm does not answer"
            return Line("warning", f"{what} ({why}): asking again until the deadline")
        case facts.StepWasEnded(again):
            what = "kforge-notice, a step of kforge-run's, was ended by hand"
            if again:
                return Line("detail", f"{what}: it is started once more")
            return Line("warning", f"{what}: a preemption is noticed only when its grace is over")
        case facts.TimeLeft(seconds, requeue):
            return Line("info", f"{seconds:.0f} s left to {'save, end and requeue' if requeue else 'save and end'}")
        case facts.Continued(stopped_for):
            return Line("info", f"continued after {stopped_for:.0f} s")
        case facts.Waiting(until, seconds):
            return Line("info", f"waiting {_WAITS[until]}: {seconds:.0f} s left")
        case facts.StageBegan(stage):
            return Line("warning", f"still running: {_STAGES[stage]}")
        case facts.ChildEnded(int(status), float(after)):
            return Line("info", f"the child {describe(status)}{_after(after)}")
        case facts.ChildEnded():
            return None  # without a notice the decision tells it
        case facts.StillSaving(pids):
            return Line("info", f"what it ran still saves: pid {', '.join(map(str, pids))}")
        case facts.Sweeping():
            return Line("detail", "sweeping what is left behind")
        case facts.WasDoneBefore():
            why = "Slurm has started it once more because it had been preempted"
            return Line("info", f"the run has completed, and {why}: nothing is run")
        case facts.RequeueFailed(why):
            return Line("warning", f"the requeue failed: {why}: trying again")
        case facts.Decided(requeued, because, child):
            ended = "" if child is None else f"the child {describe(child)}; "
            return Line("info", ended + (because if requeued else f"not requeued: {because}"))
        case facts.NotRequeued(because, job):
            return Line("warning", f"not requeued: {because}; to run it again: scontrol requeue {job}")
        case facts.ShutDown():
            return Line("summary", _summary(fact))
        case _:
            return never(fact)


def _rank(rank: int, pid: int) -> str:
    # Ranks that no library knows are told from each other by their pids.
    return f"pid {pid}" if rank == pid else f"rank {rank} (pid {pid})"


def _agreed(ranks: list[int], how: str, poll: int) -> str:
    who = "1 rank stops" if len(ranks) == 1 else f"{len(ranks)} ranks stop"
    if how == "at once":
        return f"{who} wherever they are: they have not come to one step in time"
    return f"{who} at poll {poll}" if poll else f"{who} at one step, each at a poll of its own"


def describe(status: int) -> str:
    """Return a child's end in words: its exit status, or minus the signal it died of."""
    return f"exited with {status}" if status >= 0 else f"died of {signal_name(-status)}"


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds:.1f} s after the notice"


def _summary(fact: facts.ShutDown) -> str:
    parts = [fact.signal, *(f"{name} {seconds:+.1f} s" for name, seconds in fact.moments)]
    slack = "" if fact.to_spare is None else f", {fact.to_spare:.1f} s to spare"
    assumed = " (assumed: nothing ran that has a ShutdownHandler)" if fact.assumed else ""
    return f"{fact.outcome}{assumed}: {' → '.join(parts)}{slack}"
