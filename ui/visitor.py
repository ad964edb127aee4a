"""Who is asking, and in which language."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final, Literal, Protocol

from generation.errors import NotInHistory
from ui.texts import LANGUAGES, Language, language_of

COOKIE: Final = "playground_visitor"
LANGUAGE_COOKIE: Final = "playground_language"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class Asked(Protocol):
    """What starlette's and Gradio's requests have in common."""

    @property
    def cookies(self) -> Any: ...
    @property
    def headers(self) -> Any: ...


def new_token() -> str:
    """An unguessable name for a visitor: 32 random bytes."""
    return secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """Whether this may be one of ours, by its shape."""
    return _TOKEN.fullmatch(text) is not None


class Visitors:
    """Maps a request to the owner of its jobs."""

    def __init__(self, mode: Literal["private", "public"]) -> None:
        self.public = mode == "public"

    def owner(self, request: Asked) -> str:
        """On a laptop everyone is the one owner; on a public server a cookie tells.

        Raises:
            NotInHistory: a public server, and no visitor's cookie.
        """
        if not self.public:
            return "local"
        token = request.cookies.get(COOKIE, "")
        if not is_token(token):
            raise NotInHistory()
        return f"visitor:{token}"


def language(request: Asked) -> Language:
    """The language chosen on the page, else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    for known in LANGUAGES:
        if chosen == known:
            return known
    return language_of(request.headers.get("accept-language"))
