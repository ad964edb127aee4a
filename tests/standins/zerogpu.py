"""ZeroGPU's own service on loopback, as `spaces` 0.51 speaks with it: GPUs are lent and given back.

A visitor is known by a token; what is in it says what this visitor may meet.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

PING: Final = 0.1  # seconds between two signs of life to a visitor who waits


def token(visitor: str, *, fresh: bool = False, over: bool = False) -> str:
    """Of a visitor who gets no fork that was kept (`fresh`), or whose share is used up (`over`)."""
    facts = {"visitor": visitor, "fresh": fresh, "over": over}
    return ".".join(base64.urlsafe_b64encode(part).decode() for part in _parts(facts))


def _parts(facts: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    return b"head", json.dumps(facts).encode(), b"signed"


def _facts(token: str | None) -> dict[str, Any]:
    if token is None:
        return {}
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1]))
    return found


@dataclass(frozen=True)
class Call:
    """One request: its path, its query and when it came."""

    path: str
    query: dict[str, str]
    at: float = field(default_factory=time.time)

    @property
    def visitor(self) -> str | None:
        visitor: str | None = _facts(self.query.get("token")).get("visitor")
        return visitor


class ZeroGpuStandIn:
    """So many GPUs, each with at most one fork that is kept."""

    def __init__(self, gpus: int = 2) -> None:
        self.calls: list[Call] = []
        self.left = 0  # visitors who gave up waiting
        self._free = set(range(gpus))
        self._kept: set[int] = set()
        self._lent: dict[str, int] = {}
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Service", (_Service,), {"machine": self})
        )
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> ZeroGpuStandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def seen(self, path: str) -> list[Call]:
        """The calls of one path, in order."""
        return [call for call in list(self.calls) if call.path == path]

    # -- lending ---------------------------------------------------------------

    def lend(self, facts: dict[str, Any], patience: float) -> dict[str, Any] | None:
        """The lowest GPU that is free within so many seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free, patience):
                return None
            index = min(self._free)
            self._free.remove(index)
            allowed = f"allowed-{len(self.calls)}-{index}"
            self._lent[allowed] = index
            idle = index in self._kept and not facts.get("fresh")
            return {
                "idle": idle,
                "nvidiaIndex": index,
                "nvidiaUUID": f"GPU-{index}",
                "allowToken": allowed,
            }

    def take_back(self, allowed: str, failed: bool) -> None:
        with self._changed:
            index = self._lent.pop(allowed)
            self._free.add(index)
            (self._kept.discard if failed else self._kept.add)(index)
            self._changed.notify_all()


class _Service(BaseHTTPRequestHandler):
    machine: ZeroGpuStandIn

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        call = Call(address.path, dict(parse_qsl(address.query)))
        self.machine.calls.append(call)
        if call.path == "/schedule":
            self._schedule(_facts(call.query.get("token")))
            return
        if call.path == "/release":
            self.machine.take_back(call.query["allowToken"], call.query["fail"] == "true")
        self._answer(200)

    def _schedule(self, facts: dict[str, Any]) -> None:
        if facts.get("over"):
            self._answer(429, {"left": 7, "wait": 3600})
        elif lent := self.machine.lend(facts, 0):
            self._answer(200, lent)
        else:
            with suppress(ConnectionError):
                self._stream(facts)
                return
            self.machine.left += 1

    def _stream(self, facts: dict[str, Any]) -> None:
        """The answer ends with the connection: HTTP/1.0."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        while (lent := self.machine.lend(facts, PING)) is None:
            self.wfile.write(b"event: ping\n\n")
        time.sleep(PING)  # `spaces` takes what comes together for one event
        self.wfile.write(f"event: succeeded\ndata: {json.dumps(lent)}\n\n".encode())

    def _answer(self, status: int, body: dict[str, Any] | None = None) -> None:
        raw = json.dumps(body).encode() if body else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None: ...
