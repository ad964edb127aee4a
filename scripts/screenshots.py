"""Makes the pictures in docs/screenshots from a running page with the demo backend.

python app.py &  python scripts/screenshots.py http://127.0.0.1:7860

Adapters come from the Hub that the page asks (HF_ENDPOINT); `python -m tests.standins.hub`
runs one with made-up repositories and says where it is.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal, get_args

from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
Theme = Literal["light", "dark"]
SIZES = {1440: 900, 820: 1180, 390: 844}
LOADED = """[...document.images].every((image) => {
    const { top, height } = image.getBoundingClientRect();
    return image.complete || height === 0 || top >= innerHeight;
})"""
PROMPTS = (
    "A quiet sea at dawn, the sun just above the horizon, long exposure",
    "Portrait of a dancer in orange light, bold shapes, paper texture",
    "雪山，红日，晨雾",
)


def main(url: str) -> None:
    """One picture for each width, theme and tab."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        generate(browser, url)
        for width, height in SIZES.items():
            for theme in get_args(Theme):
                picture(browser, url, width, height, theme)
        browser.close()


def generate(browser: Browser, url: str) -> None:
    """Something to look at."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    arrive(page, url)
    for number, prompt in enumerate(PROMPTS, 1):
        page.locator("#prompt textarea").fill(prompt)
        page.locator("#generate").click()
        page.locator(".receipt-prompt", has_text=prompt).wait_for()
        page.locator(".strip .thumb img").nth(number - 1).wait_for()
    page.close()


def picture(browser: Browser, url: str, width: int, height: int, theme: Theme) -> None:
    """Adapters, Create and History at one size and theme."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    arrive(page, url)
    page.get_by_role("tab", name="Adapters").click()
    page.locator(".adapter-card").first.wait_for()
    page.wait_for_function(LOADED)
    page.screenshot(path=FOLDER / f"adapters-{width}-{theme}.png")
    for take in page.locator(".adapter-take").all()[:2]:
        take.click()
    page.get_by_role("tab", name="Create").click()
    page.locator("#lora-1 .fit").wait_for()
    page.locator("#prompt textarea").fill(PROMPTS[-1])
    page.locator(".strip .thumb").nth(1).click()
    page.locator("#live .picture img").first.wait_for()
    page.wait_for_function(LOADED)
    page.evaluate("scrollTo(0, 0)")
    page.locator("#live .picture img").first.evaluate("image => image.decode()")
    page.screenshot(path=FOLDER / f"create-{width}-{theme}.png")
    page.get_by_role("tab", name="History").click()
    page.locator("#gallery .card img").first.wait_for()
    page.wait_for_function(LOADED)
    page.screenshot(path=FOLDER / f"history-{width}-{theme}.png")
    context.close()


def arrive(page: Page, url: str) -> None:
    """Open the page and wait until it listens."""
    page.goto(url)
    page.locator("#live .empty, #live .job").first.wait_for()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860")
