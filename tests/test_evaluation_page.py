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


def test_crops_are_compared_by_the_keyboard_alone(tmp_path: Path) -> None:
    named = os.environ.get("STREAMSR_BROWSER")
    path = named or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium found: install one, or name it in STREAMSR_BROWSER")
    result = evaluate(make_data(tmp_path / "data", sets=("one",)), EvaluationSettings(("tiny-x2",)))
    report = write_evaluation(result, content_of(result), tmp_path / "out")[0]
    loaded: list[str] = []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
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
        browser.close()
    assert [address for address in loaded if not address.startswith("data:")] == [report.as_uri()]
