"""ZeroGPU's desk off its hardware: the engine in this process, and what is said of failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
import spaces

import zerogpu
from backends.local import backend as backend_module
from backends.local import zerogpu as module
from backends.local.backend import LocalBackend
from backends.local.engine import Engine
from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.options import LocalOptions
from backends.local.zerogpu import MOST, READY, LentEngine, ZeroGpuDesk, desk, refusal, seconds
from generation.errors import (
    BackendUnavailable,
    EngineCrashed,
    EngineFailed,
    GpuNotLent,
    JobCancelled,
    PlaygroundError,
)
from generation.events import Event, Finished, Queued, Running
from generation.lora_file import LoraFile
from generation.request import GenerationRequest, ImageSize
from generation.result import GenerationResult
from tests.local.engine_bench import wanted
from tests.local.toy_engine import AcceleratorError

RESULT = GenerationResult(images=(), seed=7, prompt="a fox")
VISITOR: ContextVar[str] = ContextVar("visitor", default="nobody")


class Handmade:
    """An engine that does what its job's prompt says, and knows who asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.stopped = 0

    def warm_up(self, tell: Tell, stop: Stop) -> None:
        raise BackendUnavailable(backend="local", reason="the model isn't to be had")

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        tell(Running(1, 8))
        self.begun.set()
        if job.request.prompt == "fault":
            raise AcceleratorError("gone")
        if job.request.prompt == "bug":
            raise ZeroDivisionError("by zero")
        while job.request.prompt == "wait" and not self.gate.wait(0.01):
            if stop():
                self.stopped += 1
                raise Stopped
        return RESULT


@pytest.fixture
def engine() -> Iterator[Handmade]:
    made = Handmade()
    yield made
    made.gate.set()


@pytest.fixture
def made(engine: Handmade) -> ZeroGpuDesk:
    return ZeroGpuDesk(LentEngine(engine))


def job(prompt: str, **fields: Any) -> Job:
    return Job(wanted(prompt=prompt, **fields))


async def events(made: ZeroGpuDesk, job: Job) -> list[Event]:
    return [event async for event in made.stream(job, "ada")]


def test_off_the_hardware_spaces_changes_nothing(
    tiny: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package: what it was given comes back, and the image is the engine's own."""
    lent: list[object] = []

    def lend(work: Any, seconds: Any) -> Any:
        lent.append(spaces.GPU(work, duration=seconds))
        return lent[-1]

    monkeypatch.setattr(zerogpu, "lend", lend)
    plain = Job.of(wanted(num_inference_steps=2), {})
    found = asyncio.run(events(desk(tiny), plain))
    (run,) = lent
    assert getattr(run, "__func__", None) is LentEngine.run
    assert found[0] == Queued() and isinstance(found[-1], Finished)
    assert [e.step for e in found if isinstance(e, Running) and e.step] == [1, 2]
    single = Engine(tiny).run(plain, lambda _: None, lambda: False)
    assert found[-1].result.images[0].data == single.images[0].data


async def test_a_job_is_told_and_finishes(made: ZeroGpuDesk) -> None:
    assert await events(made, job("fine")) == [Queued(), Running(1, 8), Finished(RESULT)]
    assert [e for e in LentEngine(Handmade()).run(job("fine")) if e] == [
        Running(1, 8),
        Finished(RESULT),
    ]


@pytest.mark.parametrize(
    ("prompt", "kind"), [("bug", EngineFailed), ("fault", EngineCrashed)], ids=str
)
async def test_a_failure_crosses_as_a_word(
    prompt: str, kind: type[PlaygroundError], made: ZeroGpuDesk
) -> None:
    with pytest.raises(kind):
        await events(made, job(prompt))
    assert (await events(made, job("fine")))[-1] == Finished(RESULT)


def test_a_fork_whose_gpu_is_gone_is_not_kept() -> None:
    """`spaces` keeps one whose generator ends, and lets one go that raises."""
    words = LentEngine(Handmade()).run(job("fault"))
    assert isinstance([next(words), next(words)][-1], EngineCrashed)
    with pytest.raises(EngineCrashed):
        next(words)
    assert [word for word in LentEngine(Handmade()).run(job("bug")) if word]


def test_there_is_a_word_at_every_tick(engine: Handmade) -> None:
    """Only after one does `spaces` look whether to stop; closing waits for the engine."""
    words = LentEngine(engine).run(job("wait"))
    assert [next(words) for _ in range(3)] == [Running(1, 8), None, None]
    words.close()
    assert engine.stopped == 1


async def test_closing_the_stream_stops_the_job(made: ZeroGpuDesk, engine: Handmade) -> None:
    async with aclosing(made.stream(job("wait"), "ada")) as stream:  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, Running):
                break
    for thread in list(made._open.values()):
        await asyncio.to_thread(thread.join, 5)
    assert engine.stopped == 1 and not made._open


async def test_closing_the_desk_gives_all_jobs_up(made: ZeroGpuDesk, engine: Handmade) -> None:
    waiting = asyncio.create_task(events(made, job("wait")))
    await asyncio.to_thread(engine.begun.wait, 5)
    await made.close()
    assert engine.stopped == 1 and not made._open
    waiting.cancel()


async def test_a_job_runs_in_the_context_of_who_asked(
    made: ZeroGpuDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(zerogpu, "wait_for", lambda *_: seen.append(VISITOR.get()))

    async def ask(visitor: str) -> None:
        VISITOR.set(visitor)
        await events(made, job("fine"))

    await asyncio.gather(ask("ada"), ask("bea"))
    assert sorted(seen) == ["ada", "bea"]


async def test_so_many_wait_and_no_more(
    made: ZeroGpuDesk, engine: Handmade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 1)
    first = asyncio.create_task(events(made, job("wait")))
    await asyncio.to_thread(engine.begun.wait, 5)
    with pytest.raises(BackendUnavailable, match="1 jobs wait already"):
        await events(made, job("fine"))
    engine.gate.set()
    assert (await first)[-1] == Finished(RESULT)


# -- how long a job asks for ---------------------------------------------------


def test_more_work_asks_for_more_seconds() -> None:
    size = ImageSize(width=1024, height=1024)
    plain = GenerationRequest(prompt="a fox", image_size=size)
    one = (LoraFile("o/one"), 1.0)
    rising = [
        Job(plain.model_copy(update={"num_inference_steps": 1})),
        Job(plain),
        Job(plain.model_copy(update={"num_images": 4})),
        Job(plain.model_copy(update={"num_images": 4, "enable_prompt_expansion": True})),
    ]
    asked = [seconds(each) for each in rising]
    assert asked == sorted(set(asked)) and READY < asked[0] and asked[-1] < MOST
    assert seconds(Job(plain, (one, one))) > seconds(Job(plain, (one,))) > seconds(Job(plain))


def test_nobody_asks_for_more_than_a_days_share() -> None:
    largest = GenerationRequest(
        prompt="a fox",
        image_size=ImageSize(width=2048, height=2048),
        num_images=4,
        enable_prompt_expansion=True,
    )
    loras = tuple((LoraFile(f"o/{n}"), 1.0) for n in range(3))
    assert seconds(Job(largest)) < seconds(Job(largest, loras)) == MOST


# -- what goes wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "message", "kind", "reason"),
    [
        ("ZeroGPU quota exceeded", "You have exceeded your quota. ", GpuNotLent, "quota"),
        (
            "ZeroGPU queue timeout",
            'No GPU after 60s. <a style="x" href="https://huggingface.co/join">Create</a> one.',
            GpuNotLent,
            "No GPU after 60s. Create one",
        ),
        (
            "ZeroGPU queue timeout",
            "No GPU after 60s [Create a free account](https://huggingface.co/join) to wait less.",
            GpuNotLent,
            "No GPU after 60s Create a free account to wait less",
        ),
        ("ZeroGPU worker error", "GPU task aborted", EngineCrashed, "GPU task aborted"),
    ],
)
def test_what_spaces_says_is_said_without_markup(
    title: str, message: str, kind: type[PlaygroundError], reason: str
) -> None:
    found = refusal(gr.Error(message, title=title))
    assert type(found) is kind
    assert str(found.facts["reason"]).endswith(reason)


def test_any_other_failure_is_the_engines() -> None:
    assert isinstance(refusal(RuntimeError("/schedule error: 500")), EngineFailed)


async def test_a_stop_that_nobody_wished_is_a_cancelled_job(
    made: ZeroGpuDesk, engine: Handmade
) -> None:
    """As when the page ends under a caller who waits."""
    waiting = asyncio.create_task(events(made, job("wait")))
    await asyncio.to_thread(engine.begun.wait, 5)
    await made.close()
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(waiting, 5)


# -- which desk the backend takes ----------------------------------------------


def test_a_model_that_is_not_there_keeps_no_page_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk(LocalOptions(model="x"), lambda _: Handmade()).start()
    assert "the model isn't to be had" in caplog.text


def test_on_the_hardware_the_backend_is_ready(
    tiny: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.base import Resources

    asked = replace(tiny, device="auto")
    monkeypatch.setattr(backend_module, "_has_gpu", lambda: False)
    given: list[LocalOptions] = []
    monkeypatch.setattr(module, "desk", lambda options: given.append(options))
    assert LocalBackend(asked).capabilities(Resources()).problem is not None
    monkeypatch.setattr(backend_module, "ON_ZEROGPU", True)
    assert LocalBackend(asked).capabilities(Resources()).problem is None
    assert given == [asked]
    monkeypatch.setattr(backend_module, "_installed", frozenset)
    LocalBackend(asked)
    assert given == [asked]  # without its packages nothing is loaded
