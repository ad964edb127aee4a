"""Eight bits: the numbers, buffers that stay where they are, and the record that proves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backends.base import Resources
from backends.local.adapters import MergedAdapters
from backends.local.backend import LocalBackend
from backends.local.fp8 import LARGEST, Fp8Blocks, Fp8Linear, quantised, room
from backends.local.loading import Loaded
from backends.local.options import LocalOptions
from backends.local.validation import UNVALIDATED, Validation, record, revision, validated
from generation.lora_file import LoraFile
from tests.local.workbench import Workbench, deep, forward, kernels
from tests.standins.adapters import adapter
from ui.texts import catalogue


@pytest.fixture
def loaded(tiny: LocalOptions) -> Loaded:
    return deep(tiny)


@pytest.fixture
def work() -> Workbench:
    return Workbench()


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    """Changes the first two blocks; the second is in eight bits."""
    local = tmp_path / "comfyui.safetensors"
    local.write_bytes(adapter("comfyui").data())
    return LoraFile("o/comfyui", file=local.name, local=local)


def buffers(blocks: Fp8Blocks) -> dict[str, torch.Tensor]:
    pairs = blocks._pairs.items()
    weights = {name: mine.weight.view(torch.uint8) for name, (_, mine) in pairs}
    return weights | {f"{name}/scale": mine.scale for name, (_, mine) in pairs}


def copies(blocks: Fp8Blocks) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in buffers(blocks).items()}


# -- numbers -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_within_half_a_spacing_of_e4m3(dtype: torch.dtype) -> None:
    rows = (torch.randn(40, 300) * torch.logspace(-8, 8, 40)[:, None]).to(dtype)
    rows[7] = 0
    eight, scale = quantised(rows)
    back, wanted = eight.double() * scale.double(), rows.double()
    # Three bits behind the point; below 2**-6 of e4m3 a spacing is 2**-9, and here scaled.
    allowed = torch.maximum(wanted.abs() * 2**-4, scale.double() * 2**-10) * 1.001
    assert bool(((back - wanted).abs() <= allowed).all())
    assert bool((eight.float().abs().amax(-1)[:7] == LARGEST).all()), "all of the range is used"
    assert bool((back[7] == 0).all())


@pytest.mark.parametrize("shape", [(48,), (1, 33), (2, 5, 7)])
def test_a_layer_is_the_product_of_its_eight_bit_numbers(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    source = torch.nn.Linear(64, 96, bias=False).to(torch.bfloat16).requires_grad_(False)
    layer, tokens = Fp8Linear(source), torch.randn(*shape, 64, dtype=torch.bfloat16)
    weight, scale = quantised(source.weight)
    layer.weight.copy_(weight)
    layer.scale.copy_(scale)
    made = layer(tokens)
    rows, factors = quantised(tokens)
    exact = (rows.double() * factors.double()) @ (weight.double() * scale.double()).T
    assert made.shape == (*shape, 96) and made.dtype == torch.bfloat16
    torch.testing.assert_close(made.double(), exact, rtol=2**-8, atol=1e-3)
    apart = (made.double() - tokens.double() @ source.weight.double().T).norm() / exact.norm()
    assert 0.01 < apart < 0.06, "eight bits are neither exact nor far off"


def test_only_inner_blocks_large_layers_are_in_eight_bits(loaded: Loaded, work: Workbench) -> None:
    high = kernels(work.modes(loaded, why_not_fp8=lambda _loaded: None)).high
    assert high is not None
    eights = [
        sum(isinstance(one, Fp8Linear) for one in block.modules()) for block, _ in high.region.steps
    ]
    assert eights == [0, 7, 7, 0]
    assert high.weights.nbytes == room(loaded.pipe.transformer.layers[1:-1]) > 0
    assert all(one.dtype == torch.float32 for one in loaded.pipe.transformer.parameters())


def test_high_is_near_regular_and_isnt_it(loaded: Loaded, work: Workbench) -> None:
    modes = work.modes(loaded, why_not_fp8=lambda _loaded: None)
    high, regular = modes.choose("high"), modes.choose("regular")
    assert (high.mode, regular.mode) == ("high", "regular")
    far = forward(loaded, high.transformer, (96, 64), 20, 1)
    near = forward(loaded, regular.transformer, (96, 64), 20, 1)
    assert 1e-4 < float((far - near).norm() / near.norm()) < 0.1


# -- following the weights -----------------------------------------------------


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_merging_writes_the_same_buffers_of_changed_layers_only(
    loaded: Loaded, work: Workbench, lora: LoraFile
) -> None:
    modes = work.modes(loaded, why_not_fp8=lambda _loaded: None)
    high = kernels(modes).high
    assert high is not None
    before, places = (
        copies(high.weights),
        {n: b.data_ptr() for n, b in buffers(high.weights).items()},
    )
    adapters = MergedAdapters(loaded.pipe.transformer)
    adapters.apply([(lora, 2.0)])
    changed = adapters.take_written()
    modes.written(changed)
    assert all(torch.equal(before[name], one) for name, one in buffers(high.weights).items())
    modes.choose("regular")
    assert high.stale == changed, "what isn't used needn't follow"
    modes.choose("high")
    moved = {n for n, b in buffers(high.weights).items() if not torch.equal(before[n], b)}
    assert moved and {name.removesuffix("/scale") for name in moved} <= changed
    assert all(name.startswith("layers.1.") for name in moved)
    fresh = Fp8Blocks(loaded.pipe.transformer.layers, range(1, 3))
    assert all(torch.equal(copies(fresh)[n], b) for n, b in buffers(high.weights).items())
    adapters.restore()
    modes.written(adapters.take_written())
    modes.choose("high")
    assert all(torch.equal(before[name], one) for name, one in buffers(high.weights).items())
    assert {name: one.data_ptr() for name, one in buffers(high.weights).items()} == places


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_layers_that_didnt_change_are_not_quantised_again(loaded: Loaded) -> None:
    seen: list[torch.Size] = []
    row = loaded.pipe.transformer.layers
    blocks = Fp8Blocks(row, [1], quantise=lambda weight, *_: seen.append(weight.shape))
    assert len(seen) == 7
    blocks.follow(["layers.1.feed_forward.w2.weight", "layers.0.attention.to_q.weight", "other"])
    assert seen[7:] == [row[1].feed_forward.w2.weight.shape]


def test_what_was_written_is_told_once(loaded: Loaded, lora: LoraFile) -> None:
    adapters = MergedAdapters(loaded.pipe.transformer)
    adapters.apply([(lora, 1.0)])
    first = adapters.take_written()
    assert "layers.1.attention.to_q.weight" in first and adapters.take_written() == frozenset()
    adapters.apply([(lora, 1.0)])
    assert adapters.take_written() == frozenset(), "they are as they were"
    adapters.restore()
    assert adapters.take_written() == first


# -- left out, given up --------------------------------------------------------


def test_eight_bits_that_are_wrong_are_not_to_be_had(loaded: Loaded, work: Workbench) -> None:
    def wrong(function: object) -> object:
        return (lambda *_: None) if getattr(function, "__name__", "") == "quantise" else function

    modes = work.modes(loaded, why_not_fp8=lambda _loaded: None, compile=wrong)
    high = modes.choose("high")
    assert high.mode == "regular" and "differ" in high.warnings[0]
    assert modes.choose("regular").warnings == ()


def test_memory_that_runs_out_takes_eight_bits(loaded: Loaded, work: Workbench) -> None:
    modes = work.modes(loaded, why_not_fp8=lambda _loaded: None)
    assert modes.shrink()
    high = modes.choose("high")
    assert high.mode == "regular" and "memory ran out" in high.warnings[0]
    modes.written(["layers.1.attention.to_q.weight"])


# -- the record ----------------------------------------------------------------


def proof(model: Path) -> Validation:
    return Validation(
        revision=revision(model),
        date="2026-01-02",
        device="a GPU",
        psnr=38.5,
        ssim=0.99,
        lpips=0.01,
    )


def test_high_is_called_unvalidated_until_there_is_a_record(
    loaded: Loaded, work: Workbench, tmp_path: Path
) -> None:
    modes = work.modes(loaded, tmp_path, why_not_fp8=lambda _loaded: None)
    assert modes.choose("high").warnings == (UNVALIDATED,)
    record(tmp_path, proof(loaded.folder))
    assert modes.choose("high").warnings == ()


def test_a_record_is_of_one_revision(tmp_path: Path) -> None:
    one, other = tmp_path / ("a" * 40), tmp_path / "mine"
    (other / "transformer").mkdir(parents=True)
    (other / "transformer" / "a.safetensors").write_bytes(b"x" * 3_000_000)
    assert revision(one) == "a" * 40 and len(revision(other)) == 40
    path = record(tmp_path, proof(one))
    assert validated(tmp_path, one) == proof(one)
    assert validated(tmp_path, other) is validated(None, one) is None
    path.write_text(proof(other).model_dump_json())
    assert validated(tmp_path, one) is None, "of another model"
    path.write_text("{")
    assert validated(tmp_path, one) is None


def test_the_page_calls_high_unvalidated_as_long(tmp_path: Path) -> None:
    model = tmp_path / ("b" * 40)
    model.mkdir()
    backend = LocalBackend(LocalOptions(str(model), device="cpu", data=tmp_path))
    ((field, word),) = backend.capabilities(Resources()).notes.items()
    assert "real weights" in catalogue("en")[f"note.{field}.{word}"]
    record(tmp_path, proof(model))
    assert backend.capabilities(Resources()).notes == {}
    elsewhere = LocalBackend(LocalOptions("nobody/nothing", device="cpu", data=tmp_path))
    assert elsewhere.capabilities(Resources()).notes


@pytest.mark.parametrize("at", [0, 2_999_999])
def test_other_weights_are_another_revision(tmp_path: Path, at: int) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "transformer").mkdir(parents=True)
        numbers = bytearray(3_000_000)
        numbers[at] = name == "other"
        (tmp_path / name / "transformer" / "a.safetensors").write_bytes(numbers)
    assert revision(tmp_path / "one") != revision(tmp_path / "other")
