"""What the page's own script sends, spoken by httpx instead of a browser."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import Any

import httpx

_PICTURE = re.compile(r'src="\./(media/[^"]+)"')


class PageUser:
    """One open tab: it asks `changes` and waits there; a click submits through its own event."""

    route = "/gradio_api/component_server"

    def __init__(self, client: httpx.AsyncClient, config: dict[str, Any], seed: int) -> None:
        self._client, self._config, self._seed = client, config, seed
        self._session = secrets.token_hex(6)
        self._visit = time.time() * 1000
        self._by_id = {each["id"]: each for each in config["components"]}
        self._live = self._named("live")
        self._button = self._named("generate")
        self._since, self._epoch = 0, ""
        self._known: set[str] = set()

    async def prepare(self) -> None:
        """Open the page: the first `changes` comes at once."""
        self._known = {job["id"] for job in await self.changes()}

    async def generate(self, prompt: str) -> str:
        """Click, and meanwhile listen for this job's end."""
        listening = asyncio.create_task(self._settled())
        try:
            await self._click(prompt)
            return await listening
        finally:
            listening.cancel()

    async def download(self, address: str) -> bytes:
        """By our own route."""
        return (await self._client.get(address)).raise_for_status().content

    async def changes(self) -> list[dict[str, Any]]:
        """The jobs that changed since the last answer, as the stage gets them."""
        answer = await self._client.post(self.route, json=self.question(self._since))
        news = answer.raise_for_status().json()
        self._since, self._epoch = news["since"], news["epoch"]
        jobs: list[dict[str, Any]] = news["jobs"]
        return jobs

    def question(self, since: int) -> dict[str, Any]:
        """What is posted to `route` to ask for the changes after that version; 0 asks for all."""
        return {
            "data": {"since": since, "epoch": self._epoch, "visit": self._visit},
            "component_id": self._live,
            "session_hash": self._session,
            "fn_name": "changes",
        }

    async def _settled(self) -> str:
        """The address of the first image of the next new job to settle."""
        while True:
            for job in await self.changes():
                if job["id"] in self._known or not job["settled"]:
                    continue
                picture = _PICTURE.search(job["panel"])
                if picture is None:
                    raise RuntimeError(job["panel"][:500])
                return "/" + picture.group(1)

    async def _click(self, prompt: str) -> None:
        wanted = [self._button, "click"]
        event = next(d for d in self._config["dependencies"] if wanted in map(list, d["targets"]))
        written = {self._named("prompt"): prompt, self._named("seed"): str(self._seed)}
        data = [written.get(each, self._value(each)) for each in event["inputs"]]
        body = {
            "data": data,
            "fn_index": event["id"],
            "session_hash": self._session,
            "trigger_id": self._button,
        }
        answer = await self._client.post("/gradio_api/run/predict", json=body)
        said = answer.raise_for_status().json()["data"][0]
        if said:
            raise RuntimeError(said)

    def _named(self, elem_id: str) -> int:
        """The number of the component with that `elem_id`."""
        found = (
            number
            for number, each in self._by_id.items()
            if each["props"].get("elem_id") == elem_id
        )
        return int(next(found))

    def _value(self, number: int) -> Any:
        return self._by_id[number]["props"].get("value")
