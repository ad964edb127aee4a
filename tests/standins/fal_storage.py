"""fal's file storage as its client uses it: a token, the CDN, multipart, and the older way.

Small files go to the CDN's fixed host whatever `base_url` the token names; only multipart
uploads heed it. When the CDN fails the client falls back to `storage/upload/initiate`.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .fal_queue import media_base
from .fal_routes import Call, Guard, Route
from .wire import Answer, Head, header

FILE = r"/files/uploads/(?P<file_id>\w+)/(?P<name>[^/]+)"
PART = FILE + r"/multipart/(?P<upload_id>\w+)"


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file; `lifecycle` is the expiry header as sent, if any."""

    body: bytes
    content_type: str
    lifecycle: str | None = None


class Storage:
    """Handlers for uploads; the files are readable without a key, as fal's are."""

    def __init__(self, media_host: str) -> None:
        self._media_host = media_host
        self._tokens: set[str] = set()
        self._parts: dict[str, dict[int, bytes]] = {}
        self.files: dict[str, StoredFile] = {}

    def routes(self, guard: Guard) -> tuple[Route, ...]:
        def cdn(method: str, path: str, stage: str, handler: Callable[[Call], Answer]) -> Route:
            return Route(method, path, stage, handler, self._token_guard)

        return (
            Route("POST", "/storage/auth/token", "token", self.token, guard),
            Route("POST", "/storage/upload/initiate", "token", self.initiate, guard),
            Route("PUT", r"/storage/objects/(?P<file_id>\w+)", "upload", self.put_object),
            cdn("POST", "/files/upload", "upload", self.upload),
            cdn("POST", "/files/upload/multipart", "token", self.start_multipart),
            cdn("PUT", PART + r"/(?P<number>\d+)", "upload", self.put_part),
            cdn("POST", PART + "/complete", "token", self.complete),
            Route("GET", FILE, "uploaded", self.download),
        )

    def _token_guard(self, head: Head) -> Answer | None:
        scheme, _, token = (header(head.headers, "authorization") or "").partition(" ")
        good = scheme == "Bearer" and token in self._tokens
        return None if good else Answer.json(401, {"detail": "Invalid token"})

    def token(self, call: Call) -> Answer:
        token = uuid.uuid4().hex
        self._tokens.add(token)
        expires = datetime.now(UTC) + timedelta(hours=1)
        base = media_base(call, self._media_host)
        body = {"token": token, "token_type": "Bearer", "base_url": base}
        return Answer.json(200, body | {"expires_at": expires.isoformat()})

    def upload(self, call: Call) -> Answer:
        url = self._store(call, uuid.uuid4().hex, call.body)
        return Answer.json(200, {"access_url": url}, accepted=True)

    def _store(self, call: Call, file_id: str, body: bytes) -> str:
        kind = header(call.head.headers, "content-type") or "application/octet-stream"
        lifecycle = header(call.head.headers, "x-fal-object-lifecycle")
        self.files[file_id] = StoredFile(body, kind, lifecycle)
        name = header(call.head.headers, "x-fal-file-name") or "upload.bin"
        return f"{media_base(call, self._media_host)}/files/uploads/{file_id}/{name}"

    def initiate(self, call: Call) -> Answer:
        file_id, name = uuid.uuid4().hex, json.loads(call.body)["file_name"]
        file_url = f"{media_base(call, self._media_host)}/files/uploads/{file_id}/{name}"
        upload_url = f"{call.base}/storage/objects/{file_id}"
        return Answer.json(200, {"upload_url": upload_url, "file_url": file_url})

    def put_object(self, call: Call) -> Answer:
        self._store(call, call.names["file_id"], call.body)
        return Answer(200, accepted=True)

    def start_multipart(self, call: Call) -> Answer:
        upload_id = uuid.uuid4().hex
        self._parts[upload_id] = {}
        url = self._store(call, uuid.uuid4().hex, b"")
        return Answer.json(200, {"access_url": url, "uploadId": upload_id})

    def put_part(self, call: Call) -> Answer:
        self._parts[call.names["upload_id"]][int(call.names["number"])] = call.body
        return Answer(200, (("ETag", f'"{uuid.uuid4().hex}"'),), accepted=True)

    def complete(self, call: Call) -> Answer:
        parts = self._parts.pop(call.names["upload_id"])
        begun = self.files[call.names["file_id"]]
        whole = b"".join(parts[number] for number in sorted(parts))
        self.files[call.names["file_id"]] = StoredFile(whole, begun.content_type, begun.lifecycle)
        return Answer.json(200, {})

    def download(self, call: Call) -> Answer:
        file = self.files.get(call.names["file_id"])
        if file is None:
            return Answer.json(404, {"detail": "Not Found"})
        return Answer(200, (("Content-Type", file.content_type),), file.body)
