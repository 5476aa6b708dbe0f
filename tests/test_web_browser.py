"""The page in a real headless browser: what its pixels show, what keys and hands do, what it says when all fails."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamsr.capture.framecode import read_frame_code
from streamsr.capture.testsrc import TestSettings
from streamsr.display.commands import Command
from streamsr.display.status import RecordingStatus, SourceState
from streamsr.sinks.web.view import FILES
from tests.web_doubles import CAMERA_LUMA, ENHANCED_LUMA, SCALE, FakeShowing, Running, running, wait_until

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

pytestmark = pytest.mark.needs_browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BYPASS_FRAMES = 6
"""Within which a bypass is on the page: one being coded, two on the way, and the same again for a busy machine."""

PATIENCE_MS = 20_000

SOURCE = TestSettings(width=160, height=120, frames=4)


def found_browser() -> str | None:
    named = os.environ.get("STREAMSR_BROWSER")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), None)


def until(page: Any, expression: str, argument: object = None) -> None:
    """Wait until an expression is true in the page; Playwright's own way needs an eval, which the page refuses."""
    wait_until(lambda: page.evaluate(expression, argument), PATIENCE_MS / 1e3)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = found_browser()
    if path is None:
        pytest.skip("no Chromium found: install one, or name it in STREAMSR_BROWSER")
    with sync_api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def served() -> Iterator[Running]:
    with running(FakeShowing(rate=12, source=SOURCE)) as made:
        yield made


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    contexts: list[Any] = []
    faults: list[str] = []

    def open_one(url: str, *, ready: bool = True, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        page.goto(url)
        if ready:
            until(page, "document.querySelector('#canvas').dataset.number > 0")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not faults


def pixels(page: Any) -> tuple[np.ndarray, int]:
    """Return (H, W, 3) uint8 RGB of the stage's canvas, and the number of the picture that is drawn in it."""
    number, width, height, data = page.evaluate(
        """() => {
            const canvas = document.querySelector("#canvas");
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let text = "";
            for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
            return [Number(canvas.dataset.number), width, height, btoa(text)];
        }"""
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3], number


def fitted(canvas: np.ndarray, source: TestSettings = SOURCE) -> np.ndarray:
    """Return the picture's part of a canvas it was fitted into, at the picture's own size."""
    height, width = canvas.shape[:2]
    scale = min(width / source.width, height / source.height)
    part_w, part_h = round(source.width * scale), round(source.height * scale)
    left, top = (width - part_w) // 2, (height - part_h) // 2
    part = canvas[top : top + part_h, left : left + part_w]
    size = (source.width * SCALE, source.height * SCALE)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def luma_of(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)


def band_of(picture: np.ndarray, *, right: bool) -> float:
    """Return the luma of the band across the middle, in the black surround at its left or right edge."""
    luma = luma_of(picture)
    columns = slice(-6, -2) if right else slice(2, 6)
    return float(luma[luma.shape[0] // 2, columns].mean())


def is_enhanced(luma: float) -> bool:
    """Tell which of the two versions a band is of; fail where it is neither."""
    full = {False: (CAMERA_LUMA - 16) * 255 / 219, True: (ENHANCED_LUMA - 16) * 255 / 219}
    (found,) = [which for which, expected in full.items() if abs(luma - expected) < 12]
    return found


def pressed(page: Any, command: str) -> bool:
    return bool(page.get_attribute(f"button[data-command={command}]", "aria-pressed") == "true")


def next_number(page: Any, after: int) -> None:
    until(page, "after => Number(document.querySelector('#canvas').dataset.number) > after", after)


# pictures


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_what_is_drawn_has_rising_numbers_that_its_pixels_confirm(
    served: Running, open_page: Callable[..., Any], codec: str
) -> None:
    page = open_page(served.view.url + f"&codec={codec}", ready=codec == "jpeg")
    if codec == "h264":
        can = "VideoDecoder.isConfigSupported({codec: 'avc1.42c01e'}).then((answer) => answer.supported)"
        if not page.evaluate(can):
            pytest.skip("this browser was built without H.264")
        until(page, "document.querySelector('#canvas').dataset.number > 0")
        assert pressed(page, "thin")
    numbers = []
    for _ in range(5):
        canvas, number = pixels(page)
        assert read_frame_code(luma_of(fitted(canvas)), SCALE) == number
        numbers.append(number)
        next_number(page, number)
    assert numbers == sorted(set(numbers))


def test_a_page_that_keeps_up_misses_no_picture(served: Running, open_page: Callable[..., Any]) -> None:
    served.showing.period_s = 0.25
    page = open_page(served.view.url)
    page.evaluate(
        """() => {
            window.seen = [];
            const canvas = document.querySelector("#canvas");
            new MutationObserver(() => {
                const number = Number(canvas.dataset.number);
                if (window.seen.at(-1) !== number) window.seen.push(number);
            }).observe(canvas, { attributes: true, attributeFilter: ["data-number"] });
        }"""
    )
    until(page, "window.seen.length >= 8")
    seen = page.evaluate("window.seen")
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_the_split_shows_the_camera_left_of_the_line_and_the_enlarged_right_of_it(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    assert is_enhanced(band_of(fitted(pixels(page)[0]), right=False))
    page.keyboard.press("v")
    page.wait_for_selector("#split", state="visible")
    picture = fitted(pixels(page)[0])
    assert not is_enhanced(band_of(picture, right=False))
    assert is_enhanced(band_of(picture, right=True))
    handle = page.locator("#split").bounding_box()
    stage = page.locator("#canvas").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] - 1, middle, steps=4)
    page.mouse.up()
    assert not is_enhanced(band_of(fitted(pixels(page)[0]), right=True))
    assert int(page.get_attribute("#split", "aria-valuenow")) > 95
    page.focus("#split")
    page.keyboard.press("Home")
    assert is_enhanced(band_of(fitted(pixels(page)[0]), right=False))
    page.keyboard.press("]")
    assert page.get_attribute("#split", "aria-valuenow") == "5"


def test_side_by_side_shows_both_versions_of_one_moment(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("s")
    page.wait_for_selector("#label-original", state="visible")
    canvas, number = pixels(page)
    half = canvas.shape[1] // 2
    camera, enlarged = fitted(canvas[:, :half]), fitted(canvas[:, half:])
    assert read_frame_code(luma_of(camera), SCALE) == read_frame_code(luma_of(enlarged), SCALE) == number
    assert not is_enhanced(band_of(camera, right=True))
    assert is_enhanced(band_of(enlarged, right=True))


def test_bypass_is_on_the_page_within_the_stated_frames(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.evaluate(
        """() => {
            const canvas = document.querySelector("#canvas");
            new MutationObserver(() => {
                if (canvas.dataset.rung === "2") window.first ??= Number(canvas.dataset.number);
            }).observe(canvas, { attributes: true, attributeFilter: ["data-rung"] });
        }"""
    )
    page.keyboard.press("b")
    wait_until(lambda: Command.BYPASS in served.showing.asked)
    asked_at = served.showing.number
    until(page, "window.first !== undefined")
    assert page.evaluate("window.first") - asked_at <= BYPASS_FRAMES
    assert not is_enhanced(band_of(fitted(pixels(page)[0]), right=True))
    page.wait_for_selector("#rung[data-kind=warn]:has-text('BYPASS')")
    until(page, "document.querySelector('[data-command=bypass]').getAttribute('aria-pressed') === 'true'")


def test_zoom_and_pan_move_both_halves_alike(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("s")
    page.wait_for_selector("#label-original", state="visible")
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.6)
    page.mouse.wheel(0, -600)
    page.wait_for_selector("#zoom", state="visible")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.wait_for_selector("#frozen", state="visible")
    canvas, _ = pixels(page)
    half = canvas.shape[1] // 2
    camera, enlarged = (luma_of(part).astype(np.float32) for part in (canvas[:, :half], canvas[:, half : 2 * half]))
    shift, _ = cv2.phaseCorrelate(cv2.Sobel(camera, cv2.CV_32F, 1, 0), cv2.Sobel(enlarged, cv2.CV_32F, 1, 0))
    camera_px = half / SOURCE.width * float(page.inner_text("#zoom").split()[1])
    assert camera_px > 6
    assert max(abs(axis) for axis in shift) < camera_px / 2


# what is wrong is said


def test_a_frozen_page_says_so_with_its_age_and_goes_on_with_the_newest(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("Space")
    page.wait_for_selector("#frozen", state="visible")
    _, number = pixels(page)
    wait_until(lambda: served.showing.number > number + 6)
    canvas, still = pixels(page)
    assert still == number
    assert read_frame_code(luma_of(fitted(canvas)), SCALE) == number
    words, canvas_box = page.locator("#frozen").bounding_box(), page.locator("#canvas").bounding_box()
    assert words["y"] + words["height"] <= canvas_box["y"], (
        "it covers nothing of the picture, whose badge may be anywhere"
    )
    age = re.fullmatch(r"FROZEN ([\d.]+) s", page.inner_text("#frozen"))
    assert age is not None
    assert float(age[1]) > 0.3
    page.keyboard.press("Space")
    next_number(page, number + 5)
    assert not page.is_visible("#frozen")


def test_a_slate_cannot_be_frozen(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    served.showing.is_lost = True
    until(page, "document.querySelector('#canvas').dataset.rung === '255'")
    page.keyboard.press("Space")
    page.wait_for_selector("#toast:has-text('no picture to freeze')")
    assert not page.is_visible("#frozen")


def test_a_zoomed_page_goes_on_saying_that_the_picture_is_enhanced(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    assert not page.is_visible("#label-picture")
    page.keyboard.press("+")
    page.wait_for_selector("#label-picture:has-text('AI-ENHANCED, research use')", state="visible")
    page.keyboard.press("0")
    page.wait_for_selector("#label-picture", state="hidden")


def test_a_page_that_waits_for_its_first_picture_does_not_say_live(
    served: Running, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_s = time.monotonic() + 10.0
    while served.view._audience is None and time.monotonic() < give_up_s:  # the server is starting
        time.sleep(0.01)
    monkeypatch.setattr(served.view._audience, "publish", lambda coded: None)
    page = open_page(served.view.url, ready=False)
    until(page, "document.querySelector('#brief-p50').textContent !== '–'")  # the session's state has come
    assert page.inner_text("#state") == "WAITING"
    assert "WAITING FOR A PICTURE" in page.inner_text("#veil")
    monkeypatch.undo()
    page.wait_for_selector("#veil", state="hidden")
    page.wait_for_selector("#state:has-text('LIVE')")


def test_a_lost_server_covers_the_picture_at_once_and_says_how_old_it_was(open_page: Callable[..., Any]) -> None:
    with running(FakeShowing(rate=12, source=SOURCE)) as served:
        page = open_page(served.view.url)
        assert not page.is_visible("#veil")
    page.wait_for_selector("#veil:has-text('NO CONNECTION')", state="visible")
    assert page.inner_text("#state") == "NO CONNECTION"
    until(page, "/last picture [1-9][0-9.]* s ago/.test(document.querySelector('#veil-age').textContent)")
    stage, veil = (page.locator(name).bounding_box() for name in ("#view", "#veil"))
    assert stage == veil
    assert page.evaluate("getComputedStyle(document.querySelector('#veil')).opacity") == "1"


def test_a_server_that_falls_silent_is_noticed_and_taken_up_again(
    served: Running, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(served.view.url)
    publish, tell = served.view._audience.publish, served.view._audience.tell
    monkeypatch.setattr(served.view._audience, "publish", lambda coded: None)
    monkeypatch.setattr(served.view._audience, "tell", lambda status: None)
    page.wait_for_selector("#veil:has-text('NO CONNECTION')", state="visible")
    monkeypatch.setattr(served.view._audience, "publish", publish)
    monkeypatch.setattr(served.view._audience, "tell", tell)
    page.wait_for_selector("#veil", state="hidden")
    next_number(page, pixels(page)[1])


def test_an_alarm_covers_neither_the_picture_nor_its_marks(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url, viewport={"width": 360, "height": 740})
    served.showing.alarm = "generator failed three times: the camera's own picture is shown"
    page.keyboard.press("s")
    page.wait_for_selector("#alarm:has-text('failed')", state="visible")
    page.keyboard.press("Space")
    page.wait_for_selector("#frozen", state="visible")
    alarm = page.locator("#alarm").bounding_box()
    for name in ("#view", "#canvas", "#frozen", "#label-original", "#label-picture"):
        assert page.locator(name).bounding_box()["y"] >= alarm["y"] + alarm["height"], name


def test_the_split_says_who_made_its_half_in_the_words_of_the_badge(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("v")
    page.wait_for_selector("#label-picture:has-text('AI-ENHANCED, research use')", state="visible")


def test_a_recording_is_named_with_its_folder_and_file(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    recording = RecordingStatus(active=True, folder="/taken", seconds=2, files=1, name="enlarged-1-001.mkv")
    served.showing.status_changes = {"recording": recording}
    page.wait_for_selector("#recording-facts:has-text('enlarged-1-001.mkv')", state="attached")
    assert "/taken" in page.inner_text("#recording-facts")


def test_an_alarm_and_a_lost_source_are_announced(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    served.showing.alarm = "generator failed: bypassed"
    served.showing.status_changes = {"state": SourceState.LOST, "signal_age_s": 3.4}
    page.wait_for_selector("#alarm[role=alert]:has-text('generator failed: bypassed')", state="visible")
    page.wait_for_selector("#state[data-kind=bad]:has-text('NO SIGNAL 3.4 s')")


def test_a_wrong_token_shows_nothing(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.base + "/?token=" + "x" * 32, ready=False)
    assert page.locator("canvas").count() == 0
    assert "printed" in page.inner_text("body")
    assert served.view.num_viewers == 0


def test_the_token_leaves_the_address_bar_and_the_page_can_be_loaded_again(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    assert page.url == served.base + "/"
    page.reload()
    until(page, "document.querySelector('#canvas').dataset.number > 0")
    assert page.evaluate("document.cookie") == ""


def test_another_site_cannot_watch(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    other = page.context.new_page()
    other.route("http://evil.example/", lambda route: route.fulfill(body="<p>hello</p>", content_type="text/html"))
    other.goto("http://evil.example/")
    outcome = other.evaluate(
        """url => new Promise((done) => {
            const socket = new WebSocket(url);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
        })""",
        served.base.replace("http", "ws") + "/watch",
    )
    assert outcome == "refused"


# for everybody


def test_a_phone_shows_everything_without_scrolling_sideways(served: Running, open_page: Callable[..., Any]) -> None:
    size = {"width": 360, "height": 740}
    page = open_page(served.view.url, viewport=size, is_mobile=True, has_touch=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    boxes = page.evaluate(
        """[...document.querySelectorAll("button, [role=slider]")].filter((one) => one.checkVisibility())
            .map((one) => one.getBoundingClientRect().toJSON())"""
    )
    assert len(boxes) >= 12
    for box in boxes:
        assert min(box["width"], box["height"]) >= 44
        assert box["left"] >= 0
        assert box["right"] <= size["width"]
    page.locator("button[data-command=split]").tap()
    page.wait_for_selector("#split", state="visible")


def test_two_fingers_zoom(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url, has_touch=True)
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", None)):
        places = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}] if apart else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    page.wait_for_selector("#zoom", state="visible")
    assert float(page.inner_text("#zoom").split()[1]) > 2


def test_the_keyboard_alone_reaches_every_control(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("v")
    page.wait_for_selector("#split", state="visible")
    wanted = set(page.evaluate("[...document.querySelectorAll('.controls button')].map((one) => one.dataset.command)"))
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.command ?? document.activeElement.id"))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none" or page.evaluate("document.activeElement.id") in ("split", "")
    assert wanted | {"canvas", "split"} <= reached


def test_keys_work_as_in_the_window(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    for key in ("r", "p", "g"):
        page.keyboard.press(key)
    wait_until(lambda: len(served.showing.asked) == 3)
    assert served.showing.asked == [Command.RECORD, Command.SNAPSHOT, Command.BADGE]
    page.wait_for_selector("#toast:has-text('badge: done')")
    page.keyboard.press("i")
    page.wait_for_selector("#overlay:has-text('p95 24.5  p99 31.8  max 40.0')", state="visible")
    page.keyboard.press("+")
    page.wait_for_selector("#zoom", state="visible")
    page.keyboard.press("0")
    page.wait_for_selector("#zoom", state="hidden")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    for command in ("bypass", "side by side", "freeze", "snapshot", "full screen"):
        assert command in page.inner_text("dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    until(page, "document.fullscreenElement?.id === 'stage'")


def test_everything_that_can_be_worked_has_a_role_and_a_name(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.keyboard.press("v")
    page.wait_for_selector("#split", state="visible")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and "role" in node
    ]
    for role in ("button", "slider", "image", "heading", "navigation", "main", "alert", "status", "table"):
        assert role in {found for found, _ in named}, role
    assert all(name for role, name in named if role in ("button", "slider", "image", "heading", "link", "region"))
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    levels = page.evaluate("[...document.querySelectorAll('main h2, h1')].map((one) => one.tagName)")
    assert levels[0] == "H1"


def test_text_stands_out_from_its_ground(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.wait_for_selector("#facts div")
    selector = "button, dt, dd, h1, h2, small, footer, .pill, th, td, .events li"
    pairs = page.evaluate(
        """selector => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()).map((one) => {
            let ground = one;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
            return [one.outerHTML.slice(0, 80), getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
        })""",
        selector,
    )
    assert len(pairs) > 40
    for text, colour, ground in pairs:
        lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, text


def luminance(colour: str) -> float:
    """Return the relative luminance of a CSS colour (WCAG 2.2, definition)."""
    values = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_browser_without_webcodecs_is_told_so_and_keeps_its_pictures(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    page.evaluate("delete window.VideoDecoder")
    page.click("button[data-command=thin]")
    page.wait_for_selector("#toast:has-text('no H.264')")
    assert not pressed(page, "thin")
    next_number(page, pixels(page)[1])


def test_a_browser_that_fails_to_decode_h264_goes_back_to_jpeg(served: Running, open_page: Callable[..., Any]) -> None:
    page = open_page(served.view.url)
    page.evaluate(
        "() => void (window.VideoDecoder = class { configure() { throw new Error('not here'); } close() {} })"
    )
    page.click("button[data-command=thin]")
    page.wait_for_selector("#toast:has-text('back to JPEG')")
    assert not pressed(page, "thin")
    next_number(page, pixels(page)[1] + 2)


def test_a_hidden_page_is_sent_nothing_and_returns_with_a_new_picture(
    served: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(served.view.url)
    hide = "is => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => is });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    assert page.is_visible("#veil")
    wait_until(lambda: not served.view._audience.demand.pictures)
    number = served.showing.number
    wait_until(lambda: served.showing.number > number + 5)
    page.evaluate(hide, False)
    page.wait_for_selector("#veil", state="hidden")
    assert pixels(page)[1] > number + 4


def test_the_page_is_in_the_package() -> None:
    folder = Path(__file__).resolve().parents[1] / "streamsr" / "sinks" / "web" / "page"
    assert {name for name, _ in FILES.values()} == {path.name for path in folder.iterdir()}
