"""Signing in with Hugging Face, against a provider that keeps the code flow's rules.

Everything that the page says, logs and writes is searched at the end for the tokens that its
visitors lent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.api.browser import Browser, Said
from tests.api.test_canary import needles
from tests.process.playground import Playground, playground, wait_for
from tests.process.signing import begin, consent, sign_in, sign_out
from tests.standins.hub_ledger import token_hash
from tests.standins.hub_process import HubProcess, hub_process
from tests.standins.hub_repos import TURBO, Repo, Visitor
from tests.standins.hub_weights import lora, weights
from tests.standins.oauth import CLIENT_SECRET, Account, OpenIdProvider
from ui.visitor import COOKIE, SESSION_COOKIE

SMALL = {"width": 64, "height": 64}
FILE = "style.safetensors"
CARD = {"base_model": TURBO}
ADA, BOB = Account("64b7ada", "ada"), Account("64b7bob", "bob")
BRIEF = Account("64b7eve", "eve", expires_in=2)
PRIVATE, GATED, PUBLIC = "ada/private-style", "maker/gated-style", "maker/public-style"


@dataclass(frozen=True)
class Place:
    page: Playground
    provider: OpenIdProvider
    hub: HubProcess
    answers: list[bytes]

    def browser(self, **options: Any) -> Browser:
        """A new visitor, whose answers are kept for the search at the end."""
        browser = Browser(self.page, **options)
        browser.answers = self.answers
        return browser

    def signed_in(self, account: Account) -> Browser:
        self.provider.user = account
        browser = self.browser()
        assert sign_in(browser).status_code == 303
        return browser


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    settings = {"PLAYGROUND_MODE": "public", "PLAYGROUND_BACKEND": "demo"}
    with (
        OpenIdProvider() as provider,
        hub_process(tmp_path_factory.mktemp("hub")) as hub,
        playground(
            tmp_path_factory.mktemp("page"), settings, hub.environment, provider.environment
        ) as page,
    ):
        hub.add_repo(
            Repo(PRIVATE, (weights(FILE, lora(2, layers=2)),), CARD, private=True),
            Repo(GATED, (weights(FILE, lora(3, layers=2)),), CARD, gated="auto"),
            Repo(PUBLIC, (weights(FILE, lora(4, layers=2)),), CARD),
        )
        hub.add_token(ADA.token, Visitor("ada", frozenset({GATED})))
        hub.add_token(BOB.token, Visitor("bob"))
        hub.add_token(BRIEF.token, Visitor("eve", frozenset({GATED})))
        yield Place(page, provider, hub, [])


def prompts(browser: Browser) -> list[str]:
    return [row["prompt"] for row in browser.history()]


def make(browser: Browser, prompt: str) -> None:
    browser.call("generate", prompt=prompt, image_size=SMALL)


def cookies(answer: httpx.Response) -> dict[str, list[str]]:
    """By name: the value, then the attributes."""
    parts = [header.split("; ") for header in answer.headers.get_list("set-cookie")]
    return {part[0].split("=")[0]: [part[0].split("=")[1], *part[1:]] for part in parts}


def account(browser: Browser) -> str:
    """The top line, as the page is told it when it opens."""
    return str(browser.fire(browser.opening(), ["demo", {}]).json()["data"][0])


# -- in and out ----------------------------------------------------------------


def test_the_provider_is_asked_for_no_more_than_is_used(place: Place) -> None:
    with place.browser() as browser:
        asked = parse_qs(urlsplit(begin(browser)).query)
    assert asked["scope"] == ["openid profile gated-repos read-repos"]
    assert asked["redirect_uri"] == [f"{place.page.url}/login/callback"]
    assert asked["code_challenge_method"] == ["S256"] and len(asked["state"][0]) >= 43


def test_history_follows_the_user_over_browsers(place: Place) -> None:
    with place.signed_in(ADA) as first, place.signed_in(ADA) as second, place.browser() as other:
        make(first, "made in the first browser")
        assert "made in the first browser" in prompts(second)
        assert prompts(other) == []
    with place.signed_in(BOB) as bob:
        assert prompts(bob) == []


def test_what_was_made_before_comes_along(place: Place) -> None:
    with place.browser() as browser, place.browser() as other:
        make(browser, "before signing in")
        make(other, "somebody else's")
        before = browser.http.cookies[COOKIE]
        place.provider.user = BOB
        sign_in(browser)
        assert prompts(browser) == ["before signing in"]
        (row,) = browser.history()
        assert browser.http.get(f"/media/{row['id']}/0").status_code == 200
        assert [job["id"] for job in browser.changes()["jobs"]] == [row["id"]]
        assert prompts(other) == ["somebody else's"]
        sign_out(browser)
        assert prompts(browser) == [], "it is the user's now, not the browser's"
    with place.browser() as thief:
        thief.http.cookies.set(COOKIE, before)
        assert prompts(thief) == [], "the old cookie owns nothing any more"


def test_signing_out_ends_the_visit(place: Place) -> None:
    with place.signed_in(ADA) as browser:
        assert browser.call("inspect_lora", reference=PRIVATE)[0]["rank"] == 2
        secret = browser.http.cookies[SESSION_COOKIE]
        answer = sign_out(browser)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        browser.http.cookies.set(SESSION_COOKIE, secret)
        assert prompts(browser) == [], "the secret is no longer good"
        with pytest.raises(Said, match="not found, or it is private"):
            browser.call("inspect_lora", reference=PRIVATE)


def test_a_link_from_elsewhere_signs_nobody_in_or_out(place: Place) -> None:
    with place.signed_in(ADA) as browser:
        foreign = {"Origin": "https://evil.example"}
        assert browser.http.post("/logout", headers=foreign).status_code == 403
        assert browser.http.post("/login/huggingface", headers=foreign).status_code == 403
        browser.http.get("/logout")
        assert browser.http.get("/login/huggingface").status_code in (404, 405)
        assert browser.call("inspect_lora", reference=PRIVATE)[0]["rank"] == 2


def test_the_page_says_who_is_signed_in(place: Place) -> None:
    with place.browser() as nobody, place.signed_in(ADA) as ada:
        assert 'id="sign-in"' in account(nobody) and 'id="sign-out"' not in account(nobody)
        assert 'id="sign-out"' in account(ada) and ">ada</span>" in account(ada)
        assert 'id="sign-in"' not in account(ada)


# -- adapters ------------------------------------------------------------------


@pytest.mark.parametrize("repo", [PRIVATE, GATED])
def test_a_users_token_opens_what_is_theirs_to_read(repo: str, place: Place) -> None:
    with place.signed_in(ADA) as ada, place.signed_in(BOB) as bob, place.browser() as nobody:
        found = ada.call("inspect_lora", reference=repo)[0]
        assert found["rank"] and found["private"]
        for pasted in (repo, found["reference"], f"{repo}/{FILE}"):
            for stranger in (bob, nobody):
                with pytest.raises(Said, match="gated|private"):
                    stranger.call("inspect_lora", reference=pasted)


def test_what_everybody_may_read_is_read_without_a_token(place: Place) -> None:
    with place.signed_in(ADA) as ada:
        assert ada.call("inspect_lora", reference=PUBLIC)[0]["rank"] == 4
    asked = [r for r in place.hub.ledger().requests() if PUBLIC in r.path]
    assert asked and {r.token for r in asked} == {None}
    lent = [r for r in place.hub.ledger().requests() if r.token == token_hash(ADA.token)]
    assert lent and {r.stage for r in lent} <= {"info", "resolve", "cache", "paths"}


def test_an_expired_token_keeps_the_history_and_says_so(place: Place) -> None:
    with place.signed_in(BRIEF) as eve:
        make(eve, "by eve")
        assert eve.call("inspect_lora", reference=GATED)[0]["rank"] == 3
        wait_for("the token's end", lambda: "Sign in again" in account(eve), 10)
        with pytest.raises(Said, match="whose time is over.*Sign in again"):
            eve.call("inspect_lora", reference=GATED)
        assert eve.call("inspect_lora", reference=PUBLIC)[0]["rank"] == 4
        assert prompts(eve) == ["by eve"]
        place.provider.user = Account(BRIEF.sub, BRIEF.name, BRIEF.token)
        sign_in(eve)
        assert eve.call("inspect_lora", reference=GATED)[0]["rank"] == 3
        assert prompts(eve) == ["by eve"]


# -- what goes wrong -----------------------------------------------------------


def refused(answer: httpx.Response, words: str) -> None:
    """A page of its own that says so; nobody is signed in by it."""
    assert answer.status_code == 400 and words in answer.text
    assert "Traceback" not in answer.text and "<a href" in answer.text
    assert SESSION_COOKIE not in cookies(answer)


def test_it_is_said_in_the_visitors_language(place: Place) -> None:
    with place.browser(headers={"Accept-Language": "zh-CN"}) as browser:
        assert "登录" in browser.http.get("/login/callback").text


def test_declined(place: Place) -> None:
    with place.browser() as browser:
        place.provider.user = None
        refused(sign_in(browser), "declined")
        assert account(browser).count('id="sign-in"') == 1


def test_a_state_of_another_browser_is_refused(place: Place) -> None:
    """Else a link could sign somebody in as somebody else."""
    place.provider.user = BOB
    with place.browser() as attacker, place.browser() as victim:
        begin(victim)
        address = consent(begin(attacker))
        refused(victim.http.get(address), "begun in this browser")
        assert prompts(victim) == []
        with place.page.http() as fresh:
            refused(fresh.get(address), "begun in this browser")
        assert attacker.http.get(address).status_code == 303, "it was theirs"


@pytest.mark.parametrize(
    "query", ["", "code=x", "state=x&code=x", "error=access_denied", "state=ä"]
)
def test_an_answer_to_nothing_is_refused(query: str, place: Place) -> None:
    with place.browser() as browser:
        refused(browser.http.get(f"/login/callback?{query}"), "begun in this browser")


def test_a_code_is_good_once(place: Place) -> None:
    place.provider.user = BOB
    with place.browser() as browser:
        address = consent(begin(browser))
        assert browser.http.get(address).status_code == 303
        refused(browser.http.get(address), "begun in this browser")
        code = parse_qs(urlsplit(address).query)["code"][0]
        state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
        again = browser.http.get("/login/callback", params={"code": code, "state": state})
        refused(again, "(invalid_grant)")


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/oauth/token", (503, b"down"), "HTTP 503"),
        ("/oauth/token", (200, b"<html>"), "be read"),
        ("/oauth/token", (200, b"[]"), "be read"),
        ("/oauth/token", (400, b'{"error": "<b>x</b>"}'), "an error of its own"),
        ("/oauth/userinfo", (500, b""), "HTTP 500"),
        ("/oauth/userinfo", (200, b'{"name": "nobody"}'), "be read"),
        ("/oauth/userinfo", (200, b'{"sub": "a b", "preferred_username": "x"}'), "be read"),
    ],
)
def test_a_broken_provider(path: str, answer: tuple[int, bytes], words: str, place: Place) -> None:
    place.provider.user = BOB
    with place.browser() as browser:
        place.provider.broken[path] = answer
        try:
            refused(sign_in(browser), words)
        finally:
            del place.provider.broken[path]


def test_nobody_says_where_to_go_afterwards(place: Place) -> None:
    place.provider.user = BOB
    for target in ("https://evil.example", "//evil.example", "////evil.example", "/\\evil.example"):
        with place.browser() as browser:
            asked = {"_target_url": target, "redirect_uri": target, "next": target}
            started = browser.http.post("/login/huggingface", params=asked, data=asked)
            address = started.headers["location"]
            assert address.startswith(place.provider.url) and "evil" not in address
            back = browser.http.get(consent(address) + f"&_target_url={target}")
            assert (back.status_code, back.headers["location"]) == (303, "../")
            assert browser.http.post("/logout", params=asked).headers["location"] == "./"


# -- cookies and secrets -------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "sites"),
    [
        ({}, {"SameSite=Lax"}),
        ({"X-Forwarded-Proto": "https"}, {"SameSite=None", "Secure", "Partitioned"}),
    ],
)
def test_the_cookies_are_for_this_page_alone(
    headers: dict[str, str], sites: set[str], place: Place
) -> None:
    place.provider.user = BOB
    with place.browser() as browser:
        before = browser.http.cookies[COOKIE]
        answer = browser.http.get(consent(begin(browser)), headers=headers)
    given = cookies(answer)
    assert given.keys() == {SESSION_COOKIE, COOKIE} and given[COOKIE][0] != before
    for value, *flags in given.values():
        assert len(value) == 43
        assert {*flags} - {"Max-Age=86400", "Max-Age=31536000"} == {"Path=/", "HttpOnly", *sites}
    assert answer.headers["cache-control"] == "no-store"


def test_the_address_behind_a_proxy(place: Place) -> None:
    with place.browser() as browser:
        proxied = {"X-Forwarded-Proto": "https"}
        answer = browser.http.post("/login/huggingface", headers=proxied)
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"][0].startswith("https://127.0.0.1:")


def test_no_token_and_no_secret_anywhere(place: Place) -> None:
    """Runs last: answers with their headers, cookies among them, the log and every file."""
    secret = [n for a in (ADA, BOB, BRIEF) for n in needles(a.token.removeprefix("hf_oauth_"))]
    secret += [*needles(CLIENT_SECRET.removeprefix("playground-") * 2)]
    files = [path for path in place.page.directory.rglob("*") if path.is_file()]
    texts = [*place.answers, place.page.log().encode(), *map(Path.read_bytes, files)]
    assert len(place.answers) > 150 and len(files) > 10
    assert [needle for text in texts for needle in secret if needle in text] == []
    assert "Traceback" not in place.page.log()
