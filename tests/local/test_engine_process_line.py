"""The engine's process behind the backend: a crash is one job's, and the others go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from backends.base import Resources
from backends.local.backend import LocalBackend
from backends.local.desk import EngineDesk
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from generation.errors import EngineCrashed, PlaygroundError
from generation.events import Event, Finished, Queued, Running
from tests.local.engine_bench import wanted
from tests.local.toy_engine import ToyEngine

PATIENCE = 20.0  # seconds


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    options = LocalOptions("slow", device="cpu")
    made = LocalBackend(options, EngineDesk(EngineProcess(options, ToyEngine)))
    yield made
    await made.close()


async def events_of(backend: LocalBackend, prompt: str) -> list[Event]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in backend.generate(wanted(prompt=prompt), Resources())]


def grammar(events: list[Event]) -> str:
    letters = {Queued: "Q", Running: "R", Finished: "F"}
    return "".join(letters[type(event)] for event in events)


async def test_a_crash_fails_its_own_job_and_those_that_wait_are_made(
    backend: LocalBackend,
) -> None:
    prompts = ("die SIGKILL", "second", "die SIGSEGV", "fourth")
    tasks = [asyncio.create_task(events_of(backend, prompt)) for prompt in prompts]
    first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, EngineCrashed) and "main memory ran out" in first.cause
    assert isinstance(third, EngineCrashed) and "segmentation fault" in third.cause
    for events, prompt in ((second, "second"), (fourth, "fourth")):
        assert isinstance(events, list) and isinstance(events[-1], Finished)
        assert events[-1].result.prompt == prompt
        assert re.fullmatch("Q+R+F", grammar(events))


async def test_the_first_job_hears_the_rest_of_the_start_in_the_streams_grammar(
    backend: LocalBackend,
) -> None:
    backend.start()
    events = await events_of(backend, "a fox")
    said = [line for event in events if isinstance(event, Running) for line in event.logs]
    assert "Loading the toy" in said
    assert re.fullmatch("Q+R+F", grammar(events))


async def test_closing_ends_everything_at_once(backend: LocalBackend) -> None:
    tasks = [asyncio.create_task(events_of(backend, prompt)) for prompt in ("deaf", "second")]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        await backend.close()
        running, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(task.exception(), PlaygroundError) for task in running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
