"""A Chromium, a page with its stand-in for fal, and a fresh visitor for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.process.playground import KEY, Playground, playground
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.hub_process import HubProcess, hub_process

CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
PATIENCE = 30_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "the browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalProcess]:
    folder = tmp_path_factory.mktemp("fal")
    with fal_process(folder, "--job-seconds", "0.6", "--queue-seconds", "0.3") as standin:
        yield standin


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub")) as standin:
        yield standin


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, fal: FalProcess, hub: HubProcess
) -> Iterator[Playground]:
    """Public mode: every browser context is a visitor with a history of their own."""
    settings = {
        "FAL_KEY": KEY,
        "PLAYGROUND_MODE": "public",
        "PLAYGROUND_DAILY_BUDGET": "100",
        "PLAYGROUND_VISITOR_LIMITS": "none",
        "PLAYGROUND_ALLOW_MATURE": "true",
        "PLAYGROUND_ALLOW_UNCHECKED": "true",
    }
    folder = tmp_path_factory.mktemp("site")
    fals = fal.environment | fal.proxy_environment  # its storage's hosts are fixed
    with playground(folder, fals, hub.environment, settings) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(fal: FalProcess) -> Iterator[None]:
    yield
    fal.clear_faults()
    fal.release()


@pytest.fixture
def page(browser: Browser, site: Playground, tmp_path: Path) -> Iterator[Page]:
    """The page of a visitor who is here for the first time; errors of its scripts fail the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    broken: list[str] = []
    opened.on("pageerror", lambda error: broken.append(str(error)))
    arrive(opened, site)
    yield opened
    context.close()
    assert not broken


def arrive(page: Page, site: Playground) -> None:
    """Open the page and wait until it listens."""
    page.goto(site.url)
    page.locator("#live .empty, #live .job").first.wait_for()
    page.locator("#account #open-key").wait_for()
    page.locator("#generate", has_text="·").wait_for()
