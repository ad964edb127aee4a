"""Adapters: what is there, what one is, and how a backend gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from generation.errors import AdapterError, AdapterUnavailable, NoWeights
from generation.lora_file import LoraFile, pinned_address
from lora_format.anatomy import Anatomy, examine
from lora_registry.cache import JsonCache
from lora_registry.cards import Card
from lora_registry.copies import Copies, needs_choice, preselected
from lora_registry.handing import AWAY, Handing
from lora_registry.hub import Hub
from lora_registry.hub_source import HubSource, Repository
from lora_registry.inspection import Inspection, of_file, of_repository, of_unreachable
from lora_registry.parts import Progress
from lora_registry.references import (
    HUB,
    HubReference,
    UploadReference,
    UrlReference,
    parse_reference,
)
from lora_registry.search import Page, Query, Search
from lora_registry.shelf import Shelf
from lora_registry.triggers import TriggerWord
from lora_registry.uploads import Uploads, UploadWriter
from lora_registry.url_source import UrlSource, name_of
from lora_registry.weights import header_of
from lora_registry.work import Work

SECONDS: Final = 10.0


class Registry:
    """The one door to adapters, for the page and for jobs; usable from any event loop.

    `folder` is ours alone. The token is the server's own and optional: it reads
    gated and private repositories and raises the Hub's limits. It is sent to
    `hub` and nowhere else, and kept in memory only. `urls` replaces what reads
    addresses outside the Hub.
    """

    def __init__(
        self,
        folder: Path,
        *,
        token: SecretStr | None = None,
        hub: str = HUB,
        urls: UrlSource | None = None,
    ) -> None:
        self._hub = Hub(hub, token)
        self._work = Work(8, "adapters")
        self._search = Search(self._hub, JsonCache(folder / "cache" / "searches", 200), self._work)
        self._source = HubSource(self._hub, folder, self._work)
        self._shelf = Shelf(self._source, JsonCache(folder / "cache" / "cards", 2000))
        self._copies = Copies(self._hub, folder / "files")
        self._urls = urls or UrlSource(folder / "files", Work(4, "adapter-url"))
        self._uploads = Uploads(folder / "uploads")
        self._handing = Handing(self._source, self._copies, self._urls, self._uploads)

    def close(self) -> None:
        """End what is under way; downloads go on from where they are the next time."""
        self._copies.close()
        self._urls.close()
        self._work.close()

    # -- what is there ---------------------------------------------------------

    async def search(self, query: Query) -> Page:
        """One page of adapters; a Hub that fails is a note on it, not an error."""
        return await self._search.find(query)

    async def cards(self, ids: Sequence[str]) -> tuple[Card, ...]:
        """The cards of some repositories in this order; what can't be read has its name only."""
        return await self._shelf.cards(ids)

    # -- what it is ------------------------------------------------------------

    async def inspect(self, reference: str, owner: str = "local") -> Inspection:
        """Read what somebody pasted, clicked or dropped; without a download.

        Raises:
            AdapterError: it names nothing, isn't there, is gated, or can't be used. What only
                can't be reached now is no error but a `problem` of the answer.
        """
        ref = parse_reference(reference, self._hub.endpoint)
        match ref:
            case UploadReference():
                return await self._inspect_upload(ref, owner)
            case UrlReference():
                return await self._inspect_url(ref)
            case HubReference():
                return await self._inspect_hub(ref)

    async def _inspect_upload(self, ref: UploadReference, owner: str) -> Inspection:
        path = self._uploads.path(owner, ref.sha256)
        name = self._uploads.name(owner, ref.sha256)
        anatomy = examine(await asyncio.to_thread(header_of, path, name))
        return of_file(f"upload:{ref.sha256}", name, ref.sha256, anatomy, private=True)

    async def _inspect_url(self, ref: UrlReference) -> Inspection:
        try:
            seen = await self._urls.look(ref.url)
        except AdapterUnavailable as exc:
            return of_file(ref.url, name_of(ref.url), None, None, exc)
        return of_file(ref.url, name_of(ref.url), None, seen.anatomy)

    async def _inspect_hub(self, ref: HubReference) -> Inspection:
        try:
            found = await self._source.repository(ref.repo, ref.revision, SECONDS)
        except AWAY as exc:
            return of_unreachable(self._given(ref), ref, exc)
        if not found.card.files:
            raise NoWeights(repo=found.card.id)
        if ref.file is None and needs_choice(found.card.files):  # by their dates
            found = await self._source.dated(found, SECONDS)
        file = found.file(ref.file or preselected(found.card.files).name).name
        (anatomy, problem), prose, found = await asyncio.gather(
            self._anatomy(found, file), self._prose(found), self._source.dated(found, SECONDS)
        )
        reference = self._source.address(found, file)
        return of_repository(reference, found, file, anatomy, prose, problem)

    async def _anatomy(
        self, found: Repository, file: str
    ) -> tuple[Anatomy | None, AdapterError | None]:
        try:
            return await self._source.anatomy(found, file, SECONDS), None
        except AWAY as exc:
            return None, exc

    async def _prose(self, found: Repository) -> tuple[TriggerWord, ...]:
        """The card's text is only read where its fields name no trigger."""
        return () if found.card.trigger_words else await self._source.prose(found, SECONDS)

    def _given(self, ref: HubReference) -> str:
        """A reference that nobody could look up, in its plainest form."""
        if ref.file is None:
            return ref.repo
        return pinned_address(ref.repo, ref.revision or "main", ref.file)

    # -- how a backend gets it -------------------------------------------------

    async def hand_over(
        self,
        path: str,
        owner: str = "local",
        *,
        as_file: bool = False,
        progress: Progress | None = None,
    ) -> LoraFile:
        """An adapter of a request for the hosted endpoint, or as a file for the local backend.

        `progress` is called with bytes done and all bytes, from another thread.

        Raises:
            AdapterError: it can't be found, used or brought there; nothing was sent.
        """
        ref = parse_reference(path, self._hub.endpoint)
        match ref:
            case UploadReference():
                backend = "local" if as_file else "hosted"
                return await self._handing.upload(path, ref, owner, backend)
            case UrlReference() if as_file:
                return await self._handing.elsewhere_as_file(path, ref, progress)
            case UrlReference():
                return await self._handing.elsewhere(path, ref)
            case HubReference() if as_file:
                return await self._handing.from_hub_as_file(path, ref, progress)
            case HubReference():
                return await self._handing.from_hub(path, ref, progress)

    def keep_upload(self, owner: str, name: str = "") -> AbstractContextManager[UploadWriter]:
        """Take a file that was dropped on the page: write its bytes, then read `reference`.

        Blocks while it writes, and at the end while it checks the file.

        Raises:
            AdapterRefused: it is no safetensors file; nothing of it stays.
        """
        return self._uploads.keep(owner, name)
