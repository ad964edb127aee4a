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
from lora_registry.copies import needs_choice, preselected
from lora_registry.handing import AWAY, DEADLINE, PATIENCE
from lora_registry.hub import Hub
from lora_registry.hub_source import HubSource, Repository
from lora_registry.inspection import Inspection, of_file, of_repository, of_unreachable
from lora_registry.parts import Progress
from lora_registry.readers import Readers
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
    gated and private repositories, for every owner, and raises the Hub's limits.
    `let_in` takes an owner's own, which reads for them alone. A token is sent to
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
        self._urls = urls or UrlSource(folder / "files", Work(4, "adapter-url"))
        self._uploads = Uploads(folder / "uploads")
        self._readers = Readers(self._hub, folder, self._work, self._urls, self._uploads)
        everybody = self._readers.everybody.source
        self._shelf = Shelf(everybody, JsonCache(folder / "cache" / "cards", 2000))

    def close(self) -> None:
        """End what is under way; downloads go on from where they are the next time."""
        self._readers.close()
        self._urls.close()
        self._work.close()

    # -- whose -----------------------------------------------------------------

    def let_in(self, owner: str, token: SecretStr, seconds: float) -> None:
        """Read for `owner` with their own token too, for at most `seconds`; kept in memory."""
        self._readers.let_in(owner, token, seconds)

    def forget(self, owner: str) -> None:
        """Drop an owner's token."""
        self._readers.forget(owner)

    def take_over(self, old: str, new: str) -> None:
        """What `old` uploaded is `new`'s as well."""
        self._uploads.take_over(old, new)

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
                return await self._inspect_hub(ref, owner)

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

    async def _inspect_hub(self, ref: HubReference, owner: str) -> Inspection:
        source = (await self._readers.of(ref, owner, SECONDS)).source
        try:
            found = await source.repository(ref.repo, ref.revision, SECONDS)
        except AWAY as exc:
            return of_unreachable(self._given(ref), ref, exc)
        if not found.card.files:
            raise NoWeights(repo=found.card.id)
        if ref.file is None and needs_choice(found.card.files):  # by their dates
            found = await source.dated(found, SECONDS)
        file = found.file(ref.file or preselected(found.card.files).name).name
        (anatomy, problem), prose, found = await asyncio.gather(
            _anatomy(source, found, file), _prose(source, found), source.dated(found, SECONDS)
        )
        reference = source.address(found, file)
        return of_repository(reference, found, file, anatomy, prose, problem)

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
        handing = self._readers.everybody.handing
        match ref:
            case UploadReference():
                backend = "local" if as_file else "hosted"
                return await handing.upload(path, ref, owner, backend)
            case UrlReference() if as_file:
                return await handing.elsewhere_as_file(path, ref, progress)
            case UrlReference():
                return await handing.elsewhere(path, ref)
            case HubReference() if as_file:
                reader = await self._readers.of(ref, owner, PATIENCE)
                return await reader.handing.from_hub_as_file(path, ref, progress)
            case HubReference():
                reader = await self._readers.of(ref, owner, DEADLINE)
                return await reader.handing.from_hub(path, ref, progress)

    def keep_upload(self, owner: str, name: str = "") -> AbstractContextManager[UploadWriter]:
        """Take a file that was dropped on the page: write its bytes, then read `reference`.

        Blocks while it writes, and at the end while it checks the file.

        Raises:
            AdapterRefused: it is no safetensors file; nothing of it stays.
        """
        return self._uploads.keep(owner, name)


async def _anatomy(
    source: HubSource, found: Repository, file: str
) -> tuple[Anatomy | None, AdapterError | None]:
    try:
        return await source.anatomy(found, file, SECONDS), None
    except AWAY as exc:
        return None, exc


async def _prose(source: HubSource, found: Repository) -> tuple[TriggerWord, ...]:
    """The card's text is only read where its fields name no trigger."""
    return () if found.card.trigger_words else await source.prose(found, SECONDS)
