"""The Hub's files: `resolve`, the cache that it leads small ones to, and the CDN for big ones."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from .fal_routes import Call, Route
from .hub_answers import FileAnswer, entry_not_found, gated, redirect
from .hub_gate import NAME, OWNER, Gate
from .hub_paging import Query
from .hub_repos import ANONYMOUS, Repo, RepoFile, Visitor
from .wire import Answer, Headers, header

RESOLVE = rf"/{OWNER}/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
CACHE = rf"/api/resolve-cache/models/{OWNER}/{NAME}/(?P<revision>[0-9a-f]{{40}})/(?P<file>.+)"
BLOB = r"/repos/(?P<sha256>[0-9a-f]{64})"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
VALID_FOR = 3600
"""Seconds that an address on the CDN is good for."""


@dataclass(frozen=True)
class Files:
    """Handlers for files. `xet` tells clients of the newer storage, as the Hub does today."""

    gate: Gate
    cdn_base: Callable[[], str]
    secret: bytes
    xet: bool = False

    def routes(self) -> tuple[Route, ...]:
        resolve = self.gate.for_repo(self.resolve, lenient=True)
        cached = self.gate.for_repo(self.cached, lenient=True)
        return Route("GET", RESOLVE, "resolve", resolve), Route("GET", CACHE, "cache", cached)

    def cdn_routes(self) -> tuple[Route, ...]:
        return (Route("GET", BLOB, "cdn", self.blob),)

    def resolve(self, call: Call, repo: Repo, visitor: Visitor) -> Answer:
        """A redirect always: to the CDN for LFS files, to a path of the Hub for others."""
        file = repo.file(unquote(call.names["file"]))
        if repo.gated and not visitor.may_read(repo):
            return gated(repo, call.base, visitor is ANONYMOUS)
        if file is None:
            return entry_not_found(repo)
        headers: Headers = (
            ("X-Repo-Commit", repo.sha),
            ("X-Linked-Size", str(file.length)),
            ("X-Linked-ETag", file.etag),
            ("Accept-Ranges", "bytes"),
        )
        if not file.is_lfs:
            return redirect(307, _cache_path(call, repo, file), headers)
        self.gate.store.publish(file)
        if self.xet:
            headers += _xet_headers(call, repo, file)
        return redirect(302, self._signed_address(file), headers)

    def cached(self, call: Call, repo: Repo, visitor: Visitor) -> Answer:
        file = repo.file(unquote(call.names["file"]))
        if repo.gated and not visitor.may_read(repo):
            return gated(repo, call.base, visitor is ANONYMOUS)
        if file is None:
            return entry_not_found(repo)
        return serve(call, file, (("X-Repo-Commit", repo.sha),))

    def blob(self, call: Call) -> Answer:
        """A file by its hash, for whoever has a signed address: tokens mean nothing here."""
        query = Query.read(call.head.query)
        sha256, expires = call.names["sha256"], query.get("Expires") or ""
        file = self.gate.store.blob(sha256)
        signature = query.get("Signature") or ""
        good = hmac.compare_digest(signature, self._signature(sha256, expires))
        if file is None or not good or int(expires) < time.time():
            denied = b"<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"
            return Answer(403, (("Content-Type", "application/xml"),), denied)
        return serve(call, file)

    def _signed_address(self, file: RepoFile) -> str:
        expires = str(int(time.time()) + VALID_FOR)
        name = file.name.rpartition("/")[2]
        shown = f"inline; filename*=UTF-8''{quote(name)}; filename=\"{quote(name)}\";"
        query = {"response-content-disposition": shown, "Expires": expires}
        query["Signature"] = self._signature(file.sha256, expires)
        return f"{self.cdn_base()}/repos/{file.sha256}?{urlencode(query)}"

    def _signature(self, sha256: str, expires: str) -> str:
        return hmac.new(self.secret, f"{sha256}:{expires}".encode(), hashlib.sha256).hexdigest()


def _cache_path(call: Call, repo: Repo, file: RepoFile) -> str:
    query = urlencode({call.head.path: "", "etag": file.etag})
    return f"/api/resolve-cache/models/{repo.id}/{repo.sha}/{quote(file.name)}?{query}"


def _xet_headers(call: Call, repo: Repo, file: RepoFile) -> Headers:
    """Where a client that speaks Xet would go; nothing is served there."""
    token = f"{call.base}/api/models/{repo.id}/xet-read-token/{repo.sha}"
    return (("X-Xet-Hash", file.sha256), ("Link", f'<{token}>; rel="xet-auth"'))


def serve(call: Call, file: RepoFile, headers: Headers = ()) -> Answer:
    """The file, or the range of it that was asked for."""
    common: Headers = (("ETag", file.etag), ("Accept-Ranges", "bytes"), *headers)
    asked = header(call.head.headers, "range")
    found = RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or not any(found.groups()):
        typed = (("Content-Type", file.content_type), *common)
        return FileAnswer(200, typed, file=file, end=file.length)
    start, end = _span(found[1], found[2], file.length)
    if start >= end:
        return Answer(416, (("Content-Range", f"bytes */{file.length}"), *common))
    spans = f"bytes {start}-{end - 1}/{file.length}"
    typed = (("Content-Type", file.content_type), ("Content-Range", spans), *common)
    return FileAnswer(206, typed, file=file, start=start, end=end)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The range as `start` and `end`, which is not part of it; `-n` are the last n bytes."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
