"""Where the pipeline fits, what is said where it doesn't, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.local.engine import Engine
from backends.local.loading import PARTS, Loaded, load_pipeline
from backends.local.options import LocalOptions
from backends.local.placement import GIB, ON_GPU, STREAM, WORK, Placement, Weights, choose, smaller
from generation.errors import BackendUnavailable, InvalidRequest, PlaygroundError
from tests.local.engine_bench import Bench
from tests.standins.tiny_pipeline import save_tiny_pipeline

Z_IMAGE = Weights(  # in bf16, from `local-pipeline.md`'s parameter counts
    transformer=12_310_000_000, text_encoder=8_045_000_000, vae=168_000_000
)

# -- placement -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "memory", "placement"),
    [
        (80, 16, Placement.GPU),
        (24, 64, Placement.GPU),
        (22, 64, Placement.TEXT_STREAMED),
        (20, 64, Placement.TEXT_STREAMED),
        (16, 64, Placement.ALL_STREAMED),
        (8, 64, Placement.ALL_STREAMED),
        (None, 64, Placement.CPU),
    ],
)
def test_the_fastest_placement_that_fits_is_taken(
    gpu: int | None, memory: int, placement: Placement
) -> None:
    found = choose(Z_IMAGE, None if gpu is None else gpu * GIB, memory * GIB)
    assert found is placement


@pytest.mark.parametrize(
    ("gpu", "memory", "numbers"),
    [
        (4, 64, ("6.2 GiB of free GPU memory (there are 4.0 GiB)",)),
        (20, 4, ("19.0 GiB of free main memory (there are 4.0 GiB)", "(there are 20.0 GiB)")),
        (None, 16, ("23.1 GiB of free main memory (there are 16.0 GiB)",)),
    ],
)
def test_what_cant_fit_is_refused_with_the_numbers(
    gpu: int | None, memory: int, numbers: tuple[str, ...]
) -> None:
    with pytest.raises(BackendUnavailable) as refused:
        choose(Z_IMAGE, None if gpu is None else gpu * GIB, memory * GIB)
    for number in numbers:
        assert number in refused.value.cause


def test_each_smaller_placement_needs_less_of_the_gpu() -> None:
    needs = [Z_IMAGE.on_gpu(placement) for placement in ON_GPU]
    assert needs == sorted(needs, reverse=True) and needs[-1] > WORK + STREAM
    assert smaller(Placement.GPU) is Placement.TEXT_STREAMED
    assert smaller(Placement.TEXT_STREAMED) is Placement.ALL_STREAMED
    assert smaller(Placement.ALL_STREAMED) is None and smaller(Placement.CPU) is None


# -- loading -------------------------------------------------------------------


def test_the_weights_are_counted_before_they_are_read(
    tiny: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.local.loading._free_memory", lambda: 1000)
    with pytest.raises(BackendUnavailable, match=r"0\.0 GiB of free main memory"):
        load_pipeline(Path(tiny.model), tiny, pytest.fail)


def test_on_a_processor_float32_where_it_fits_else_bfloat16(
    tiny: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = load_pipeline(Path(tiny.model), tiny, lambda _line: None)
    assert wide.dtype == wide.pipe.transformer.dtype == torch.float32
    parts = (getattr(wide.pipe, name) for name in PARTS)
    parameters = sum(weight.numel() for part in parts for weight in part.parameters())
    monkeypatch.setattr("backends.local.loading._free_memory", lambda: parameters * 6)
    narrow = load_pipeline(Path(tiny.model), tiny, lambda _line: None)
    assert narrow.dtype == narrow.pipe.transformer.dtype == torch.bfloat16


def test_bfloat16_makes_images_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.local.loading._free_memory", lambda: 4_000_000)
    once = bench.run(num_images=2, num_inference_steps=2)
    assert bench.loaded.dtype == torch.bfloat16
    again = bench.run(num_images=2, num_inference_steps=2)
    assert [image.data for image in again.images] == [image.data for image in once.images]
    assert bench.run(enable_prompt_expansion=True, num_inference_steps=1).prompt != "a fox"


def test_a_gpu_that_torch_doesnt_see_is_said(bench_with: Callable[..., Bench]) -> None:
    if torch.cuda.is_available():
        pytest.fail("these tests are for a machine without a GPU")
    with pytest.raises(BackendUnavailable, match="finds no GPU.*PLAYGROUND_LOCAL_DEVICE=cpu"):
        bench_with(device="cuda").run()


@pytest.mark.parametrize("damage", ["no weights", "pickled", "no index", "broken"])
def test_a_model_that_cant_be_read_says_so_and_never_unpickles(
    bench_with: Callable[..., Bench], tmp_path: Path, damage: str
) -> None:
    folder = save_tiny_pipeline(tmp_path / "model")
    (weights,) = (folder / "vae").glob("*.safetensors")
    if damage == "pickled":
        torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    if damage in ("no weights", "pickled"):
        weights.unlink()
    if damage == "no index":
        (folder / "model_index.json").unlink()
    if damage == "broken":
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackendUnavailable):
        bench_with(model=str(folder)).run()


# -- memory that runs out ------------------------------------------------------


class Shrinking(Loaded):
    """Has smaller placements, which on a processor are all the same."""

    def shrink(self) -> bool:
        less = smaller(self.placement)
        self.placement = less or self.placement
        return less is not None


def hungry(tiny: LocalOptions, first: Placement, fits: Placement | None) -> Bench:
    """An engine whose transformer runs out of memory in its third forward until it is at `fits`."""

    def load(*arguments: Any) -> Loaded:
        made = load_pipeline(*arguments)
        loaded = Shrinking(made.pipe, made.folder, first, made.device, made.dtype)
        forwards = [0]

        def starve(*_: Any) -> None:
            forwards[0] += 1
            if loaded.placement is not fits and forwards[0] % 3 == 0:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"
                )

        loaded.pipe.transformer.register_forward_pre_hook(starve)
        return loaded

    return Bench(Engine(tiny, load=load))


def test_out_of_memory_it_takes_a_smaller_placement_and_starts_anew(
    tiny: LocalOptions, bench: Bench
) -> None:
    tight = hungry(tiny, Placement.GPU, Placement.TEXT_STREAMED)
    result = tight.run()
    assert tight.loaded.placement is Placement.TEXT_STREAMED
    assert tight.steps == [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [line for event in tight.told for line in event.logs][-1].endswith(
        Placement.TEXT_STREAMED
    )
    assert result.images[0].data == bench.run().images[0].data
    tight.run()
    assert tight.steps == list(range(1, 9)), "it stays there"


def test_it_shrinks_once_a_job_then_says_what_to_change_and_goes_on(tiny: LocalOptions) -> None:
    tight = hungry(tiny, Placement.GPU, None)
    with pytest.raises(
        InvalidRequest, match=r"image_size: 64 × 48 needs more memory.*2\.00 GiB more"
    ):
        tight.run()
    assert tight.loaded.placement is Placement.TEXT_STREAMED
    assert tight.run(num_inference_steps=1).images


def test_where_nothing_is_smaller_it_says_so_at_once(tiny: LocalOptions) -> None:
    tight = hungry(tiny, Placement.ALL_STREAMED, None)
    with pytest.raises(InvalidRequest):
        tight.run()
    assert tight.steps == [1, 2]


def test_a_processors_memory_can_run_out_too(bench: Bench) -> None:
    before = bench.run().images[0].data

    def take_a_petabyte(*_: Any) -> None:
        torch.empty(2**50)

    hook = bench.loaded.pipe.transformer.register_forward_pre_hook(take_a_petabyte)
    with pytest.raises(
        InvalidRequest,
        match=r"image_size.*more memory than there is \(4503599627370496 bytes more\)",
    ):
        bench.run()
    hook.remove()
    assert bench.run().images[0].data == before


def test_memory_that_runs_out_while_loading_is_no_fault_of_the_size(tiny: LocalOptions) -> None:
    def load(*_: Any) -> Loaded:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 GiB.")

    with pytest.raises(BackendUnavailable, match=r"while loading the model \(12\.00 GiB more\)"):
        Bench(Engine(tiny, load=load)).run()


def test_a_failed_load_is_tried_again_by_the_next_job(tiny: LocalOptions) -> None:
    failures: list[PlaygroundError] = [BackendUnavailable(backend="local", reason="no luck")]

    def load(*arguments: Any) -> Loaded:
        if failures:
            raise failures.pop()
        return load_pipeline(*arguments)

    bench = Bench(Engine(replace(tiny), load=load))
    with pytest.raises(BackendUnavailable, match="no luck"):
        bench.run()
    assert bench.run().images
