"""What the pages use to show the pictures that their commands drew, and the page of a map."""

from __future__ import annotations

import base64
import shutil
import signal
import subprocess
import sys
from pathlib import Path


def picture(path: str) -> str:
    """A PNG file as an element of the page."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="what the command above drew" src="data:image/png;base64,{data}">'


def page(map_file: str, scan: str) -> str:
    """The page of a map with a point picked, as an element; a sentence where there is no Chromium to draw it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        return "<p>(No picture of the page: there was no Chromium when this was built.)</p>"
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "braggscope", "view", map_file, "--scan", scan, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if word.startswith("http"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            shown = browser.new_page(viewport={"width": 1400, "height": 1000})
            shown.goto(address)
            shown.wait_for_selector("#map-a .bk-Figure")
            box = shown.locator("#map-a").bounding_box()
            assert box is not None
            shown.mouse.click(box["x"] + 0.45 * box["width"], box["y"] + 0.45 * box["height"])
            shown.wait_for_selector("#residual .bk-Figure")
            shown.wait_for_timeout(1000)
            shown.screenshot(path="page.png")
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    return picture("page.png")
