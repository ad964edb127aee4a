"""The cards of repositories that somebody knows by name: favourites, and those used last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from generation.errors import AdapterError
from lora_registry.cache import JsonCache
from lora_registry.cards import Card, bare_card
from lora_registry.hub_source import HubSource
from lora_registry.references import is_repo

FRESH: Final = 3600.0
SECONDS: Final = 3.0
MAX_CARDS: Final = 60
_CARD: Final = TypeAdapter(Card)


class Shelf:
    """Cards by id, kept on disk: they are there although the Hub is not."""

    def __init__(self, source: HubSource, cache: JsonCache) -> None:
        self._source = source
        self._cache = cache

    async def cards(self, ids: Sequence[str]) -> tuple[Card, ...]:
        """One card for each usable id, in their order; an hour old at most while the Hub is up."""
        wanted = [repo for repo in dict.fromkeys(ids) if is_repo(repo)][:MAX_CARDS]
        return tuple(await asyncio.gather(*map(self._card, wanted)))

    async def _card(self, repo: str) -> Card:
        kept = self._cache.get(repo)
        card = _read(kept)
        if kept is not None and card is not None and 0 <= time.time() - kept["at"] < FRESH:
            return card
        try:
            found = (await self._source.repository(repo, None, SECONDS)).card
        except AdapterError:
            return card or bare_card(repo)
        if not found.private:
            self._cache.put(
                repo, {"card": _CARD.dump_python(found, mode="json"), "at": time.time()}
            )
        return found


def _read(kept: dict[str, Any] | None) -> Card | None:
    try:
        return _CARD.validate_python(kept["card"]) if kept and float(kept["at"]) else None
    except (ValidationError, KeyError, TypeError, ValueError):
        return None
