"""Cookies that name somebody: for this page alone, and never for a script."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

YEAR: Final = 365 * 24 * 3600


def is_https(scope: Scope) -> bool:
    """Whether the browser speaks HTTPS, if only to the proxy: a Space's isn't on this machine,
    so uvicorn doesn't take its word."""
    told: str = Headers(scope=scope).get("x-forwarded-proto", scope["scheme"])
    return told.split(",")[0].strip() == "https"


def set_cookie(name: str, value: str, *, seconds: int, secure: bool) -> str:
    """The value of a Set-Cookie header; 0 seconds removes it."""
    # A Space is shown in a frame of another site: Lax would drop the cookie there.
    sites = "SameSite=None; Secure; Partitioned" if secure else "SameSite=Lax"
    return f"{name}={value}; Path=/; HttpOnly; Max-Age={seconds}; {sites}"
