"""A registry in front of a stand-in Hub, as its tests use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from lora_registry.inspection import Inspection
from lora_registry.registry import Registry
from lora_registry.search import Page, Query
from lora_registry.url_source import UrlSource
from tests.standins.hub import HubStandIn
from tests.standins.hub_ledger import HubRequest

T = TypeVar("T")


class Desk:
    """`folder` survives: another desk with the same one is the same playground, restarted."""

    def __init__(
        self,
        folder: Path,
        hub: HubStandIn,
        token: str | None = None,
        urls: UrlSource | None = None,
        at: str | None = None,
    ) -> None:
        self.folder = folder
        self.hub = hub
        secret = SecretStr(token) if token else None
        self.registry = Registry(folder, token=secret, hub=at or hub.url, urls=urls)

    def close(self) -> None:
        self.registry.close()

    def search(self, **query: Any) -> Page:
        return asyncio.run(self.registry.search(Query(**query)))

    def inspect(self, reference: str, owner: str = "local") -> Inspection:
        return asyncio.run(self.registry.inspect(reference, owner))

    def hand_over(self, path: str, **options: Any) -> Any:
        return asyncio.run(self.registry.hand_over(path, **options))

    def cards(self, *ids: str) -> Any:
        return asyncio.run(self.registry.cards(ids))

    def upload(self, data: bytes, owner: str = "local", name: str = "") -> str:
        with self.registry.keep_upload(owner, name) as writer:
            for start in range(0, len(data), 1000):
                writer.write(data[start : start + 1000])
        return writer.reference

    def seen(self, *stages: str) -> list[HubRequest]:
        return self.hub.ledger.requests(*stages)

    def together(self, make: Callable[[], Coroutine[Any, Any, T]], count: int) -> list[T]:
        async def run() -> list[T]:
            return list(await asyncio.gather(*(make() for _ in range(count))))

        return asyncio.run(run())


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """A result, and how many seconds it took."""
    began = time.monotonic()
    return call(), time.monotonic() - began
