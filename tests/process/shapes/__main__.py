"""Writes docs/shapes.md, of the table: python -m tests.process.shapes"""

from __future__ import annotations

from tests.process.shapes import page

if __name__ == "__main__":
    page.FILE.write_text(page.text())
