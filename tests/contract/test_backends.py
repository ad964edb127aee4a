"""The contract of `backends.base.Backend`, held by every backend of the registry."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import pairwise
from typing import Any, Final

import pytest
from pydantic import SecretStr

from backends.base import Backend, CancelOutcome, Resources
from backends.demo import DemoBackend
from backends.hosted import HostedBackend
from backends.local.backend import LocalBackend
from backends.local.desk import EngineDesk
from backends.local.line import Work
from backends.local.options import LocalOptions
from backends.registry import BACKENDS, available
from generation.errors import BackendUnavailable, InvalidRequest, JobCancelled, KeyMissing
from generation.events import Event, Finished, Queued, Running, Submitted
from generation.imagefile import CheckedImage, inspect_image
from generation.lora_file import LoraFile, pinned_address
from generation.request import GenerationRequest, ImageSize, LoraRef
from generation.result import GenerationResult, Receipt, make_receipt
from settings import Settings
from tests.faults.bench import KEY, QUICK
from tests.faults.seen import Seen
from tests.local.kept_here import KeptHere
from tests.standins.adapters import adapter
from tests.standins.fal import FalStandIn

NOTHING: Final = Resources()
SETTINGS: Final = Settings(fal_key=SecretStr(KEY), _env_file=None)
FILES: Final[dict[str, LoraFile]] = {}
TINY: Final = LocalOptions("tiny", device="cpu")
AT_FULL_SPEED: Final[dict[str, Callable[[], Backend]]] = {
    "hosted": lambda: HostedBackend(SecretStr(KEY), QUICK),
    "local": lambda: LocalBackend(TINY, EngineDesk(KeptHere(TINY, _tiny_engine))),
    "demo": lambda: DemoBackend(pace=0),
}


def _tiny_engine(options: LocalOptions) -> Work:
    """The real engine with a tiny model; what needs torch is imported where a job runs."""
    from tests.local.tiny_engine import tiny_engine

    return tiny_engine(options).run


def make(name: str) -> Backend:
    return AT_FULL_SPEED.get(name, lambda: BACKENDS[name](SETTINGS))()


READY: Final = [name for name in BACKENDS if make(name).capabilities(NOTHING).problem is None]
"""A backend whose packages or GPU aren't here keeps the part of the contract that says so."""
every_backend = pytest.mark.parametrize("backend", BACKENDS, indirect=True)
every_ready_backend = pytest.mark.parametrize("backend", READY, indirect=True)


@pytest.fixture
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    made = make(request.param)
    yield made
    await made.close()


def wanted(**fields: Any) -> GenerationRequest:
    small = {"prompt": "a fox", "image_size": ImageSize(width=64, height=48), "seed": 7}
    return GenerationRequest(**(small | fields))


@pytest.fixture(scope="module", autouse=True)
def _adapter_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every adapter that a request here may name, found: at an address and as a file."""
    folder = tmp_path_factory.mktemp("adapters")
    for path, name in (("owner/pixel-art", "comfyui"), ("owner/ink", "kohya")):
        local = folder / f"{name}.safetensors"
        local.write_bytes(adapter(name).data())
        url = pinned_address(path, "a" * 40, local.name)
        FILES[path] = LoraFile(path, file=local.name, sha="a" * 40, url=url, local=local)


async def events_of(backend: Backend, request: GenerationRequest) -> list[Event]:
    found = Resources(lora_files=FILES)
    return [event async for event in backend.generate(request, found)]


def result_of(events: list[Event]) -> GenerationResult:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return finished.result


async def made_by(
    backend: Backend, request: GenerationRequest
) -> tuple[GenerationResult, list[CheckedImage]]:
    result = result_of(await events_of(backend, request))
    return result, [await backend.fetch(image) for image in result.images]


def assert_grammar(events: list[Event]) -> None:
    letters = {Submitted: "S", Queued: "Q", Running: "R", Finished: "F"}
    spelled = "".join(letters[type(event)] for event in events)
    assert re.fullmatch("S?Q*R*F", spelled), spelled


# -- what it says of itself ----------------------------------------------------


def test_the_registry_makes_each_backend_under_its_own_name() -> None:
    assert {name: backend.name for name, backend in available(SETTINGS).items()} == {
        name: name for name in BACKENDS
    }
    assert set(READY) >= {"hosted", "demo"}


@every_backend
async def test_capabilities_are_of_this_world(backend: Backend, seen: Seen) -> None:
    can = backend.capabilities(NOTHING)
    assert can.fields <= set(GenerationRequest.model_fields) and "prompt" in can.fields
    low, high = can.lora_scale
    assert -4 <= low < high <= 4
    assert can.problem is None or isinstance(can.problem, BackendUnavailable)
    assert backend.capabilities(NOTHING).fields == can.fields
    assert seen.connections() == []


@every_ready_backend
async def test_a_scale_outside_the_range_is_refused_before_anything_is_sent(
    backend: Backend, seen: Seen
) -> None:
    can = backend.capabilities(NOTHING)
    low, high = can.lora_scale
    for scale in (low, (low + high) / 2, high):
        can.check(wanted(loras=(LoraRef(path="o/a", scale=scale),)))
    for scale in (low - 0.01, high + 0.01):
        odd = LoraRef.model_construct(path="o/b", scale=scale)
        request = wanted().model_copy(update={"loras": (LoraRef(path="o/a", scale=high), odd)})
        with pytest.raises(InvalidRequest, match=rf"loras\.1\.scale.*between {low:g} and {high:g}"):
            can.check(request)
    assert seen.connections() == []


async def test_a_backend_that_isnt_ready_refuses_every_request() -> None:
    keyless = HostedBackend(None)
    can = keyless.capabilities(NOTHING)
    assert isinstance(can.problem, KeyMissing)
    with pytest.raises(KeyMissing):
        can.check(wanted())
    with pytest.raises(KeyMissing):
        await events_of(keyless, wanted())
    assert keyless.capabilities(Resources(fal_key=SecretStr(KEY))).problem is None
    await keyless.close()


@every_backend
async def test_a_start_is_at_once_and_may_be_repeated(backend: Backend, seen: Seen) -> None:
    began = time.monotonic()
    backend.start()
    backend.start()
    assert time.monotonic() - began < 1
    assert seen.connections() == []


# -- the stream ----------------------------------------------------------------


@every_ready_backend
@pytest.mark.parametrize(
    "fields",
    [{}, {"num_images": 3}, {"num_inference_steps": 1}, {"enable_prompt_expansion": True},
     {"loras": (LoraRef(path="owner/pixel-art", scale=0.5),)}],
)  # fmt: skip
async def test_a_stream_follows_the_grammar(backend: Backend, fields: dict[str, Any]) -> None:
    request = wanted(**fields)
    events = await events_of(backend, request)
    assert_grammar(events)
    can = backend.capabilities(NOTHING)
    assert isinstance(events[0], Submitted) or not can.billed, "paid work leaves a handle first"
    steps = [event for event in events if isinstance(event, Running) and event.step is not None]
    for before, after in pairwise(steps):
        assert before.step is not None and after.step is not None and before.step <= after.step
    assert all(event.total_steps == request.num_inference_steps for event in steps)
    assert all(e.position is None or e.position >= 0 for e in events if isinstance(e, Queued))


@every_ready_backend
async def test_previews_come_where_they_are_promised(backend: Backend) -> None:
    events = await events_of(backend, wanted())
    previews = [e.preview for e in events if isinstance(e, Running) and e.preview is not None]
    assert bool(previews) == backend.capabilities(NOTHING).previews
    assert {inspect_image(preview).format for preview in previews} <= {"JPEG", "WEBP"}


@every_ready_backend
async def test_an_early_close_detaches_or_stops(
    backend: Backend, seen: Seen, fal: FalStandIn
) -> None:
    """Submitted work goes on where it is, and is found again; other work ends here."""
    fal.hold()
    async with aclosing(backend.generate(wanted(), NOTHING)) as stream:  # type: ignore[type-var]
        first = await anext(stream)
        second = await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    fal.release()
    if isinstance(first, Submitted):
        assert not isinstance(second, Submitted)
        handle = json.loads(json.dumps(dict(first.handle)))
        events = [event async for event in backend.resume(handle, NOTHING)]
        assert_grammar(events)
        assert not isinstance(events[0], Submitted)
        assert len(result_of(events).images) == 1
        assert seen.cancels() == [] and len(seen.paid_jobs()) == 1
    else:
        assert seen.exchanges() == []
    assert_grammar(await events_of(backend, wanted()))  # and the backend is none the worse


@every_ready_backend
async def test_submitted_work_is_ended_by_cancel(
    backend: Backend, seen: Seen, fal: FalStandIn
) -> None:
    fal.hold()
    async with aclosing(backend.generate(wanted(), NOTHING)) as stream:  # type: ignore[type-var]
        first = await anext(stream)
        if not isinstance(first, Submitted):
            assert seen.exchanges() == []  # closing the stream is how this one stops
            return
        assert await backend.cancel(first.handle, NOTHING) is CancelOutcome.REQUESTED
        with pytest.raises(JobCancelled):
            while True:
                await anext(stream)
    assert [e.request_id for e in seen.cancels()] == [first.handle["request_id"]]
    assert await backend.cancel(first.handle, NOTHING) is CancelOutcome.ALREADY_COMPLETED


@every_ready_backend
async def test_streams_side_by_side_dont_mix(backend: Backend) -> None:
    requests = [wanted(seed=seed, prompt=f"fox {seed}") for seed in range(5)]
    together = await asyncio.gather(*(made_by(backend, request) for request in requests))
    for request, (result, images) in zip(requests, together, strict=True):
        assert (result.seed, result.prompt) == (request.seed, request.prompt)
        assert len(images) == 1
    assert len({images[0].data for _, images in together}) == len(requests)


# -- the result ----------------------------------------------------------------


@every_ready_backend
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("num_images", [1, 4])
@pytest.mark.parametrize("size", [ImageSize(width=96, height=64), "square"])
async def test_a_result_holds_what_was_asked_for(
    backend: Backend, output_format: str, num_images: int, size: Any
) -> None:
    request = wanted(output_format=output_format, num_images=num_images, image_size=size)
    result, images = await made_by(backend, request)
    assert len(result.images) == len(images) == num_images
    assert len(result.has_nsfw_concepts) in (0, num_images)
    for described, image in zip(result.images, images, strict=True):
        assert (image.info.width, image.info.height) == request.pixels
        assert image.info.format == output_format.upper() and not image.info.all_black
        assert inspect_image(image.data) == image.info, "whole"
        assert (described.width or request.pixels[0]) == image.info.width
        assert described.content_type in (None, image.info.media_type)
    assert len({image.data for image in images}) == num_images


@every_ready_backend
@pytest.mark.parametrize("seed", [0, 7, 2**53 + 1, 2**64 - 1])
async def test_the_same_seed_is_recorded_and_makes_the_same_image(
    backend: Backend, seed: int
) -> None:
    once, first = await made_by(backend, wanted(seed=seed))
    twice, second = await made_by(backend, wanted(seed=seed))
    _, other = await made_by(backend, wanted(seed=seed ^ 1))
    assert once.seed == twice.seed == seed
    assert first[0].data == second[0].data != other[0].data


@every_ready_backend
async def test_a_result_survives_the_journal(backend: Backend) -> None:
    """As JSON, and without the bytes of its images."""
    result = result_of(await events_of(backend, wanted(num_images=2)))
    text = json.dumps(result.model_dump(mode="json"))
    again = GenerationResult.model_validate(json.loads(text))
    assert again.model_dump() == result.model_dump()
    assert len(text) < 4000 and all(image.data is None for image in again.images)


@every_ready_backend
async def test_a_receipt_can_be_made_of_it(backend: Backend) -> None:
    loras = (LoraRef(path="owner/pixel-art", scale=0.5), LoraRef(path="owner/ink", scale=0.25))
    request = wanted(num_images=2, loras=loras, seed=2**64 - 1)
    result, images = await made_by(backend, request)
    billed = backend.capabilities(NOTHING).billed
    infos = [image.info for image in images]
    receipt = make_receipt(request, result, infos, backend=backend.name, billed=billed)
    assert Receipt.model_validate(json.loads(json.dumps(receipt.as_json()))) == receipt
    assert receipt.seed == str(2**64 - 1)
    assert receipt.prompt == "a fox" and receipt.expanded_prompt is None
    assert receipt.image_size == {"width": 64, "height": 48}
    assert [(lora.path, lora.scale) for lora in receipt.loras] == [
        ("owner/pixel-art", 0.5), ("owner/ink", 0.25),
    ]  # fmt: skip
    assert (receipt.cost_usd > 0) == billed and not receipt.cost_is_estimate
    assert receipt.warnings == () and receipt.ignored == ()
    assert all(seconds >= 0 for seconds in receipt.timings.values())


CHANGED: Final[dict[str, Any]] = {
    "prompt": "a lighthouse",
    "image_size": ImageSize(width=80, height=48),
    "num_inference_steps": 3,
    "seed": 8,
    "sync_mode": True,
    "num_images": 2,
    "enable_safety_checker": False,
    "output_format": "webp",
    "acceleration": "high",
    "enable_prompt_expansion": True,
    "loras": (LoraRef(path="owner/pixel-art"),),
}


@every_ready_backend
@pytest.mark.parametrize("name", GenerationRequest.model_fields)
async def test_a_field_that_isnt_honoured_is_named_never_dropped(
    backend: Backend, name: str
) -> None:
    result = result_of(await events_of(backend, wanted(**{name: CHANGED[name]})))
    honoured = name in backend.capabilities(NOTHING).fields
    assert result.ignored == (() if honoured else (name,))


@every_ready_backend
async def test_fields_left_alone_are_not_called_ignored(backend: Backend) -> None:
    assert result_of(await events_of(backend, wanted())).ignored == ()
