"""`kforge report` as a user runs it, and its page in a real browser."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kempnerforge.commands.timeline import chart
from tests.process import browser
from tests.process.browser import Browser, Colour, Picture
from tests.process.launch import ROOT, Launch, program
from tests.unit.journal_lines import Eventful, Writer, eventful, many
from tests.unit.test_report_text import EVENTFUL

KFORGE = (sys.executable, "-m", "kempnerforge.commands")


class Kforge:
    """Runs kforge where there is no Slurm, in a folder with journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journals = folder / "state/kforge"
        self.journals.mkdir(parents=True)
        self.environment = {
            "PATH": "/no/such/folder",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }

    def __call__(
        self, *arguments: str, status: int = 0, variables: Mapping[str, str] | None = None, shell: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command: list[str] = [*KFORGE, "report", *arguments]
        if shell:
            command = ["/bin/sh", "-c", shell, "sh", *command]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def kforge(tmp_path: Path) -> Kforge:
    return Kforge(tmp_path)


# --- in the terminal -----------------------------------------------------------------------------


def test_a_job(kforge: Kforge) -> None:
    eventful().write(kforge.journals)
    done = kforge("4242")
    assert (done.stdout, done.stderr) == (f"{EVENTFUL}\n", "")


def test_the_latest_jobs(kforge: Kforge) -> None:
    for age, job in enumerate(("3", "1", "2")):
        path = many(1, job).write(kforge.journals)
        os.utime(path, (1e9 - age, 1e9 - age))
    (kforge.journals / "slurm-4.jsonl").write_text("rubbish\n")
    (kforge.journals / "slurm-5.jsonl").mkdir()
    done = kforge()
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["job", "3", "1", "2"]
    hint = "(hint: give a job's number, or a journal's file)"
    assert sorted(done.stderr.splitlines()) == [
        f"left out: {kforge.journals}/slurm-4.jsonl tells of no attempt",
        f"left out: cannot read {kforge.journals}/slurm-5.jsonl: it is not a regular file {hint}",
    ]
    assert len(kforge("--latest", "4").stdout.splitlines()) == 3


def test_what_kforge_run_writes(kforge: Kforge, launch: Launch) -> None:
    launched = launch(*program("cooperate"), options=("--journal", str(kforge.journals), "--timeout", "20"))
    launched.says("ready")
    launched.send(10)
    launched.ends(85)
    (job,) = json.loads(kforge("--json").stdout)["jobs"]
    assert (job["unreadable_lines"], job["unknown_lines"], job["job"]) == (0, 0, None)
    (attempt,) = job["attempts"]
    assert (attempt["outcome"], attempt["reason"], attempt["place"]) == ("checkpointed", "manual", "outside")
    shutdown = attempt["shutdown"]
    assert 0 <= shutdown["first_poll"] <= shutdown["finish"] <= shutdown["exit"] < 20
    name = Path(job["journal"]).stem
    shown = kforge(name).stdout
    assert shown.startswith(f"{name}  times in UTC\n")
    assert "SIGUSR1 by hand: saved" in shown


def test_the_folder_is_where_it_is_said_to_be(kforge: Kforge) -> None:
    other = kforge.folder / "other"
    other.mkdir()
    path = many(1, "7").write(other)
    for shown in (
        kforge("7", "--journal", "other"),
        kforge("7", variables={"KFORGE_JOURNAL": "other"}),
        kforge(str(path)),
        kforge("other/slurm-7.jsonl"),
    ):
        assert shown.stdout.startswith("job 7  pretrain  cluster slurm")


def test_an_unknown_job(kforge: Kforge) -> None:
    done = kforge("99", status=2)
    assert done.stderr == (
        f"kforge: error: no journal of job 99 in {kforge.journals}"
        " (hint: kforge report shows the jobs that have one; --journal DIR looks elsewhere)\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [(), ("--journal", "none")])
def test_no_journals(kforge: Kforge, arguments: tuple[str, ...]) -> None:
    done = kforge(*arguments)
    assert re.match(r"no journals in \S+\nhint: kforge-run keeps one for each job in Slurm", done.stdout)
    assert json.loads(kforge(*arguments, "--json").stdout) == {"jobs": []}


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "tells of no attempt: it is empty"), (b"\xff\0\n" * 9, "tells of no attempt: it is empty, or no journal")],
)
def test_a_journal_that_tells_nothing(kforge: Kforge, content: bytes, says: str) -> None:
    (kforge.journals / "slurm-7.jsonl").write_bytes(content)
    assert says in kforge("7", status=2).stderr


def test_a_folder_that_is_none(kforge: Kforge) -> None:
    done = kforge("--journal", "/dev/null", status=125)
    assert done.stderr == "kforge: error: cannot read /dev/null: Not a directory\n"


@pytest.mark.parametrize("arguments", [("--latest", "0"), ("1", "2"), ("--html",), ("--nothing",)])
def test_a_command_line_that_cannot_be_right(kforge: Kforge, arguments: tuple[str, ...]) -> None:
    assert kforge(*arguments, status=2).stderr.startswith("kforge: error: ")


def test_an_attempt_without_an_end_where_nobody_can_be_asked(kforge: Kforge) -> None:
    job = Writer()
    job.start(0)
    job.write(kforge.journals)
    assert "now: still running, or killed without a trace" in kforge("4242").stdout


def test_the_tasks_of_a_job(kforge: Kforge) -> None:
    many(2).write(kforge.journals)
    for task in ("0.10", "0.9"):
        (kforge.journals / f"slurm-4242.{task}.jsonl").write_bytes(many(2).text)
    assert kforge("4242").stdout.endswith("2 tasks of its steps wrote journals, too (--tasks shows them)\n")
    shown = kforge("4242", "--tasks").stdout.splitlines()
    assert [line.split()[0] for line in shown[-2:]] == ["0.9", "0.10"]
    (job,) = json.loads(kforge("4242", "--tasks", "--json").stdout)["jobs"]
    assert [(task["task"], len(task["attempts"])) for task in job["tasks"]] == [("0.9", 2), ("0.10", 2)]
    assert kforge("4242.0.10").stdout.startswith("job 4242.0.10  pretrain")
    # Without a kforge-run around the steps there is none of the job's own.
    (kforge.journals / "slurm-4242.jsonl").unlink()
    assert kforge("4242").stdout.startswith("job 4242.0.9  pretrain")
    assert "4242.0." in kforge().stdout
    # One that cannot be read does not hide the others.
    (kforge.journals / "slurm-4242.0.11.jsonl").mkdir()
    done = kforge("4242", "--tasks")
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["0.9", "0.10"]
    assert done.stderr.startswith("left out: cannot read ")


def test_a_reader_who_has_seen_enough(kforge: Kforge) -> None:
    many(2000).write(kforge.journals)
    done = kforge("4242", "--json", shell='"$@" | /usr/bin/head -n 1')
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_ten_thousand_attempts(kforge: Kforge) -> None:
    many(10_000).write(kforge.journals)
    assert len(kforge("4242").stdout.splitlines()) < 80
    assert len(kforge("4242", "--all").stdout.splitlines()) > 20_000
    (job,) = json.loads(kforge("4242", "--json").stdout)["jobs"]
    assert len(job["attempts"]) == 10_000


@pytest.mark.parametrize(("typed", "offered"), [("", ["12", "123", "7.0.1"]), ("12", ["12", "123"]), ("x", [])])
def test_the_shell_offers_the_jobs_there_are(kforge: Kforge, typed: str, offered: list[str]) -> None:
    for name in ("slurm-12", "slurm-123", "slurm-7.0.1"):
        (kforge.journals / f"{name}.jsonl").touch()
    words = {"_KFORGE_COMPLETE": "bash_complete", "COMP_WORDS": f"kforge report {typed}", "COMP_CWORD": "2"}
    done = subprocess.run(
        KFORGE, env={**kforge.environment, **words}, capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(line.removeprefix("plain,") for line in done.stdout.split()) == offered


def on_a_terminal(kforge: Kforge, columns: int, **variables: str) -> str:
    """Return what a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [*KFORGE, "report", "4242"]
    environment = {**kforge.environment, "TERM": "xterm", **variables}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        received = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while select.select([ours], [], [], 60)[0]:
                received += os.read(ours, 1 << 16)
        os.close(ours)
    assert process.returncode == 0
    return received.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_all_its_width(kforge: Kforge) -> None:
    eventful().write(kforge.journals)
    coloured = on_a_terminal(kforge, 80)
    assert "\x1b[31mfailed, exited with 1, retried\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == f"{EVENTFUL}\n"
    assert on_a_terminal(kforge, 80, NO_COLOR="1") == f"{EVENTFUL}\n"
    assert "time limit: killed, it did not end in time, requeued\n" in on_a_terminal(kforge, 120, NO_COLOR="1")


# --- writing the page ----------------------------------------------------------------------------


def test_a_page_never_replaces_a_file_unasked(kforge: Kforge) -> None:
    eventful().write(kforge.journals)
    done = kforge("4242", "--html", "report.html")
    page = kforge.folder / "report.html"
    assert (done.stdout, done.stderr) == ("", f"written: {page}\n")
    page.write_text("mine")
    assert "is there already (hint: choose another name, or replace it with --force)" in kforge(
        "4242", "--html", "report.html", status=2
    ).stderr  # fmt: skip
    assert page.read_text() == "mine"
    kforge("4242", "--html", "report.html", "--force")
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_nothing_is_left_of_a_page_that_cannot_be_written(kforge: Kforge) -> None:
    many(100).write(kforge.journals)
    folder = kforge.folder / "pages"
    folder.mkdir()
    # A file of more than eight blocks is refused, as on a full disk.
    done = kforge("4242", "--html", "pages/report.html", status=125, shell='ulimit -f 8; exec "$@"')
    assert re.fullmatch(r"kforge: error: cannot write \S+/report.html: File too large .*\n", done.stderr)
    assert list(folder.iterdir()) == []
    done = kforge("4242", "--html", "/proc/report.html", status=125)
    assert done.stderr.startswith("kforge: error: cannot write /proc/report.html: ")


# --- the page in a browser -----------------------------------------------------------------------

needs_a_browser = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "there is one")


class Theme(NamedTuple):
    """Some colours of page.css."""

    paper: Colour
    train: Colour
    save: Colour
    bad: Colour


LIGHT = Theme((0xFF, 0xFF, 0xFF), (0x3B, 0x73, 0xB9), (0x14, 0x86, 0x6D), (0xC2, 0x2F, 0x36))
DARK = Theme((0x10, 0x15, 0x1D), (0x6A, 0x9F, 0xE6), (0x3F, 0xBF, 0x9E), (0xF2, 0x77, 0x7D))

#: Where the charts are, and the lines of their axes.
CHARTS = """[...document.querySelectorAll("svg.chart")].map(chart => ({
    left: chart.getBoundingClientRect().left,
    top: chart.getBoundingClientRect().top,
    width: chart.getBoundingClientRect().width,
    grid: [...chart.querySelectorAll("line.grid")].map(line => line.getBoundingClientRect().left),
    labels: [...chart.querySelectorAll("text:not(.below)")].map(text => text.textContent),
}))"""

#: What is wrong with the page: what is outside of the window, what lies on what, what is cut off.
FAULTS = """(() => {
    document.querySelectorAll("details").forEach(details => details.open = true);
    const faults = [];
    if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is wider than the window");
    for (const element of document.body.querySelectorAll("*")) {
        const box = element.getBoundingClientRect();
        const inside = element.closest(".scroll") || element.closest(".patterns");
        if (!inside && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5))
            faults.push(`${element.tagName} ${element.className.baseVal ?? element.className} is outside`);
    }
    for (const chart of document.querySelectorAll("svg.chart")) {
        const texts = [...chart.querySelectorAll("text")].map(text => text.getBoundingClientRect());
        for (const [index, one] of texts.entries())
            for (const other of texts.slice(index + 1))
                if (one.width && other.width && one.left < other.right && other.left < one.right
                        && one.top + 2 < other.bottom && other.top + 2 < one.bottom)
                    faults.push("labels lie on each other");
    }
    for (const list of document.querySelectorAll(".plot ol")) {
        const chart = list.parentElement.querySelector("svg.chart").getBoundingClientRect();
        const last = list.lastElementChild.getBoundingClientRect();
        if (last.height && Math.abs(last.bottom - chart.bottom) > 1) faults.push("a list is not beside its rows");
        if (last.height && list.className == "words" && last.width < 150) faults.push("no room for words");
    }
    for (const figure of document.querySelectorAll(".figure, h1, pre"))
        if (figure.scrollWidth > figure.clientWidth + 1) faults.push(`${figure.textContent} is cut off`);
    return faults;
})()"""


def page_of(kforge: Kforge, job: Writer) -> Path:
    job.write(kforge.journals)
    kforge(job.job, "--html", f"{job.job}.html")
    return kforge.folder / f"{job.job}.html"


def row(box: dict[str, Any], number: int) -> float:
    """Return the middle of a chart's row (px)."""
    return float(box["top"]) + chart.HEAD + chart.PITCH * (number + 0.5)


@needs_a_browser
@pytest.mark.parametrize(
    ("theme", "width"), [(LIGHT, 1280), (DARK, 1280), (LIGHT, 600)], ids=["light", "dark", "narrow"]
)
def test_the_page_shows_what_the_journal_says(kforge: Kforge, theme: Theme, width: int) -> None:
    page = page_of(kforge, eventful())
    chromium = Browser(kforge.folder, dark=theme is DARK)
    attempts, shutdowns = chromium.measure(page, width, CHARTS)
    picture = chromium.picture(page, width, int(shutdowns["top"]) + 200)
    assert picture.has(theme.paper, 2, 2)
    check_attempts(picture, attempts, theme)
    check_shutdowns(picture, shutdowns, theme)


def check_attempts(picture: Picture, box: dict[str, Any], theme: Theme) -> None:
    at = Eventful()
    trained = [(0, 3478), (at.second, 5321), (at.third, 9463), None, (at.fifth, at.fifth + 500.8), (at.sixth, 16645)]
    for number, span in enumerate(trained):
        runs = picture.runs(theme.train, row(box, number) - 6)
        if span is None:
            assert runs == []
            continue
        expected = [box["left"] + box["width"] * moment / at.end for moment in span]
        begin, end = runs[0][0], runs[-1][1]
        # The mark hides a little of the end.
        assert abs(begin - expected[0]) <= 3 and -6 <= end - expected[1] <= 2, f"attempt {number + 1}"
        assert end - begin - sum(stop - start for start, stop in runs) <= 8
    assert picture.has(theme.bad, box["left"] + box["width"] * 9488.1 / at.end, row(box, 2))


def check_shutdowns(picture: Picture, box: dict[str, Any], theme: Theme) -> None:
    seconds = [float(label.split()[0]) for label in box["labels"]]
    scale = (box["grid"][-1] - box["grid"][0]) / (seconds[-1] - seconds[0])
    zero = box["grid"][0] - seconds[0] * scale
    for number, span in enumerate([(0.2, 2.1), (4.8, 31.0), None, (0.1, 3.0)]):
        runs = picture.runs(theme.save, row(box, number), least=5)
        if span is None:
            assert runs == []
            continue
        (shown,) = runs
        assert shown == pytest.approx([zero + scale * moment for moment in span], abs=2.5), f"shutdown {number + 1}"
    for number, deadline in ((1, 40.0), (2, 30.0), (3, 30.0)):
        line = picture.runs(theme.bad, row(box, number) + 8, least=1)
        assert line, f"no deadline of shutdown {number + 1}"
        assert line[-1] == pytest.approx([zero + scale * deadline] * 2, abs=2), f"the deadline of shutdown {number + 1}"
    # The first one's is out of sight.
    assert picture.runs(theme.bad, row(box, 0) + 8, least=1) == []
    for stage in (14.9, 24.6):
        assert picture.has(theme.bad, zero + scale * stage, row(box, 2) - 9)


def long_names() -> Writer:
    job = eventful("99", "a" * 200 + " 模型" * 50)
    job.lines = [line.replace("big model.yaml", "x" * 300) for line in job.lines]
    return job


def just_begun() -> Writer:
    job = Writer("77")
    job.start(0)
    return job


@needs_a_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(
    "job",
    [eventful(), just_begun(), many(1), many(30), many(8, hours=24), many(200), long_names()],
    ids=["eventful", "just-begun", "1", "30", "days", "200", "long-names"],
)
def test_nothing_is_outside_of_the_window_or_on_something_else(kforge: Kforge, job: Writer, width: int) -> None:
    assert Browser(kforge.folder).measure(page_of(kforge, job), width, FAULTS, height=900) == []


@needs_a_browser
def test_ten_thousand_attempts_can_be_looked_at(kforge: Kforge) -> None:
    page = page_of(kforge, many(10_000))
    charts = Browser(kforge.folder).measure(page, 1280, CHARTS)
    assert len(charts) == 3
    picture = Browser(kforge.folder).picture(page, 1280, int(charts[0]["top"]) + 130)
    middle = charts[0]["top"] + chart.HEAD + chart.STRIP - 10
    (shown,) = picture.runs(LIGHT.train, middle, least=20)
    assert shown == pytest.approx((charts[0]["left"], charts[0]["left"] + charts[0]["width"]), abs=3)


@needs_a_browser
def test_no_script_runs_in_the_page(kforge: Kforge) -> None:
    page = page_of(kforge, eventful())
    script = "<script>document.title = 'it ran'</script>"
    content = page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>")
    page.write_text(content, encoding="utf-8")
    assert "<title>kforge report" in Browser(kforge.folder).dom(page)


@needs_a_browser
def test_a_browser_leaves_nothing_behind(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><title>a page</title>")
    assert "a page" in Browser(tmp_path).dom(page)
    assert list(tmp_path.iterdir()) == [page]
