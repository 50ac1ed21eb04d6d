"""The report as a page: what is in it, and what must never be. How it looks is tests/process/test_report.py's."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.journals import read
from kempnerforge.commands.timeline import answer, chart, page, story, text, ticks, wording
from kempnerforge.commands.timeline.story import Story
from tests.unit.journal_lines import START, Eventful, Writer, eventful, many
from tests.unit.test_journals import LINES

NOW = START + 100_000
VOID = {"meta", "link"}
TAGS = """
    html head title style body main nav article header section footer h1 h2 p pre span bdi a dl div dt dd ul ol li
    figure
    table thead tbody tr th td details summary
    svg g rect line path circle text desc defs pattern
"""


@pytest.fixture(autouse=True, scope="module")
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


class Reader(HTMLParser):
    """Reads a page, and fails where it is not what a browser would make of it without guessing."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [one for one in found if not kind or one.get("class") == kind]

    def said(self, *tags: str) -> list[str]:
        return [data for tag, data in self.texts if tag in tags]


def told(job: Writer, folder: Path, slurm_state: str | None = None) -> Story:
    found = story.tell(read(job.write(folder)), NOW, slurm_state)
    assert found is not None
    return found


def rendered(*stories: Story) -> Reader:
    return Reader(page.render(stories, {}, NOW))


# --- what must never be --------------------------------------------------------------------------


def check_safe(content: str) -> Reader:
    reader = Reader(content)
    assert {tag for tag, _ in reader.tags} <= {*TAGS.split(), *VOID}
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") or name in ("src", "srcdoc", "action") for name in attributes)
        href = attributes.get("href")
        assert href is None or href == "data:," or (tag == "a" and re.fullmatch(r"#job-\d+", href))
    ids = [attributes["id"] for _tag, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _tag, attributes in reader.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
    (css,) = reader.said("style")
    assert set(re.findall(r"url\([^)]*\)", css)) == {
        f'url("#{name}")' for name in ids if str(name).startswith("hatch-")
    }
    assert "@import" not in css
    return reader


RUDE = (
    """</title></style></script><script>alert(1)</script><img src=x onerror='alert("2")'>&lt;b&amp;'" \x00\x1b\u202e"""
)


def test_whatever_a_job_calls_itself_is_text(tmp_path: Path) -> None:
    job = eventful(name=RUDE)
    words = ("n1", "SIGUSR1", "time_limit", "checkpointed", "0.1.0", "batch", "big model.yaml")
    for word in words:
        job.lines = [line.replace(json.dumps(word), json.dumps(RUDE + word)) for line in job.lines]
    path = job.write(tmp_path, cluster="a<b")
    found = story.tell(read(path), NOW, RUDE)
    assert found is not None
    content = page.render([found], {0: [found]}, NOW)
    reader = check_safe(content)
    assert RUDE[:-3] + r"\x00\x1b\u202e" in reader.said("bdi")
    assert content.isascii() or set(re.findall(r"[^ -~\n]", content)) <= set("·…")


@given(st.lists(LINES, max_size=12), st.sampled_from([None, "RUNNING", "PENDING", "FAILED"]))
def test_no_lines_make_it_fail(tmp_path_factory: pytest.TempPathFactory, lines: list[Any], state: str | None) -> None:
    path = tmp_path_factory.getbasetemp() / "slurm-1.jsonl"
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    found = story.tell(read(path), NOW, state)
    if found is None:
        return
    assert all(
        (row.ran or 0) >= 0 and (row.waited or 0) >= 0 and row.until >= row.attempt.started for row in found.rows
    )
    check_safe(page.render([found], {0: [found]}, NOW))
    json.dumps(answer.answer([found], {0: [found]}), allow_nan=False)
    shown = [*text.job(found, 80, lambda content, _style: content, everything=True), *text.notes(found)]
    shown += [*text.jobs([found], 80, lambda content, _style: content), wording.standing(found)]
    assert all(line.isprintable() for line in shown)


def test_nothing_can_be_loaded(tmp_path: Path) -> None:
    (policy,) = [tag for tag in rendered(told(eventful(), tmp_path)).all("meta") if tag.get("http-equiv")]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


# --- what is in it -------------------------------------------------------------------------------


def test_it_says_what_the_terminal_says(tmp_path: Path) -> None:
    found = told(eventful(), tmp_path)
    reader = check_safe(page.render([found], {}, NOW))
    assert reader.said("title")[0] == "kforge report · pretrain (4242)"
    assert reader.said("bdi") == ["pretrain"]
    assert reader.said("pre") == ["python train.py --config 'big model.yaml'"]
    said = set(reader.said("td", "span"))
    for row in found.rows:
        assert wording.why(row) in said
        assert wording.exact_moment(row.attempt.started) in said
    figures = dict(zip(reader.said("dt"), reader.said("dd")[::2], strict=True))
    assert figures == {
        "Attempts": "6",
        "Time trained": "3h 09m",
        "Time lost": "17m 08s",
        "Longest shutdown": "31.1 s",
        "Least slack": "4.9 s",
        "Last attempt": "cancelled",
    }


def percent(attributes: dict[str, str | None], name: str) -> float:
    return float((attributes[name] or "").rstrip("%"))


def test_the_bars_are_where_the_times_are(tmp_path: Path) -> None:
    at = Eventful()
    reader = rendered(told(eventful(), tmp_path))
    spans = [
        (percent(bar, "x"), percent(bar, "width")) for bar in reader.all("rect", "train") if "%" in (bar["x"] or "")
    ]
    expected = [(0, 3478), (at.second, 5321), (at.third, 9463), (at.fifth, at.fifth + 500.8), (at.sixth, 16645)]
    for (x, width), (start, end) in zip(spans, expected, strict=True):
        assert x == pytest.approx(start / at.end * 100, abs=0.001)
        assert width == pytest.approx((end - start) / at.end * 100, abs=0.002)
    (lost,) = reader.all("rect", "train faint")
    assert percent(lost, "width") == pytest.approx(9 / at.end * 100, abs=0.002)
    # Those of the legend are not in percent.
    waits = [percent(bar, "width") for bar in reader.all("rect", "wait") if "%" in (bar["x"] or "")]
    assert sum(waits) == pytest.approx(1028.1 / at.end * 100, abs=0.05)


def test_one_page_of_several_jobs(tmp_path: Path) -> None:
    stories = [told(eventful(str(number)), tmp_path) for number in (1, 2, 3)]
    reader = check_safe(page.render(stories, {1: [stories[0]]}, NOW))
    assert [link["href"] for link in reader.all("a")] == ["#job-0", "#job-1", "#job-2"]
    assert reader.said("a") == ["1", "2", "3"]
    assert reader.said("h2") == ["Timeline", "Shutdowns"] * 2 + ["Tasks"] + ["Timeline", "Shutdowns"]


def test_a_page_of_no_jobs() -> None:
    assert check_safe(page.render([], {}, NOW)).said("h1") == ["No journals"]


def test_ten_thousand_attempts_make_a_page_that_can_be_used(tmp_path: Path) -> None:
    content = page.render([told(many(10_000), tmp_path)], {}, NOW)
    assert len(content) < 6_000_000
    reader = check_safe(content)
    drawn = [tag for tag in reader.tags if tag[0] in ("rect", "path", "line", "circle", "text")]
    assert len(drawn) < 1500
    # The strip shows the whole run, and the bars below it the last attempts.
    assert {"2027", "2028"} <= set(reader.said("text"))
    assert {f"{number}" for number in range(9961, 10_001)} <= set(reader.said("li"))
    # Every attempt is there, but folded away.
    assert len(reader.all("details")) == 2 * 21
    rows = [int(number) for number in reader.said("th") if number.isdecimal()]
    assert set(rows) == set(range(1, 10_001))
    assert [line for line in reader.said("p") if "left out" in line] == []


def test_more_than_a_page_can_hold_is_said(tmp_path: Path) -> None:
    content = page.render([told(many(12_000), tmp_path)], {}, NOW)
    assert content.count("2,000 are left out here: kforge report --json has all of them.") == 2


def test_a_command_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    job = Writer()
    job.start(0, command=["x" * 1_000_000])
    (command,) = rendered(told(job, tmp_path)).said("pre")
    assert len(command) < 2100


def test_the_overview_shows_how_much_of_the_time_it_trained(tmp_path: Path) -> None:
    job = Writer()
    for number in range(100):
        job.start(number * 1000)
        # In its second half it waits half of the time.
        job.end(number * 1000 + (1000 if number < 50 else 500), "failed" if number == 10 else "completed", None, number)
    drawn = chart.overview(told(job, tmp_path).rows, "Share", "x")
    (shares,) = re.findall(r'class="train" d="M0 1(\S*)V1Z"', drawn)
    heights = [1 - float(height) for height in re.findall(r"V([\d.]+)h1", shares)]
    assert len(heights) == 400
    assert heights[:190] == [1.0] * 190
    assert sum(heights[210:]) / 190 == pytest.approx(0.5, abs=0.02)
    assert "It ran 75% of the time" in drawn
    assert drawn.count('class="mark small bad"') == 1


# --- the axes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "first", "labels"),
    [
        (3, "09:46:40", 4),
        (60, "09:46:40", 7),
        (600, "09:48", 5),
        (16648, "10:00", 5),
        (86400, "12:00", 8),
        (7 * 86400, "26 Nov", 7),
        (40 * 86400, "30 Nov", 6),
        (300 * 86400, "Jan", 5),
        (5 * 365 * 86400, "2027", 5),
        (80 * 365 * 86400, "2040", 4),
        (7000 * 365 * 86400, "3000", 7),
    ],
)
def test_the_ticks_of_a_time_axis(seconds: float, first: str, labels: int) -> None:
    found = ticks.of_time(START, START + seconds, 8)
    assert (found[0].label, len(found)) == (first, labels)
    assert all(START <= tick.at <= START + seconds for tick in found)
    assert found == sorted(found)


def test_the_date_is_told_where_it_changes() -> None:
    found = ticks.of_time(START, START + 86400, 8)
    assert [(tick.label, tick.below) for tick in found] == [
        ("12:00", "25 Nov"),
        ("15:00", ""),
        ("18:00", ""),
        ("21:00", ""),
        ("00:00", "26 Nov"),
        ("03:00", ""),
        ("06:00", ""),
        ("09:00", ""),
    ]


def test_ticks_are_at_local_midnight_also_when_summer_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        start = datetime(2026, 10, 23, 12).timestamp()
        found = ticks.of_time(start, start + 4 * 86400, 4)
        assert [datetime.fromtimestamp(tick.at) for tick in found] == [datetime(2026, 10, day) for day in range(24, 28)]
        assert found[2].at - found[1].at == 25 * 3600
        hours = ticks.of_time(start, start + 2 * 86400, 24)
        assert len(hours) > 10 and {datetime.fromtimestamp(tick.at).minute for tick in hours} == {0}
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.floats(0, 2.5e11), st.floats(1e-3, 2.5e11))
def test_there_are_never_too_many_ticks(start: float, length: float) -> None:
    end = min(start + length, 253_402_300_799.0)
    assert len(ticks.of_time(start, max(end, start + 1e-3), 8)) <= 12


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        (50, ["0", "10", "20", "30", "40", "50"]),
        (2.5, ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]),
        (0.1, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]),
        (118, ["0", "20", "40", "60", "80", "100"]),
        (600, ["0", "100", "200", "300", "400", "500", "600"]),
    ],
)
def test_the_ticks_of_an_axis_of_seconds(end: float, labels: list[str]) -> None:
    assert [tick.label for tick in ticks.of_seconds(end, 8)] == labels
