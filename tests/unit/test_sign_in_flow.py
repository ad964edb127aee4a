"""The code flow and the visits by themselves: times, limits, a provider that is down."""

from __future__ import annotations

import time

import httpx
import pytest
from pydantic import SecretStr

import ui.sessions
import ui.sign_in
from generation.errors import SignInStale, SignInUnavailable
from tests.standins.oauth import CLIENT_ID, CLIENT_SECRET, Account, OpenIdProvider
from ui.sessions import LASTS, Sessions, User
from ui.sign_in import Client, SignIn

BACK = "https://page.example/login/callback"
ADA = User("64b7ada", "ada", adapters_until=float("inf"))


def sign_in_at(address: str, scopes: str = "openid profile") -> SignIn:
    return SignIn(Client(CLIENT_ID, SecretStr(CLIENT_SECRET), scopes, address))


def consented(address: str) -> dict[str, str]:
    """The query with which the provider sends a browser back."""
    answer = httpx.get(address, trust_env=False)
    return dict(httpx.URL(answer.headers["location"]).params)


async def test_a_provider_that_is_down() -> None:
    with pytest.raises(SignInUnavailable, match="no connection"):
        await sign_in_at("http://127.0.0.1:9").begin("visitor", BACK)


async def test_a_provider_is_asked_again_after_it_was_down() -> None:
    with OpenIdProvider(Account("64b7ada", "ada")) as provider:
        flow = sign_in_at(provider.url)
        path = "/.well-known/openid-configuration"
        provider.broken[path] = (200, b'{"issuer": "x"}')
        with pytest.raises(SignInUnavailable, match="be read"):
            await flow.begin("visitor", BACK)
        del provider.broken[path]
        grant = await flow.finish("visitor", consented(await flow.begin("visitor", BACK)))
    assert (grant.sub, grant.name) == ("64b7ada", "ada")
    assert 28_000 < grant.seconds <= 28_800
    assert grant.token.get_secret_value() not in repr(grant)


async def test_it_can_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenIdProvider(Account("64b7ada", "ada")) as provider:
        flow = sign_in_at(provider.url)
        answer = consented(await flow.begin("visitor", BACK))
        monkeypatch.setattr(ui.sign_in, "PATIENCE", -1.0)
        with pytest.raises(SignInStale):
            await flow.finish("visitor", answer)


async def test_the_last_of_two_begun_counts() -> None:
    with OpenIdProvider(Account("64b7ada", "ada")) as provider:
        flow = sign_in_at(provider.url)
        first, second = [consented(await flow.begin("visitor", BACK)) for _ in range(2)]
        with pytest.raises(SignInStale):
            await flow.finish("visitor", first)
        assert (await flow.finish("visitor", second)).name == "ada"


async def test_those_who_never_come_back_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.sign_in, "MOST", 2)
    with OpenIdProvider(Account("64b7ada", "ada")) as provider:
        flow = sign_in_at(provider.url)
        answers = {name: consented(await flow.begin(name, BACK)) for name in ("a", "b", "c")}
        with pytest.raises(SignInStale):
            await flow.finish("a", answers["a"])
        assert (await flow.finish("c", answers["c"])).name == "ada"


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        ("openid profile", "openid profile"),
        ("email write-repos read-repos", "openid profile read-repos"),
        ("read-repos gated-repos", "openid profile gated-repos read-repos"),
    ],
)
async def test_scopes(offered: str, asked: str) -> None:
    with OpenIdProvider() as provider:
        address = await sign_in_at(provider.url, offered).begin("visitor", BACK)
    assert httpx.URL(address).params["scope"] == asked


# -- visits --------------------------------------------------------------------


def test_a_visit_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    secret = sessions.begin(ADA)
    now = time.monotonic()
    assert sessions.user(secret) == ADA and sessions.user("x") is None
    monkeypatch.setattr("time.monotonic", lambda: now + LASTS + 1)
    assert sessions.user(secret) is None
    sessions.begin(ADA)
    assert len(sessions._visits) == 1, "what is over is let go"


def test_a_visit_in_another_browser_goes_on() -> None:
    sessions = Sessions()
    here, there = sessions.begin(ADA), sessions.begin(ADA)
    assert sessions.end(here) is None, "not the last one: the token stays"
    assert sessions.user(here) is None and sessions.user(there) == ADA
    assert sessions.end(there) == ADA
    assert sessions.end(there) is None


def test_visits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.sessions, "MOST", 2)
    sessions = Sessions()
    first, second, third = (sessions.begin(ADA) for _ in range(3))
    assert sessions.user(first) is None
    assert sessions.user(second) == sessions.user(third) == ADA
