"""The demo's stream: its grammar, its result, and that closing it ends the work."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

import pytest
from PIL import Image

from backends.base import Backend, CancelOutcome, Resources
from backends.demo import DemoBackend, drawing
from backends.demo.prompt import expand
from generation.errors import InvalidRequest, MediaExpired
from generation.events import Event, Finished, Queued, Running
from generation.request import MAX_SEED, GenerationRequest, LoraRef
from generation.result import GenerationResult, ImageFile

BACKEND: Backend = DemoBackend(pace=0)
RESOURCES = Resources()


def ask(**fields: Any) -> GenerationRequest:
    small = {"prompt": "misty mountains", "image_size": {"width": 96, "height": 64}, "seed": 7}
    return GenerationRequest.model_validate({**small, **fields})


async def events_of(request: GenerationRequest) -> list[Event]:
    return [event async for event in BACKEND.generate(request, RESOURCES)]


async def result_of(request: GenerationRequest) -> GenerationResult:
    *_, last = await events_of(request)
    assert isinstance(last, Finished)
    return last.result


async def bytes_of(request: GenerationRequest) -> list[bytes]:
    return [(await BACKEND.fetch(image)).data for image in (await result_of(request)).images]


# -- the stream ----------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 8])
async def test_the_stream_queues_runs_and_finishes(steps: int) -> None:
    *events, last = await events_of(ask(num_inference_steps=steps))
    assert events[:3] == [Queued(2), Queued(1), Queued(0)]
    runs = [event for event in events[3:] if isinstance(event, Running)]
    assert [(run.step, run.total_steps) for run in runs] == [
        (step, steps) for step in range(1, steps + 1)
    ]
    assert isinstance(last, Finished)


async def test_previews_are_small_jpegs_in_the_picture_s_ratio() -> None:
    request = ask(image_size={"width": 512, "height": 288}, num_inference_steps=2)
    for event in await events_of(request):
        if isinstance(event, Running):
            with Image.open(io.BytesIO(event.preview or b"")) as preview:
                assert (preview.format, preview.size) == ("JPEG", (256, 144))


async def test_the_pace_is_kept() -> None:
    started = time.perf_counter()
    async for _ in DemoBackend(pace=0.05).generate(ask(num_inference_steps=2), RESOURCES):
        pass
    assert time.perf_counter() - started > 5 * 0.05


# -- the result ----------------------------------------------------------------


async def test_the_result_says_what_was_made() -> None:
    request = ask(num_images=2, output_format="jpeg", loras=[LoraRef(path="a/b", scale=0.5)])
    result = await result_of(request)
    assert (result.seed, result.prompt, result.request_id) == (7, "misty mountains", None)
    assert result.has_nsfw_concepts == (False, False)
    assert [(lora.path, lora.scale, lora.applied) for lora in result.loras] == [("a/b", 0.5, True)]
    assert result.timings["inference"] > 0
    assert (result.ignored, result.warnings) == ((), ())
    names = [image.file_name for image in result.images]
    assert names == ["demo-7.jpg", "demo-8.jpg"]
    for image in result.images:
        assert (image.width, image.height, image.content_type) == (96, 64, "image/jpeg")
        assert image.file_size == len((await BACKEND.fetch(image)).data)


async def test_the_same_request_gives_the_same_files() -> None:
    for kind in ("png", "jpeg", "webp"):
        request = ask(output_format=kind, num_images=2)
        assert await bytes_of(request) == await bytes_of(request)


async def test_image_i_equals_a_single_run_with_the_next_seed() -> None:
    batch = await bytes_of(ask(num_images=4))
    singles = [await bytes_of(ask(seed=7 + index)) for index in range(4)]
    assert [[data] for data in batch] == singles
    assert len(set(batch)) == 4


async def test_seeds_go_round_at_the_end() -> None:
    batch = await bytes_of(ask(num_images=2, seed=MAX_SEED))
    assert batch[1:] == await bytes_of(ask(seed=0))


async def test_without_a_seed_one_is_drawn_and_told() -> None:
    result = await result_of(ask(seed=None))
    assert await bytes_of(ask(seed=result.seed)) == [result.images[0].data]


async def test_what_it_can_t_do_is_told() -> None:
    request = ask(sync_mode=True, enable_safety_checker=False, acceleration="high")
    result = await result_of(request)
    assert set(result.ignored) == {"sync_mode", "enable_safety_checker", "acceleration"}
    assert [result.images[0].data] == await bytes_of(ask())


async def test_expansion_is_told_drawn_and_keeps_the_subject() -> None:
    result = await result_of(ask(enable_prompt_expansion=True))
    assert result.prompt == expand("misty mountains")
    assert result.prompt.startswith("misty mountains, ")
    assert [result.images[0].data] == await bytes_of(ask(prompt=result.prompt))
    assert [result.images[0].data] != await bytes_of(ask())


async def test_webp_too_long_is_refused_at_once() -> None:
    request = ask(output_format="webp", image_size={"width": 20_000, "height": 4})
    with pytest.raises(InvalidRequest, match="16,383"):
        await events_of(request)


# -- the rest of the protocol --------------------------------------------------


def test_it_is_ready_free_and_takes_every_scale() -> None:
    capabilities = BACKEND.capabilities(RESOURCES)
    capabilities.check(ask(loras=[LoraRef(path="a/b", scale=-4)]))
    assert (capabilities.billed, capabilities.previews) == (False, True)
    left_out = set(GenerationRequest.model_fields) - capabilities.fields
    assert left_out == {"sync_mode", "enable_safety_checker", "acceleration"}


async def test_there_is_nothing_to_resume_or_cancel() -> None:
    with pytest.raises(RuntimeError):
        BACKEND.resume({"id": "1"}, RESOURCES)
    assert await BACKEND.cancel({"id": "1"}, RESOURCES) is CancelOutcome.UNCONFIRMED


async def test_a_result_from_before_a_restart_has_expired() -> None:
    with pytest.raises(MediaExpired):
        await BACKEND.fetch(ImageFile(width=1, height=1, data=None))


# -- stopping, and not blocking ------------------------------------------------


class Counter:
    """Counts the bands that are drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bands = 0
        self._band = drawing._band
        monkeypatch.setattr(drawing, "_band", self)

    def __call__(self, *arguments: Any) -> Any:
        self.bands += 1
        return self._band(*arguments)


async def test_closing_the_stream_draws_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch)
    stream = BACKEND.generate(ask(image_size="square_hd"), RESOURCES)
    async for event in stream:
        if isinstance(event, Running):
            break
    await stream.aclose()  # type: ignore[attr-defined]
    drawn = counter.bands
    await asyncio.sleep(0.1)
    assert counter.bands == drawn <= 2  # one preview, of 9


async def test_cancelling_the_reader_ends_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch)
    request = ask(image_size={"width": 2048, "height": 2048}, num_images=4, num_inference_steps=1)
    task = asyncio.create_task(events_of(request))
    while counter.bands < 4:  # one preview, and into the first full image
        await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    drawn = counter.bands
    await asyncio.sleep(0.3)
    assert counter.bands <= drawn + 1  # of about 350
    assert drawn < 90


async def test_the_loop_stays_free_while_drawing() -> None:
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            gaps.append(time.perf_counter() - before)

    ticker = asyncio.create_task(tick())
    started = time.perf_counter()
    await result_of(ask(image_size={"width": 768, "height": 768}, num_images=4))
    took = time.perf_counter() - started
    ticker.cancel()
    # A shared machine stalls by itself; one image on the loop would take a fifth of the time.
    assert max(gaps) < max(0.15, took / 8)
    assert len(gaps) > 10
