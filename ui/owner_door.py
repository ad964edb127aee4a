"""Who is the owner of the page: who has entered the token, by a cookie that isn't it."""

from __future__ import annotations

import hmac
import time
from collections import deque
from typing import Final

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

COOKIE: Final = "playground_owner"
DAYS: Final = 30
TRIES: Final = 10  # wrong ones, of everybody together: an address can be changed at will
PERIOD: Final = 60.0  # seconds


class Door:
    """Open where there is no token."""

    def __init__(self, token: SecretStr | None) -> None:
        self.locked = token is not None
        self._token = token.get_secret_value().encode() if token else b""
        self._wrong: deque[float] = deque(maxlen=TRIES)

    def admits(self, request: Request) -> bool:
        """Whether this request carries a pass of ours that is still good."""
        if not self.locked:
            return True
        until, _, mark = request.cookies.get(COOKIE, "").partition(".")
        fresh = until.isascii() and until.isdigit() and len(until) < 12 and int(until) > time.time()
        return fresh and hmac.compare_digest(mark.encode(), self._mark(until).encode())

    def wait(self) -> int:
        """Seconds until another token may be tried."""
        if len(self._wrong) < TRIES:
            return 0
        return max(0, int(self._wrong[0] + PERIOD - time.monotonic()) + 1)

    def fits(self, token: str) -> bool:
        """Whether this is the token; a wrong one is counted, and none fits while `wait` says so."""
        if self.wait():
            return False
        if hmac.compare_digest(self._hash(token.strip().encode()), self._hash(self._token)):
            return True
        self._wrong.append(time.monotonic())
        return False

    def let_in(self, response: Response, *, https: bool) -> None:
        """Give a pass to the browser that this answer goes to."""
        until = str(int(time.time()) + DAYS * 24 * 3600)
        response.set_cookie(
            COOKIE,
            f"{until}.{self._mark(until)}",
            max_age=DAYS * 24 * 3600,
            httponly=True,
            secure=https,
            samesite="strict",
        )

    def let_out(self, response: Response) -> None:
        """Take the pass back."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def _mark(self, until: str) -> str:
        return hmac.new(self._token, f"owner until {until}".encode(), "sha256").hexdigest()

    def _hash(self, token: bytes) -> bytes:
        """Of one length, so that comparing tells nothing of the token's."""
        return hmac.digest(b"playground owner", token, "sha256")
