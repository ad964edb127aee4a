"""Files read for merging: every layout and method complete, everything else refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.local.factors import AdapterFile, read_adapter
from backends.local.merging import Merger
from generation.errors import AdapterRefused, AdapterUnavailable
from tests.local.files import numbers, save
from tests.local.tiny import stock, transformer, weights, wide, write
from tests.standins.adapters import Adapter, Hostile, adapter, corpus, hostile
from tests.standins.adapters.changes import Wide

MODEL = transformer()
SHAPES = Merger(MODEL).shapes
BASE = wide(weights(MODEL))
MERGED = [one for one in corpus() if one.family == "Z-Image" and one.changes and not one.unmatched]
REFUSED = [one for one in corpus() if one not in MERGED]
Q, K, V = (f"layers.0.attention.to_{part}" for part in "qkv")
QKV = "layers.0.attention.qkv"


def read(path: Path) -> AdapterFile:
    return read_adapter(path, SHAPES)


def deltas(path: Path) -> dict[str, Wide]:
    """What a file adds to the base, by parameter."""
    return {
        name: change.added(torch.tensor(BASE[name], dtype=torch.float32)).double().numpy()
        for name, change in read(path).factors().changes.items()
    }


def refusal(path: Path) -> str:
    with pytest.raises(AdapterRefused) as raised:
        read(path)
    assert raised.value.facts["name"] == path.name
    return str(raised.value.facts["reason"])


def pair(module: str, rows: int = 64, columns: int = 64, rank: int = 4) -> dict[str, Wide]:
    return {
        f"{module}.lora_A.weight": numbers(rank, columns),
        f"{module}.lora_B.weight": numbers(rows, rank),
    }


def product(tensors: dict[str, Wide], module: str) -> Wide:
    whole: Wide = tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
    return whole


# -- the corpus ----------------------------------------------------------------


@pytest.mark.parametrize("one", MERGED, ids=lambda one: one.name)
def test_every_key_is_accounted_for(one: Adapter, tmp_path: Path) -> None:
    found = read(write(one, tmp_path))
    assert found.pairs == len(one.changes)
    assert found.factors().modules == one.modules
    assert len(found.text_encoder) == one.text_encoder
    taken = sum(len(change.parts) for change in one.changes)
    assert taken + len(found.text_encoder) + len(found.repeated) == len(one.tensors)


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.name)
def test_what_cannot_be_merged_is_refused_with_its_reason(one: Adapter, tmp_path: Path) -> None:
    said = refusal(write(one, tmp_path))
    if one.family not in ("Z-Image", None):
        assert said == f"it is made for {one.family}, not for Z-Image"
    elif one.unmatched:
        assert repr(one.unmatched[0]) in said
        assert said.startswith(f"{len(one.unmatched)} of its {len(one.tensors)} keys")
    else:
        assert said == f"it holds no adapter ({one.layout})"


def test_the_corpus_has_all_of_them() -> None:
    assert len(MERGED) > 50 and len(REFUSED) > 20
    assert {one.kind for one in MERGED} >= {"LoRA", "LoKr", "LoHa", "DoRA", "full difference"}


def test_a_fused_module_beside_its_parts_is_left_out_and_named(tmp_path: Path) -> None:
    found = read(write(adapter("kohya-split-and-fused"), tmp_path))
    assert {name.split(".")[0] for name in found.repeated} == {
        f"lora_unet_layers_{n}_attention_{part}" for n in (0, 1) for part in ("qkv", "out")
    }


@pytest.mark.parametrize("one", hostile(), ids=lambda one: one.name)
def test_a_hostile_file_is_refused(one: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(one.data())
    assert one.says in refusal(path)


# -- methods beyond the corpus -------------------------------------------------


def test_a_fused_kronecker_product_is_cut_within_its_blocks(tmp_path: Path) -> None:
    """Eight blocks of 24 rows: a third of all rows is two blocks and two thirds of one."""
    tensors = {f"{QKV}.lokr_w1": numbers(8, 4), f"{QKV}.lokr_w2": numbers(24, 16)}
    whole = np.kron(tensors[f"{QKV}.lokr_w1"], tensors[f"{QKV}.lokr_w2"])
    found = deltas(save(tmp_path / "a.safetensors", tensors))
    for module, rows in zip((Q, K, V), np.split(whole, 3), strict=True):
        assert np.allclose(found[f"{module}.weight"], rows, atol=1e-6)


def test_both_sides_of_a_kronecker_product_may_be_factors(tmp_path: Path) -> None:
    shapes = {"w1_a": (4, 2), "w1_b": (2, 4), "w2_a": (16, 2), "w2_b": (2, 16)}
    tensors = {f"{Q}.lokr_{part}": numbers(*shape) for part, shape in shapes.items()}
    first, second = (tensors[f"{Q}.lokr_w{n}_a"] @ tensors[f"{Q}.lokr_w{n}_b"] for n in (1, 2))
    scaled = {**tensors, f"{Q}.alpha": np.array(1.0)}
    found = deltas(save(tmp_path / "a.safetensors", scaled))
    assert np.allclose(found[f"{Q}.weight"], np.kron(first, second) / 2, atol=1e-6)


def test_a_fused_hadamard_product(tmp_path: Path) -> None:
    shapes = {"w1_a": (192, 2), "w1_b": (2, 64), "w2_a": (192, 3), "w2_b": (3, 64)}
    tensors = {f"{QKV}.hada_{part}": numbers(*shape) for part, shape in shapes.items()}
    first, second = (tensors[f"{QKV}.hada_w{n}_a"] @ tensors[f"{QKV}.hada_w{n}_b"] for n in (1, 2))
    found = deltas(save(tmp_path / "a.safetensors", tensors))
    for module, rows in zip((Q, K, V), np.split(first * second, 3), strict=True):
        assert np.allclose(found[f"{module}.weight"], rows, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 1), (64,)], ids=["two dimensions", "one dimension"])
def test_dora_by_row(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = pair(Q)
    lengths = np.abs(numbers(64)) + 0.5
    path = save(tmp_path / "a.safetensors", {**tensors, f"{Q}.dora_scale": lengths.reshape(shape)})
    base = BASE[f"{Q}.weight"]
    changed = base + product(tensors, Q)
    right = changed * (lengths / np.linalg.norm(changed, axis=1))[:, None]
    assert np.allclose(base + deltas(path)[f"{Q}.weight"], right, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "shape"),
    [(Q, (1, 64)), ("layers.0.feed_forward.w1", (64,)), ("layers.0.feed_forward.w1", (1, 64))],
    ids=["square", "one dimension", "two dimensions"],
)
def test_dora_by_column(module: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    base = BASE[f"{module}.weight"]
    tensors = pair(module, base.shape[0])
    lengths = np.abs(numbers(64)) + 0.5
    path = save(
        tmp_path / "a.safetensors", {**tensors, f"{module}.dora_scale": lengths.reshape(shape)}
    )
    changed = base + product(tensors, module)
    right = changed * (lengths / np.linalg.norm(changed, axis=0))
    assert np.allclose(base + deltas(path)[f"{module}.weight"], right, atol=1e-5)


def test_a_fused_dora_by_row(tmp_path: Path) -> None:
    tensors = pair(QKV, 192)
    lengths = np.abs(numbers(192, 1)) + 0.5
    path = save(tmp_path / "a.safetensors", {**tensors, f"{QKV}.dora_scale": lengths})
    base = np.concatenate([BASE[f"{module}.weight"] for module in (Q, K, V)])
    changed = base + product(tensors, QKV)
    right = changed * lengths / np.linalg.norm(changed, axis=1, keepdims=True)
    found = deltas(path)
    merged = base + np.concatenate([found[f"{module}.weight"] for module in (Q, K, V)])
    assert np.allclose(merged, right, atol=1e-5)


def test_dora_over_a_kronecker_product_and_over_a_difference(tmp_path: Path) -> None:
    tensors = {f"{Q}.lokr_w1": numbers(4, 4), f"{Q}.lokr_w2": numbers(16, 16)}
    tensors |= {f"{K}.diff": numbers(64, 64)}
    lengths = {f"{module}.dora_scale": np.full((64, 1), 0.75) for module in (Q, K)}
    found = deltas(save(tmp_path / "a.safetensors", {**tensors, **lengths}))
    for module in (Q, K):
        merged = BASE[f"{module}.weight"] + found[f"{module}.weight"]
        assert np.allclose(np.linalg.norm(merged, axis=1), 0.75, atol=1e-5)
    plain = np.kron(tensors[f"{Q}.lokr_w1"], tensors[f"{Q}.lokr_w2"]) + BASE[f"{Q}.weight"]
    merged = BASE[f"{Q}.weight"] + found[f"{Q}.weight"]
    cosine = (merged * plain).sum(1) / np.linalg.norm(plain, axis=1) / 0.75
    assert np.allclose(cosine, 1, atol=1e-5)


def test_a_difference_may_come_with_one_of_the_bias(tmp_path: Path) -> None:
    module = "layers.0.adaLN_modulation.0"
    tensors = {f"{module}.diff": numbers(256, 64), f"{module}.diff_b": numbers(256)}
    found = deltas(save(tmp_path / "a.safetensors", tensors))
    assert np.array_equal(found[f"{module}.weight"], tensors[f"{module}.diff"])
    assert np.array_equal(found[f"{module}.bias"], tensors[f"{module}.diff_b"])


# -- alpha ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64", "I64", "I32"])
def test_an_alpha_of_any_type_anywhere_in_the_file(dtype: str, tmp_path: Path) -> None:
    """In front, where one of two bytes leaves the numbers behind it at an odd place."""
    tensors = {f"{Q}.alpha": np.array(2.0), **pair(Q)}
    path = save(tmp_path / "a.safetensors", tensors, dtypes={f"{Q}.alpha": dtype})
    assert np.allclose(deltas(path)[f"{Q}.weight"], product(tensors, Q) / 2, atol=1e-6)


def config(**fields: object) -> dict[str, str]:
    """As `save_lora_weights` of diffusers writes PEFT's."""
    known = {f"transformer.{name}": value for name, value in fields.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(known)}


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {Q: 2}}, 0.5),
    ],
    ids=["alpha", "by the root", "pattern"],
)
def test_diffusers_own_files_state_alpha_in_their_metadata(
    fields: dict[str, object], factor: float, tmp_path: Path
) -> None:
    tensors = pair(f"transformer.{Q}")
    path = save(tmp_path / "a.safetensors", tensors, config(target_modules=[Q], **fields))
    found = deltas(path)[f"{Q}.weight"]
    assert np.allclose(found, factor * product(tensors, f"transformer.{Q}"), atol=1e-6)
    theirs = wide(stock(path, MODEL))[f"{Q}.weight"] - BASE[f"{Q}.weight"]
    assert np.allclose(found, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"transformer.lora_alpha": "much"}', "[" * 100_000,
             '{"transformer.lora_alpha": Infinity}'],
    ids=["cut off", "a list", "a word", "deep", "infinite"],
)  # fmt: skip
def test_metadata_that_states_no_alpha_is_refused(text: str, tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": text}
    path = save(tmp_path / "a.safetensors", pair(f"transformer.{Q}"), metadata)
    assert "no alpha" in refusal(path)


# -- refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (lambda: {f"{V}.lora_A.weight": numbers(4, 64)}, f"1 of its 3 keys can't be merged: '{V}"),
        (lambda: {f"{V}.weight": numbers(64, 64)}, "1 of its 3 keys"),
        (lambda: {f"{V}.alpha": np.array(1.0)}, f"1 of its 3 keys can't be merged: '{V}.alpha'"),
        (lambda: pair("layers.2.attention.to_q"), "2 of its 4 keys"),
        (lambda: pair(V, rows=32), "2 of its 4 keys"),
        (lambda: pair(QKV, rows=64), "2 of its 4 keys"),
        (lambda: {f"{V}.diff": numbers(64, 64), f"{V}.diff_b": numbers(64)}, "2 of its 4 keys"),
        (lambda: pair(V) | {f"{V}.dora_scale": numbers(32, 2)}, "3 of its 5 keys"),
        (lambda: pair(V) | {f"{V}.dora_scale": numbers(2, 32)}, "3 of its 5 keys"),
        (lambda: {f"{Q}.lora_down.weight": numbers(4, 64)}, f"'{Q}.lora_down.weight'"),
        (lambda: pair(f"transformer.{Q}"), f"it changes a module twice: '{Q}'"),
        (lambda: pair(QKV, rows=192), f"it changes a module twice: '{Q}'"),
    ],
    ids=["half a pair", "a weight", "an alpha alone", "no such layer", "too few rows",
         "fused, of one", "a bias that isn't there", "lengths in two", "lengths in two more",
         "a key's other name", "two prefixes", "one part of three"],
)  # fmt: skip
def test_one_key_too_many_refuses_the_file(
    extra: Callable[[], dict[str, Wide]], said: str, tmp_path: Path
) -> None:
    assert said in refusal(save(tmp_path / "a.safetensors", {**pair(Q), **extra()}))


def test_a_fused_dora_by_column_is_refused(tmp_path: Path) -> None:
    tensors = {**pair(QKV, rows=192), f"{QKV}.dora_scale": numbers(1, 64)}
    assert "3 of its 3 keys" in refusal(save(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", [f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", f"{Q}.alpha"])
def test_numbers_that_are_not_finite_are_refused(key: str, wrong: float, tmp_path: Path) -> None:
    tensors = {**pair(Q), f"{Q}.alpha": np.array(4.0)}
    tensors[key] = tensors[key].copy()
    tensors[key].flat[-1] = wrong
    assert f"{key!r} holds numbers that aren't finite" in refusal(
        save(tmp_path / "a.safetensors", tensors)
    )


def test_whole_numbers_are_refused(tmp_path: Path) -> None:
    key = f"{Q}.lora_A.weight"
    path = save(tmp_path / "a.safetensors", pair(Q), dtypes={key: "I32"})
    assert "whole numbers" in refusal(path)
    path = save(tmp_path / "b.safetensors", pair(Q), dtypes={key: "U8"})
    assert "type U8" in refusal(path)


def test_keys_of_a_text_encoder_alone_are_refused(tmp_path: Path) -> None:
    tensors = pair("text_encoder.model.layers.0.self_attn.q_proj")
    assert "only a text encoder" in refusal(save(tmp_path / "a.safetensors", tensors))


def test_an_adapter_of_the_real_width_is_refused_by_a_tiny_model(tmp_path: Path) -> None:
    tensors = pair(Q, rows=3840, columns=3840)
    assert "2 of its 2 keys" in refusal(save(tmp_path / "a.safetensors", tensors))


def test_a_file_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(AdapterUnavailable, match="No such file"):
        read(tmp_path / "gone.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(adapter("diffusers"), tmp_path)
    whole = path.stat()
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr("backends.local.tensorfile.os.fstat", lambda _: whole)
    with pytest.raises(AdapterUnavailable, match="shorter"):
        read(path)
