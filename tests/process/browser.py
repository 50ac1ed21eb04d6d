"""A real browser, headless: what a page looks like, and where on it things are."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Debian's name for it, and others.
NAMES = ("chromium", "chromium-browser", "google-chrome")
#: More than loading any page here takes on a loaded machine (s).
PATIENCE = 90.0
#: What the script in a copy of a page may take, in the browser's own time (ms).
_SETTLED = 5000
#: How far two shades of the same colour may be apart.
_NEAR = 3
_POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")

Colour = tuple[int, int, int]


def missing() -> str:
    """Return why there is no browser here, or nothing."""
    if any(map(shutil.which, NAMES)):
        return ""
    return "no Chromium on this machine (hint: apt-get install chromium; bin/test --slurm installs it)"


class Browser:
    """Starts a browser anew for each question.

    Args:
        folder: for its files.
        dark: the user prefers dark pages.
    """

    def __init__(self, folder: Path, *, dark: bool = False) -> None:
        self._folder = folder
        self._dark = dark

    def picture(self, page: Path, width: int, height: int) -> Picture:
        """Return what is seen of a page in a window of so many pixels."""
        with tempfile.NamedTemporaryFile(suffix=".png", dir=self._folder) as file:
            self._run(page, f"--screenshot={file.name}", f"--window-size={width},{height}")
            picture = Picture(Path(file.name).read_bytes())
        assert (picture.width, picture.height) == (width, height)
        return picture

    def measure(self, page: Path, width: int, script: str, *, height: int = 3000) -> Any:
        """Return the value of a JavaScript expression, in a copy of the page.

        It is shown in a frame: a window cannot be as narrow as a telephone.
        """
        content = _POLICY.sub("", page.read_text(encoding="utf-8"))
        asked = f"<script>onload = () => parent.postMessage(JSON.stringify({script}), '*')</script></body>"
        copy = self._folder / "measured.html"
        copy.write_text(content.replace("</body>", asked), encoding="utf-8")
        frame = self._folder / "frame.html"
        frame.write_text(
            "<!DOCTYPE html><body><script>onmessage = event => {"
            " const answer = document.createElement('pre'); answer.id = 'answer'; answer.textContent = event.data;"
            " document.body.append(answer) }</script>"
            f'<iframe src="measured.html" width="{width}" height="{height}" style="border: 0"></iframe></body>'
        )
        answer = re.search(r'<pre id="answer">(.*?)</pre>', self.dom(frame), re.DOTALL)
        assert answer is not None, "no answer from the page"
        return json.loads(html.unescape(answer[1]))

    def dom(self, page: Path) -> str:
        """Return what the browser has made of a page."""
        return self._run(page, f"--virtual-time-budget={_SETTLED}", "--dump-dom")

    def _run(self, page: Path, *options: str) -> str:
        program = next(filter(None, map(shutil.which, NAMES)))
        # Not below `folder`: the address of a socket is limited to 107 bytes (unix(7)).
        with tempfile.TemporaryDirectory(prefix="k") as own:
            command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            command += [f"--user-data-dir={own}/data", "--force-device-scale-factor=1", *options]
            command += ["--blink-settings=preferredColorScheme=0"] if self._dark else []
            # It must find nothing of the user's, and leave nothing outside.
            environment = {"HOME": own, "TMPDIR": own, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
            process = subprocess.Popen(
                [*command, page.as_uri()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            try:
                output, errors = process.communicate(timeout=PATIENCE)
            finally:
                _end(process, own)
            assert process.returncode == 0, errors.decode(errors="replace")
            return output.decode()


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    """Wait until nothing of the browser is left; kill what is left in the end."""
    end = time.monotonic() + 10
    while left := list(_processes_of(folder)):
        if time.monotonic() > end or process.returncode is None:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()


def _processes_of(folder: str) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        try:
            environment = Path("/proc", entry, "environ").read_bytes() if entry.isdigit() else b""
        except OSError:
            continue
        if f"TMPDIR={folder}\0".encode() in environment + b"\0":
            yield int(entry)


class Picture:
    """The pixels of a PNG with eight bits a colour, not interlaced (PNG specification, third edition)."""

    def __init__(self, content: bytes) -> None:
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        chunks: dict[bytes, bytes] = {}
        at = 8
        while at < len(content):
            length, kind = struct.unpack_from(">I4s", content, at)
            chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + length]
            at += length + 12
        self.width, self.height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        assert (depth, interlaced) == (8, 0) and colours in (2, 6)
        self._step = 3 if colours == 2 else 4
        self._rows = _unfilter(zlib.decompress(chunks[b"IDAT"]), self.width * self._step, self._step)

    def at(self, x: float, y: float) -> Colour:
        """Return the colour of the pixel in which a place is."""
        row, start = self._rows[int(y)], int(x) * self._step
        return row[start], row[start + 1], row[start + 2]

    def has(self, colour: Colour, x: float, y: float) -> bool:
        """Return whether a place has a colour, as far as the browser is exact in it."""
        return all(abs(one - other) <= _NEAR for one, other in zip(self.at(x, y), colour, strict=True))

    def runs(self, colour: Colour, y: float, least: int = 2) -> list[tuple[int, int]]:
        """Return where a row of pixels has a colour: the first pixel and the one behind the last, left to right.

        Args:
            least: shorter ones are left out (px).
        """
        found: list[tuple[int, int]] = []
        start: int | None = None
        for x in range(self.width + 1):
            same = x < self.width and self.has(colour, x, y)
            if same and start is None:
                start = x
            elif not same and start is not None:
                if x - start >= least:
                    found.append((start, x))
                start = None
        return found


def _unfilter(data: bytes, length: int, step: int) -> list[bytearray]:
    rows: list[bytearray] = []
    above = bytearray(length)
    for begin in range(0, len(data), length + 1):
        kind, row = data[begin], bytearray(data[begin + 1 : begin + 1 + length])
        if kind == 1:
            for x in range(step, length):
                row[x] = row[x] + row[x - step] & 255
        elif kind == 2:
            row = bytearray([byte + up & 255 for byte, up in zip(row, above, strict=True)])
        elif kind == 3:
            for x in range(length):
                row[x] = row[x] + (((row[x - step] if x >= step else 0) + above[x]) >> 1) & 255
        elif kind == 4:
            _undo_paeth(row, above, step)
        rows.append(row)
        above = row
    return rows


def _undo_paeth(row: bytearray, above: bytearray, step: int) -> None:
    for x in range(len(row)):
        left, corner = (row[x - step], above[x - step]) if x >= step else (0, 0)
        up = above[x]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        nearest = left if to_left <= to_up and to_left <= to_corner else up if to_up <= to_corner else corner
        row[x] = row[x] + nearest & 255
