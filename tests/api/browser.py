"""What a page's script sends, without a browser; every answer is kept."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

import httpx

from tests.process.playground import Playground


class Said(Exception):
    """What an endpoint of the API answered instead of a result."""


class Browser:
    """One visitor: cookies are kept, and each answer with its headers is in `answers`."""

    def __init__(self, page: Playground, **options: Any) -> None:
        self.answers: list[bytes] = []
        self.http = page.http(event_hooks={"response": [self._keep]}, **options)
        self._config: dict[str, Any] = self.http.get("/config").json()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def _keep(self, answer: httpx.Response) -> None:
        headers = [f"{name}: {value}" for name, value in answer.headers.multi_items()]
        self.answers += ["\n".join(headers).encode(), answer.read()]

    # -- the named API ---------------------------------------------------------

    def call(self, endpoint: str, **values: Any) -> list[Any]:
        """The outputs of an endpoint; raises Said with its error."""
        joined = self.http.post(f"/gradio_api/call/v2/{endpoint}", json=values)
        event = joined.raise_for_status().json()["event_id"]
        stream = self.http.get(f"/gradio_api/call/{endpoint}/{event}").text
        kind, data = stream.strip().split("\n\n")[-1].split("\n", 1)
        found = json.loads(data.removeprefix("data: "))
        if kind != "event: complete":
            raise Said(str((found or {}).get("error")) if isinstance(found, dict) else found)
        outputs: list[Any] = found
        return outputs

    def history(self, **asked: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.call("history", **asked)[0]
        return rows

    # -- components that ask the server ----------------------------------------

    def component(self, elem_id: str) -> int:
        found = self._config["components"]
        (number,) = [c["id"] for c in found if c["props"].get("elem_id") == elem_id]
        return int(number)

    def serve(self, elem_id: str, function: str, data: Any) -> httpx.Response:
        """A server function of a component, as `server.function(data)` in its script."""
        body = {"component_id": self.component(elem_id), "fn_name": function, "data": data}
        return self.http.post(
            "/gradio_api/component_server/", json={**body, "session_hash": "browser"}
        )

    def act(self, action: str, job: str, elem_id: str = "live") -> Any:
        """A button on a job."""
        return self.serve(elem_id, "act", {"action": action, "job": job}).json()

    def changes(self) -> dict[str, Any]:
        """What the stage shows to a page that has just been opened."""
        asked = {"since": 0, "epoch": "", "visit": 0}
        answer: dict[str, Any] = self.serve("live", "changes", asked).raise_for_status().json()
        return answer

    # -- events of the page ----------------------------------------------------

    def events(self, elem_id: str, name: str) -> list[int]:
        """The numbers of the handlers of a component's event."""
        target = [self.component(elem_id), name]
        return [d["id"] for d in self._config["dependencies"] if target in d["targets"]]

    def opening(self) -> int:
        """The number of the handler that fills a page which has just been opened."""
        found = (d["id"] for d in self._config["dependencies"] if d["api_name"] == "open_page")
        return int(next(found))

    def fire(self, number: int, data: list[Any], event: Any = None) -> httpx.Response:
        body = {"fn_index": number, "data": data, "event_data": event, "session_hash": "browser"}
        return self.http.post("/gradio_api/run/predict", json=body)
