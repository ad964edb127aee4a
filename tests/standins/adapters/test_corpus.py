"""The corpus itself: its numbers are what its types can hold, and its merges what they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.standins.adapters import TINY, Adapter, adapter, corpus, large
from tests.standins.adapters.changes import Wide
from tests.standins.adapters.model import linear_shape, norm_width
from tests.standins.adapters.tensors import Tensor, decode, encode

MERGED = [one for one in corpus() if one.family == "Z-Image" and one.changes]


def weights(one: Adapter) -> dict[str, Wide]:
    dice = np.random.default_rng(7)
    shapes = {
        m: (norm_width(m, TINY),) if "norm" in m else linear_shape(m, TINY) for m in one.modules
    }
    return {f"{module}.weight": dice.standard_normal(shape) for module, shape in shapes.items()}


@pytest.mark.parametrize(
    ("dtype", "error"), [("F32", 0), ("F16", 2**-11), ("BF16", 2**-8), ("F8_E4M3", 2**-4)]
)
def test_numbers_are_rounded_to_their_type(dtype: str, error: float) -> None:
    exact = np.array([0, 1, -1, 0.5, 3.3, -0.7, 100.1, 0.0171], np.float32)
    stored = decode(dtype, encode(dtype, exact))
    assert np.all(np.abs(stored - exact) <= error * np.abs(exact))
    assert np.array_equal(decode(dtype, encode(dtype, stored)), stored)


def test_numbers_follow_from_the_seed() -> None:
    first, again, other = (Tensor("F32", (3, 4), seed).values() for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("one", MERGED, ids=lambda one: one.name)
def test_a_merge_changes_exactly_its_modules(one: Adapter) -> None:
    base = weights(one)
    merged = one.merged(base)
    assert merged.keys() == base.keys()
    for name, weight in merged.items():
        assert weight.shape == base[name].shape
        assert not np.allclose(weight, base[name])
    back = one.merged(base, scale=0.0)
    assert all(np.array_equal(back[name], base[name]) for name in base)


def test_a_fused_merge_is_that_of_its_three_rows() -> None:
    one = adapter("comfyui-fused")
    base = weights(one)
    tensors = {name: tensor.values().astype(np.float64) for name, tensor in one.tensors.items()}
    fused = "diffusion_model.layers.0.attention.qkv"
    delta = tensors[f"{fused}.lora_B.weight"] @ tensors[f"{fused}.lora_A.weight"]
    for rows, part in zip(np.split(delta, 3), "qkv", strict=True):
        name = f"layers.0.attention.to_{part}.weight"
        assert np.allclose(one.merged(base)[name] - base[name], rows)


def test_dora_gives_rows_of_the_stated_length() -> None:
    one = adapter("comfyui-dora")
    for weight in one.merged(weights(one)).values():
        assert np.allclose(np.linalg.norm(weight, axis=1), 0.75)


def test_a_sparse_file_has_the_size_and_not_the_weight(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    one = large()
    one.write_sparse(path)
    assert path.stat().st_size == one.size() > 170_000_000
    assert path.stat().st_blocks * 512 < 1_000_000
    assert path.open("rb").read(len(one.header())) == one.header()


def test_a_small_file_is_whole() -> None:
    one = adapter("comfyui")
    assert len(one.data()) == one.size()
    assert one.data().startswith(one.header())
