"""An OpenID provider on loopback, as the Hub is one: discovery, authorize, token, userinfo.

It keeps the code flow's rules for unmodified client libraries: a registered client and
address, PKCE, a code that is good once. Nobody clicks: whoever is set as `user` consents.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT_ID, CLIENT_SECRET = "playground-client", "playground-secret"


@dataclass(frozen=True)
class Account:
    """Somebody on the Hub, and the token that they lend, for so many seconds."""

    sub: str
    name: str
    token: str = field(default_factory=lambda: f"hf_oauth_{secrets.token_hex(20)}")
    expires_in: int = 28_800

    def userinfo(self) -> dict[str, Any]:
        return {
            "sub": self.sub,
            "name": self.name.title(),
            "preferred_username": self.name,
            "profile": f"https://huggingface.co/{self.name}",
            "picture": "https://huggingface.co/avatars/a.svg",
            "isPro": False,
        }


@dataclass(frozen=True)
class _Code:
    account: Account
    redirect: str
    challenge: str
    scope: str


class Refusal(Exception):
    """An answer's status and the JSON that says why."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class OpenIdProvider:
    """A running provider. `user` is who consents; None: they decline. `broken` paths fail."""

    def __init__(self, user: Account | None = None) -> None:
        self.user = user
        self.broken: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Every request's path and parameters."""
        self._codes: dict[str, _Code] = {}
        self._tokens: dict[str, Account] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a Space with `hf_oauth: true` finds; with more scopes than anybody should use."""
        return {
            "OAUTH_CLIENT_ID": CLIENT_ID,
            "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
            "OAUTH_SCOPES": "openid profile email gated-repos read-repos write-repos",
            "OPENID_PROVIDER_URL": self.url,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    # -- the endpoints ---------------------------------------------------------

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/oauth/authorize",
            "token_endpoint": f"{self.url}/oauth/token",
            "userinfo_endpoint": f"{self.url}/oauth/userinfo",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser goes next."""
        redirect = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT_ID or urlsplit(redirect).path != "/login/callback":
            raise Refusal(400, "invalid_client")
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            raise Refusal(400, "invalid_request")
        if self.user is None:
            return _with(redirect, error="access_denied", state=asked["state"])
        code = secrets.token_urlsafe(16)
        self._codes[code] = _Code(self.user, redirect, asked["code_challenge"], asked["scope"])
        return _with(redirect, code=code, state=asked["state"])

    def redeem(self, asked: dict[str, str], authorization: str) -> dict[str, Any]:
        known = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {known}":
            raise Refusal(401, "invalid_client")
        code = self._codes.pop(asked.get("code", ""), None)
        proof = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
        if code is None or code.redirect != asked.get("redirect_uri"):
            raise Refusal(400, "invalid_grant")
        if code.challenge != challenge or asked.get("grant_type") != "authorization_code":
            raise Refusal(400, "invalid_grant")
        self._tokens[code.account.token] = code.account
        return {
            "access_token": code.account.token,
            "token_type": "bearer",
            "expires_in": code.account.expires_in,
            "scope": code.scope,
        }

    def userinfo(self, authorization: str) -> dict[str, Any]:
        account = self._tokens.get(authorization.removeprefix("Bearer "))
        if account is None:
            raise Refusal(401, "invalid_token")
        return account.userinfo()


def _with(address: str, **query: str) -> str:
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}"


class _Server(ThreadingHTTPServer):
    provider: OpenIdProvider


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._respond({k: v[-1] for k, v in parse_qs(urlsplit(self.path).query).items()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._respond({k: v[-1] for k, v in parse_qs(body).items()})

    def _respond(self, asked: dict[str, str]) -> None:
        path = urlsplit(self.path).path
        self.server.provider.asked.append((path, asked))
        if path in self.server.provider.broken:
            self._send(*self.server.provider.broken[path])
            return
        try:
            self._answer(path, asked)
        except Refusal as exc:
            self._send(exc.status, json.dumps({"error": exc.error}).encode())

    def _answer(self, path: str, asked: dict[str, str]) -> None:
        who = self.headers.get("Authorization", "")
        if path == "/.well-known/openid-configuration":
            self._json(self.server.provider.discovery())
        elif path == "/oauth/authorize":
            self._send(302, b"", Location=self.server.provider.authorize(asked))
        elif path == "/oauth/token" and self.command == "POST":
            self._json(self.server.provider.redeem(asked, who))
        elif path == "/oauth/userinfo":
            self._json(self.server.provider.userinfo(who))
        else:
            self._send(404, b"")

    def _json(self, value: dict[str, Any]) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output is the test's."""
