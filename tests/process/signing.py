"""A browser that signs in, seen step by step."""

from __future__ import annotations

import httpx

from tests.api.browser import Browser

Query = dict[str, str]


def begin(browser: Browser) -> str:
    """The provider's address that the page sends this browser to."""
    answer = browser.http.post("/login/huggingface", headers={"Origin": str(browser.http.base_url)})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def consent(address: str) -> str:
    """The page's address that the provider sends the browser back to."""
    answer = httpx.get(address, trust_env=False)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def sign_in(browser: Browser) -> httpx.Response:
    """The page's answer to a browser that comes back."""
    return browser.http.get(consent(begin(browser)))


def sign_out(browser: Browser) -> httpx.Response:
    return browser.http.post("/logout")
