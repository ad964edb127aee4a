"""Calls everything that a page serves, with every name that somebody else's work has.

What there is to call comes from the running page: its routes, and Gradio's list of events
and server functions. A route, or a parameter of one, that nobody has said how to call is an
error, so that a new one is tried like the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx

from tests.process.playground import Playground

SECONDS = 0.25  # that a stream without an end is listened to
FIRST_BYTES = 2_000_000


class Unreviewed(Exception):
    """A route that this crawler was never told about."""


@dataclass(frozen=True)
class Names:
    """The ids of a visitor's work, by what they name."""

    jobs: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def work(self) -> list[str]:
        """What a handler may be given; a session or an event is named beside it."""
        return [*self.jobs, *self.files, *self.adapters]


# What stands for a parameter of a path, whichever route it is in.
PARAMETERS: dict[str, Callable[[Names], list[str]]] = {
    "job": lambda names: names.jobs,
    "index:int": lambda names: ["0", "1"],
    "what": lambda names: ["preview", "original"],
    "path:path": lambda names: names.files,
    "path_or_url:path": lambda names: names.files,
    "url_path:path": lambda names: names.files,
    "session_hash": lambda names: [*names.sessions, *names.events],
    "event_id": lambda names: names.events,
    "api_name": lambda names: ["history", "generate", "restore", "inspect_lora"],
    "run": lambda names: ["0", *names.events],
    "component_id": lambda names: ["1"],
    "segment_id": lambda names: ["0"],
    "ext": lambda names: ["aac", "ts"],
    "key": lambda names: names.events,
    "size": lambda names: ["64"],
    "id": lambda names: ["1"],
    "environment": lambda names: ["client"],
    "type": lambda names: ["component"],
    "file_name": lambda names: ["index.js"],
}
QUERIES: dict[str, Callable[[Names], list[str]]] = {
    "session_hash": lambda names: [*names.sessions, *names.events],
    "upload_id": lambda names: ["upload-of-somebody"],
    "page": lambda names: [""],
    "size": lambda names: ["64"],
    "all_session": lambda names: ["true"],
    "deep_link": lambda names: names.sessions,
}
ACTIONS = ("check", "dismiss", "favourite", "retry", "vary", "stop", "undelete", "delete")


@dataclass(frozen=True)
class Post:
    """What a route takes; `values` are made for each id of somebody's."""

    path: str
    values: dict[str, Any]


class Crawler:
    """One visitor's way through everything; `answers` is all that they were told."""

    def __init__(self, page: Playground, routes: Path, http: httpx.Client, names: Names) -> None:
        self.answers: list[bytes] = []
        self._http = http
        self._names = names
        self._routes: list[tuple[str, str, list[str]]] = json.loads(routes.read_text())
        self._config: dict[str, Any] = httpx.get(f"{page.url}/config", trust_env=False).json()
        self._url = page.url

    def crawl(self) -> None:
        """Read everything, then write everywhere."""
        for method, path, query in self._routes:
            if method in ("GET", "HEAD"):
                for target in self._targets(path, query):
                    self.ask(method, target)
        for post in self._posts():
            self.ask("POST", post.path, json=post.values)

    # -- reading ---------------------------------------------------------------

    def _targets(self, path: str, query: list[str]) -> Iterator[str]:
        named = re.findall(r"\{([^}]+)\}", path)
        if unknown := {*named} - PARAMETERS.keys() | {*query} - QUERIES.keys():
            raise Unreviewed(f"{path}: {unknown}")
        for values in product(*(PARAMETERS[name](self._names) for name in named)):
            target = path
            for name, value in zip(named, values, strict=True):
                target = target.replace(f"{{{name}}}", value, 1)
            yield target
            for name in query:
                yield from (f"{target}?{name}={value}" for value in QUERIES[name](self._names))

    # -- writing ---------------------------------------------------------------

    def _posts(self) -> Iterator[Post]:
        for path in sorted(
            {path.rstrip("/") for method, path, _ in self._routes if method == "POST"}
        ):
            if path not in BODIES:
                raise Unreviewed(f"POST {path}")
            for values in BODIES[path](self):
                # Its number says which handler is meant, whatever the name.
                by_number = path.replace("{api_name}", "predict") if "fn_index" in values else path
                yield from (Post(target, values) for target in self._targets(by_number, []))

    def events(self) -> Iterator[dict[str, Any]]:
        """Every handler of the page, by its number, given every id in every place."""
        for handler in self._config["dependencies"]:
            yield from (self._event(handler, name) for name in self._names.work)

    def named(self) -> Iterator[dict[str, Any]]:
        """The same of the handlers that have a name."""
        for handler in self._named:
            yield from (self._event(handler, name) for name in self._names.work)

    def _event(self, handler: dict[str, Any], name: str) -> dict[str, Any]:
        takes_file = handler["api_name"] == "restore"
        return {
            "fn_index": handler["id"],
            "data": [_file(name) if takes_file else name] * len(handler["inputs"]),
            "event_data": {"job": name, "prompt": name, "found": name},
            "session_hash": self._names.sessions[0],
        }

    @property
    def _named(self) -> list[dict[str, Any]]:
        handlers = self._config["dependencies"]
        return [each for each in handlers if each["api_visibility"] == "public"]

    def calls(self) -> Iterator[dict[str, Any]]:
        """The named API, in its older form."""
        for name in self._names.work:
            for data in ([name, 10, None], [_file(name)]):
                yield {"data": data, "session_hash": self._names.sessions[0]}

    def parameters(self) -> Iterator[dict[str, Any]]:
        """The named API, by parameters."""
        for name in self._names.work:
            yield {"query": name, "before": name, "limit": 10}
            loras = [{"path": name, "scale": 1.0}]
            yield {"prompt": "mine", "loras": loras, "backend": "hosted"}
            yield {"reference": name}
            yield {"image": _file(name)}

    def functions(self) -> Iterator[dict[str, Any]]:
        """Every server function of every component, with every id."""
        for component in self._config["components"]:
            for function in component["props"].get("server_fns") or ():
                for name in self._names.work:
                    for action in ACTIONS if function == "act" else ("",):
                        yield {
                            "component_id": component["id"],
                            "fn_name": function,
                            "session_hash": self._names.sessions[0],
                            "data": {
                                "action": action, "job": name, "reference": name, "ids": [name],
                                "before": name, "query": "", "key": "", "text": name,
                                "author": "", "offset": 0, "backend": "demo", "since": 0,
                                "epoch": name, "visit": 0,
                            },
                        }  # fmt: skip

    def cancels(self) -> Iterator[dict[str, Any]]:
        for session, event in product(self._names.sessions, self._names.events):
            for handler in self._named:
                yield {"session_hash": session, "fn_index": handler["id"], "event_id": event}

    def streams(self) -> Iterator[dict[str, Any]]:
        yield {"data": ["mine"], "session_hash": self._names.sessions[0]}

    def nothing(self) -> Iterator[dict[str, Any]]:
        yield {}

    # -- asking ----------------------------------------------------------------

    def ask(self, method: str, target: str, **options: Any) -> None:
        """Keep one answer, or as much of it as comes in time."""
        body = bytearray()
        timeout = httpx.Timeout(30, read=SECONDS if self._may_last(target) else 30)
        try:
            with self._http.stream(method, target, timeout=timeout, **options) as answer:
                body += repr(answer.headers.multi_items()).encode()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > FIRST_BYTES:
                        break
        except httpx.TransportError:
            pass  # it goes on, or Gradio breaks it off: a stream of nobody
        self.answers.append(bytes(body))
        if event := re.search(rb'"event_id":"(\w+)"', body):
            self.ask("GET", f"/gradio_api/call/any/{event[1].decode()}")  # what comes of it

    @staticmethod
    def _may_last(target: str) -> bool:
        return any(word in target for word in ("heartbeat", "queue/data", "/call/", "/stream"))


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


Bodies = Callable[[Crawler], Iterator[dict[str, Any]]]
BODIES: dict[str, Bodies] = {
    "/gradio_api/run/{api_name}": Crawler.events,
    "/gradio_api/api/{api_name}": Crawler.named,
    "/gradio_api/queue/join": Crawler.events,
    "/gradio_api/call/{api_name}": Crawler.calls,
    "/gradio_api/call/v2/{api_name}": Crawler.parameters,
    "/gradio_api/component_server": Crawler.functions,
    "/gradio_api/cancel": Crawler.cancels,
    "/gradio_api/reset": Crawler.cancels,
    "/gradio_api/stream/{event_id}": Crawler.streams,
    "/gradio_api/stream/{event_id}/close": Crawler.nothing,
    # These take a file or nothing, and name nobody's work.
    "/gradio_api/upload": Crawler.nothing,
    "/gradio_api/process_recording": Crawler.nothing,
    "/gradio_api/vibe-edit": Crawler.nothing,
    "/gradio_api/vibe-code": Crawler.nothing,
    "/gradio_api/undo-vibe-edit": Crawler.nothing,
    "/gradio_api/vibe-starter-queries": Crawler.nothing,
    "/login": Crawler.nothing,
    "/login/huggingface": Crawler.nothing,
    "/logout": Crawler.nothing,
    "/adapter": Crawler.nothing,
    "/recipe": Crawler.nothing,
}
