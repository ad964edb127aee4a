"""How a backend gets an adapter: by an address that anyone may read, or as a file that is here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from generation.errors import (
    AdapterUnavailable,
    HubLimited,
    HubUnreachable,
    NoWeights,
    SeveralFiles,
)
from generation.lora_file import LoraFile, pinned_address
from lora_format.anatomy import examine
from lora_registry.copies import Copies, needs_choice, preselected, sha256_of
from lora_registry.hub_source import HubSource, Repository
from lora_registry.inspection import refuse_unfit
from lora_registry.parts import Progress
from lora_registry.references import HubReference, UploadReference, UrlReference
from lora_registry.uploads import Uploads
from lora_registry.url_source import UrlSource, name_of
from lora_registry.weights import header_of

DEADLINE: Final = 3.0
PATIENCE: Final = 20.0
AWAY: Final = (HubUnreachable, HubLimited)
"""Errors that say nothing of the adapter itself."""


class Handing:
    """Gives adapters to backends; refuses before anything is paid what can't work there."""

    def __init__(
        self, source: HubSource, copies: Copies, urls: UrlSource, uploads: Uploads
    ) -> None:
        self._source = source
        self._copies = copies
        self._urls = urls
        self._uploads = uploads

    async def upload(self, path: str, ref: UploadReference, owner: str, backend: str) -> LoraFile:
        """A file that its owner dropped on the page."""
        local = self._uploads.path(owner, ref.sha256)
        name = self._uploads.name(owner, ref.sha256)
        await asyncio.to_thread(_refuse_unfit_file, local, name, backend)
        return LoraFile(path, name, ref.sha256, local=local)

    async def elsewhere(self, path: str, ref: UrlReference) -> LoraFile:
        """An address outside the Hub, as it is: whoever makes the image fetches it there."""
        name = name_of(ref.url)
        with suppress(AdapterUnavailable, TimeoutError):  # the endpoint may have better luck
            async with asyncio.timeout(DEADLINE):
                refuse_unfit((await self._urls.look(ref.url)).anatomy, name, "hosted")
        return LoraFile(path, name, url=ref.url)

    async def elsewhere_as_file(
        self, path: str, ref: UrlReference, progress: Progress | None
    ) -> LoraFile:
        """A copy of what lies at an address outside the Hub."""
        seen, name = await self._urls.look(ref.url), name_of(ref.url)
        refuse_unfit(seen.anatomy, name, "local")
        local = await self._urls.copy(ref.url, seen, progress)
        return LoraFile(path, name, await asyncio.to_thread(sha256_of, local), local=local)

    async def from_hub(self, path: str, ref: HubReference, progress: Progress | None) -> LoraFile:
        """A file on the Hub for the hosted endpoint: its pinned address, or a copy if closed.

        A Hub that doesn't answer in time doesn't stand in the way: the address
        is passed on as it was given.
        """
        ends = asyncio.get_running_loop().time() + DEADLINE
        try:
            async with asyncio.timeout_at(ends):
                found, file = await self._chosen(ref, DEADLINE)
        except (*AWAY, TimeoutError):
            return self._passed_on(path, ref)
        if found.closed:
            return await self._copied(path, found, file, "hosted", progress)
        with suppress(*AWAY, TimeoutError):  # read if possible, at its pinned address in any case
            async with asyncio.timeout_at(ends):
                await self._refuse_unfit(found, file, "hosted", DEADLINE)
        return LoraFile(path, file, found.sha, url=self._source.address(found, file))

    async def from_hub_as_file(
        self, path: str, ref: HubReference, progress: Progress | None
    ) -> LoraFile:
        """A copy of a file on the Hub; once it is here, the Hub isn't needed for it."""
        here = self.here(ref)
        if here is not None and ref.file is not None:
            name = f"{ref.repo}/{ref.file}"
            await asyncio.to_thread(_refuse_unfit_file, here, name, "local")
            return LoraFile(path, ref.file, ref.revision, local=here)
        found, file = await self._chosen(ref, PATIENCE)
        return await self._copied(path, found, file, "local", progress)

    def here(self, ref: HubReference) -> Path | None:
        """The copy of a pinned file, if there is one."""
        if not ref.pinned or ref.file is None or ref.revision is None:
            return None
        path = self._copies.path(ref.repo, ref.revision, ref.file)
        return path if path.exists() else None

    async def _copied(
        self, path: str, found: Repository, file: str, backend: str, progress: Progress | None
    ) -> LoraFile:
        name, models = f"{found.card.id}/{file}", found.card.base_models
        local = self._copies.path(found.card.id, found.sha, file)
        if local.exists():  # the Hub isn't needed for its header either
            await asyncio.to_thread(_refuse_unfit_file, local, name, backend, models)
        else:
            await self._refuse_unfit(found, file, backend, PATIENCE)
            local = await self._copies.bring(found, file, progress)
        return LoraFile(path, file, found.sha, local=local)

    async def _chosen(self, ref: HubReference, seconds: float) -> tuple[Repository, str]:
        found = await self._source.repository(ref.repo, ref.revision, seconds)
        return found, the_file(found, ref.file)

    async def _refuse_unfit(
        self, found: Repository, file: str, backend: str, seconds: float
    ) -> None:
        anatomy = await self._source.anatomy(found, file, seconds)
        refuse_unfit(anatomy, f"{found.card.id}/{file}", backend, found.card.base_models)

    def _passed_on(self, path: str, ref: HubReference) -> LoraFile:
        sha = ref.revision if ref.pinned else None
        if (here := self.here(ref)) is not None:
            return LoraFile(path, ref.file, sha, local=here)
        if ref.file is None:
            return LoraFile(path, url=ref.repo)
        url = pinned_address(ref.repo, ref.revision or "main", ref.file)
        return LoraFile(path, ref.file, sha, url=url)


def the_file(found: Repository, named: str | None) -> str:
    """The one file that a reference means.

    Raises:
        AdapterNotFound: the named one isn't there.
        NoWeights: none is.
        SeveralFiles: it could be one or the other.
    """
    files = found.card.files
    if not files:
        raise NoWeights(repo=found.card.id)
    if named is not None:
        return found.file(named).name
    if needs_choice(files):
        shown = ", ".join(file.name for file in files[:4]) + (" …" if len(files) > 4 else "")
        raise SeveralFiles(repo=found.card.id, files=shown)
    return preselected(files).name


def _refuse_unfit_file(
    path: Path, name: str, backend: str, base_models: tuple[str, ...] = ()
) -> None:
    refuse_unfit(examine(header_of(path, name)), name, backend, base_models)
