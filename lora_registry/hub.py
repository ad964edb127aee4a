"""The Hugging Face Hub: listings, repositories, and the bytes of their files.

The only module that calls `huggingface_hub`. It uses the library's session,
headers and reading of errors, and not `list_models` or `hf_hub_download`: those
sleep a 429 out for minutes, have no time limit of their own, and a single
malformed card ends a listing. Everything here blocks, is bounded in bytes and
seconds, and may be called from any thread. The token goes to the Hub alone: the
session drops it where a redirect leads to another host.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NoReturn
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)
from pydantic import SecretStr

from generation.errors import AdapterRefused, AdapterUnavailable, HubLimited, HubUnreachable
from lora_registry.hub_errors import meaning, seconds_to_wait, words
from lora_registry.parts import (
    DOWNLOAD_SECONDS,
    IDENTITY,
    MAX_FILE,
    SECONDS,
    Part,
    Progress,
    file_bytes,
    range_of,
)
from lora_registry.references import HUB

CONNECT_SECONDS: Final = 5.0
MAX_ANSWER: Final = 32 * 2**20
MAX_PAGES: Final = 12


class Hub:
    """One Hub by its address; the token is optional and never leaves this object but for it.

    `personal`: it is a visitor's, who signed in, not the server's.
    """

    def __init__(
        self, endpoint: str = HUB, token: SecretStr | None = None, *, personal: bool = False
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._personal = personal
        self._token = token if _usable(token) else None
        self._not_before: dict[str, float] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """End downloads that are under way; what they have stays for the next time."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    # -- what is there ---------------------------------------------------------

    def models(self, params: dict[str, Any], count: int) -> tuple[list[Any], bool]:
        """The first `count` rows of a listing, and whether there are no more.

        `params` are the API's own: filter, search, author, sort, expand. One
        call, and another only where the Hub gives less than was asked for.
        """
        rows: list[Any] = []
        url = f"{self.endpoint}/api/models"
        query: dict[str, Any] | None = {**params, "limit": count}
        for _page in range(MAX_PAGES):
            page, following = self._json("GET", url, "the Hub's list", params=query)
            if not isinstance(page, list):
                raise HubUnreachable(reason="its answer is no list")
            rows += page
            if following is None or not page:
                return rows[:count], len(rows) <= count
            if len(rows) >= count:
                break
            url, query = self._own(following), None  # it holds them already
        return rows[:count], False

    def model(self, repo: str, revision: str | None = None) -> Any:
        """A repository as the API gives it, its files with sizes; a renamed one is followed."""
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.endpoint}/api/models/{repo}{at}"
        return self._json("GET", url, repo, params={"blobs": "true"})[0]

    def dates(self, repo: str, sha: str, files: Sequence[str]) -> dict[str, str]:
        """When each file was last changed, as ISO text."""
        url = f"{self.endpoint}/api/models/{repo}/paths-info/{sha}"
        form = {"paths": list(files), "expand": "true"}
        answer = self._json("POST", url, repo, data=form)[0]
        entries = [entry for entry in answer if isinstance(entry, dict)]
        found = {str(entry.get("path")): _mapping(entry.get("lastCommit")) for entry in entries}
        return {name: str(commit["date"]) for name, commit in found.items() if "date" in commit}

    # -- the bytes of files ----------------------------------------------------

    def address(self, repo: str, sha: str, file: str) -> str:
        """Where a file of one revision lies; without a token."""
        return f"{self.endpoint}/{repo}/resolve/{sha}/{quote(file)}"

    def read(self, repo: str, sha: str, file: str, start: int, stop: int) -> Part:
        """The bytes from `start` up to, not including, `stop`; fewer where the file ends."""
        url, asked = self.address(repo, sha, file), range_of(start, stop)
        with self._open("GET", url, f"{repo}/{file}", headers=asked, takes=(416,)) as response:
            if response.status_code == 416:
                return Part(b"", file_bytes(response.status_code, response.headers))
            first = start if response.status_code == 206 else 0
            data = _within(response, stop - first, SECONDS)
            return Part(data[start - first :], file_bytes(response.status_code, response.headers))

    def text(self, repo: str, sha: str, file: str, most: int) -> str:
        """The beginning of a text file."""
        return self.read(repo, sha, file, 0, most).data.decode("utf-8", "replace")

    def download(
        self, repo: str, sha: str, file: str, to: BinaryIO, progress: Progress | None = None
    ) -> None:
        """Append what `to` still lacks of a file; it may hold the beginning already."""
        have = to.seek(0, 2)
        asked = range_of(have) if have else IDENTITY
        url, name = self.address(repo, sha, file), f"{repo}/{file}"
        with self._open("GET", url, name, headers=asked, takes=(416,)) as response:
            if response.status_code == 416:
                return  # it was whole already
            if response.status_code != 206:
                have = to.seek(0)
                to.truncate()
            self._copy(response, to, have, name, progress)

    def _copy(
        self,
        response: httpx2.Response,
        to: BinaryIO,
        have: int,
        name: str,
        progress: Progress | None,
    ) -> None:
        ends = time.monotonic() + DOWNLOAD_SECONDS
        total = file_bytes(response.status_code, response.headers)
        _refuse_too_large(total or 0, name)
        for chunk in response.iter_raw():  # unbuffered: what came before a break counts
            have += len(chunk)
            _refuse_too_large(have, name)
            if self.closed or time.monotonic() > ends:
                raise AdapterUnavailable(name=name, reason="the download was stopped")
            to.write(chunk)
            if progress is not None:
                progress(have, total)
        if total is not None and have != total:
            raise AdapterUnavailable(name=name, reason="it did not arrive whole")

    # -- asking ----------------------------------------------------------------

    def _json(self, method: str, url: str, subject: str, **options: Any) -> tuple[Any, str | None]:
        """An answer's JSON, and the address of the next page."""
        with self._open(method, url, subject, **options) as response:
            data = _within(response, MAX_ANSWER + 1, SECONDS, decoded=True)
            if len(data) > MAX_ANSWER:
                raise HubUnreachable(reason="its answer is too long")
            return json.loads(data), response.links.get("next", {}).get("url")

    @contextmanager
    def _open(
        self,
        method: str,
        url: str,
        subject: str,
        *,
        headers: dict[str, str] | None = None,
        takes: tuple[int, ...] = (),
        **options: Any,
    ) -> Iterator[httpx2.Response]:
        """An answer with its body still to be read; any error in our own words."""
        bucket = "api" if "/api/" in url else "files"  # the Hub counts them apart
        self._refuse_early(bucket)
        token = self._token.get_secret_value() if self._token else False
        sent = {**build_hf_headers(token=token), **(headers or {})}
        timeout = httpx2.Timeout(SECONDS, connect=CONNECT_SECONDS)
        try:
            with get_session().stream(
                method, url, headers=sent, timeout=timeout, **options
            ) as response:
                if response.status_code not in takes:
                    hf_raise_for_status(response)
                yield response
        except HfHubHTTPError as exc:
            self._raise(exc, subject, bucket)
        except (ValueError, RecursionError) as exc:
            raise HubUnreachable(reason="its answer can't be read") from exc
        # The session is the whole process's: whoever else uses it may close it (RuntimeError).
        except (httpx2.HTTPError, httpx2.InvalidURL, ConnectionError, RuntimeError) as exc:
            raise HubUnreachable(reason=words(exc)) from exc

    def _raise(self, exc: HfHubHTTPError, subject: str, bucket: str) -> NoReturn:
        if exc.response.status_code == 429:
            wait = seconds_to_wait(exc.response)
            self._not_before[bucket] = time.monotonic() + wait
            raise HubLimited(retry_after=wait) from exc
        raise meaning(exc, subject, self.endpoint, self._personal) from exc

    def _refuse_early(self, bucket: str) -> None:
        """A limited Hub isn't asked again before its time."""
        left = self._not_before.get(bucket, 0.0) - time.monotonic()
        if left > 0:
            raise HubLimited(retry_after=max(1, round(left)))

    def _own(self, url: str) -> str:
        """A next page's address, which must be the Hub's own: the token goes there."""
        given, own = urlsplit(url), urlsplit(self.endpoint)
        if (given.scheme, given.netloc) != (own.scheme, own.netloc):
            raise HubUnreachable(reason="its next page is on another host")
        return url


def _within(
    response: httpx2.Response, most: int, seconds: float, *, decoded: bool = False
) -> bytes:
    """At most `most` bytes of a body, in time however slowly they come."""
    body, ends = bytearray(), time.monotonic() + seconds
    for chunk in response.iter_bytes() if decoded else response.iter_raw():
        body += chunk
        if len(body) >= most:
            break
        if time.monotonic() > ends:
            raise HubUnreachable(reason=f"not finished in {seconds:g} s")
    return bytes(body[:most])


def _refuse_too_large(size: int, name: str) -> None:
    if size > MAX_FILE:
        raise AdapterRefused(name=name, reason=f"it is larger than {MAX_FILE >> 30} GiB")


def _usable(token: SecretStr | None) -> bool:
    """Whether an HTTP header can carry it; an error about one that can't would quote it."""
    text = token.get_secret_value() if token else ""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
