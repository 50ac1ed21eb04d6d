"""What a rehearsal was worth: PASS or FAIL with the reason, and the lead to ask Slurm for.

Pure: what was seen goes in, a verdict comes out. Every time is in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from signal import SIGINT
from typing import NamedTuple

from ...launcher.policy import tables
from ...launcher.policy.words import CHECKPOINTED_STATUS
from ...launcher.telling.wording import describe
from ..journals import Attempt, Heard

#: How much slower a save may be on a day when the file system is busy: a guess.
SLOWER_DAY = 1.5
#: The notice of a program that never says that it is ready comes so long after its start (s): a guess.
AFTER_START = 30.0
#: How Python ends at a KeyboardInterrupt that nothing catches, and a shell around it.
_INTERRUPTED = frozenset({-SIGINT, tables.DIED_OF + SIGINT})


class Seen(NamedTuple):
    """What the journals tell of one rehearsal, so far or in the end."""

    #: When it started (epoch); None: it has not.
    started_at: float | None = None
    #: It has a registered `ShutdownHandler`.
    cooperative: bool = False
    #: From the start to the first poll, of several tasks' the last; None: not yet, or there is none.
    ready: float | None = None
    #: From the start to the notice; None: there was none.
    noticed: float | None = None
    #: The notice's signal and who sent it.
    signal: str = ""
    sender: str = ""
    #: Who was told, in kforge-run's words; and who has said how it hears the notice.
    told: tuple[str, ...] = ()
    heard: tuple[Heard, ...] = ()
    #: From the notice to the first poll that said "stop", to `finish()` (of several the last), to the child's end.
    first_poll: float | None = None
    saved: float | None = None
    exit: float | None = None
    #: From the start to the child's end.
    ran: float | None = None
    #: The child's exit status, or minus the signal it died of.
    status: int | None = None
    outcome: str | None = None
    reason: str | None = None
    #: Stages of the escalation that were needed.
    stages: tuple[str, ...] = ()
    #: kforge-run has come to its end.
    over: bool = False
    #: kforge-runs below the one that owns the run: one for each task.
    tasks: int = 0
    #: How those of them ended, by STEP.TASK, that ended with an error.
    failed: Mapping[str, int] = {}
    #: A process ended itself: its own time was up.
    forced_exit: bool = False
    #: What kforge-runs warned of.
    warnings: tuple[str, ...] = ()
    #: Why the command could not be executed; empty: it could, or that is not known yet.
    not_started: str = ""

    @property
    def took(self) -> float:
        """From the notice to the end of what saves, which may outlive the child (s)."""
        return max(self.exit or 0.0, self.saved or 0.0)


def seen_of(owner: Attempt | None, tasks: Mapping[str, Attempt] | None = None) -> Seen:
    """Put together what several journals tell of one rehearsal.

    Args:
        owner: of the kforge-run that owns the run; None: it has written nothing yet.
        tasks: of the kforge-runs below it, by STEP.TASK.
    """
    if owner is None:
        return Seen()
    if owner.not_started:
        return Seen(not_started=owner.not_started)
    notice = owner.notice
    # Those of a step that was over before do not count.
    ranks = {
        name: task
        for name, task in (tasks or {}).items()
        if task.end_time is None or (notice is not None and task.end_time >= notice.time)
    }
    # An inner kforge-run registers too, but it is its ranks that poll.
    cooperating = [task for task in ranks.values() if task.registered] or ([] if ranks else [owner])
    polls = [attempt.first_ready_poll for attempt in cooperating if attempt.first_ready_poll is not None]
    all_polled = bool(polls) and len(polls) == len(cooperating)
    stops = [attempt.first_poll for attempt in cooperating if attempt.first_poll is not None]
    saves = [attempt.last_finished for attempt in cooperating if attempt.last_finished is not None]
    # What comes after the child's end was for what it has left behind.
    stages = [
        stage.stage
        for attempt in (owner, *ranks.values())
        for stage in attempt.stages
        if attempt.exit_time is None or stage.time <= attempt.exit_time
    ]
    return Seen(
        started_at=owner.started,
        cooperative=any(attempt.registered for attempt in cooperating),
        ready=max(max(polls) - owner.started, 0.0) if all_polled else None,
        noticed=None if notice is None else max(notice.time - owner.started, 0.0),
        signal="" if notice is None else notice.signal,
        sender="" if notice is None else notice.sender,
        told=tuple(dict.fromkeys(text for attempt in (owner, *ranks.values()) for text in attempt.delivered)),
        heard=tuple(one for attempt in (owner, *ranks.values()) for one in attempt.heard),
        first_poll=owner.after_notice(max(stops)) if stops else None,
        saved=owner.after_notice(max(saves)) if len(saves) == len(cooperating) and saves else None,
        exit=None if owner.exit_time is None else owner.after_notice(owner.exit_time),
        ran=None if owner.exit_time is None else max(owner.exit_time - owner.started, 0.0),
        status=owner.exit_status,
        outcome=owner.outcome,
        reason=owner.reason,
        stages=tuple(dict.fromkeys(stages)),
        over=owner.end_time is not None,
        tasks=len(ranks),
        failed={
            name: task.exit_status
            for name, task in ranks.items()
            if task.outcome in ("interrupted", "failed") and task.exit_status is not None
        },
        forced_exit=any(attempt.forced_exit for attempt in (owner, *ranks.values())),
        warnings=tuple(dict.fromkeys(text for attempt in (owner, *ranks.values()) for text in attempt.warnings)),
        not_started=owner.not_started,
    )


def notice_due(seen: Seen, after: float | None) -> float | None:
    """Return when to send the notice (s after the start); None: not before the program polls.

    Args:
        after: how long it is to run before (s): from its first poll, or if it does not cooperate from its start. None:
            not at all, or `AFTER_START`.
    """
    if seen.started_at is None:
        return None
    if seen.cooperative:
        return None if seen.ready is None else seen.ready + (after or 0.0)
    return AFTER_START if after is None else after


class Lead(NamedTuple):
    """The N of `--signal=B:USR1@N`, and how it comes about."""

    measured: float
    needed: float
    seconds: int


def lead_for(measured: float) -> Lead:
    """Return the lead for a run that took so long from the notice to its end (s)."""
    measured = round(measured, 1)  # as it is shown, so that the arithmetic shown is right
    slower = measured * SLOWER_DAY
    return Lead(measured, slower + tables.LEAD_RESERVE, tables.recommended_lead(slower))


class Verdict(NamedTuple):
    """The result of a rehearsal."""

    passed: bool
    #: In one sentence, without a period.
    reason: str
    #: What to do about it, or what to know all the same: sentences without a period.
    notes: tuple[str, ...] = ()
    #: None: what was measured does not tell.
    lead: Lead | None = None


class Evidence(NamedTuple):
    """What became of the checkpoints that were named, from just before the notice to the end."""

    #: Why it is none that a run could resume from; None: it is one.
    problem: str | None


_POLL = "Poll after each step: if shutdown_handler.should_shutdown(): save, finish(), and end"
_LOOK = "--checkpoint PATH looks at what it has written"
_LONGER = "Rehearse with a longer --lead to learn how long it takes"


def judge(seen: Seen, lead: float, evidence: Evidence | None = None, *, ended: bool = True) -> Verdict:
    """Return what a rehearsal was worth.

    Args:
        seen: at its end, or when it was given up.
        lead: what Slurm would give (s).
        evidence: None: no checkpoint was named.
        ended: False: it was given up before the notice, since it did not poll.
    """
    if ended and not seen.over:
        return Verdict(
            False, "kforge-run was killed in the middle of it", ("Whatever killed it would lose a real run",)
        )
    if seen.noticed is None:
        return _without_notice(seen, ended)
    if seen.signal != "SIGUSR1":
        told = f"{seen.signal} from {seen.sender or 'an unknown sender'} came before the drill's notice"
        return Verdict(False, f"{told} (reason: {(seen.reason or 'unknown').replace('_', ' ')})", ("Rehearse again",))
    verdict = _with_notice(seen, lead, evidence)
    if evidence is not None and evidence.problem is not None:
        if verdict.passed:
            return Verdict(False, evidence.problem, ("The program itself ended as it should",))
        return verdict._replace(notes=(*verdict.notes, f"Besides, {evidence.problem}"))
    return verdict


def _without_notice(seen: Seen, ended: bool) -> Verdict:
    if not ended or seen.status is None or seen.ran is None:
        never = "it has a ShutdownHandler, but did not call should_shutdown() in the time there was"
        return Verdict(False, never, (_POLL, "If it only needs longer to its first step, say --patience SECONDS"))
    when = f"{seen.ran:.1f} s after its start, before the notice"
    if seen.status in (0, CHECKPOINTED_STATUS):
        does = "completed" if seen.status == 0 else f"{describe(seen.status)},"
        return Verdict(False, f"too short to rehearse: it {does} {when}", ("Give it more steps, or a shorter --after",))
    return Verdict(False, f"it {describe(seen.status)}, {when}")


def _with_notice(seen: Seen, lead: float, evidence: Evidence | None) -> Verdict:
    """Judge a run that got the notice. What was written counts only where it had the time to write all of it."""
    written = evidence is not None and evidence.problem is None
    if seen.outcome == "forced" or seen.stages or seen.status is None or seen.exit is None:
        return _ended_by_force(seen, written)
    took = seen.took
    if seen.outcome != "checkpointed" and seen.forced_exit:
        still, cure = ("saved", _LONGER) if seen.first_poll is not None else ("polled", _POLL)
        return Verdict(False, f"it had not {still} {took:.1f} s after the notice: its forced exit ended it", (cure,))
    if took > lead:
        needs = lead_for(took)
        slower = f"it took {took:.1f} s, and Slurm would have killed it after {lead:g} s"
        return Verdict(False, slower, (f"It needs --signal=B:USR1@{needs.seconds}",), needs)
    if seen.failed:
        name, status = next(iter(seen.failed.items()))
        others = f" (and {len(seen.failed) - 1} more)" if len(seen.failed) > 1 else ""
        return Verdict(False, f"task {name} {describe(status)}{others}, whatever the others did")
    if seen.outcome == "checkpointed":
        return Verdict(True, "", _caveats(seen, lead, evidence), lead_for(took))
    if seen.outcome == "completed":
        return _did_not_notice(seen)
    return _otherwise(seen, took, written)


def _ended_by_force(seen: Seen, written: bool) -> Verdict:
    """Whoever needs SIGTERM or SIGKILL uses up all the time there is, whatever was saved before."""
    if seen.saved is not None:
        was = f"it saved within {seen.saved:.1f} s, but then did not end"
        cure = "Something keeps it from ending: a thread, a collective, a data worker"
    elif seen.first_poll is not None:
        was, cure = "it was still saving at the end of its time", _LONGER
    elif seen.cooperative:
        was, cure = "it did not poll after the notice", _POLL
    else:
        was, cure = (
            "it did not end at the notice",
            "Let it act on SIGUSR1, or give it two lines of ours (see the README)",
        )
    how = "had to be killed" if "kill" in seen.stages or seen.outcome == "forced" else "ended at SIGTERM only"
    notes = (cure, "What it wrote after the notice looks whole, but counts on luck") if written else (cure,)
    return Verdict(False, f"{was}, and {how}", notes)


def _did_not_notice(seen: Seen) -> Verdict:
    if not seen.cooperative:
        return Verdict(False, "too short to rehearse: it ended just when the notice came", ("Give it more steps",))
    return Verdict(False, "it completed without seeing the notice: it did not poll any more", (_POLL,))


def _otherwise(seen: Seen, took: float, written: bool) -> Verdict:
    """Judge a run that ended by itself after the notice, with another status than 0 or 85."""
    assert seen.status is not None
    end = describe(seen.status)
    if seen.status in tables.DIED_OF_A_NOTICE:
        # Whatever it was writing may be half of it.
        cure = "Let it act on SIGUSR1: two lines of ours in a Python program, a handler in any other"
        return Verdict(False, f"nothing handles the notice: it {end}", (cure,))
    if written:
        return Verdict(True, "", (f"It {end}, but what it wrote after the notice is there",), lead_for(took))
    if seen.status in _INTERRUPTED:
        cure = "Save in `except KeyboardInterrupt:` or `finally:`, or poll with two lines of ours"
        unseen = "the notice came as Ctrl-C does (KeyboardInterrupt) and ended it, and the drill did not see it save"
        return Verdict(False, unseen, (cure, f"If it does save: {_LOOK}"))
    if seen.saved is not None:
        return Verdict(False, f"it called finish(), but then {end}", (f"If that is as it should be: {_LOOK}",))
    return Verdict(False, f"it {end}, {took:.1f} s after the notice", (f"If it saves and ends so: {_LOOK}",))


def _caveats(seen: Seen, lead: float, evidence: Evidence | None) -> tuple[str, ...]:
    caveats = []
    if evidence is None and not seen.cooperative and seen.status == 0:
        caveats.append(f"It ended with 0, but the drill could not see whether it saved: {_LOOK}")
    if seen.first_poll is not None and seen.saved is None:
        caveats.append("It did not call finish(), so that only its end tells how long it takes")
    if lead_for(seen.took).seconds > lead:
        caveats.append(f"{lead:g} s may be too few on a slower day")
    return tuple(caveats)
