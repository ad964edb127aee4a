"""The engine as a Ray Serve deployment: one replica per GPU. `serve deploy` finds `pool` here.

Everything that makes images is the page's own: the same line with the same turns
in front of the same engine in a process of its own. Here it only gets an address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from ray import serve
from ray.serve.config import RequestRouterConfig
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from backends.local.desk import EngineDesk, KeptEngine
from backends.local.job import Job
from backends.local.options import LocalOptions
from backends.local.pool.wire import HELD, REPLICA, Order, adapters_key, frame
from backends.local.process import EngineProcess
from generation.errors import (
    AdapterUnavailable,
    BackendUnavailable,
    EngineCrashed,
    PlaygroundError,
)
from generation.events import Running
from generation.request import GenerationRequest, ImageSize
from settings import Settings

log = logging.getLogger("playground.local")

SETS: Final = 16  # of adapters that a replica is taken to hold; by bytes the engine keeps its own
CRASHES: Final = 2  # in a row; after the first the engine starts anew by itself
LINE: Final = 16  # jobs of a replica, the running one included; more wait in front of all replicas
ROUTING: Final = RequestRouterConfig(
    request_router_class="backends.local.pool.routing.AffinityRouter",
    initial_backoff_s=0.02,  # Serve's own go up to 0.5 s, in which a GPU could make an image
    backoff_multiplier=1.5,
    max_backoff_s=0.1,
)
FIRST: Final = Job(
    GenerationRequest(
        prompt="warm-up", image_size=ImageSize(width=64, height=64), num_inference_steps=1, seed=0
    )
)


def this_gpu() -> KeptEngine:
    """The engine of this replica's own settings; Ray shows it one GPU."""
    return EngineProcess(LocalOptions.of(Settings()))


class Replica:
    """One engine, made and tried out before Serve sends it jobs.

    `sets` is how many sets of adapters Serve may take it to hold.
    """

    def __init__(self, engine: Callable[[], KeptEngine] = this_gpu, sets: int = SETS) -> None:
        made = engine()
        made.run(FIRST, _say, lambda: False)  # an engine that can't make this ends the replica
        self._desk = EngineDesk(made)
        self._shared = Settings().data_dir.resolve()
        self._crashes = 0
        self._fresh: set[str] = set()

        async def hold(key: str) -> str:
            self._fresh.add(key)
            return key

        # Serve tells its routers which keys went through here last.
        self._hold = serve.multiplexed(max_num_models_per_replica=sets)(hold)

    async def __call__(self, request: Request) -> Response:
        """Take an `Order`, answer with its frames."""
        headers = {REPLICA: serve.get_replica_context().replica_id.unique_id}
        try:
            order = Order.model_validate_json(await request.body())
            await asyncio.to_thread(self._find, order.job)  # a shared folder may take its time
        except ValidationError as exc:
            reason = f"the pool runs another version of the playground ({exc.error_count()} fields)"
            return Response(frame(BackendUnavailable(backend="local", reason=reason)), 200, headers)
        except AdapterUnavailable as exc:
            return Response(frame(exc), 200, headers)
        headers[HELD] = "yes" if await self._holds(adapters_key(order.job)) else "no"
        return StreamingResponse(self._frames(order.job, order.owner), 200, headers)

    def check_health(self) -> None:
        """Called by Serve; raising has it replace this replica."""
        if self._crashes >= CRASHES:
            raise RuntimeError(f"the engine crashed at {self._crashes} jobs in a row")

    async def _frames(self, job: Job, owner: str) -> AsyncIterator[bytes]:
        """Serve cancels this when the page hangs up, and the job with it."""
        try:
            async with aclosing(self._desk.stream(job, owner)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield frame(event)
            self._crashes = 0
        except PlaygroundError as exc:
            self._crashes += isinstance(exc, EngineCrashed)
            yield frame(exc)

    async def _holds(self, key: str) -> bool:
        """Whether these adapters were here lately; they are from now on."""
        if not key:
            return True
        await self._hold(key)
        held = key not in self._fresh
        self._fresh.discard(key)
        return held

    def _find(self, job: Job) -> None:
        for lora, _scale in job.loras:
            if problem := _unreadable(lora.local, self._shared):
                raise AdapterUnavailable(name=lora.file or lora.path, reason=problem)


def _say(event: Running) -> None:
    for line in event.logs:
        log.info(line)


def _unreadable(path: Path | None, shared: Path) -> str | None:
    """An adapter is a file below the data folder, which page and replicas share."""
    if path is None or not path.resolve().is_relative_to(shared):
        return f"it isn't below {shared}, the data folder of the pool's machines"
    if not path.is_file():
        return f"the pool's machine doesn't find it; is {shared} the page's own data folder?"
    return None


deployment = serve.deployment(
    Replica,
    name="engine",
    ray_actor_options={"num_gpus": 1},
    max_ongoing_requests=LINE,
    request_router_config=ROUTING,
    graceful_shutdown_timeout_s=300,
)
pool = deployment.bind()
