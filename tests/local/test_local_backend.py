"""The engine behind the backend protocol: the line, its thread, and what isn't installed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from backends.base import Resources
from backends.local import backend as module
from backends.local.backend import LocalBackend
from backends.local.desk import EngineDesk
from backends.local.job import Job, Stopped
from backends.local.line import Work
from backends.local.options import LocalOptions
from generation.errors import (
    AdapterUnavailable,
    BackendUnavailable,
    EngineFailed,
    InvalidRequest,
    MediaExpired,
    PackagesMissing,
    PlaygroundError,
)
from generation.events import Event, Finished, Queued, Running
from generation.request import LoraRef
from generation.result import GenerationResult, ImageFile
from settings import Settings
from tests.local.engine_bench import wanted
from tests.local.kept_here import KeptHere

ROOT = Path(__file__).resolve().parents[2]
NOTHING = Resources()
PATIENCE = 10.0  # seconds


class Desk:
    """An engine in the test's hand: jobs wait until they are let go, by their prompts."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, threading.Event] = {}
        self.outcomes: dict[str, Exception] = {}

    def gate(self, prompt: str) -> threading.Event:
        return self._gates.setdefault(prompt, threading.Event())

    def work(
        self, job: Job, tell: Callable[[Running], None], stop: Callable[[], bool]
    ) -> GenerationResult:
        prompt = job.request.prompt
        self.begun.append(prompt)
        tell(Running(1, 8))
        try:
            while not self.gate(prompt).wait(0.005):
                if stop():
                    raise Stopped
        finally:
            self.ended.append(prompt)
        if prompt in self.outcomes:
            raise self.outcomes[prompt]
        return GenerationResult(images=(), seed=job.request.seed or 0, prompt=prompt)


def behind_a_desk(make: Callable[[LocalOptions], Work]) -> LocalBackend:
    options = LocalOptions("unused", device="cpu")
    return LocalBackend(options, EngineDesk(KeptHere(options, make)))


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def backend(desk: Desk) -> AsyncIterator[LocalBackend]:
    made = behind_a_desk(lambda _options: desk.work)
    yield made
    await made.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.002)


async def events_of(backend: LocalBackend, **fields: Any) -> list[Event]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in backend.generate(wanted(**fields), NOTHING)]


# -- the line ------------------------------------------------------------------


async def test_jobs_run_one_after_the_other_in_the_order_they_came(
    backend: LocalBackend, desk: Desk
) -> None:
    prompts = ["first", "second", "third"]
    streams = []
    for prompt in prompts:
        streams.append(asyncio.create_task(events_of(backend, prompt=prompt)))
        await asyncio.sleep(0.01)
    await until(lambda: desk.begun == ["first"])
    for prompt in prompts:
        desk.gate(prompt).set()
    told = await asyncio.gather(*streams)
    assert desk.begun == desk.ended == prompts
    positions = [[e.position for e in events if isinstance(e, Queued)] for events in told]
    assert [n[0] for n in positions] == [0, 1, 2]
    assert positions[2] == [2, 1, 0] and positions[1][-1] == 0
    for events in told:
        kinds = [type(event) for event in events]
        assert kinds == sorted(kinds, key=[Queued, Running, Finished].index)


async def test_a_waiting_job_that_is_given_up_never_begins(
    backend: LocalBackend, desk: Desk
) -> None:
    first = asyncio.create_task(events_of(backend, prompt="first"))
    await until(lambda: desk.begun == ["first"])
    async with aclosing(backend.generate(wanted(prompt="second"), NOTHING)) as second:  # type: ignore[type-var]
        assert await anext(second) == Queued(1)
        third = asyncio.create_task(events_of(backend, prompt="third"))
        await asyncio.sleep(0.02)
    desk.gate("first").set()
    desk.gate("third").set()
    await first
    told = await third
    assert desk.begun == ["first", "third"]
    assert [e.position for e in told if isinstance(e, Queued)][:2] == [2, 1]


async def test_closing_the_stream_stops_the_running_job_and_the_next_one_runs(
    backend: LocalBackend, desk: Desk
) -> None:
    async with aclosing(backend.generate(wanted(prompt="first"), NOTHING)) as stream:  # type: ignore[type-var]
        while not isinstance(await anext(stream), Running):
            pass
    await until(lambda: desk.ended == ["first"])
    desk.gate("second").set()
    assert isinstance((await events_of(backend, prompt="second"))[-1], Finished)


async def test_the_line_knows_whose_job_it_is(backend: LocalBackend, desk: Desk) -> None:
    """So a visitor's first job comes before another's second."""

    async def of(owner: str, prompt: str) -> list[Event]:
        stream = backend.generate(wanted(prompt=prompt), Resources(owner=owner))
        return [event async for event in stream]

    prompts = [("ann", "1"), ("ann", "2"), ("ann", "3"), ("bob", "4")]
    streams = []
    for owner, prompt in prompts:
        streams.append(asyncio.create_task(of(owner, prompt)))
        await asyncio.sleep(0.01)
    await until(lambda: desk.begun == ["1"])
    for _, prompt in prompts:
        desk.gate(prompt).set()
    async with asyncio.timeout(PATIENCE):
        told = await asyncio.gather(*streams)
    assert desk.begun == ["1", "4", "2", "3"]
    assert [e.position for e in told[3] if isinstance(e, Queued)] == [1, 0]
    assert [e.position for e in told[1] if isinstance(e, Queued)][:2] == [1, 2]


async def test_close_ends_the_running_job_and_the_thread(desk: Desk) -> None:
    backend = behind_a_desk(lambda _options: desk.work)
    stream = asyncio.create_task(events_of(backend, prompt="first"))
    await until(lambda: desk.begun == ["first"])
    await backend.close()
    assert desk.ended == ["first"]
    assert "local-engine" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(PlaygroundError):
        await stream


# -- what goes wrong -----------------------------------------------------------


async def test_an_engines_error_reaches_the_stream_and_the_line_goes_on(
    backend: LocalBackend, desk: Desk
) -> None:
    desk.outcomes = {
        "a": InvalidRequest(field="image_size", problem="is too much"),
        "b": RuntimeError("a kernel failed"),
        "c": KeyError("x"),
    }
    for prompt in ("a", "b", "c", "d"):
        desk.gate(prompt).set()
    with pytest.raises(InvalidRequest, match="is too much"):
        await events_of(backend, prompt="a")
    with pytest.raises(EngineFailed, match="local engine failed.*RuntimeError: a kernel failed"):
        await events_of(backend, prompt="b")
    with pytest.raises(EngineFailed, match="KeyError"):
        await events_of(backend, prompt="c")
    assert isinstance((await events_of(backend, prompt="d"))[-1], Finished)


async def test_an_engine_that_cant_be_made_is_an_error_of_the_job() -> None:
    def broken(_options: LocalOptions) -> Any:
        raise ImportError("libcudart.so: cannot open shared object file")

    backend = behind_a_desk(broken)
    with pytest.raises(EngineFailed, match="libcudart"):
        await events_of(backend)
    await backend.close()


async def test_adapters_that_arent_here_are_refused_before_the_line(
    backend: LocalBackend, desk: Desk
) -> None:
    with pytest.raises(AdapterUnavailable, match="o/a"):
        await events_of(backend, loras=(LoraRef(path="o/a"),))
    assert desk.begun == []


async def test_images_of_an_earlier_process_are_gone(backend: LocalBackend) -> None:
    with pytest.raises(MediaExpired):
        await backend.fetch(ImageFile(file_name="local-7.png"))
    with pytest.raises(RuntimeError, match="no handle"):
        backend.resume({"id": "1"}, NOTHING)


async def test_a_pool_of_engines_can_stand_in_for_the_one() -> None:
    """All that a desk is asked: jobs with their owners in, events out, a start and an end."""
    seen: list[Any] = []

    class Pool:
        def start(self) -> None:
            seen.append("start")

        async def stream(self, job: Job, owner: str) -> AsyncIterator[Event]:
            seen.append((job.request.prompt, owner))
            yield Running(1, 8)
            yield Finished(GenerationResult(images=(), seed=7))

        async def close(self) -> None:
            seen.append("close")

    backend = LocalBackend(LocalOptions("unused", device="cpu"), Pool())
    backend.start()
    events = [event async for event in backend.generate(wanted(), Resources(owner="me"))]
    await backend.close()
    assert [type(event) for event in events] == [Running, Finished]
    assert seen == ["start", ("a fox", "me"), "close"]


# -- ready or not --------------------------------------------------------------


def test_missing_packages_come_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_installed", lambda: frozenset({"diffusers", "psutil"}))
    problem = LocalBackend(LocalOptions("m", device="cpu")).capabilities(NOTHING).problem
    assert isinstance(problem, PackagesMissing)
    assert "torch, transformers, accelerate, safetensors" in problem.cause
    assert problem.remedy == "Run: pip install -r requirements-local.txt"
    wanted_here = (ROOT / "requirements-local.txt").read_text()
    assert all(f"\n{name}>=" in wanted_here for name in module.PACKAGES)


@pytest.mark.parametrize(
    ("device", "gpu", "ready"),
    [("auto", True, True), ("cuda", True, True), ("auto", False, False), ("cuda", False, False),
     ("cpu", False, True)],
)  # fmt: skip
def test_it_is_ready_with_a_gpu_or_where_the_processor_was_asked_for(
    device: Any, gpu: bool, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_has_gpu", lambda: gpu)
    problem = LocalBackend(LocalOptions("m", device=device)).capabilities(NOTHING).problem
    assert (problem is None) == ready
    assert ready or "PLAYGROUND_LOCAL_DEVICE=cpu" in str(problem)


def test_on_windows_it_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    problem = LocalBackend(LocalOptions("m", device="cpu")).capabilities(NOTHING).problem
    assert "inside WSL" in str(problem)


async def test_a_backend_that_isnt_ready_starts_nothing_and_takes_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_has_gpu", lambda: False)
    options = LocalOptions("m")
    engine = KeptHere(options, lambda _options: Desk().work)
    backend = LocalBackend(options, EngineDesk(engine))
    backend.start()
    with pytest.raises(BackendUnavailable):
        await events_of(backend)
    assert engine.started == 0
    monkeypatch.setattr(module, "_has_gpu", lambda: True)
    backend.start()
    assert engine.started == 1
    await backend.close()


def test_settings_become_options() -> None:
    settings = Settings(local_model="a/b", local_device="cpu", local_unchecked=True, _env_file=None)
    options = LocalOptions.of(settings)
    assert (options.model, options.device, options.unchecked) == ("a/b", "cpu", True)
    assert options.safety == settings.local_safety and options.hub == "https://huggingface.co"


def test_the_page_starts_without_torch() -> None:
    """Neither importing the backends nor asking what they can do loads it."""
    code = (
        "import sys; from backends.registry import available; from backends.base import Resources;"
        "from settings import Settings; from backends.local.backend import LocalBackend;"
        "made = available(Settings(_env_file=None));"
        "[b.capabilities(Resources()) for b in made.values()];"
        "heavy = {'torch', 'diffusers', 'transformers', 'safetensors'} & set(sys.modules);"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr.decode()
