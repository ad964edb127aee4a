"""Signing in and out in Chromium, as a visitor does it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, arrive
from tests.process.playground import Playground, playground
from tests.standins.oauth import Account, OpenIdProvider

PUBLIC = {"PLAYGROUND_MODE": "public", "PLAYGROUND_BACKEND": "demo"}


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider(Account("64b7ada", "ada")) as running:
        yield running


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, provider: OpenIdProvider
) -> Iterator[Playground]:
    with playground(tmp_path_factory.mktemp("site"), PUBLIC, provider.environment) as running:
        yield running


def sign_in(page: Page) -> None:
    page.locator("#sign-in").click()
    page.locator("#account .user", has_text="ada").wait_for()


def test_history_follows_from_one_browser_to_another(
    browser: Browser, page: Page, site: Playground
) -> None:
    page.locator("#prompt textarea").fill("a lighthouse before signing in")
    page.locator("#generate").click()
    page.locator("#live .job img").first.wait_for()
    sign_in(page)
    shown = page.locator("#live .job[data-state=STORED] img")
    expect(shown.first).to_be_visible()
    assert page.url.rstrip("/") == site.url.rstrip("/")
    assert page.evaluate("document.cookie") == "", "no cookie of ours is a script's to read"

    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    other = context.new_page()
    arrive(other, site)
    assert other.locator("#live .empty").is_visible()
    sign_in(other)
    expect(other.locator("#live .job img").first).to_be_visible()
    context.close()

    page.locator("#sign-out").click()
    page.locator("#sign-in").wait_for()
    page.locator("#live .empty").wait_for()


def test_declined_there_and_back_here(page: Page, provider: OpenIdProvider) -> None:
    consents, provider.user = provider.user, None
    page.locator("#sign-in").click()
    expect(page.locator("h1")).to_contain_text("declined")
    page.get_by_role("link").click()
    page.locator("#sign-in").wait_for()
    provider.user = consents
