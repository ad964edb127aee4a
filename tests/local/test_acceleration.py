"""`none`, `regular` and `high`: what is compiled, what proves itself, and what a job really ran."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backends.local.acceleration import Modes
from backends.local.adapters import MergedAdapters
from backends.local.denoising import denoise, noise
from backends.local.job import Stopped
from backends.local.kernels import why_not_compiled, why_not_fp8
from backends.local.loading import Loaded
from backends.local.options import LocalOptions
from backends.local.placement import Placement
from generation.lora_file import LoraFile
from generation.request import Acceleration
from tests.local.workbench import Workbench, deep, forward, kernels, only
from tests.standins.adapters import adapter

SMALL = (128, 128)  # the workbench's recorded size
LARGE = (160, 128)
ROWS = ("noise_refiner", "context_refiner", "layers")


@pytest.fixture
def loaded(tiny: LocalOptions) -> Loaded:
    return deep(tiny)


@pytest.fixture
def work() -> Workbench:
    return Workbench()


# -- compiled ------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE, (16, 16), (512, 512)])
def test_regular_is_the_eager_result_bit_by_bit(
    loaded: Loaded, work: Workbench, size: tuple[int, int]
) -> None:
    chosen = work.modes(loaded).choose("regular")
    assert chosen.mode == "regular" and chosen.warnings == ()
    eager = forward(loaded, loaded.pipe.transformer, size, 40, 1)
    assert torch.equal(forward(loaded, chosen.transformer, size, 40, 1), eager)


def test_none_is_the_pipelines_own_transformer(loaded: Loaded, work: Workbench) -> None:
    chosen = work.modes(loaded).choose("none")
    assert chosen.transformer is loaded.pipe.transformer and chosen.mode == "none"
    blocks = [block for row in ROWS for block in getattr(loaded.pipe.transformer, row)]
    kinds = {type(block.attention.processor).__name__ for block in blocks}
    assert kinds == {"ZSingleStreamAttnProcessor"} and len(blocks) == 6


def test_all_views_share_the_parameters(loaded: Loaded, work: Workbench) -> None:
    eager = loaded.pipe.transformer
    before = {name: one.data_ptr() for name, one in eager.named_parameters()}
    regular = work.modes(loaded).choose("regular").transformer
    blocks = [block for row in ROWS for block, _ in getattr(regular, row)[0].steps]
    places = {one.data_ptr() for block in blocks for one in block.parameters()}
    assert places < set(before.values())
    assert {name: one.data_ptr() for name, one in eager.named_parameters()} == before


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[LoraFile]:
    folder = tmp_path_factory.mktemp("adapters")
    found = []
    for name in ("comfyui", "kohya", "comfyui-loha", "diffusers"):
        local = folder / f"{name}.safetensors"
        local.write_bytes(adapter(name).data())
        found.append(LoraFile(f"o/{name}", file=local.name, local=local))
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_two_hundred_requests_recompile_nothing(
    loaded: Loaded, work: Workbench, files: list[LoraFile]
) -> None:
    """Sizes, images, prompt lengths and adapters, in two modes as they come."""
    modes = work.modes(loaded, compile=work.trace, why_not_fp8=lambda _loaded: None)
    assert work.lines == [
        "Compiling: 1 of 3, noise refiner",
        "Compiling: 2 of 3, context refiner",
        "Compiling: 3 of 3, main layers",
        "Recording the launches of small images",
        "Compiling: main layers in eight bits",
    ]
    # Three regions; in eight bits a fourth, and the quantising of square and other weights.
    assert work.graphs == 6 and kernels(modes).left_out == {}
    adapters, dice = MergedAdapters(loaded.pipe.transformer), random.Random(4)
    for number in range(200):
        some = dice.sample(files, dice.randrange(4))
        adapters.apply([(one, dice.uniform(-4, 4)) for one in some])
        modes.written(adapters.take_written())
        size = (dice.randrange(1, 17) * 16, dice.randrange(1, 17) * 16)
        start = [noise(loaded, image, *size) for image in range(dice.randrange(1, 5))]
        embeds = torch.randn(dice.randrange(1, 513), 32)
        asked: Acceleration = dice.choice(["regular", "high"])
        made = step(loaded, modes.choose(asked).transformer, start, embeds)
        assert len(made) == len(start) and work.graphs == 6, (number, size, len(embeds))
        if number % 20 == 0:
            eager = step(loaded, loaded.pipe.transformer, start[:1], embeds)
            regular = step(loaded, modes.choose("regular").transformer, start[:1], embeds)
            assert torch.equal(eager[0], regular[0])
    assert work.replayed, "some of them were as small as what is recorded"


def step(loaded: Loaded, transformer: Any, start: list[Any], embeds: Any) -> list[Any]:
    (made,) = denoise(loaded, transformer, start, embeds, 1, lambda: False)
    return made.latents


# -- proven, or left out -------------------------------------------------------


def skewed(made: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A kernel that is wrong for one token."""

    def run(*given: Any) -> torch.Tensor:
        tokens = made(*given).clone()
        tokens[3] *= 1.001
        return tokens

    return run


def empty(made: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *given: made(*given) * float("nan")


def broken(_made: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(*_given: Any) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")

    return run


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (skewed, "its numbers differ from the eager ones by 0.1%"),
        (empty, "its numbers differ from the eager ones by nan%"),
        (broken, "RuntimeError: Failed to find C compiler"),
    ],
)
def test_a_region_that_fails_runs_eager_kernels_and_says_so(
    loaded: Loaded, work: Workbench, fault: Any, said: str
) -> None:
    chosen = work.modes(loaded, compile=only("context_refiner", fault, work)).choose("regular")
    assert chosen.warnings == (f"Not accelerated here: context refiner ({said}).",)
    assert chosen.transformer.context_refiner is loaded.pipe.transformer.context_refiner
    assert chosen.transformer.layers is not loaded.pipe.transformer.layers
    eager = forward(loaded, loaded.pipe.transformer, LARGE, 9, 2)
    assert torch.equal(forward(loaded, chosen.transformer, LARGE, 9, 2), eager)


def test_a_region_that_isnt_faster_runs_eager_kernels(loaded: Loaded, work: Workbench) -> None:
    def clock(run: Callable[[], object]) -> float:
        run()
        return 0.25

    modes = work.modes(loaded, clock=clock, why_not_fp8=lambda _loaded: None)
    why = "it takes 250 ms where eager kernels take 250"
    titles = ("noise refiner", "context refiner", "main layers")
    assert {name: kernels(modes).left_out[name] for name in titles} == dict.fromkeys(titles, why)
    assert kernels(modes).regions == {}
    high = modes.choose("high")
    assert high.mode == "regular" and why in high.warnings[0]
    assert high.transformer.layers is loaded.pipe.transformer.layers


def test_regions_that_are_wrong_together_are_all_left_out(
    loaded: Loaded, work: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be within rounding of its own."""
    monkeypatch.setattr("backends.local.kernels.ROUNDINGS", 1e6)
    modes = work.modes(loaded, compile=only("layers", skewed, work))
    assert kernels(modes).regions == {}
    assert "all regions together" in modes.choose("regular").warnings[0]


def test_a_probe_that_fails_leaves_eager_kernels(
    loaded: Loaded, work: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("backends.local.kernels.recorded", starved)
    modes = work.modes(loaded)
    assert "out of memory" in modes.choose("regular").warnings[0]
    assert modes.choose("high").mode == "regular"


def test_a_stop_is_heard_between_regions_and_the_next_begins_anew(
    loaded: Loaded, work: Workbench
) -> None:
    modes = Modes(loaded, None, work.tools)
    with pytest.raises(Stopped), torch.no_grad():
        modes.warm_up(work.lines.append, lambda: len(work.lines) == 2)
    assert len(work.lines) == 2
    with torch.no_grad():
        modes.warm_up(work.lines.append, lambda: False)
    assert len(work.lines) == 6 and set(kernels(modes).regions) == set(ROWS)


# -- recorded launches ---------------------------------------------------------


def test_small_images_are_recorded_for_every_length_of_prompt(
    loaded: Loaded, work: Workbench
) -> None:
    modes = work.modes(loaded)
    captions = list(range(32, 513, 32))
    assert work.recorded == [64, *captions, *(64 + one for one in captions)]
    view = modes.choose("regular").transformer
    for words, padded in ((1, 32), (32, 32), (33, 64), (512, 512)):
        work.replayed.clear()
        made = forward(loaded, view, SMALL, words, words)
        assert work.replayed == [64, padded, 64 + padded]
        assert torch.equal(made, forward(loaded, loaded.pipe.transformer, SMALL, words, words))
    work.replayed.clear()
    forward(loaded, view, (512, 320), 40, 1)
    assert work.replayed == [64], "of a larger image the prompt's part"


def test_a_recordings_result_is_the_callers_own(loaded: Loaded, work: Workbench) -> None:
    view = work.modes(loaded).choose("regular").transformer
    first = forward(loaded, view, SMALL, 5, 1)
    kept = first.clone()
    forward(loaded, view, SMALL, 5, 2)
    assert torch.equal(first, kept)


def test_launches_that_cant_be_recorded_leave_compiled_regions(
    loaded: Loaded, work: Workbench
) -> None:
    def stuck(_run: Any, _inputs: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    modes = work.modes(loaded, capturer=lambda: stuck)
    assert list(kernels(modes).left_out) == ["launches"]
    assert all(not one.replays for one in kernels(modes).regions.values())
    assert len(kernels(modes).regions) == 3
    assert "stream is capturing" in modes.choose("regular").warnings[0]


def test_a_recording_that_lies_is_left_out(loaded: Loaded, work: Workbench) -> None:
    def lying(run: Any, inputs: Any) -> Any:
        honest = work.capture(run, inputs)
        return lambda *given: honest(*given) + 1

    modes = work.modes(loaded, capturer=lambda: lying)
    assert "differ" in kernels(modes).left_out["launches"]
    assert all(not one.replays for one in kernels(modes).regions.values())


# -- where there is no GPU to compile for --------------------------------------


def test_on_a_processor_regular_is_eager_and_high_is_regular(loaded: Loaded) -> None:
    modes = Workbench().modes(loaded, why_not_compiled=why_not_compiled)
    regular, high = modes.choose("regular"), modes.choose("high")
    assert regular.transformer is high.transformer is loaded.pipe.transformer
    assert (regular.mode, regular.warnings) == ("regular", ())
    assert high.mode == "regular"
    assert high.warnings == (
        "Acceleration 'high' isn't to be had here: there is no GPU. 'regular' was used.",
    )


def test_memory_that_runs_out_takes_recordings_and_leaves_exact_kernels(
    loaded: Loaded, work: Workbench
) -> None:
    modes = work.modes(loaded)
    assert modes.shrink() and not modes.shrink()
    chosen = modes.choose("regular")
    made = forward(loaded, chosen.transformer, SMALL, 5, 1)
    assert chosen.transformer is not loaded.pipe.transformer and work.replayed == []
    assert torch.equal(made, forward(loaded, loaded.pipe.transformer, SMALL, 5, 1))
    assert not Modes(loaded).shrink(), "nothing is made yet"


def test_a_transformer_that_streams_later_is_no_longer_replaced(
    loaded: Loaded, work: Workbench
) -> None:
    """The streaming's hooks are on the model's own modules."""

    def why(loaded: Loaded) -> str | None:
        return "streamed" if loaded.placement is Placement.ALL_STREAMED else None

    modes = work.modes(loaded, why_not_compiled=why)
    assert modes.choose("regular").transformer is not loaded.pipe.transformer
    loaded.placement = Placement.ALL_STREAMED
    assert modes.choose("regular").transformer is loaded.pipe.transformer


def on_gpu(loaded: Loaded, placement: Placement) -> Loaded:
    return Loaded(loaded.pipe, loaded.folder, placement, torch.device("cuda"), torch.bfloat16)


def test_streamed_weights_are_not_compiled(loaded: Loaded) -> None:
    assert why_not_compiled(on_gpu(loaded, Placement.GPU)) is None
    assert why_not_compiled(on_gpu(loaded, Placement.TEXT_STREAMED)) is None
    assert "streamed" in str(why_not_compiled(on_gpu(loaded, Placement.ALL_STREAMED)))


@pytest.mark.parametrize(
    ("able", "placement", "free", "said"),
    [
        ((8, 9), Placement.GPU, 80, None),
        ((9, 0), Placement.GPU, 80, None),
        ((8, 0), Placement.GPU, 80, r"capability 8\.9 \(this one has 8\.0\)"),
        ((9, 0), Placement.TEXT_STREAMED, 80, "whole model on the GPU"),
        ((9, 0), Placement.GPU, 3, r"4\.0 GiB more of the GPU \(there are 3\.0\)"),
    ],
)
def test_high_needs_such_a_gpu_with_room(
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    able: tuple[int, int],
    placement: Placement,
    free: int,
    said: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: able)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free * 2**30, 80 * 2**30))
    found = why_not_fp8(on_gpu(loaded, placement))
    if said is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(found)
