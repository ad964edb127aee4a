"""Times the registry against plain calls that do the same work, in turns, in this process.

`python -m benchmarks._hub_calls PLAN` prints one JSON object: milliseconds by kind. PLAN is a
`Plan` as JSON. With `--inspect` it makes one inspection instead. The endpoint comes from
HF_ENDPOINT, which `huggingface_hub` reads at import.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from huggingface_hub import HfApi

from lora_format.header import FIRST_READ
from lora_registry.cards import BASE_MODELS
from lora_registry.hub import Hub
from lora_registry.hub_source import HubSource, Repository
from lora_registry.registry import Registry
from lora_registry.search import DEPTHS, Query
from lora_registry.work import Work

WARM, RESTARTED, COLD, PLAIN_LIST = "warm", "restarted", "cold", "list_models"
HEADER, PLAIN_RANGE = "header", "range"
WANTED: Final = [
    "cardData", "tags", "siblings", "sha", "downloads", "likes", "gated", "private",
    "lastModified", "createdAt", "trendingScore", "widgetData",
]  # fmt: skip
SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds of each call, and the file whose header is read."""

    rounds: int
    repo: str
    file: str


class Calls:
    """One connection for ours and one for theirs, both warm; caches are new for every call."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._endpoint = os.environ["HF_ENDPOINT"]
        self._api = HfApi(endpoint=self._endpoint, token=False)
        self._http = httpx.Client(trust_env=False, follow_redirects=True, timeout=SECONDS)
        self._folder = folder
        self._number = 0
        self._known = Registry(self._new_folder(), hub=self._endpoint)
        self._repository: Repository | None = None

    def close(self) -> None:
        self._http.close()
        self._known.close()

    def _new_folder(self) -> Path:
        self._number += 1
        return self._folder / str(self._number)

    async def warm(self) -> float:
        """A search that was made before."""
        return await _timed(lambda: self._search(self._known))

    async def restarted(self) -> float:
        """The same by a new process's registry: its copy is on disk."""
        with closing(Registry(self._folder / "1", hub=self._endpoint)) as registry:
            return await _timed(lambda: self._search(registry))

    async def cold(self) -> float:
        """The first search of all."""
        with closing(Registry(self._new_folder(), hub=self._endpoint)) as registry:
            return await _timed(lambda: self._search(registry))

    async def _search(self, registry: Registry) -> None:
        page = await registry.search(Query())
        assert len(page.cards) == Query().limit and page.problem is None

    async def list_models(self) -> float:
        """The one call that a cold search needs, by the Hub's own client."""

        async def ask() -> None:
            wanted = f"base_model:adapter:{BASE_MODELS['turbo']}"
            found: Any = self._api.list_models(
                filter=wanted,
                sort="likes",
                limit=DEPTHS[0],
                expand=WANTED,  # type: ignore[arg-type]
            )
            assert len(list(found)) == DEPTHS[0]

        return await _timed(ask)

    async def header(self) -> float:
        """What a file is, read and judged; the repository is known."""
        work = Work(2, "benchmark")
        source = HubSource(Hub(self._endpoint), self._new_folder(), work)
        found = self._repository = self._repository or await source.repository(
            self._plan.repo, None, SECONDS
        )

        async def read() -> None:
            anatomy = await source.anatomy(found, self._plan.file, SECONDS)
            assert anatomy.rank == 32

        try:
            return await _timed(read)
        finally:
            work.close()

    async def range(self) -> float:
        """The same bytes, and nothing done with them."""
        assert self._repository is not None
        sha, asked = self._repository.sha, {"Range": f"bytes=0-{FIRST_READ - 1}"}
        url = f"{self._endpoint}/{self._plan.repo}/resolve/{sha}/{self._plan.file}"

        async def read() -> None:
            answer = self._http.get(url, headers=asked)
            assert (answer.status_code, len(answer.content)) == (206, FIRST_READ)

        return await _timed(read)


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await call()
    return 1000 * (time.perf_counter() - began)


async def measure(plan: Plan) -> dict[str, list[float]]:
    """Every kind once a round; the first rounds warm up and don't count."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, closing(Calls(plan, Path(name))) as calls:
        kinds = {
            WARM: calls.warm,
            RESTARTED: calls.restarted,
            COLD: calls.cold,
            PLAIN_LIST: calls.list_models,
            HEADER: calls.header,
            PLAIN_RANGE: calls.range,
        }
        for number in range(-2, plan.rounds):
            for kind, call in kinds.items():
                spent = await call()
                found[kind] += [spent] if number >= 0 else []
    return found


async def inspect(plan: Plan) -> None:
    """All that the page asks about an adapter that is clicked, out of empty caches."""
    with tempfile.TemporaryDirectory() as name:
        with closing(Registry(Path(name), hub=os.environ["HF_ENDPOINT"])) as registry:
            found = await registry.inspect(plan.repo)
    assert found.anatomy is not None and found.file == plan.file


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    if "--inspect" in sys.argv:
        asyncio.run(inspect(plan))
    else:
        print(json.dumps(asyncio.run(measure(plan))))


if __name__ == "__main__":
    main()
