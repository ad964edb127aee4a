"""A page's process on ZeroGPU: `python -m tests.local.zerogpu_machine FOLDER report|page`.

`report` runs jobs without a page, and tells of them on stdout; `page` serves the page.

The real `spaces`: its patched torch, forks, queues and client. There is no GPU here, so a fork
takes the weights that wait for one as they are, to the processor. FOLDER holds the models and
adapters; two files in it, if they are there, slow a forward down or end its process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import httpx
import torch

torch.set_num_threads(1)
# What only a CUDA build has, for `spaces` to keep and to replace.
torch.version.cuda = "12.8"
torch.cuda._is_in_bad_fork = bool
torch._C._cuda_init = lambda: None

import zerogpu  # noqa: I001, E402  before whatever imports gradio
import spaces.zero.torch as hardware  # noqa: E402
from gradio.context import LocalContext  # noqa: E402
from spaces.zero.torch import patching  # noqa: E402
from starlette.datastructures import Headers  # noqa: E402

import app  # noqa: E402
from backends.local.backend import LocalBackend  # noqa: E402
from backends.local.job import Job  # noqa: E402
from backends.local.loading import Loaded  # noqa: E402
from backends.local.options import LocalOptions  # noqa: E402
from backends.local.zerogpu import ZeroGpuDesk, desk, eager_engine  # noqa: E402
from generation.errors import GpuNotLent, PlaygroundError  # noqa: E402
from generation.events import Event, Finished, Queued, Running  # noqa: E402
from generation.lora_file import LoraFile  # noqa: E402
from generation.parsing import Parsed  # noqa: E402
from generation.request import LoraRef  # noqa: E402
from generation.result import GenerationResult  # noqa: E402
from history.store import History  # noqa: E402
from jobs import Runner  # noqa: E402
from tests.local.engine_bench import wanted  # noqa: E402
from tests.standins.zerogpu import token  # noqa: E402

FOLDER: Final = Path(sys.argv[1])
SERVICE: Final = os.environ["SPACES_ZERO_DEVICE_API_URL"]
SLOW, DEADLY = FOLDER / "slow", FOLDER / "deadly"
FORWARDS: Final = FOLDER / "forwards"
PORT: Final = 7860  # of the page's server
STEP: Final = 0.25  # seconds of a slow forward

SINGLE: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "none": (),
    "A": (("comfyui", 1.0),),
    "B": (("kohya", 0.7),),
    "A+B": (("comfyui", 0.5), ("kohya", 0.7)),
}
SEQUENCE: Final = ("A", "none", "B", "A+B", "none", "broken", "none", "A")


def move(callback: object) -> None:
    """In a fork, instead of to its GPU: the weights that wait there take their places."""
    for fake, original in patching.cuda_aliases.items():
        fake.data = original
    setattr(Loaded, "device", torch.device("cpu"))  # noqa: B010  of all, in place of their own


hardware.init = lambda _uuid: None
hardware.move = move


def job(name: str, **fields: Any) -> Job:
    pairs = (("flux", 1.0),) if name == "broken" else SINGLE[name]
    paths = {f"o/{file}": FOLDER / f"{file}.safetensors" for file, _ in pairs}
    files = {path: LoraFile(path, file=local.name, local=local) for path, local in paths.items()}
    loras = tuple(LoraRef(path=f"o/{file}", scale=scale) for file, scale in pairs)
    return Job.of(wanted(num_inference_steps=2, loras=loras, **fields), files)


class Machine:
    """The engine behind the desk, and what happened there."""

    def __init__(self) -> None:
        options = LocalOptions(model=str(FOLDER / "model"), safety=str(FOLDER / "safety"))
        self.desk: ZeroGpuDesk = desk(options, self._make)
        self.options = options
        self.loaded = cast(Loaded, self._engine._loaded)
        self.loaded.pipe.transformer.register_forward_pre_hook(self._forward)

    def _make(self, options: LocalOptions) -> Any:
        self._engine = eager_engine(options)
        return self._engine

    def _forward(self, *_: object) -> None:
        with FORWARDS.open("a") as noted:
            noted.write("+")
        if DEADLY.exists():
            os._exit(3)
        if SLOW.exists():
            time.sleep(STEP)

    # -- jobs ------------------------------------------------------------------

    def stream(self, job: Job, visitor: str, **facts: bool) -> AsyncIterator[Event]:
        """In the context of a task, as a visitor's click."""
        click(visitor, **facts)
        return self.desk.stream(job, visitor)

    async def made(self, name: str, visitor: str = "someone", **facts: bool) -> str:
        """The image's hash, or the error's name."""
        try:
            events = [event async for event in self.stream(job(name), visitor, **facts)]
        except PlaygroundError as exc:
            return type(exc).__name__
        finally:
            await self._given_back()
        return digest(events[-1])

    async def _given_back(self) -> None:
        while self.desk._open:
            await asyncio.sleep(0.005)

    async def stopped(self) -> dict[str, Any]:
        """Stopped after its first of eight steps, and what the same fork makes then."""
        SLOW.touch()
        FORWARDS.write_text("")
        long = Job.of(wanted(), {})
        async with aclosing(self.stream(long, "stopper")) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Running) and event.step == 1:
                    break
        then = time.time()
        await self._given_back()
        await asyncio.sleep(3 * STEP)  # one that goes on would make forwards meanwhile
        forwards = len(FORWARDS.read_text())
        SLOW.unlink()
        return {"at": then, "forwards": forwards, "next": await self.made("none")}

    async def left_waiting(self) -> dict[str, Any]:
        """Stopped while all GPUs are lent to others."""
        with httpx.Client(base_url=SERVICE) as http:
            others = [http.post("/schedule").json()["allowToken"] for _ in range(2)]
            said: list[str] = []
            async with aclosing(self.stream(job("none"), "left")) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Running):
                        said.extend(event.logs)
                        break
                    assert event == Queued()
            await asyncio.sleep(0.4)
            for other in others:
                http.post("/release", params={"allowToken": other, "fail": False})
        return {"said": said, "open": len(self.desk._open)}

    async def refused(self) -> dict[str, Any]:
        try:
            _ = [event async for event in self.stream(job("none"), "greedy", over=True)]
        except PlaygroundError as exc:
            return dict(exc.record())
        return {}

    async def resumed(self) -> str:
        """A job that no click leads to: of an earlier process."""
        with suppress(GpuNotLent):
            LocalContext.request.set(None)
            return digest([event async for event in self.desk.stream(job("none"), "gone")][-1])
        return "refused"

    async def high(self) -> dict[str, Any]:
        """In the mode that needs a compiler."""
        events = [one async for one in self.stream(job("none", acceleration="high"), "hasty")]
        assert isinstance(events[-1], Finished)
        result = events[-1].result
        return {"mode": result.acceleration, "said": result.warnings, "made": digest(events[-1])}

    async def crashed(self) -> list[str]:
        DEADLY.touch()
        first = await self.made("none")
        DEADLY.unlink()
        return [first, await self.made("none")]

    async def report(self) -> dict[str, Any]:
        """Everything, one after the other."""
        single = {name: await self.made(name, "single", fresh=True) for name in SINGLE}
        sequence = [await self.made(name, "sequence") for name in SEQUENCE]
        pair = await asyncio.gather(self.made("A", "pair-a"), self.made("B", "pair-b"))
        return {
            "placement": str(self.loaded.placement),
            "single": single,
            "sequence": sequence,
            "pair": pair,
            "stopped": await self.stopped(),
            "left": await self.left_waiting(),
            "refused": await self.refused(),
            "crashed": await self.crashed(),
            "resumed": await self.resumed(),
            "high": await self.high(),
        }

    def clicks(self) -> list[str]:
        """Three visitors click at once where there are two GPUs."""
        SLOW.touch()
        with History.open(FOLDER / "data") as history:
            runner = Runner(history, {"local": LocalBackend(self.options, self.desk)})
            runner.start()
            made = []
            for visitor in ("ada", "bea", "cleo"):
                context = copy_context()
                context.run(click, visitor)
                made.append(
                    context.run(runner.submit, Parsed(job("none").request), visitor, "local")
                )
            views = [asyncio.run(settled(runner, one.id, one.owner)) for one in made]
            runner.close()
        SLOW.unlink()
        return views


async def settled(runner: Runner, job_id: str, owner: str) -> str:
    views = [view async for view in runner.watch(job_id, owner)]
    return str(views[-1].job.state)


def click(visitor: str, **facts: bool) -> None:
    """Gradio's context of a visitor's click, as far as `spaces` reads it."""
    server = SimpleNamespace(config=SimpleNamespace(port=PORT))
    LocalContext.blocks.set(SimpleNamespace(server=server))  # type: ignore[arg-type]
    request = SimpleNamespace(headers=Headers({"x-ip-token": token(visitor, **facts)}))
    LocalContext.request.set(request)  # type: ignore[arg-type]


def digest(event: Event) -> str:
    assert isinstance(event, Finished)
    result: GenerationResult = event.result
    data = b"".join(image.data or b"" for image in result.images)
    return hashlib.sha256(data).hexdigest()


def serve() -> None:
    """The page itself; its weights aren't packed, since a fork has no GPU to unpack them to."""
    hardware.pack = lambda: 0
    app.run()


def report() -> None:
    """Jobs at the desk."""
    machine = Machine()
    found = asyncio.run(machine.report())
    found["clicks"] = machine.clicks()
    found["packed"] = patching.pack()  # as Gradio's launch does: last, as it takes the weights away
    print(json.dumps(found))


if __name__ == "__main__":
    assert zerogpu.ON_ZEROGPU
    {"page": serve, "report": report}[sys.argv[2]]()
