"""The report in a browser: its slider answers to the keyboard, and nothing is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("PIL")
pytest.importorskip("jinja2")
pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

from playwright import sync_api

from streamsr.evaluation.run import EvaluationSettings, evaluate
from streamsr.evaluation.writing import content_of, write_evaluation
from tests.frames import make_data

pytestmark = pytest.mark.needs_browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def browser_path() -> str:
    named = os.environ.get("STREAMSR_BROWSER")
    path = named or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium found: install one, or name it in STREAMSR_BROWSER")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    result = evaluate(make_data(folder / "data", sets=("one",)), EvaluationSettings(("tiny-x2",)))
    return write_evaluation(result, content_of(result), folder / "out")[0]


def test_crops_are_compared_by_the_keyboard_alone(report: Path, browser_path: str) -> None:
    loaded: list[str] = []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: loaded.append(request.url))
        page.on("pageerror", lambda error: loaded.append(str(error)))
        page.goto(report.as_uri())
        crop = page.locator("figure[data-crop]").first
        crop.locator("input").focus()
        for _ in range(10):
            page.keyboard.press("ArrowLeft")
        assert crop.locator(".pair").evaluate("pair => pair.style.getPropertyValue('--cut')") == "40%"
        page.keyboard.press("Tab")
        before = crop.locator("img.over").get_attribute("src")
        page.keyboard.press("ArrowDown")
        assert crop.locator("img.over").get_attribute("alt") == crop.locator("select").first.input_value()
        assert crop.locator("img.over").get_attribute("src") != before
        left = crop.locator("select").first.input_value()
        assert f"line between {left} and " in (crop.locator("input").get_attribute("aria-label") or "")
        browser.close()
    assert [address for address in loaded if not address.startswith("data:")] == [report.as_uri()]


def test_a_finger_moves_the_line_and_lets_it_go_and_the_page_still_scrolls(report: Path, browser_path: str) -> None:
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 700})
        page = context.new_page()
        page.goto(report.as_uri())
        pair = page.locator("figure[data-crop] .pair").first
        pair.scroll_into_view_if_needed()
        box = pair.bounding_box()
        assert box is not None
        touch = context.new_cdp_session(page)

        def finger(kind: str, *place: float) -> None:
            points = (
                [{"x": box["x"] + box["width"] * place[0], "y": box["y"] + box["height"] * place[1]}] if place else []
            )
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        def cut() -> int:
            return int(pair.evaluate("pair => parseInt(pair.style.getPropertyValue('--cut'))"))

        finger("touchStart", 0.5, 0.5)
        for step in range(1, 9):
            finger("touchMove", 0.5 + step * 0.05, 0.5)
        assert cut() == pytest.approx(90, abs=2), "sideways, the drag is the line's and is not taken by the page"
        finger("touchEnd")
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
        assert cut() == pytest.approx(90, abs=2), "let go"
        before = page.evaluate("scrollY")
        finger("touchStart", 0.3, 0.9)
        for step in range(1, 17):
            finger("touchMove", 0.3, 0.9 - step * 0.05)
            page.wait_for_timeout(16)
        finger("touchEnd")
        page.wait_for_function(f"scrollY > {before} + 20")
        stays = cut()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.1 * box["height"])
        assert cut() == stays, "a drag that became a scroll holds nothing"
        browser.close()
