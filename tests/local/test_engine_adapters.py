"""Adapters in a request: in the image, in the receipt, and out of the next request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline

from backends.local.engine import Engine, merging
from backends.local.loading import Loaded, load_pipeline
from backends.local.options import LocalOptions
from generation.errors import AdapterRefused
from generation.lora_file import LoraFile
from generation.request import LoraRef
from generation.result import AppliedLora
from tests.local.engine_bench import Bench, pixels
from tests.standins.adapters import adapter

NAMES = ("comfyui", "kohya", "flux", "kohya-text-encoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoraFile]:
    folder = tmp_path_factory.mktemp("adapters")
    found = {}
    for name in NAMES:
        local = folder / f"{name}.safetensors"
        local.write_bytes(adapter(name).data())
        found[f"o/{name}"] = LoraFile(f"o/{name}", file=local.name, local=local)
    return found


def lora(name: str, scale: float = 1.0) -> LoraRef:
    return LoraRef(path=f"o/{name}", scale=scale)


def test_an_image_with_an_adapter_is_the_stock_pipelines(
    bench: Bench, tiny: LocalOptions, files: dict[str, LoraFile]
) -> None:
    ours = pixels(bench.run(files=files, loras=(lora("comfyui", 0.8),)))
    stock = ZImagePipeline.from_pretrained(tiny.model, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(str(files["o/comfyui"].local), adapter_name="one")
    stock.set_adapters("one", 0.8)
    theirs = stock(
        "a fox",
        height=48,
        width=64,
        num_inference_steps=8,
        guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1
    assert np.abs(ours.astype(int) - pixels(bench.run()).astype(int)).max() > 1


def test_an_adapter_is_in_its_own_requests_only(bench: Bench, files: dict[str, LoraFile]) -> None:
    plain = bench.run().images[0].data
    both = (lora("comfyui"), lora("kohya", -0.5))
    merged = bench.run(files=files, loras=both)
    assert [(one.path, one.scale, one.applied) for one in merged.loras] == [
        ("o/comfyui", 1.0, True), ("o/kohya", -0.5, True),
    ]  # fmt: skip
    assert merged.loras[0].file == "comfyui.safetensors"
    assert list(merged.timings).index("adapters") < list(merged.timings).index("denoising")
    without = bench.run()
    assert without.images[0].data == plain != merged.images[0].data
    assert without.loras == () and "adapters" not in without.timings
    assert bench.run(files=files, loras=both).images[0].data == merged.images[0].data


def test_a_refused_adapter_costs_no_forward_and_leaves_the_base(
    bench: Bench, files: dict[str, LoraFile]
) -> None:
    plain = bench.run().images[0].data
    bench.count_forwards()
    with pytest.raises(AdapterRefused, match="flux"):
        bench.run(files=files, loras=(lora("comfyui"), lora("flux")))
    assert bench.forwards == 0
    assert bench.run().images[0].data == plain


def test_what_an_adapter_leaves_out_is_in_the_receipt_once(
    bench: Bench, files: dict[str, LoraFile]
) -> None:
    told = bench.run(files=files, loras=(lora("kohya-text-encoder"),)).warnings
    assert len(told) == 1 and "text encoder" in told[0]
    assert bench.run().warnings == ()


def test_an_idle_adapter_says_so(bench: Bench, files: dict[str, LoraFile]) -> None:
    result = bench.run(files=files, loras=(lora("comfyui", 0),))
    assert result.loras[0].applied is False and "changes nothing" in result.warnings[0]
    assert result.images[0].data == bench.run().images[0].data


class Noted:
    """Adapters that are only counted, and can be short of memory."""

    def __init__(self, seen: list[str], hungry: bool) -> None:
        self.seen = seen
        self.hungry = hungry
        self.warnings = ()

    def apply(self, wanted: Sequence[tuple[LoraFile, float]]) -> tuple[AppliedLora, ...]:
        self.seen.append("apply")
        if self.hungry:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return tuple(AppliedLora(path=one.path, scale=s, applied=True) for one, s in wanted)

    def restore(self) -> None:
        self.seen.append("restore")

    def take_written(self) -> frozenset[str]:
        return frozenset()

    def shrink(self) -> None:
        self.seen.append("shrink")
        self.hungry = False


def test_nothing_is_copied_for_adapters_before_there_is_one(
    tiny: LocalOptions, files: dict[str, LoraFile]
) -> None:
    seen: list[str] = []

    def make(_loaded: Loaded) -> Noted:
        seen.append("made")
        return Noted(seen, hungry=False)

    bench = Bench(Engine(tiny, adapters=make))
    bench.run()
    assert seen == []
    bench.run(files=files, loras=(lora("comfyui"),))
    bench.run()
    bench.run(files=files, loras=(lora("comfyui"),))
    assert seen == ["made", "apply", "restore", "apply"]


def test_short_of_memory_adapters_give_theirs_back_first(
    tiny: LocalOptions, files: dict[str, LoraFile]
) -> None:
    seen: list[str] = []
    bench = Bench(Engine(tiny, adapters=lambda _loaded: Noted(seen, hungry=True)))
    assert bench.run(files=files, loras=(lora("comfyui"),)).loras[0].applied
    assert seen == ["apply", "shrink", "apply"]


def test_the_engine_merges_into_its_own_transformer(
    tiny: LocalOptions, files: dict[str, LoraFile]
) -> None:
    loaded = load_pipeline(Path(tiny.model), tiny, lambda _line: None)
    weight = loaded.pipe.transformer.layers[0].attention.to_q.weight
    before, place = weight.clone(), weight.data_ptr()
    adapters = merging(loaded)
    adapters.apply([(files["o/comfyui"], 1.0)])
    assert not torch.equal(weight, before)
    adapters.restore()
    assert torch.equal(weight, before) and weight.data_ptr() == place
