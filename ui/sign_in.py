"""Signing in with Hugging Face: OpenID Connect's code flow, with PKCE, over authlib.

Not Gradio's LoginButton: its cookie holds the Hub token signed but readable, an
error of the provider is a traceback, and a link from anywhere signs out.
Where a Space may send people back to: huggingface.co/docs/hub/spaces-oauth.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from pydantic import SecretStr

from generation.errors import SignInDeclined, SignInStale, SignInUnavailable

WANTED: Final = ("openid", "profile", "gated-repos", "read-repos")
"""Who they are, and reading what they may read; of these, what the Space's card asks for."""
PATIENCE: Final = 600.0  # seconds that somebody may take on the provider's page
SECONDS: Final = 10.0
SHORT: Final = 3600  # seconds that a token is taken to last where nobody says
MOST: Final = 10_000
_SUB: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_BROKEN: Final = (
    httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError, AttributeError,
)  # fmt: skip


@dataclass(frozen=True)
class Client:
    """What a Space is given to sign people in with (OAUTH_CLIENT_ID and its like)."""

    id: str
    secret: SecretStr
    scopes: str
    provider: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Who signed in, and the token that they lent, for so many seconds."""

    sub: str
    name: str
    token: SecretStr
    seconds: float


@dataclass(frozen=True, slots=True)
class _Begun:
    state: str
    verifier: str
    redirect: str
    at: float


class SignIn:
    """Sends visitors to the provider and takes them back, each once and in the same browser."""

    def __init__(self, client: Client) -> None:
        # Here, not at the top: 0.2 s of every start, and most pages sign nobody in.
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        self._client = client
        self._library = AsyncOAuth2Client
        self._begun: OrderedDict[str, _Begun] = OrderedDict()  # by visitor, oldest first
        self._metadata: dict[str, str] = {}
        self._lock = threading.Lock()

    async def begin(self, visitor: str, redirect: str) -> str:
        """The provider's address for this visitor, who comes back to `redirect`.

        Raises:
            SignInUnavailable: the provider can't be asked.
        """
        endpoint = await self._endpoint("authorization_endpoint")
        begun = _Begun(
            secrets.token_urlsafe(32), secrets.token_urlsafe(48), redirect, time.monotonic()
        )
        with self._lock:
            self._begun[visitor] = begun
            self._begun.move_to_end(visitor)
            while len(self._begun) > MOST:
                self._begun.popitem(last=False)
        async with self._library(**self._identity(redirect)) as library:
            address, _ = library.create_authorization_url(
                endpoint, state=begun.state, code_verifier=begun.verifier
            )
        return str(address)

    async def finish(self, visitor: str, answer: dict[str, str]) -> Grant:
        """Who the visitor is, by what the provider's redirect said (its query).

        Raises:
            SignInStale: it answers nothing that this visitor began, or something used up.
            SignInDeclined: the visitor said no there.
            SignInUnavailable: the provider refuses, or can't be asked.
        """
        begun = self._take(visitor, answer.get("state", ""))
        if "error" in answer:
            declined = answer["error"] == "access_denied"
            raise SignInDeclined() if declined else SignInUnavailable(reason=_word(answer["error"]))
        try:
            return await self._redeem(begun, answer["code"])
        except _BROKEN as exc:
            raise SignInUnavailable(reason=_reason(exc)) from exc

    def _take(self, visitor: str, state: str) -> _Begun:
        with self._lock:
            begun = self._begun.get(visitor)
            if begun is None or not secrets.compare_digest(begun.state.encode(), state.encode()):
                raise SignInStale()
            del self._begun[visitor]
        if time.monotonic() - begun.at > PATIENCE:
            raise SignInStale()
        return begun

    async def _redeem(self, begun: _Begun, code: str) -> Grant:
        from authlib.common.errors import AuthlibBaseError

        tokens = await self._endpoint("token_endpoint")
        users = await self._endpoint("userinfo_endpoint")
        async with self._library(**self._identity(begun.redirect)) as library:
            try:
                token = await library.fetch_token(tokens, code=code, code_verifier=begun.verifier)
                answer = await library.get(users)
            except AuthlibBaseError as exc:
                raise SignInUnavailable(reason=_word(exc.error)) from exc
        return _grant(token, answer.raise_for_status().json())

    async def _endpoint(self, name: str) -> str:
        """One of the provider's addresses; asked for until it has answered once."""
        if not self._metadata:
            address = f"{self._client.provider.rstrip('/')}/.well-known/openid-configuration"
            try:
                async with httpx2.AsyncClient(timeout=SECONDS) as http:
                    told = (await http.get(address)).raise_for_status().json()
                self._metadata = {
                    each: str(told[each])
                    for each in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
                }
            except _BROKEN as exc:
                raise SignInUnavailable(reason=_reason(exc)) from exc
        return self._metadata[name]

    def _identity(self, redirect: str) -> dict[str, Any]:
        offered = self._client.scopes.split()
        return {
            "client_id": self._client.id,
            "client_secret": self._client.secret.get_secret_value(),
            "scope": " ".join(each for each in WANTED if each in ("openid", "profile", *offered)),
            "redirect_uri": redirect,
            "code_challenge_method": "S256",
            "timeout": SECONDS,
            "leeway": 0,  # a token is used at once, however short its time
        }


def _grant(token: dict[str, Any], user: dict[str, Any]) -> Grant:
    sub, name = str(user["sub"]), str(user["preferred_username"])
    if not _SUB.fullmatch(sub):
        raise ValueError("its answer names nobody")
    seconds = float(token.get("expires_in") or SHORT)
    return Grant(sub, name[:100], SecretStr(str(token["access_token"])), seconds)


def _reason(exc: Exception) -> str:
    """Why there is no good answer; the provider's own words might quote what was sent."""
    if isinstance(exc, httpx2.HTTPStatusError):
        return f"it answered HTTP {exc.response.status_code}"
    if isinstance(exc, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(exc, httpx2.TransportError):
        return "no connection"
    return "its answer can't be read"


def _word(error: object) -> str:
    """An OAuth error's code, such as invalid_grant; anything else is nobody's to repeat."""
    text = str(error)
    return text if re.fullmatch(r"[a-z_]{1,40}", text) else "an error of its own"
