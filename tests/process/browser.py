"""A real browser, headless: what a page looks like, and where on it things are."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tests.process.launch import reap_orphans

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
    reap_orphans()


def _processes_of(folder: str) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        try:
            environment = Path("/proc", entry, "environ").read_bytes() if entry.isdigit() else b""
        except OSError:
            continue
        if f"TMPDIR={folder}\0".encode() in environment + b"\0":
            yield int(entry)


class Picture:
    """The pixels of a file that the browser has written."""

    def __init__(self, content: bytes) -> None:
        with Image.open(io.BytesIO(content)) as image:
            self._image = image.convert("RGB")
        self.width, self.height = self._image.size

    def at(self, x: float, y: float) -> Colour:
        """Return the colour of the pixel in which a place is."""
        colour = self._image.getpixel((int(x), int(y)))
        assert isinstance(colour, tuple)
        red, green, blue = map(int, colour)
        return red, green, blue

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
