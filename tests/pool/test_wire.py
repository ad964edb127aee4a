"""Frames: everything that crosses comes out as it went in, however it was cut up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backends.local.job import Job
from backends.local.pool.wire import LONGEST_LINE, Incomplete, Order, adapters_key, events, frame
from generation.errors import InvalidRequest
from generation.events import Event, Finished, Queued, Running, Submitted
from generation.lora_file import LoraFile
from generation.request import MAX_SEED
from generation.result import AppliedLora, GenerationResult, ImageFile
from tests.local.engine_bench import wanted

WHOLE = GenerationResult(
    images=(
        ImageFile(width=64, height=48, content_type="image/png", data=b"\n\x00 first\n"),
        ImageFile(url="https://example.com/b.png"),
        ImageFile(data=b""),
    ),
    timings={"denoising": 0.5},
    seed=MAX_SEED,
    has_nsfw_concepts=(False, True, False),
    prompt="狐狸\n",
    loras=(AppliedLora(path="o/a", scale=-0.5, file="a.safetensors", sha="a" * 40, applied=True),),
    warnings=("Made at 64 × 48.",),
)
TOLD = (Queued(), Queued(3), Running(logs=("Loading",)), Running(1, 8, preview=b"{\n}"))


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def heard(data: bytes, size: int = 7) -> list[Event]:
    return [event async for event in events(in_pieces(data, size))]


@given(size=some.integers(1, 400))
async def test_events_cross_whole_in_pieces_of_any_size(size: int) -> None:
    said: Sequence[Event] = (*TOLD, Finished(WHOLE))
    assert await heard(b"".join(map(frame, said)), size) == list(said)


async def test_nothing_is_heard_after_the_end() -> None:
    assert await heard(frame(Finished(WHOLE)) + frame(Queued())) == [Finished(WHOLE)]


async def test_an_error_crosses_as_itself() -> None:
    stream = events(
        in_pieces(frame(Queued()) + frame(InvalidRequest(field="seed", problem="x")), 9)
    )
    assert await anext(stream) == Queued()
    with pytest.raises(InvalidRequest, match="seed: x"):
        await anext(stream)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(Queued()),
        frame(Finished(WHOLE))[:-1],
        b"<html>Bad gateway</html>\n",
        b'["paused",null,[]]\n',
        b"x" * (LONGEST_LINE + 2),
    ],
)
async def test_a_stream_that_breaks_off_is_no_end(data: bytes) -> None:
    with pytest.raises(Incomplete):
        await heard(data, 2**16)


def test_a_handle_has_no_frame() -> None:
    with pytest.raises(ValueError, match="no handle"):
        frame(Submitted({"id": "1"}))


def lora(name: str, scale: float = 1.0) -> tuple[LoraFile, float]:
    return LoraFile(f"o/{name}", f"{name}.safetensors", "a" * 40, None, Path(f"/d/{name}")), scale


def test_an_order_is_the_job_and_not_the_visitor() -> None:
    job = Job(wanted(seed=MAX_SEED), (lora("a", -0.5), lora("b")))
    order = Order.of(job, "the visitor's token")
    body = order.model_dump_json()
    assert Order.model_validate_json(body).job == job
    assert "token" not in body
    assert order.owner == Order.of(job, "the visitor's token").owner != Order.of(job, "x").owner


def test_the_key_of_adapters_is_of_their_files_alone() -> None:
    def key(*loras: tuple[LoraFile, float]) -> str:
        return adapters_key(Job(wanted(), loras))

    assert key() == ""
    assert key(lora("a"), lora("b", 0.5)) == key(lora("b"), lora("a", 2)) != key(lora("a")) != ""
