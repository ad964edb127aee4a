"""A long page in a real browser, scrolled by its wheel from top to bottom, its frames timed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

WINDOW: Final = {"width": 1440, "height": 900}
SETTLE: Final = 30_000  # milliseconds for one answer, then it's given up
STEP: Final = 120  # pixels: one notch of a wheel, sent as fast as the browser takes them
MOST_SECONDS: Final = 90.0  # for one way down
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

_WATCH: Final = """() => {
  const seen = { frames: [], tasks: [] };
  let last = null;
  const tick = (now) => {
    if (last !== null) seen.frames.push(now - last);
    last = now;
    if (window.rolling) requestAnimationFrame(tick);
  };
  const watcher = new PerformanceObserver((list) => {
    for (const task of list.getEntries()) seen.tasks.push(task.duration);
  });
  watcher.observe({ type: "longtask" });
  window.rolling = seen;
  requestAnimationFrame(tick);
}"""
_STOP: Final = """() => {
  const { frames, tasks } = window.rolling;
  window.rolling = null;
  return [frames, tasks];
}"""
_AT_THE_BOTTOM: Final = """() =>
  scrollY + innerHeight >= document.documentElement.scrollHeight - 2"""
_HEIGHT: Final = "() => document.documentElement.scrollHeight"
_CARDS: Final = ".adapter-card"


@dataclass(frozen=True, slots=True)
class Ride:
    """One way down, in milliseconds: its frames, the main thread's tasks above 50, and the
    processor time of each of its tasks; pixels, cards."""

    frames: tuple[float, ...]
    long_tasks: tuple[float, ...]
    task_cpu: tuple[float, ...]
    height: int
    cards: int


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless, without a GPU: every pixel is the processor's."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(FLAGS)
        )
        yield browser
        browser.close()


def ride_over_cards(browser: Browser, url: str, cards: int) -> Ride:
    """Open the Adapters tab, ask for more until so many cards are there, and scroll over them.

    Raises:
        TimeoutError: playwright's; an answer didn't come in `SETTLE` milliseconds.
    """
    context = browser.new_context(viewport=WINDOW)  # type: ignore[arg-type]
    context.set_default_timeout(SETTLE)
    page = context.new_page()
    page.goto(url)
    page.locator("#live .empty, #live .job").first.wait_for()
    page.locator("#account #open-key").wait_for()
    page.locator("#generate", has_text="·").wait_for()
    page.get_by_role("tab", name="Adapters").click()
    page.locator(_CARDS).first.wait_for()
    page.locator(".finder-bar [name=sort]").select_option("downloads")
    for group in ("turbo", "base"):
        _ask_for_more(page, group, cards)
    ride = _down(browser, page)
    context.close()
    return ride


def ride_over_nothing(browser: Browser, height: int) -> Ride:
    """The same over an empty page: what the machine itself does to frames at the moment."""
    context = browser.new_context(viewport=WINDOW)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_content(f'<body style="margin:0"><div style="height:{height}px"></div>')
    ride = _down(browser, page)
    context.close()
    return ride


def _ask_for_more(page: Page, group: str, cards: int) -> None:
    more, shown = page.locator(f'[data-more="{group}"]'), page.locator(_CARDS)
    busy = f'[data-group="{group}"][aria-busy]'
    page.wait_for_selector(busy, state="detached")
    while shown.count() < cards and more.is_visible():
        before = shown.count()
        more.click()
        page.wait_for_function(
            "([cards, before]) => document.querySelectorAll(cards).length > before",
            arg=[_CARDS, before],
        )
        page.wait_for_selector(busy, state="detached")


def _down(browser: Browser, page: Page) -> Ride:
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)  # what was begun before is no part of it
    page.mouse.move(WINDOW["width"] / 2, WINDOW["height"] / 2)
    browser.start_tracing(page=page, categories=["toplevel"])
    page.evaluate(_WATCH)
    until = time.monotonic() + MOST_SECONDS
    while not page.evaluate(_AT_THE_BOTTOM):
        if time.monotonic() > until:
            raise RuntimeError(f"not at the bottom after {MOST_SECONDS:g} s")
        page.mouse.wheel(0, STEP)
    frames, tasks = page.evaluate(_STOP)
    cpu = _cpu_of_tasks(browser.stop_tracing())
    cards, height = page.locator(_CARDS).count(), int(page.evaluate(_HEIGHT))
    return Ride(tuple(frames), tuple(tasks), cpu, height, cards)


def _cpu_of_tasks(trace: bytes) -> tuple[float, ...]:
    """Of the main threads' tasks; a trace has microseconds."""
    events = json.loads(trace)["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return tuple(
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in main
    )
