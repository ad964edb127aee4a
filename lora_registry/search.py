"""Searching the Hub for adapters of Z-Image: one call for a cold page, none for a warm one.

A listing is fetched once, kept in memory and on disk, and narrowed and paged
here. Fresh for ten minutes; older, the copy answers while a new one is fetched.
Slow, limited or down, the copy answers and says why it is one; without a copy a
few well-known adapters do.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from generation.errors import AdapterError, HubUnreachable
from lora_registry.cache import JsonCache, Recent
from lora_registry.cards import BASE_MODELS, Base, Card, bare_card, card_of
from lora_registry.hub import Hub
from lora_registry.work import Work, wait_for

SORTS: Final = ("likes", "downloads", "trending", "newest", "updated")
FRESH: Final = 600.0
SLOW: Final = 3.0
GRACE: Final = 0.15
DEPTHS: Final = (100, 400, 1000)
MAX_LISTINGS: Final = 200
MAX_PAGE: Final = 200

_SORTS: Final = {
    "likes": "likes",
    "downloads": "downloads",
    "trending": "trendingScore",
    "newest": "createdAt",
    "updated": "lastModified",
}
_EXPAND: Final = (
    "cardData", "tags", "siblings", "sha", "downloads", "likes", "gated", "private",
    "lastModified", "createdAt", "trendingScore", "widgetData",
)  # fmt: skip
_STORAGE: Final = "usedStorage"
_STARTERS: Final = tuple(json.loads(Path(__file__).with_name("starters.json").read_text("utf-8")))


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; an unknown `sort` means the first one.

    `license` is the Hub's short name. `max_bytes` bounds what a repository
    takes, where the Hub says it. `offset` and `limit` count cards.
    """

    text: str = ""
    author: str = ""
    sort: str = "likes"
    license: str = ""
    max_bytes: int | None = None
    has_trigger: bool = False
    has_pictures: bool = False
    not_gated: bool = False
    include_mature: bool = False
    base: Base = "turbo"
    offset: int = 0
    limit: int = 24

    def takes(self, card: Card) -> bool:
        """Whether a card passes the filters that are ours."""
        return (
            (self.include_mature or not card.mature)
            and not (self.not_gated and card.gated)
            and (not self.has_trigger or bool(card.trigger_words))
            and (not self.has_pictures or card.picture is not None)
            and (not self.license or (card.license or "").lower() == self.license.lower())
            and (self.max_bytes is None or _weighs(card) <= self.max_bytes)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some cards. `age` is in seconds, 0 for a fresh listing; `problem` says why it isn't one."""

    cards: tuple[Card, ...]
    more: bool = False
    age: float = 0.0
    problem: AdapterError | None = None
    starters: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The first cards of the Hub's answer to one question, and when it came (Unix seconds)."""

    cards: tuple[Card, ...]
    whole: bool
    depth: int
    fetched: float

    @property
    def age(self) -> float:
        """Seconds since it was fetched; a clock that was set back makes it old, not new."""
        age = time.time() - self.fetched
        return age if age >= 0 else FRESH


_LISTING: Final = TypeAdapter(Listing)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A fetch under way or done, and when it began (monotonic)."""

    future: Future[Listing]
    began: float

    def problem(self) -> AdapterError | None:
        """Why it has given nothing yet: its error, or that it takes long."""
        if not self.future.done():
            late = time.monotonic() - self.began > SLOW
            return HubUnreachable(reason=f"no answer in {SLOW:g} s") if late else None
        if self.future.cancelled():
            return HubUnreachable(reason="the search was stopped")
        error = self.future.exception()
        return error if isinstance(error, AdapterError) or error is None else _unexpected(error)


class Search:
    """Listings of one Hub, shared by all visitors; private repositories are in none of them."""

    def __init__(self, hub: Hub, cache: JsonCache, work: Work) -> None:
        self._hub = hub
        self._cache = cache
        self._work = work
        self._listings: Recent[Listing] = Recent(MAX_LISTINGS)
        self._attempts: Recent[_Attempt] = Recent(MAX_LISTINGS)

    async def find(self, query: Query) -> Page:
        """One page; never raises over the Hub."""
        key, depth = _key(query), 0
        while True:
            listing = self._known(key)
            if listing is not None and listing.age < FRESH and listing.depth >= depth:
                problem = None
            else:
                listing, problem = await self._fetched(query, key, listing, max(depth, DEPTHS[0]))
            if listing is None:
                return Page(tuple(map(bare_card, _STARTERS)), problem=problem, starters=True)
            page, enough = _page(query, listing, problem)
            depth = next((d for d in DEPTHS if d > listing.depth), 0)
            if enough or problem is not None or not depth:
                return page

    def _known(self, key: str) -> Listing | None:
        listing = self._listings.get(key) or _from_disk(self._cache.get(key))
        return self._listings.put(key, listing) if listing is not None else None

    async def _fetched(
        self, query: Query, key: str, known: Listing | None, depth: int
    ) -> tuple[Listing | None, AdapterError | None]:
        """A new listing within its time, else the known one and why."""
        depth = max(depth, known.depth if known else 0)
        attempt = self._attempt(query, key, depth)
        stale_will_do = known is not None and known.depth >= depth
        try:
            return await wait_for(attempt.future, GRACE if stale_will_do else SLOW), None
        except TimeoutError:
            late = None if stale_will_do else HubUnreachable(reason=f"no answer in {SLOW:g} s")
            return known, attempt.problem() or late
        except AdapterError as exc:
            return known, exc

    def _attempt(self, query: Query, key: str, depth: int) -> _Attempt:
        """The fetch that is under way, or a new one."""
        last = self._attempts.get(f"{key} {depth}")
        if last is not None and not last.future.done():
            return last
        future = self._work.start((key, depth), lambda: self._fetch(query, key, depth))
        return self._attempts.put(f"{key} {depth}", _Attempt(future, time.monotonic()))

    def _fetch(self, query: Query, key: str, depth: int) -> Listing:
        """In a thread: ask the Hub, keep what may be shown to everybody."""
        rows, whole = self._rows(_params(query), depth)
        cards = (card_of(row, self._hub.endpoint, query.base) for row in rows)
        shown = {card.id: card for card in cards if card is not None and not card.private}
        listing = Listing(tuple(shown.values()), whole, depth, time.time())
        self._cache.put(key, _LISTING.dump_python(listing, mode="json"))
        return self._listings.put(key, listing)

    def _rows(self, params: dict[str, Any], depth: int) -> tuple[list[Any], bool]:
        try:
            return self._hub.models(params, depth)
        except HubUnreachable:
            if _STORAGE not in params["expand"]:
                raise
        # Not every Hub lists what a repository takes.
        return self._hub.models(params | {"expand": [*_EXPAND]}, depth)


def _page(query: Query, listing: Listing, problem: AdapterError | None) -> tuple[Page, bool]:
    """The page, and whether the listing was deep enough to fill it."""
    fitting = [card for card in listing.cards if query.takes(card)]
    start = max(query.offset, 0)
    stop = start + min(max(query.limit, 1), MAX_PAGE)
    deeper = not listing.whole and listing.depth < DEPTHS[-1]
    age = 0.0 if listing.age < FRESH and problem is None else listing.age
    page = Page(tuple(fitting[start:stop]), len(fitting) > stop or deeper, age, problem)
    return page, len(fitting) >= stop or not deeper


def _key(query: Query) -> str:
    """The question to the Hub; what else a query holds is answered from the listing."""
    sized = query.max_bytes is not None
    return json.dumps([query.base, _text(query.text), _text(query.author), _sort(query), sized])


def _params(query: Query) -> dict[str, Any]:
    expand = [*_EXPAND, _STORAGE] if query.max_bytes is not None else [*_EXPAND]
    params: dict[str, Any] = {
        "filter": f"base_model:adapter:{BASE_MODELS[query.base]}",
        "sort": _SORTS[_sort(query)],
        "expand": expand,
    }
    asked = {"search": _text(query.text), "author": _text(query.author)}
    return params | {name: text for name, text in asked.items() if text}


def _sort(query: Query) -> str:
    return query.sort if query.sort in SORTS else SORTS[0]


def _text(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:100]


def _weighs(card: Card) -> int:
    """Bytes, where they are known; what isn't known can't be held against it."""
    sizes = [file.size for file in card.files if file.size is not None]
    return min(sizes) if sizes else card.storage or 0


def _from_disk(value: dict[str, Any] | None) -> Listing | None:
    try:
        return _LISTING.validate_python(value) if value is not None else None
    except ValidationError:
        return None


def _unexpected(error: BaseException) -> HubUnreachable:
    return HubUnreachable(reason=type(error).__name__)
