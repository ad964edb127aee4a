"""Clicks in a real browser, timed inside the page."""

from __future__ import annotations

import shutil
from typing import Final

from playwright.sync_api import sync_playwright

SETTLE: Final = 30_000  # milliseconds for one job, then it's given up

_WATCH: Final = """() => {
  const stage = document.querySelector("#live .stage");
  const shown = () => stage.firstElementChild?.dataset.job;
  let clicked = null, before = null;
  window.benchmark = [];
  document.querySelector("#generate").addEventListener("click", (event) => {
    clicked = event.timeStamp;
    before = shown();
  }, true);
  new MutationObserver(() => {
    if (clicked === null || !shown() || shown() === before) return;
    window.benchmark.push(performance.now() - clicked);
    clicked = null;
  }).observe(stage, { childList: true });
}"""
_STORED: Final = """(count) => window.benchmark.length === count &&
  document.querySelector("#live .stage").firstElementChild?.dataset.state === "STORED" """


def time_clicks(url: str, clicks: int) -> list[float]:
    """Milliseconds for each of `clicks` jobs, one after the other; one more before isn't counted.

    Raises:
        TimeoutError: playwright's; a job didn't come to its end in `SETTLE` milliseconds.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.set_default_timeout(SETTLE)
        page.goto(url)
        page.locator("#prompt textarea").press_sequentially("a lighthouse at dusk")
        page.wait_for_selector("#live .stage > *")
        page.evaluate(_WATCH)
        for number in range(clicks + 1):
            page.click("#generate")
            page.wait_for_function(_STORED, arg=number + 1)
        times: list[float] = page.evaluate("window.benchmark")
        browser.close()
    return times[1:]
