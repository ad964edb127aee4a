"""Who may read what on the Hub: everybody, and each signed-in owner by their own token.

A reader is a set of memories and copies of its own, so that what one owner's token opened
is never an answer to another: whatever anybody may read is everybody's, the rest is theirs.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from generation.errors import AdapterGated, AdapterNotFound, SignInLapsed
from lora_registry.copies import Copies
from lora_registry.handing import AWAY, Handing
from lora_registry.hub import Hub
from lora_registry.hub_source import HubSource
from lora_registry.references import HubReference
from lora_registry.uploads import Uploads
from lora_registry.url_source import UrlSource
from lora_registry.work import Work

LAPSES_KEPT: Final = 10_000


class Reader:
    """The Hub as one token shows it."""

    def __init__(self, hub: Hub, source: HubSource, handing: Handing) -> None:
        self._hub = hub
        self.source = source
        self.handing = handing

    def close(self) -> None:
        """End downloads that are under way."""
        self._hub.close()


@dataclass(frozen=True, slots=True)
class _Visit:
    """An owner's reader, and when its token ends (monotonic)."""

    reader: Reader
    ends: float


class Readers:
    """Everybody's reader, and one for each owner whose token is here."""

    def __init__(
        self, hub: Hub, folder: Path, work: Work, urls: UrlSource, uploads: Uploads
    ) -> None:
        self._endpoint = hub.endpoint
        self._folder = folder
        self._asking = work
        self._copying = Work(3, "adapter-copy")
        self._elsewhere = (urls, uploads)
        self.everybody = self._reader(hub, folder / "files")
        self._visits: dict[str, _Visit] = {}
        self._lapsed: dict[str, None] = {}  # oldest first
        self._lock = threading.Lock()

    def let_in(self, owner: str, token: SecretStr, seconds: float) -> None:
        """Read for `owner` with `token` from now on, for at most `seconds`."""
        self._sweep()
        files = self._folder / "owners" / hashlib.sha256(owner.encode()).hexdigest()[:32]
        reader = self._reader(Hub(self._endpoint, token, personal=True), files)
        with self._lock:
            self._lapsed.pop(owner, None)
            self._visits[owner] = _Visit(reader, time.monotonic() + seconds)

    def forget(self, owner: str) -> None:
        """Drop an owner's token; what it copied stays, for them to find when they are back."""
        with self._lock:
            self._lapsed.pop(owner, None)
            visit = self._visits.pop(owner, None)
        if visit is not None:
            visit.reader.close()

    def close(self) -> None:
        """End every download."""
        self.everybody.close()
        for owner in list(self._visits):
            self.forget(owner)
        self._copying.close()

    async def of(self, ref: HubReference, owner: str, seconds: float) -> Reader:
        """Whose memories and copies answer for this reference: everybody's if they can.

        Raises:
            SignInLapsed: it takes the owner's token, whose time is over.
        """
        self._sweep()
        visit, lapsed = self._visits.get(owner), owner in self._lapsed
        if visit is not None and visit.reader.handing.here(ref) is not None:
            return visit.reader  # their own copy: the Hub isn't needed for it
        if (visit is None and not lapsed) or await self._is_open(ref, seconds):
            return self.everybody
        if visit is None:
            raise SignInLapsed(reference=ref.repo)
        return visit.reader

    def _reader(self, hub: Hub, files: Path) -> Reader:
        source = HubSource(hub, self._folder, self._asking)
        copies = Copies(hub, files, self._copying)
        return Reader(hub, source, Handing(source, copies, *self._elsewhere))

    async def _is_open(self, ref: HubReference, seconds: float) -> bool:
        """Whether anybody may read it; so it is taken while the Hub doesn't say."""
        try:
            found = await self.everybody.source.repository(ref.repo, ref.revision, seconds)
        except (AdapterNotFound, AdapterGated):
            return False
        except AWAY:
            return True
        return not found.closed

    def _sweep(self) -> None:
        """Tokens whose time is over leave the memory; their owners are told why when they ask."""
        now = time.monotonic()
        for owner, visit in list(self._visits.items()):
            if visit.ends <= now:
                self.forget(owner)
                self._lapsed[owner] = None
        while len(self._lapsed) > LAPSES_KEPT:
            del self._lapsed[next(iter(self._lapsed))]
