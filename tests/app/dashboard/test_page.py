"""The page in a real browser, headless Chromium: what it shows is what the map and the frames are."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

import braggscope
from braggscope.core.source import open_scan

from .conftest import FRAME, SHAPE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield one
        one.close()


class Looked:
    """A page that was opened, with what it asked for and complained of."""

    def __init__(self, browser, url, width=1400, height=900):
        self.context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        self.page = self.context.new_page()
        self.errors, self.elsewhere = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on(
            "request",
            lambda asked: self.elsewhere.append(asked.url) if not asked.url.startswith((url, "data:", "blob:")) else None,
        )
        self.page.goto(url)

    def until(self, script, seconds=20):
        end = time.monotonic() + seconds
        while not (found := self.page.evaluate(script)):
            assert time.monotonic() < end, (script, self.errors, self.text("#state"))
            time.sleep(0.05)
        return found

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def pick(self, right, down, which="#map-a"):
        """Click at a share of the width and height of a map."""
        box = self.page.locator(which).bounding_box()
        self.page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
        return self.until("window.braggscope.state.position !== null && {at: window.braggscope.state.position}")["at"]


@pytest.fixture
def look(browser):
    """Open a page; at the end it has asked no other host and had no error but those a test takes away."""
    opened = []

    def start(url, **size):
        opened.append(Looked(browser, url, **size))
        opened[-1].until("window.braggscope && document.getElementById('state').textContent !== 'connecting'")
        return opened[-1]

    yield start
    for one in opened:
        one.context.close()
        assert not one.elsewhere, one.elsewhere
        assert not one.errors, one.errors


def test_a_finished_map_with_its_frames(finished, made, look):
    page = look(finished("nanobeam").url)
    page.until("window.braggscope.draws > 0")
    shown = page.page.evaluate("Array.from(window.braggscope.state.values.get('strain'))")
    dataset = braggscope.load(made["nanobeam"][1])
    assert np.allclose(shown, dataset["strain"].values.ravel().astype("f4"), equal_nan=True)
    position = page.pick(0.4, 0.5)
    frame = page.until(f"window.braggscope.frame && window.braggscope.frame.position === {position} && window.braggscope.frame")
    assert frame["shape"] == list(FRAME)
    assert np.array_equal(np.reshape(frame["values"], FRAME), open_scan(made["nanobeam"][0]).frame(position))
    page.until(
        "document.querySelector('#residual .bk-Figure') && !document.getElementById('residual').parentElement.hidden",
        60,
    )
    value, std = dataset["strain"].values.ravel()[position], dataset["strain_std"].values.ravel()[position]
    said = page.text("#values tbody tr:first-child td.n").replace("\u2212", "-")
    mantissa, rest = said.split("(")
    digits, _, power = rest.partition(")")
    scale = float(f"1{power}") if power else 1.0
    assert abs(float(mantissa) * scale - value) < std and int(digits) in range(10, 100)


def test_the_keyboard_moves_the_point_and_a_reader_is_told(finished, look):
    page = look(finished("nanobeam").url)
    page.until("window.braggscope.draws > 0")
    first = page.pick(0.4, 0.5)
    page.page.locator("#map-a").focus()
    page.page.keyboard.press("ArrowRight")
    page.until(f"window.braggscope.state.position === {first + 1}")
    page.page.keyboard.press("ArrowUp")  # y grows upwards
    page.until(f"window.braggscope.state.position === {first + 1 + SHAPE[1]}")
    page.until("document.getElementById('announce').textContent.includes('strain')")
    every = "Array.from(document.querySelectorAll('button, input, select'))"
    named = f"{every}.filter(e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.id)"
    assert page.page.evaluate(f"JSON.stringify({named})") == "[]"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1920, 1080)])
def test_nothing_sticks_out_at_any_size(finished, look, width, height):
    page = look(finished("nanobeam").url, width=width, height=height)
    page.until("window.braggscope.draws > 0")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    page.pick(0.4, 0.5)
    page.until("window.braggscope.frame")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_shown_can_be_taken_away(finished, made, look):
    page = look(finished("nanobeam").url)
    page.until("window.braggscope.draws > 0")
    with page.page.expect_download() as loading:
        page.page.click("#csv")
    lines = loading.value.path().read_text(encoding="utf-8").splitlines()
    head, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    assert head[:3] == ["y (um)", "x (um)", "strain"] and len(rows) == SHAPE[0] * SHAPE[1]
    assert np.allclose([float(row[2]) for row in rows], braggscope.load(made["nanobeam"][1])["strain"].values.ravel(), rtol=1e-6)
    with page.page.expect_download() as loading:
        page.page.click("#png")
    from PIL import Image

    with Image.open(loading.value.path()) as picture:
        assert (
            picture.width > 500
            and len(np.unique(np.asarray(picture.convert("RGB").resize((80, 40))).reshape(-1, 3), axis=0)) > 50
        )


def test_a_running_scan_is_followed_through_a_restart_of_the_server_to_its_end(growing, served, look):
    server = served(growing.provider)
    page = look(server.url)
    assert "Waiting for the first frames" in page.until("document.getElementById('head-a').textContent")
    growing.grow(20)
    known = "Array.from(window.braggscope.state.values.get('strain') ?? []).filter(Number.isFinite).length"
    page.until(f"{known} === 20")
    growing.grow(30)
    page.until(f"{known} === 50")
    server.stop()
    page.until("document.getElementById('connection').textContent.includes('reconnecting')")
    growing.grow(10)
    server.start()
    page.until(f"{known} === 60 && document.getElementById('connection').textContent === ''")
    page.errors.clear()  # the browser reports each refused connection
    page.page.click("#pause")
    page.until("document.getElementById('state').textContent === 'paused'")
    assert growing.run.control["paused"] is True
    page.page.click("#pause")
    page.until("document.getElementById('state').textContent === 'running'")
    page.page.evaluate(
        "(() => { const h = document.getElementById('history'); h.value = 25; h.dispatchEvent(new Event('input')); })()"
    )
    page.until("document.getElementById('history-at').textContent.startsWith('first 25')")
    growing.grow(SHAPE[0] * SHAPE[1] - 60)
    growing.end()
    page.until("document.getElementById('state').textContent === 'done'")
    page.until(f"{known} === {SHAPE[0] * SHAPE[1]}")


def test_a_pixel_of_a_dark_field_map_has_its_rocking_curve(finished, made, look):
    page = look(finished("dfxm").url)
    page.until("window.braggscope.draws > 0")
    position = page.pick(0.45, 0.5)
    curve = page.until("window.braggscope.curve")
    row, column = divmod(position, 30)
    assert (curve["row"], curve["column"]) == (row, column)
    scan = open_scan(made["dfxm"][0])
    assert curve["counts"] == [float(scan.frame(i)[row, column]) for i in range(15)]


def test_a_pattern_has_its_indexed_spots(finished, made, look):
    page = look(finished("laue").url)
    page.until("window.braggscope.draws > 0")
    page.page.select_option("#variable", "grain")
    page.pick(0.4, 0.5)
    page.until("window.braggscope.frame && window.braggscope.frame.values", 60)
    assert page.page.locator("#head-frames").inner_text().startswith("Frame at position")


def test_flags_have_words_and_counts(finished, look):
    page = look(finished("nanobeam").url)
    page.until("window.braggscope.draws > 0")
    page.page.select_option("#beside", "flag")
    legend = page.until("document.getElementById('legend').textContent")
    assert legend.startswith("good ")
