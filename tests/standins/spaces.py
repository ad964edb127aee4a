"""As much of the Hub as putting up a Space needs, on loopback, for the unmodified client.

Shapes are those that `huggingface_hub` 2.4 sends and reads; every file is taken as a regular one.
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import yaml

TOKEN = "hf_writes-for-jane"
OWNER = "jane"


@dataclass
class Space:
    """One Space as the Hub keeps it."""

    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    hardware: str = "cpu-basic"
    sleep: int | None = None
    private: bool = False
    commits: int = 0


class SpacesStandIn:
    """A context manager: the Hub while the block runs."""

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.refusals: dict[str, int] = {}
        """The status with which a path that ends so is answered."""
        self.seen: list[str] = []
        """Method and path of every request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0]
                stand_in.seen.append(f"{self.command} {path}")
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                status, said = stand_in.answer(self.command, path, body, token)
                self.reply(status, said)

            def reply(self, status: int, said: Any) -> None:
                data = json.dumps(said).encode()
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None: ...

        return Handler

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        """Status and JSON."""
        refusal = next((s for end, s in self.refusals.items() if path.endswith(end)), None)
        if refusal is not None:  # in the request's own words, as a careless server might
            return refusal, {"error": body.decode("utf-8", "replace")}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if token != TOKEN:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if not path.startswith("/api/spaces/"):
            return 404, {"error": "not here"}
        return self._of_a_space(method, path, body)

    def _of_a_space(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        owner, name, *rest = path.removeprefix("/api/spaces/").split("/")
        space = self.spaces.get(f"{owner}/{name}")
        if space is None:
            return 404, {"error": "Repository not found"}
        if method == "GET":
            return 200, _listing(space) if rest[:1] == ["tree"] else _info(f"{owner}/{name}", space)
        if owner != OWNER:
            return 403, {"error": "You don't have the rights."}
        if rest[0] == "commit":
            oid = _committed(space, [json.loads(line) for line in body.splitlines()])
            return 200, {"commitUrl": f"{self.url}/spaces/x/y/commit/{oid}", "commitOid": oid}
        return _changed(space, rest[0], json.loads(body))

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        owner = asked["organization"] or OWNER
        name = f"{owner}/{asked['name']}"
        if owner != OWNER:
            return 403, {"error": "You don't have the rights."}
        if name in self.spaces:
            return 409, {"error": "You already created this space repo"}
        assert (asked["type"], asked["sdk"]) == ("space", "gradio")
        self.spaces[name] = Space(
            hardware=asked.get("hardware", "cpu-basic"),
            sleep=asked.get("sleepTimeSeconds"),
            private=asked.get("visibility") == "private",
        )
        return 200, {"url": f"{self.url}/spaces/{name}"}


def _info(name: str, space: Space) -> dict[str, Any]:
    readme = space.files.get("README.md", b"").decode()
    card = yaml.safe_load(readme.split("---\n")[1]) if readme.startswith("---\n") else None
    return {
        "_id": "1", "id": name, "sha": f"{space.commits:040}", "private": space.private,
        "tags": [], "siblings": [{"rfilename": path} for path in space.files], "cardData": card,
        "runtime": _runtime(space),
    }  # fmt: skip


def _runtime(space: Space) -> dict[str, Any]:
    hardware = {"current": space.hardware, "requested": space.hardware}
    return {"stage": "RUNNING", "hardware": hardware, "gcTimeout": space.sleep, "replicas": {}}


def _listing(space: Space) -> list[dict[str, Any]]:
    rows = [(path, len(data)) for path, data in space.files.items()]
    return [{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in rows]


def _changed(space: Space, what: str, asked: dict[str, Any]) -> tuple[int, Any]:
    if what == "secrets":
        space.secrets[asked["key"]] = asked["value"]
        return 200, {}
    if what == "variables":
        space.variables[asked["key"]] = asked["value"]
        return 200, {name: {"value": value} for name, value in space.variables.items()}
    if what == "volumes":
        space.volumes = asked["volumes"]
        return 200, {}
    if what == "hardware":
        space.hardware, space.sleep = asked["flavor"], asked.get("sleepTimeSeconds")
        return 200, _runtime(space)
    assert what == "preupload", what
    modes = [{"uploadMode": "regular", "shouldIgnore": False, **file} for file in asked["files"]]
    return 200, {"files": modes}


def _committed(space: Space, rows: list[dict[str, Any]]) -> str:
    space.commits += 1
    for row in rows:
        value = row["value"]
        if row["key"] == "file":
            assert value["encoding"] == "base64"
            space.files[value["path"]] = base64.b64decode(value["content"])
        elif row["key"] == "deletedFile":
            del space.files[value["path"]]
    return f"{space.commits:040}"
