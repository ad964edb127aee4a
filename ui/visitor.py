"""Who is asking, and in which language."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final, Literal, Protocol

from generation.errors import NotInHistory
from lora_registry.cache import Recent
from ui.sessions import Sessions, User
from ui.texts import LANGUAGES, Language, language_of

COOKIE: Final = "playground_visitor"
SESSION_COOKIE: Final = "playground_session"
UNNAMED: Final = "playground_unnamed"
"""A cookie that no browser has: the Gate's mark on a request to which it gave a name itself."""
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

    def __init__(
        self, mode: Literal["private", "public"], sessions: Sessions | None = None
    ) -> None:
        self.public = mode == "public"
        self.signs_in = sessions is not None
        self.sessions = sessions or Sessions()
        self.belongings = Belongings()

    def user(self, request: Asked) -> User | None:
        """Who is signed in in this browser."""
        return self.sessions.user(request.cookies.get(SESSION_COOKIE, ""))

    def owner(self, request: Asked) -> str:
        """On a laptop everyone is the one owner; on a public server a cookie tells.

        A user is named by what the Hub never changes, and is the same in every browser.

        Raises:
            NotInHistory: a public server, and no visitor's cookie.
        """
        if not self.public:
            return "local"
        user = self.user(request)
        if user is not None:
            return user.owner
        token = request.cookies.get(COOKIE, "")
        if not is_token(token):
            raise NotInHistory()
        return f"visitor:{token}"

    def shown(self, request: Asked) -> str:
        """The owner that the request itself names; "" for a program that keeps no cookies.

        Such a program has a new name with every request: what it is handed by one, it finds by
        the next because only it knows the address.
        """
        named = self.user(request) is not None or UNNAMED not in request.cookies
        return self.owner(request) if named else ""

    def may_open(self, path: str, request: Asked) -> bool:
        """Whether a file that Gradio keeps was uploaded or made by who asks."""
        return not self.public or self.belongings.belongs(path, self.shown(request))


class Belongings:
    """To whom Gradio handed a file's path or an event's number; what is forgotten is nobody's."""

    def __init__(self) -> None:
        self._handed: Recent[bool] = Recent(50_000)

    def hand(self, thing: str, owner: str) -> None:
        """From now on this owner may ask for it."""
        self._handed.put(f"{owner}\n{thing}", True)

    def belongs(self, thing: str, owner: str) -> bool:
        """Whether it was handed to this owner."""
        return self._handed.get(f"{owner}\n{thing}") is True


def language(request: Asked) -> Language:
    """The language chosen on the page, else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    for known in LANGUAGES:
        if chosen == known:
            return known
    return language_of(request.headers.get("accept-language"))
