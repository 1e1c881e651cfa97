"""Headless Chromium for tests of pages."""

from __future__ import annotations

import html
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

FRAME = """<!doctype html><title>loading</title>
<iframe id="page" style="border: 0; width: {width}px; height: 4000px" srcdoc="{source}"></iframe>
<script>
  const frame = document.getElementById("page");
  frame.onload = () => {{
    const page = frame.contentDocument;
    const broken = [...page.images].filter(image => !image.naturalWidth).length;
    const around = [...page.querySelectorAll("table")].map(table => table.parentElement);
    const fixed = around.filter(box => getComputedStyle(box).overflowX !== "auto").length;
    const scrolling = around.filter(box => box.scrollWidth > box.clientWidth).length;
    document.title = [page.documentElement.scrollWidth, broken, page.images.length,
                      around.length, fixed, scrolling].join(" ");
  }};
</script>"""


@dataclass(frozen=True)
class Rendered:
    """A page as the browser lays it out.

    `tables_scrolling` are wider than the box around them, which then scrolls.
    """

    content_width: int
    broken_images: int
    images: int
    tables: int
    tables_that_do_not_scroll: int
    tables_scrolling: int
    console: list[str]


def render(page: Path, width: int, folder: Path) -> Rendered:
    """Opens the page in a frame `width` pixels wide; skips the test where there is no Chromium."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        pytest.skip("needs Chromium: install it, or name it in CHROMIUM")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, source=html.escape(page.read_text())))
    result = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", f"--user-data-dir={folder / 'profile'}"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = result.stdout.partition("<title>")[2].partition("</title>")[0]
    content_width, broken, images, tables, fixed, scrolling = map(int, title.split())
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Rendered(content_width, broken, images, tables, fixed, scrolling, console)
