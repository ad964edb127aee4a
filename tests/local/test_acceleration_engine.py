"""Acceleration in a job: ready before the first image, true in the result, gone when memory is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.local.acceleration import Modes
from backends.local.engine import Engine
from backends.local.job import Stopped
from backends.local.loading import Loaded
from backends.local.options import LocalOptions
from backends.local.placement import Placement, smaller
from generation.events import Running
from generation.lora_file import LoraFile
from generation.request import LoraRef
from tests.local.engine_bench import Bench
from tests.local.workbench import Workbench, deep
from tests.standins.adapters import adapter

ASKED: dict[str, Any] = {"num_inference_steps": 2, "enable_safety_checker": False}


@pytest.fixture
def work() -> Workbench:
    return Workbench()


def accelerated(
    tiny: LocalOptions, work: Workbench, loaded: Callable[[], Loaded] | None = None, **tools: Any
) -> Bench:
    """An engine with these tools, on a transformer of four main layers."""
    changed = replace(work.tools, **tools)
    engine = Engine(
        tiny,
        load=lambda *_: (loaded or (lambda: deep(tiny)))(),
        modes=lambda loaded, options: Modes(loaded, options.data, changed),
    )
    return Bench(engine)


def lines(told: list[Running]) -> list[str]:
    return [line for event in told for line in event.logs]


def test_it_compiles_before_the_first_image_and_never_again(
    tiny: LocalOptions, work: Workbench
) -> None:
    bench = accelerated(tiny, work)
    result = bench.run(acceleration="regular", **ASKED)
    assert lines(bench.told)[0] == "Compiling: 1 of 3, noise refiner"
    assert [event.step for event in bench.told if event.logs] == [None] * 4
    assert result.acceleration == "regular" and result.warnings == ()
    bench.run(acceleration="regular", seed=9, **ASKED)
    assert lines(bench.told) == []


def test_it_can_warm_up_without_a_job(tiny: LocalOptions, work: Workbench) -> None:
    bench, told = accelerated(tiny, work), list[Running]()
    bench.engine.warm_up(told.append, lambda: False)
    assert lines(told)[-1] == "Recording the launches of small images"
    bench.run(acceleration="regular", **ASKED)
    assert lines(bench.told) == []


def test_a_warm_up_that_is_stopped_keeps_the_model(tiny: LocalOptions, work: Workbench) -> None:
    loads: list[Loaded] = []

    def load() -> Loaded:
        loads.append(deep(tiny))
        return loads[-1]

    bench, told = accelerated(tiny, work, load), list[Running]()
    with pytest.raises(Stopped):
        bench.engine.warm_up(told.append, lambda: len(told) == 1)
    assert bench.run(**ASKED).images and len(loads) == 1


def test_the_modes_make_the_same_image_or_say_which_they_made(
    tiny: LocalOptions, work: Workbench
) -> None:
    bench = accelerated(tiny, work, why_not_fp8=lambda _loaded: None)
    made = {mode: bench.run(acceleration=mode, **ASKED) for mode in ("none", "regular", "high")}
    assert {mode: one.acceleration for mode, one in made.items()} == {mode: mode for mode in made}
    assert made["none"].images[0].data == made["regular"].images[0].data
    assert made["high"].images[0].data != made["regular"].images[0].data
    assert made["none"].warnings == made["regular"].warnings == ()
    assert "not yet compared on real weights" in made["high"].warnings[0]
    assert made["none"].ignored == made["high"].ignored == ()


def test_on_a_processor_high_runs_as_regular_and_says_so(bench: Bench) -> None:
    result = bench.run(acceleration="high", **ASKED)
    assert result.acceleration == "regular" and "there is no GPU" in result.warnings[0]
    plain = bench.run(acceleration="none", **ASKED)
    assert plain.acceleration == "none" and plain.images[0].data == result.images[0].data
    assert bench.run(acceleration="regular", **ASKED).warnings == ()


@pytest.mark.parametrize("mode", ["regular", "high"])
def test_an_adapter_is_in_every_mode_and_out_again(
    tiny: LocalOptions, work: Workbench, tmp_path: Path, mode: str
) -> None:
    local = tmp_path / "comfyui.safetensors"
    local.write_bytes(adapter("comfyui").data())
    files = {"o/a": LoraFile("o/a", file=local.name, local=local)}
    bench = accelerated(tiny, work, why_not_fp8=lambda _loaded: None)
    loras = (LoraRef(path="o/a", scale=2),)
    plain = bench.run(acceleration=mode, **ASKED).images[0].data
    merged = bench.run(files=files, loras=loras, acceleration=mode, **ASKED).images[0].data
    assert merged != plain
    bench.run(files=files, loras=loras, acceleration="none", **ASKED)
    assert bench.run(acceleration=mode, **ASKED).images[0].data == plain
    again = accelerated(tiny, work, why_not_fp8=lambda _loaded: None)
    assert again.run(files=files, loras=loras, acceleration=mode, **ASKED).images[0].data == merged


class Shrinking(Loaded):
    """Has smaller placements, which on a processor are all the same."""

    def shrink(self) -> bool:
        less = smaller(self.placement)
        self.placement = less or self.placement
        return less is not None


def test_memory_that_runs_out_costs_eight_bits_and_the_image_is_made(
    tiny: LocalOptions, work: Workbench
) -> None:
    hungry: list[bool] = []
    made = deep(tiny)
    loaded = Shrinking(made.pipe, made.folder, Placement.GPU, made.device, made.dtype)

    def starve(*_: Any) -> None:
        if hungry and loaded.placement is Placement.GPU:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    loaded.pipe.transformer.register_forward_pre_hook(starve)
    bench = accelerated(tiny, work, lambda: loaded, why_not_fp8=lambda _loaded: None)
    exact = bench.run(acceleration="regular", **ASKED).images[0].data
    hungry.append(True)
    result = bench.run(acceleration="high", **ASKED)
    assert result.acceleration == "regular" and "memory ran out" in result.warnings[0]
    assert loaded.placement is Placement.TEXT_STREAMED and result.images[0].data == exact
    assert bench.run(acceleration="none", **ASKED).images[0].data == exact
