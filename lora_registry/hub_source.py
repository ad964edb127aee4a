"""Adapters on the Hub: what a repository holds, and what a file is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from generation.errors import (
    AdapterError,
    AdapterGated,
    AdapterNotFound,
    AdapterRefused,
    HubUnreachable,
)
from generation.lora_file import pinned_address
from lora_format.anatomy import Anatomy, examine
from lora_format.header import parse_header
from lora_registry.cache import JsonCache, Recent
from lora_registry.cards import Card, WeightFile, card_of
from lora_registry.hub import Hub
from lora_registry.triggers import TriggerWord, from_prose
from lora_registry.weights import LENGTH, read_header
from lora_registry.work import Work

FRESH: Final = 600.0
README_BYTES: Final = 65_536
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as it was at one revision.

    `asked` is the name that led to it, `link` its page.
    """

    asked: str
    card: Card
    sha: str
    link: str

    @property
    def closed(self) -> bool:
        """Whether its files need a token."""
        return self.card.private or self.card.gated

    def file(self, name: str) -> WeightFile:
        """One of its files.

        Raises:
            AdapterNotFound: it isn't there.
        """
        for file in self.card.files:
            if file.name == name:
                return file
        raise AdapterNotFound(reference=f"{self.card.id}/{name}")

    def refused(self, exc: AdapterNotFound) -> AdapterError:
        """Why a file that is listed can't be read: a gated repository lists its files too."""
        return AdapterGated(repo=self.card.id, link=self.link) if self.card.gated else exc


@dataclass(frozen=True, slots=True)
class _Kept:
    repository: Repository
    at: float


class HubSource:
    """Reads repositories and headers; `folder` takes what is remembered of public ones."""

    def __init__(self, hub: Hub, folder: Path, work: Work) -> None:
        self._hub = hub
        self._work = work
        self._repositories: Recent[_Kept] = Recent(1000)
        self._anatomies: Recent[Anatomy] = Recent(300)
        self._prose: Recent[tuple[TriggerWord, ...]] = Recent(300)
        self._dates: Recent[dict[str, str]] = Recent(300)
        self._headers = JsonCache(folder / "cache" / "headers", 500)

    # -- the repository --------------------------------------------------------

    async def repository(self, repo: str, revision: str | None, seconds: float) -> Repository:
        """A repository, as it was at most ten minutes ago.

        Raises:
            AdapterError: not found, gated, limited, or unreachable within `seconds`.
        """
        key = f"{repo}@{revision or ''}"
        kept = self._repositories.get(key)
        if kept is not None and time.monotonic() - kept.at < FRESH:
            return kept.repository
        return await self._asked(("model", key), lambda: self._ask(repo, revision), seconds)

    def _ask(self, repo: str, revision: str | None) -> Repository:
        card = card_of(self._hub.model(repo, revision), self._hub.endpoint)
        if card is None or card.sha is None:
            raise HubUnreachable(reason="its answer can't be read")
        found = Repository(repo, card, card.sha, f"{self._hub.endpoint}/{card.id}")
        for key in {f"{repo}@{revision or ''}", f"{card.id}@{card.sha}"}:
            self._repositories.put(key, _Kept(found, time.monotonic()))
        return found

    async def dated(self, found: Repository, seconds: float) -> Repository:
        """The same with its files' dates, where the Hub gives them in time."""
        names = [file.name for file in found.card.files[:100]]
        key = f"{found.card.id}@{found.sha}"
        dates = self._dates.get(key) or {}
        if names and not dates:
            with suppress(AdapterError):
                dates = await self._asked(
                    ("dates", key),
                    lambda: self._hub.dates(found.card.id, found.sha, names),
                    seconds,
                )
                self._dates.put(key, dates)
        files = (replace(file, date=dates.get(file.name)) for file in found.card.files)
        return replace(found, card=replace(found.card, files=tuple(files)))

    async def prose(self, found: Repository, seconds: float) -> tuple[TriggerWord, ...]:
        """Trigger words that the card's text states; none where it can't be read in time."""
        key = f"{found.card.id}@{found.sha}"
        known = self._prose.get(key)
        if known is not None:
            return known
        try:
            text = await self._asked(
                ("readme", key),
                lambda: self._hub.text(found.card.id, found.sha, "README.md", README_BYTES),
                seconds,
            )
        except AdapterError:
            return ()
        return self._prose.put(key, from_prose(text))

    # -- a file ----------------------------------------------------------------

    def address(self, found: Repository, file: str) -> str:
        """The file at its revision, for anybody: not this Hub's own address, if it is a mirror."""
        return pinned_address(found.card.id, found.sha, file)

    async def anatomy(self, found: Repository, file: str, seconds: float) -> Anatomy:
        """What the file is, by its header.

        Raises:
            AdapterError: refused, gated, or not to be read within `seconds`.
        """
        key = f"{found.card.id}@{found.sha}/{file}"
        known = self._anatomies.get(key)
        if known is not None:
            return known
        return await self._asked(("header", key), lambda: self._examine(found, file, key), seconds)

    def _examine(self, found: Repository, file: str, key: str) -> Anatomy:
        name, kept = f"{found.card.id}/{file}", self._headers.get(key)
        if kept is not None:
            with suppress(AdapterRefused, KeyError, AttributeError):
                text = kept["header"].encode()
                data = len(text).to_bytes(LENGTH, "little") + text
                header = parse_header(data, name=name, file_bytes=kept["file_bytes"])
                return self._anatomies.put(key, examine(header))
        try:
            data, header = read_header(
                lambda start, stop: self._hub.read(found.card.id, found.sha, file, start, stop),
                name,
            )
        except AdapterNotFound as exc:
            raise found.refused(exc) from exc
        if not found.closed:
            value = {"header": data[LENGTH:].decode(), "file_bytes": header.file_bytes}
            self._headers.put(key, value)
        return self._anatomies.put(key, examine(header))

    async def _asked(self, key: tuple[str, str], call: Callable[[], T], seconds: float) -> T:
        try:
            # By the Hub: what is asked with one token isn't the answer to another's question.
            return await self._work.run((self._hub, *key), call, seconds)
        except TimeoutError as exc:
            raise HubUnreachable(reason=f"no answer in {seconds:g} s") from exc
