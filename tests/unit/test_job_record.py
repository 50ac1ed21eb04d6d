"""A job's record is read whatever is in it, and never read wrong."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kempnerforge.launcher.asking.job_record import Ambiguous, Unreadable, new_seal, parse, records, time_format
from kempnerforge.launcher.policy.words import Job
from tests.unit.slurm_records import FORMATS, TEXTS, Facts, record

OFFSET = 1_700_000_000.0
SEAL = "@5ea1ed00"
VERSIONS = sorted(FORMATS)

RUNNING = Job("RUNNING", 2, 600.0, None, False, False, True, "12", 0.0)

#: What people's text may look like: like anything that the reading looks for, most of all.
WORDS = st.one_of(
    st.sampled_from(
        [
            *(" ", "\n", "=", "\\", "(", ")", "süß ✓", "\u2028", "domain users", "CORP\\ada", "a=b"),
            *("JobId=12 JobName=z", "\nJobId=12 JobName=", "\nJobId=99 ArrayJobId=99 ArrayTaskId=4 JobName=x"),
            *(" JobState=COMPLETED Restarts=9 ", " Reason=TimeLimit ", "\n   JobState=CANCELLED Reason=None\n"),
            *(" SubmitTime=1700000000 ", " SubmitTime=1700000000@00000000 ", " EndTime=1 PreemptTime=2 SuspendTime=3 "),
            *(" UserId=root(0) GroupId=root(0) ", " Partition=main ", " JobName=y ", " Requeue=0 ", "@", "%s"),
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
TEXT = st.lists(WORDS, max_size=6).map("".join)
FREE_TEXTS = st.fixed_dictionaries({}, optional=dict.fromkeys(TEXTS, TEXT))


class Known(NamedTuple):
    """A record's facts, as they are printed and as they are understood."""

    printed: Facts
    job: Job


@st.composite
def known_jobs(draw: st.DrawFn) -> Known:
    state = draw(st.sampled_from(["RUNNING", "COMPLETING", "PENDING", "SUSPENDED", "EXPEDITING", "REQUEUE_HOLD"]))
    restarts, requeue = draw(st.integers(0, 99)), draw(st.integers(0, 1))
    reason = draw(st.sampled_from(["None", "TimeLimit", "BeginTime", "launch_failed_requeued_held", "(null)"]))
    end, preempted, suspended = (draw(st.none() | st.integers(1, 10_000)) for _ in range(3))
    head, requeue_id = draw(
        st.sampled_from(
            [
                ("JobId=12", "12"),
                ("JobId=12 ArrayJobId=10 ArrayTaskId=3", "10_3"),
                ("JobId=12 ArrayJobId=12 ArrayTaskId=3 ArrayTaskThrottle=1", "12_3"),
                ("JobId=12 ArrayJobId=12 ArrayTaskId=4-9%2", "12"),
                ("JobId=12 HetJobId=11 HetJobOffset=1", "11"),
            ]
        )
    )
    printed = Facts(
        head=head,
        state=state,
        reason=reason,
        restarts=restarts,
        requeue=requeue,
        end="Unknown" if end is None else f"{OFFSET + end:.0f}@",
        preempted=""
        if preempted is None
        else f"PreemptEligibleTime=1700000000@ PreemptTime={OFFSET + preempted:.0f}@ ",
        suspended="None" if suspended is None else f"{OFFSET + suspended:.0f}@",
        accrued=draw(st.sampled_from(["Unknown", "1700000000@"])),
        dependency=draw(st.sampled_from(["(null)", "afterok:7(unfulfilled),singleton(unfulfilled)"])),
    )
    timed_out, was_suspended = reason == "TimeLimit", suspended is not None
    job = Job(state, restarts, end, preempted, timed_out, was_suspended, requeue == 1, requeue_id, 0.0)
    return Known(printed, job)


#: Twelve texts for each record take a loaded machine a while to think of.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(st.sampled_from(VERSIONS), known_jobs(), FREE_TEXTS)
def test_whatever_is_in_it_it_is_read_right(version: str, known: Known, texts: dict[str, str]) -> None:
    assert parse(record(version, known.printed, seal=SEAL, **texts), "12", SEAL, OFFSET) == known.job


@unhurried
@given(st.sampled_from(VERSIONS), known_jobs(), FREE_TEXTS)
def test_an_scontrol_that_drops_the_seal_is_read_right_or_not_at_all(
    version: str, known: Known, texts: dict[str, str]
) -> None:
    answer = record(version, known.printed, seal="", **texts)
    try:
        assert parse(answer, "12", SEAL, OFFSET) == known.job
    except Unreadable:
        assert any("SubmitTime=" in text for text in texts.values())


@unhurried
@given(st.sampled_from(VERSIONS), known_jobs(), FREE_TEXTS, st.permutations(["12", "13", "14"]))
def test_one_of_several_is_read_right_or_asked_for_alone(
    version: str, known: Known, texts: dict[str, str], order: list[str]
) -> None:
    facts = {number: known.printed if number == "12" else Facts(head=f"JobId={number}") for number in order}
    answer = "".join(record(version, facts[number], seal=SEAL, **texts) for number in order)
    try:
        assert parse(answer, "12", SEAL, OFFSET) == known.job
    except Ambiguous:
        assert any("JobId=" in text for text in texts.values())


def test_without_the_seal_no_two_records_are_told_apart() -> None:
    name = "x JobState=COMPLETED Restarts=9 SubmitTime=17 EndTime=1 \nJobId=99 JobName=y"
    with pytest.raises(Ambiguous):
        records(record(name=name), SEAL)


@given(st.text() | WORDS)
def test_rubbish_is_unreadable(answer: str) -> None:
    with pytest.raises(Unreadable):
        parse(answer, "12", SEAL, OFFSET)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "before",
    [
        "Welcome to the cluster!\nJobId=12 is what you asked for\n",
        'scontrol: warning: {"JobId": 12, "JobState": "COMPLETED"}\n{}\n',
        "scontrol: error: _parse_next_key: Parsing error: SlurmctldPort is deprecated JobState=FAILED SubmitTime=1 x\n",
    ],
)
def test_what_scontrol_says_before_its_answer_is_no_part_of_it(version: str, before: str) -> None:
    assert parse(before + record(version, seal=SEAL), "12", SEAL, OFFSET) == RUNNING


def test_without_o_too() -> None:
    lines = re.sub(r" (?=UserId|Priority|JobState|Requeue|RunTime|SubmitTime|AccrueTime|Partition)", "\n   ", record())
    assert parse(lines, "12", SEAL, OFFSET) == RUNNING


def test_local_times_of_a_slurm_that_does_not_know_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        job = parse(record(facts=Facts(end="2023-11-15T07:23:20")), "12", SEAL, OFFSET)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert job.end == 600.0


def test_of_an_array_the_task_that_is_ours() -> None:
    answer = "".join(
        record(facts=Facts(head=head, state=state), seal=SEAL)
        for head, state in [
            ("JobId=12 ArrayJobId=12 ArrayTaskId=3", "COMPLETING"),
            ("JobId=13 ArrayJobId=12 ArrayTaskId=1", "RUNNING"),
            ("JobId=14 ArrayJobId=12 ArrayTaskId=4-9%2", "PENDING"),
        ]
    )
    last, first, rest = (parse(answer, number, SEAL, OFFSET) for number in ("12", "13", "14"))
    assert (last.state, last.requeue_id) == ("COMPLETING", "12_3")
    assert first.requeue_id == "12_1"
    assert rest.requeue_id == "14"


def test_of_a_heterogeneous_job_the_leader_is_requeued() -> None:
    heads = [f"JobId={12 + n} HetJobId=12 HetJobOffset={n}" for n in (0, 1)]
    answer = "".join(record(facts=Facts(head=head), seal=SEAL) for head in heads)
    assert [parse(answer, number, SEAL, OFFSET).requeue_id for number in ("12", "13")] == ["12", "12"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no JobId"),
        ("JobId=12 JobName=x UserId=u(1) JobState=RUNNING", "no time of submission"),
        (record(facts=Facts(head="JobId=13")), "no JobId=12"),
        (record().replace("JobState", "State"), "no JobState"),
        (record().replace("Restarts", "Starts"), "no Restarts"),
        (record().replace("Restarts=2", "Restarts=many"), "many"),
        (record().replace("EndTime=1700000600", "EndTime=tomorrow"), "tomorrow"),
    ],
)
def test_what_cannot_be_read_is_said(answer: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parse(answer, "12", SEAL, OFFSET)


def test_a_seal_fits_and_is_new_each_time() -> None:
    seals = {new_seal() for _ in range(100)}
    assert len(seals) == 100
    # Slurm 22.05 has a buffer of 32 bytes for each time.
    assert all(len(time.strftime(time_format(seal))) < 32 for seal in seals)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_line_end_in_the_name_of_an_array(version: str) -> None:
    facts = [Facts(head=f"JobId={12 + n} ArrayJobId=12 ArrayTaskId={n}") for n in (0, 1)]
    several = "".join(record(version, one, seal=SEAL, name="a\nJobId=5 JobName=x") for one in facts)
    with pytest.raises(Ambiguous):
        records(several, SEAL)
    alone = record(version, facts[0], seal=SEAL, name="a\nJobId=5 JobName=x")
    assert parse(alone, "12", SEAL, OFFSET).requeue_id == "12_0"
