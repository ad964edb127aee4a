"""The real engine with a tiny model in a process of its own, beside the same one here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.local.backend import LocalBackend
from backends.local.desk import EngineDesk
from backends.local.job import Job, Stopped
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from generation.errors import InvalidRequest
from generation.events import Running
from generation.lora_file import LoraFile
from generation.request import ImageSize, LoraRef
from history.records import State
from history.store import History
from jobs import JobView, Runner
from tests.local import interrupted
from tests.local.engine_bench import Bench, pixels, wanted
from tests.local.test_engine_process import NEVER, is_gone, killed, lines, until
from tests.standins.adapters import adapter

LARGE = ImageSize(width=768, height=768)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """There as here: the order of a sum is part of its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def first_told() -> list[Running]:
    """What the first job that ran `there` was told."""
    return []


@pytest.fixture(scope="module")
def there(tiny: LocalOptions, first_told: list[Running]) -> Iterator[EngineProcess]:
    engine = EngineProcess(tiny)
    engine.run(Job(wanted()), first_told.append, NEVER)
    yield engine
    engine.close()


@pytest.fixture
def style(tmp_path: Path) -> dict[str, LoraFile]:
    local = tmp_path / "style.safetensors"
    local.write_bytes(adapter("kohya").data())
    return {"o/style": LoraFile("o/style", local=local)}


def test_what_is_made_there_is_what_is_made_here_byte_for_byte(
    there: EngineProcess, bench: Bench, style: dict[str, LoraFile]
) -> None:
    loras = (LoraRef(path="o/style", scale=0.8),)
    for fields in ({}, {"num_images": 2, "loras": loras}, {"enable_prompt_expansion": True}):
        here = bench.run(files=style, **fields)
        told: list[Running] = []
        made = there.run(Job.of(wanted(**fields), style), told.append, NEVER)
        assert [image.data for image in made.images] == [image.data for image in here.images]
        assert made.model_copy(update={"timings": here.timings}) == here
        assert made.timings.keys() == here.timings.keys()
        steps = [event for event in told if event.step is not None]
        assert [event.step for event in steps] == list(range(1, 9)) == bench.steps
        assert {event.total_steps for event in steps} == {8}
        previews = [event.preview for event in steps if event.preview]
        assert previews and previews[0] == next(e.preview for e in bench.told if e.preview)


def test_a_stop_ends_it_within_one_step_and_leaves_it_whole(there: EngineProcess) -> None:
    told: list[Running] = []
    asked = wanted(image_size=LARGE)

    def second_step() -> bool:
        return any(event.step == 2 for event in told)

    with pytest.raises(Stopped):
        there.run(Job(asked), told.append, second_step)
    assert max(event.step for event in told if event.step) <= 3
    assert there.run(Job(wanted()), told.append, NEVER).images


def test_an_error_for_people_arrives_as_itself(there: EngineProcess) -> None:
    asked = wanted(image_size=ImageSize(width=14000, height=64))
    with pytest.raises(InvalidRequest, match=r"image_size: sides must be at most"):
        there.run(Job(asked), lambda _event: None, NEVER)


@pytest.mark.usefixtures("there")
def test_getting_ready_is_told_line_by_line(first_told: list[Running]) -> None:
    said = lines(first_told)
    assert said[0] == "Starting PyTorch" and len(said) > 1
    assert [event.step for event in first_told[len(said) :]] == list(range(1, 9))


@pytest.mark.timeout(240)  # three Pythons and two torches
def test_killed_in_the_middle_of_a_job_it_leaves_no_orphan_and_the_next_start_makes_the_image(
    tiny: LocalOptions, data_folder: Path, bench: Bench
) -> None:
    places = [str(data_folder), tiny.model, tiny.safety]
    seen = json.loads(killed("-m", "tests.local.interrupted", *places))
    until(lambda: is_gone(seen["engine"]))
    assert not seen["torch"], "the page's process has torch in its memory"

    with History.open(data_folder) as history:
        assert history.get(seen["job"], interrupted.OWNER).state is State.SUBMITTING
        runner = Runner(history, {"local": LocalBackend(tiny, EngineDesk(EngineProcess(tiny)))})
        runner.start()
        try:
            stored = asyncio.run(_settled(runner, seen["job"]))
        finally:
            runner.close()
    assert stored.job.state is State.STORED, stored.problem
    (image,) = stored.job.images
    expected = bench.run(prompt="To be interrupted", image_size=ImageSize(width=512, height=384))
    kept = np.asarray(Image.open(data_folder / image.file).convert("RGB"))
    assert np.array_equal(kept, pixels(expected))


async def _settled(runner: Runner, job_id: str) -> JobView:
    async with asyncio.timeout(120):
        return [view async for view in runner.watch(job_id, interrupted.OWNER)][-1]
