"""Adapters at any other https address: read and copied through the address checks."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

import httpx

from generation.errors import (
    AdapterNotFound,
    AdapterRefused,
    AdapterUnavailable,
    MediaBroken,
    MediaExpired,
    MediaRefused,
)
from lora_format.anatomy import Anatomy, examine
from lora_registry.cache import Recent
from lora_registry.parts import (
    CHUNK,
    DOWNLOAD_SECONDS,
    IDENTITY,
    MAX_FILE,
    SECONDS,
    Part,
    Progress,
    file_bytes,
    range_of,
)
from lora_registry.weights import disk_said, put_in_place, read_header
from lora_registry.work import Work
from outbound import Fetcher, Resolver, resolve

FRESH: Final = 600.0
TIMEOUT: Final = httpx.Timeout(20.0, connect=8.0)
Client = Callable[[], httpx.AsyncClient]


@dataclass(frozen=True, slots=True)
class Seen:
    """A file at an address, as its first bytes say, and when they were read (monotonic)."""

    anatomy: Anatomy
    start: bytes
    file_bytes: int | None
    at: float


class UrlSource:
    """Reads addresses that visitors give; neither a token nor a cookie is sent to one."""

    def __init__(
        self,
        folder: Path,
        work: Work,
        *,
        client: Client | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._folder = folder
        self._work = work
        self._client = client or self._plain_client
        self._resolver = resolver
        self._seen: Recent[Seen] = Recent(100)
        self._tls: ssl.SSLContext | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """End what is under way."""
        self._closed.set()
        self._work.close()

    async def look(self, url: str) -> Seen:
        """What lies at an address, by its header; known for ten minutes.

        Raises:
            AdapterRefused: a forbidden address, or no safetensors file.
            AdapterNotFound: nothing is there.
            AdapterUnavailable: it can't be read now.
        """
        known = self._seen.get(url)
        if known is not None and time.monotonic() - known.at < FRESH:
            return known
        return await self._work.run(("look", url), lambda: self._look(url))

    async def copy(self, url: str, seen: Seen, progress: Progress | None) -> Path:
        """The file brought here, unless it is; `progress` is called from another thread.

        Raises:
            AdapterError: as `look`, and where it can't be kept.
        """
        return await self._work.run(("copy", url), lambda: self._copy(url, seen, progress))

    # -- in a thread, with an event loop of its own ----------------------------

    def _look(self, url: str) -> Seen:
        parts: list[Part] = []

        def read(start: int, stop: int) -> Part:
            parts.append(asyncio.run(self._part(url, start, stop)))
            return parts[-1]

        _, header = read_header(read, name_of(url))
        first = parts[0]
        return self._seen.put(
            url, Seen(examine(header), first.data, first.file_bytes, time.monotonic())
        )

    async def _part(self, url: str, start: int, stop: int) -> Part:
        async with self._client() as client:
            fetcher = Fetcher(client, seconds=SECONDS, resolver=self._resolver)
            with _said_of_adapters(url):
                async with fetcher.open(url, range_of(start, stop)) as response:
                    if response.status_code == 416:
                        return Part(b"", file_bytes(response.status_code, response.headers))
                    _check(response)
                    first = start if response.status_code == 206 else 0
                    data = await _within(response, stop - first)
                    return Part(
                        data[start - first :], file_bytes(response.status_code, response.headers)
                    )

    def _copy(self, url: str, seen: Seen, progress: Progress | None) -> Path:
        name = name_of(url)
        path = self._folder / f"{hashlib.sha256(url.encode()).hexdigest()[:40]}.safetensors"
        with disk_said(name):
            if _is_the_same(path, seen):
                return path
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self._folder, suffix=".part", delete=False
            ) as part:
                try:
                    asyncio.run(self._save(url, part, progress))
                except BaseException:
                    Path(part.name).unlink()
                    raise
            put_in_place(Path(part.name), path, name)
        return path

    async def _save(self, url: str, to: IO[bytes], progress: Progress | None) -> None:
        async with self._client() as client:
            fetcher = Fetcher(client, seconds=DOWNLOAD_SECONDS, resolver=self._resolver)
            with _said_of_adapters(url):
                async with fetcher.open(url, IDENTITY) as response:
                    _check(response)
                    await self._pour(response, to, progress)

    async def _pour(
        self, response: httpx.Response, to: IO[bytes], progress: Progress | None
    ) -> None:
        have, total = 0, file_bytes(response.status_code, response.headers)
        if (total or 0) > MAX_FILE:
            raise _too_large()
        async for chunk in response.aiter_raw(CHUNK):
            have += len(chunk)
            if have > MAX_FILE:
                raise _too_large()
            if self._closed.is_set():
                raise MediaBroken(reason="the download was stopped")
            to.write(chunk)
            if progress is not None:
                progress(have, total)
        if total is not None and have != total:
            raise MediaBroken(reason="it did not arrive whole")

    def _plain_client(self) -> httpx.AsyncClient:
        self._tls = self._tls or httpx.create_ssl_context()  # reading the authorities takes a while
        return httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT)


def name_of(url: str) -> str:
    """A short name for an address: its file, else its host; not its query, which may be secret."""
    parts = urlsplit(url)
    file = unquote(parts.path).rpartition("/")[2]
    shown = "".join(char if char.isprintable() else " " for char in file or parts.netloc)
    return " ".join(shown.split())[:120]


async def _within(response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= most:
            break
    return bytes(body[:most])


def _check(response: httpx.Response) -> None:
    if response.status_code in (401, 403, 404, 410):
        raise MediaExpired
    if response.status_code not in (200, 206):
        raise MediaBroken(reason=f"HTTP {response.status_code}")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":  # not asked for, and a few bytes may unpack to gigabytes
        raise MediaRefused(reason=f"it is compressed ({encoding})")


def _is_the_same(path: Path, seen: Seen) -> bool:
    """Whether a copy is what lies there now: its size and its first bytes, weights included."""
    try:
        if seen.file_bytes is None or path.stat().st_size != seen.file_bytes:
            return False
        with path.open("rb") as file:
            return file.read(len(seen.start)) == seen.start
    except FileNotFoundError:
        return False


def _too_large() -> MediaRefused:
    return MediaRefused(reason=f"it is larger than {MAX_FILE >> 30} GiB")


@contextmanager
def _said_of_adapters(url: str) -> Iterator[None]:
    """The address checks speak of images; here they speak of an adapter."""
    try:
        yield
    except MediaRefused as exc:
        raise AdapterRefused(name=name_of(url), reason=str(exc.facts["reason"])) from exc
    except MediaExpired as exc:
        raise AdapterNotFound(reference=name_of(url)) from exc
    except MediaBroken as exc:
        raise AdapterUnavailable(name=name_of(url), reason=str(exc.facts["reason"])) from exc
