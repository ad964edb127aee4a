"""Merged weights are what adapters mean, to the last rounding; the base comes back bit by bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.local import merging
from backends.local.factors import Factors, read_adapter
from backends.local.merging import Merger
from tests.local.beside_stock import rows, table
from tests.local.files import numbers, save
from tests.local.tiny import Weights, merged, stock, transformer, weights, wide, write
from tests.standins.adapters import Adapter, adapter, corpus
from tests.standins.adapters.changes import Wide

MERGED = [one for one in corpus() if one.family == "Z-Image" and one.changes and not one.unmatched]
BY_STOCK = [one for one in MERGED if one.hosted == "fits" or one.text_encoder]
BY_STOCK += [one for one in MERGED if one.name == "training-adapter"]
ROUNDED = (torch.bfloat16, torch.float16)
SCALES = (0.5, 1.0, -4.0, 4.0, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all files of the corpus that can be merged."""
    place = tmp_path_factory.mktemp("adapters")
    for one in MERGED:
        write(one, place)
    return place


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return transformer()


@pytest.fixture
def merger(model: torch.nn.Module) -> Iterator[Merger]:
    made = Merger(model)
    before = weights(model)
    yield made
    made.restore()
    assert_same(weights(model), before)


@cache
def factors_of(name: str, folder: Path) -> Factors:
    shapes = {name: tuple(p.shape) for name, p in transformer().named_parameters()}
    return read_adapter(folder / f"{name}.safetensors", shapes).factors()


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def assert_close(found: dict[str, Wide], right: dict[str, Wide]) -> None:
    wrong = [name for name in right if not np.allclose(found[name], right[name], 1e-5, 2e-6)]
    assert wrong == []


# -- what is merged ------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, -0.7, 4.0])
@pytest.mark.parametrize("one", MERGED, ids=lambda one: one.name)
def test_the_merge_is_the_reference(
    one: Adapter, scale: float, model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    base = wide(weights(model))
    (told,) = merger.set([(factors_of(one.name, folder), scale)])
    assert_close(wide(weights(model)), merged(base, [(one, scale)]))
    assert (told.pairs, told.modules) == (len(one.changes), one.modules)
    assert merger.changed == tuple(f"{module}.weight" for module in one.modules)
    assert not told.no_effect
    assert len(told.text_encoder) == one.text_encoder


@pytest.mark.parametrize("one", BY_STOCK, ids=lambda one: one.name)
def test_where_stock_applies_it_both_are_the_same(
    one: Adapter, model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    theirs = wide(stock(folder / one.file_name, model))
    merger.set([(factors_of(one.name, folder), 1.0)])
    assert_close(wide(weights(model)), theirs)


def test_the_table_tells_both(tmp_path: Path) -> None:
    names = ("comfyui", "comfyui-fused", "bare", "lycoris-loha", "flux")
    found = list(rows(tmp_path, map(adapter, names)))
    assert [(row.stock, row.ours, row.wanted) for row in found] == [
        (14, 14, 14), (6, 14, 14), (0, 14, 14), (None, 14, 14), (None, None, 0),
    ]  # fmt: skip
    assert found[2].stock_says == "nothing applied, nothing said"
    lines = table(found).splitlines()
    assert lines[4].split()[:5] == ["lycoris-loha", "lycoris", "error", "14/14", "stock:"]
    assert "made for FLUX" in lines[5]


def test_stock_applies_enough_of_them_to_compare() -> None:
    assert len(BY_STOCK) >= 30


THREES = [random.Random(n).sample(MERGED, 3) for n in range(20)]


@pytest.mark.parametrize("three", THREES, ids=lambda three: "+".join(one.name for one in three))
def test_three_adapters_add_up(
    three: list[Adapter], model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    base = wide(weights(model))
    scales = (0.8, -1.3, 0.35)
    loras = list(zip(three, scales, strict=True))
    merger.set([(factors_of(one.name, folder), scale) for one, scale in loras])
    assert_close(wide(weights(model)), merged(base, loras))


# -- rounding ------------------------------------------------------------------


def error(found: Wide, right: Wide) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(found - right))))


def assert_ideally_rounded(
    dtype: torch.dtype, loras: list[tuple[Adapter, float]], folder: Path
) -> None:
    """Within 1.1 × what rounding the exact result once would lose."""
    model = transformer(dtype)
    base = wide(weights(model))
    Merger(model).set([(factors_of(one.name, folder), scale) for one, scale in loras])
    found, right = wide(weights(model)), merged(base, loras)
    for name in right:
        ideal = torch.tensor(right[name]).to(dtype).double().numpy()
        assert error(found[name], right[name]) <= 1.1 * error(ideal, right[name])


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("one", MERGED, ids=lambda one: one.name)
def test_a_merge_is_rounded_once(one: Adapter, dtype: torch.dtype, folder: Path) -> None:
    assert_ideally_rounded(dtype, [(one, 0.8)], folder)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("three", THREES, ids=lambda three: "+".join(one.name for one in three))
def test_a_merge_of_three_is_rounded_once(
    three: list[Adapter], dtype: torch.dtype, folder: Path
) -> None:
    assert_ideally_rounded(dtype, list(zip(three, (0.8, -1.3, 0.35), strict=True)), folder)


# -- exactly back --------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "place"), [(torch.bfloat16, "device"), (torch.float32, "host")], ids=str
)
def test_a_thousand_swaps_leave_the_base(
    dtype: torch.dtype, place: merging.Place, folder: Path
) -> None:
    model = transformer(dtype)
    before = weights(model)
    addresses = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    merger, dice = Merger(model, place), random.Random(3)
    few = [factors_of(one.name, folder) for one in MERGED]
    for turn in range(1, 1001):
        some = [(one, dice.choice(SCALES)) for one in dice.sample(few, dice.randint(0, 3))]
        merger.set(some)
        assert bool(merger.changed) == bool(some)
        if turn % 100 == 0:
            fresh = transformer(dtype)
            Merger(fresh).set(some)
            assert_same(weights(model), weights(fresh))  # whatever was there before
    merger.restore()
    assert_same(weights(model), before)
    assert addresses == {name: p.data_ptr() for name, p in model.named_parameters()}
    assert merger.changed == ()


class Writes:
    """Which parameters are written, and in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, merger: Merger) -> None:
        self.names: list[str] = []
        for method in ("_write", "_reset"):
            real = getattr(merger, method)

            def noted(name: str, *rest: Any, real: Any = real) -> None:
                self.names.append(name)
                real(name, *rest)

            monkeypatch.setattr(merger, method, noted)

    def take(self) -> set[str]:
        taken, self.names = self.names, []
        assert len(set(taken)) == len(taken)
        return set(taken)


def test_only_what_changes_is_written(
    merger: Merger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, attention = (factors_of(n, folder) for n in ("diffusers", "diffusers-attention-only"))
    writes = Writes(monkeypatch, merger)
    merger.set([(attention, 1.0)])
    assert writes.take() == {f"layers.{n}.attention.{part}.weight" for n in (0, 1)
                             for part in ("to_q", "to_k", "to_v", "to_out.0")}  # fmt: skip
    merger.set([(attention, 1.0)])
    assert writes.take() == set()
    merger.set([(attention, 1.0), (whole, 0.0)])
    assert writes.take() == set()
    merger.set([(attention, 0.5)])
    assert writes.take() == set(attention.changes)
    merger.set([(whole, 1.0)])
    assert writes.take() == set(whole.changes)
    merger.set([(attention, 1.0), (whole, 1.0)])
    assert writes.take() == set(attention.changes)
    merger.set([(attention, 1.0)])
    assert writes.take() == set(whole.changes)
    merger.set([])
    assert writes.take() == set(attention.changes)
    merger.restore()
    assert writes.take() == set()


def test_parameters_outside_the_adapter_are_never_touched(
    model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    before = weights(model)
    one = factors_of("diffusers-attention-only", folder)
    merger.set([(one, 1.0)])
    now = weights(model)
    assert {name for name in now if not torch.equal(now[name], before[name])} == set(one.changes)


@pytest.mark.parametrize("others", [(), ("kohya-refiners",)], ids=["base", "another"])
@pytest.mark.parametrize("name", ["diffusers", "comfyui-dora", "comfyui-lokr"])
@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError, KeyboardInterrupt])
def test_an_error_in_the_middle_restores_the_base(
    kind: type[BaseException],
    name: str,
    others: tuple[str, ...],
    model: torch.nn.Module,
    merger: Merger,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = weights(model)
    merger.set([(factors_of(other, folder), 1.0) for other in others])
    real, left = merger._write, 5

    def fails(name: str, terms: Any) -> None:
        nonlocal left
        left -= 1
        real(name, terms)  # whatever was begun
        if not left:
            raise kind("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(merger, "_write", fails)
        with pytest.raises(kind, match="in the middle"):
            merger.set([(factors_of(name, folder), 1.0)])
    assert_same(weights(model), before)
    assert merger.changed == ()
    merger.set([(factors_of(name, folder), 1.0)])
    assert len(merger.changed) == len(factors_of(name, folder).changes)


def test_the_base_is_back_after_a_with(
    model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    before = weights(model)
    with pytest.raises(ZeroDivisionError), merger.applied([(factors_of("kohya", folder), 1)]):
        assert merger.changed
        raise ZeroDivisionError
    assert_same(weights(model), before)


def test_the_model_computes_with_what_is_merged(
    model: torch.nn.Module, merger: Merger, folder: Path
) -> None:
    before = rendered(model)
    with merger.applied([(factors_of("comfyui-refiners", folder), 1.0)]):
        changed = rendered(model)
    assert not torch.allclose(before, changed)
    assert torch.equal(rendered(model), before)


def rendered(model: torch.nn.Module, size: int = 8, tokens: int = 5) -> torch.Tensor:
    """One forward over an image of `size`² latents."""
    dice = torch.Generator().manual_seed(1)
    image = torch.randn(16, 1, size, size, generator=dice)
    caption = torch.randn(tokens, 32, generator=dice)
    with torch.no_grad():
        found: torch.Tensor = model([image], torch.tensor([0.5]), [caption], return_dict=False)[0][
            0
        ]
    return found


# -- without effect ------------------------------------------------------------


def read(path: Path, merger: Merger) -> Factors:
    return read_adapter(path, merger.shapes).factors()


def untrained(path: Path, merger: Merger) -> Factors:
    module = "layers.0.attention.to_q"
    tensors = {
        f"{module}.lora_A.weight": numbers(4, 64),
        f"{module}.lora_B.weight": np.zeros((64, 4)),
    }
    return read(save(path, tensors), merger)


def test_an_adapter_that_changes_nothing_says_so(
    tmp_path: Path, merger: Merger, folder: Path
) -> None:
    nothing = untrained(tmp_path / "a.safetensors", merger)
    something = factors_of("diffusers", folder)
    assert [one.no_effect for one in merger.set([(nothing, 1.0)])] == [True]
    told = merger.set([(nothing, 1.0), (something, 1.0)])
    assert [one.no_effect for one in told] == [True, False]
    told = merger.set([(something, 0.0), (nothing, 1.0)])
    assert [one.no_effect for one in told] == [True, True]
    assert [one.no_effect for one in merger.set([(something, 0.0)])] == [True]


def test_a_change_that_is_lost_in_rounding_is_none(tmp_path: Path) -> None:
    model = transformer(torch.bfloat16)
    merger = Merger(model)
    module = "layers.0.attention.to_q"
    tensors = {f"{module}.diff": np.full((64, 64), 1e-12)}
    small = read(save(tmp_path / "a.safetensors", tensors), merger)
    assert [one.no_effect for one in merger.set([(small, 1.0)])] == [True]
    assert [one.no_effect for one in merger.set([(small, 4e12)])] == [False]


# -- compiled ------------------------------------------------------------------


def test_compiled_blocks_stay_compiled(folder: Path) -> None:
    """Their guards see the same parameters, whatever is merged into them."""
    model = transformer()
    merger, compiled = Merger(model), 0

    def count(module: torch.fx.GraphModule, _inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return module.forward

    torch._dynamo.reset()
    plain = rendered(model)
    for kind in (model.layers, model.noise_refiner, model.context_refiner):
        for block in kind:
            block.compile(backend=count)
    assert torch.equal(rendered(model), plain)
    warm, dice = compiled, random.Random(1)
    assert warm > 0
    outputs = []
    for _ in range(20):
        three = dice.sample([one.name for one in MERGED], 3)
        merger.set([(factors_of(name, folder), dice.uniform(-4, 4)) for name in three])
        outputs.append(rendered(model))
    merger.restore()
    assert torch.equal(rendered(model), plain)
    assert compiled == warm
    assert all(not torch.equal(one, plain) for one in outputs)
    torch._dynamo.reset()
