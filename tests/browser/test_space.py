"""The page on a Space, started in both ways, before visitors who don't know each other."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, arrive
from tests.browser.test_page import IMAGE, ask, choose
from tests.process.playground import Playground
from tests.standins.space_machine import STARTS, installed, started
from ui.theme import ACCENT
from ui.visitor import COOKIE


@pytest.fixture(scope="module", params=STARTS)
def space(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    directory = tmp_path_factory.mktemp("space")
    with started(installed(directory), request.param, directory) as running:
        yield running
        assert running.terminate() == 0
    assert "Launching demo not found" not in running.log() or request.param == "import app"


@contextmanager
def visitor(browser: Browser, space: Playground, language: str = "en-GB") -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, locale=language, accept_downloads=True
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    arrive(page, space)
    yield page
    context.close()
    assert not broken


def value_of(page: Page, variable: str) -> str:
    container = page.locator(".gradio-container").first
    read = "(box, name) => getComputedStyle(box).getPropertyValue(name).trim()"
    return str(container.evaluate(read, variable))


def open_history(page: Page) -> None:
    page.locator("#tabs button[role=tab]").last.click()
    page.locator(".history-zip").wait_for()


def test_the_page_is_whole_and_each_visitor_alone(browser: Browser, space: Playground) -> None:
    with visitor(browser, space) as page:
        assert value_of(page, "--primary-500") == ACCENT.c500, "the theme"
        assert value_of(page, "--table"), "our own styles"
        names = page.locator("#tabs button[role=tab]").all_inner_texts()
        assert {"Create", "Adapters", "History"} <= set(names)
        choose(page, "backend", "demo")
        expect(page.locator("#generate")).to_contain_text("free")
        ask(page, "A lighthouse on a Space")
        expect(page.locator(IMAGE)).to_be_visible()
        (cookie,) = (c for c in page.context.cookies() if c["name"] == COOKIE)
        assert cookie["httpOnly"]

        open_history(page)
        expect(page.locator(".history-fleeting")).to_contain_text("until the Space restarts")
        expect(page.locator("#gallery .card-prompt")).to_have_text("A lighthouse on a Space")
        with page.expect_download() as download:
            page.locator(".history-zip").click()
        with zipfile.ZipFile(Path(download.value.path())) as mine:
            (name,) = mine.namelist()
            assert name.endswith(".png") and mine.testzip() is None

    with visitor(browser, space, "zh-CN") as stranger:
        open_history(stranger)
        expect(stranger.locator("#gallery .history-empty")).to_be_visible()
        expect(stranger.locator(".history-fleeting")).to_contain_text("Space 重启")
        theirs = stranger.request.get(f"{space.url}/history.zip").body()
        assert zipfile.ZipFile(io.BytesIO(theirs)).namelist() == []
