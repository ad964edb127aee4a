"""What an adapter is, told from its header: expectations come from how each file was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_format.anatomy import Anatomy, Kind, examine
from lora_format.families import LINEARS, MODULES, other_family
from lora_format.header import Header, TensorInfo, parse_header
from lora_format.layouts import PREFIXES, split_key
from lora_format.stock import stock_result
from tests.standins.adapters import REAL, TINY, Adapter, Size, adapter, corpus, large
from tests.standins.adapters.model import ATTENTION, FEED_FORWARD, MODULATION, linear_shape, targets

SLOW = os.environ.get("PLAYGROUND_SLOW_TESTS") == "1"
settings.register_profile("anatomy fuzz", max_examples=10_000 if SLOW else 300, deadline=None)
FUZZ = settings.get_profile("anatomy fuzz")


def read(one: Adapter) -> Anatomy:
    return examine(parse_header(one.header(), name=one.file_name, file_bytes=one.size()))


def described(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None
) -> Anatomy:
    """The anatomy of tensors that are only named."""
    tensors = {name: TensorInfo("BF16", shape) for name, shape in shapes.items()}
    return examine(Header(tensors, metadata or {}, 8, None))


def lora(
    module: str, rows: int = 64, columns: int = 64, rank: int = 4
) -> dict[str, tuple[int, ...]]:
    return {f"{module}.lora_A.weight": (rank, columns), f"{module}.lora_B.weight": (rows, rank)}


# -- the corpus ----------------------------------------------------------------


@pytest.mark.parametrize("size", [TINY, REAL], ids=["tiny", "real"])
@pytest.mark.parametrize("name", [one.name for one in corpus()])
def test_kind_layout_family_and_ranks(name: str, size: Size) -> None:
    one = adapter(name, size)
    anatomy = read(one)
    assert (anatomy.kind, anatomy.layout) == (one.kind, one.layout)
    assert anatomy.family == one.family
    assert (anatomy.rank, anatomy.ranks) == (one.rank, one.ranks)
    assert anatomy.unmatched == one.unmatched
    assert anatomy.text_encoder == one.text_encoder
    assert anatomy.dtype == one.dtype
    assert anatomy.parameters == sum(tensor.count for tensor in one.tensors.values())


@pytest.mark.parametrize("size", [TINY, REAL], ids=["tiny", "real"])
@pytest.mark.parametrize("name", [one.name for one in corpus() if one.family == "Z-Image"])
def test_modules_have_diffusers_names(name: str, size: Size) -> None:
    one = adapter(name, size)
    expected = one.modules if one.changes else ()
    assert read(one).modules == expected


@pytest.mark.parametrize("one", corpus(), ids=lambda one: one.name)
def test_what_the_metadata_states(one: Adapter) -> None:
    anatomy = read(one)
    assert anatomy.alpha == one.alpha
    assert anatomy.base_model == one.base_model
    assert anatomy.trigger_words == one.trigger_words


def test_the_corpus_is_large_and_each_kind_is_in_it() -> None:
    everything = corpus()
    assert len({one.name for one in everything}) == len(everything) >= 40
    assert {one.kind for one in everything} == set(Kind)


def test_a_large_adapter() -> None:
    anatomy = read(large(rank=32))
    assert (anatomy.rank, len(anatomy.modules)) == (32, 34 * 8 - 2)


# -- Z-Image's modules ---------------------------------------------------------


def test_the_names_are_those_of_the_transformer() -> None:
    """Made twice, from the model's description here and there."""
    blocks = targets(REAL, ATTENTION + FEED_FORWARD + MODULATION, refiners=True)
    assert set(blocks) <= LINEARS
    assert len(LINEARS - set(blocks)) == 6  # embedders and the final layer
    assert len(MODULES) == len(LINEARS) + 34 * 6 + 1  # norms, and that of the captions


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_every_linear_is_known_by_every_spelling(prefix: str) -> None:
    known = sorted(LINEARS - {"cap_embedder.1"})
    tensors: dict[str, tuple[int, ...]] = {}
    for module in known:
        written = module.replace(".", "_") if prefix.endswith("_") else module
        tensors |= lora(f"{prefix}{written}", *linear_shape(module, REAL))
    anatomy = described(tensors)
    assert anatomy.modules == tuple(known)
    assert anatomy.unmatched == ()


@pytest.mark.parametrize(
    "shape",
    [(64, 65), (65, 64), (128, 64), (192, 64)],
    ids=["columns", "rows", "twice", "three times"],
)
def test_a_module_of_another_shape_is_unmatched(shape: tuple[int, int]) -> None:
    right = {name: s for n in range(3) for name, s in lora(f"layers.{n}.attention.to_q").items()}
    wrong = lora("layers.5.attention.to_k", *shape)
    anatomy = described({**right, **wrong})
    assert anatomy.modules == tuple(f"layers.{n}.attention.to_q" for n in range(3))
    assert anatomy.unmatched == tuple(sorted(wrong))


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_A.weight": (4, 64)},
        {"lora_B.weight": (64, 4)},
        {"lora_A.weight": (4, 64), "lora_B.weight": (64, 8)},
        {"lora_A.weight": (4, 64, 1, 1), "lora_B.weight": (64, 4, 1, 1)},
        {"lora_A.weight": (0, 64), "lora_B.weight": (64, 0)},
        {"lora_A.weight": (4, 64), "lora_B.weight": (64, 4), "alpha": (2,)},
        {"lora_A.weight": (4, 64), "lora_B.weight": (64, 4), "dora_scale": (63, 1)},
        {"lora_A.weight": (4, 64), "lora_B.weight": (64, 4), "diff": (64, 64)},
        {"alpha": ()},
        {"dora_scale": (64, 1)},
        {"lokr_w1": (4, 4)},
        {"lokr_w1": (4, 4), "lokr_w2_a": (16, 4)},
        {"lokr_w1": (4, 4), "lokr_w2": (16, 16), "lokr_w2_a": (16, 4), "lokr_w2_b": (4, 16)},
        {"lokr_w1": (4,), "lokr_w2": (16, 16)},
        {"hada_w1_a": (64, 4), "hada_w1_b": (4, 64), "hada_w2_a": (64, 4)},
        {"hada_w1_a": (64, 4), "hada_w1_b": (4, 64), "hada_w2_a": (64, 4), "hada_w2_b": (4, 32)},
        {"diff": (64, 64), "diff_b": (64,)},  # this module has no bias
        {"diff_b": (64,)},
        {"oft_blocks": (4, 16, 16)},
    ],
    ids=lambda parts: " ".join(parts),
)
def test_a_change_that_is_not_defined_is_unmatched(parts: dict[str, tuple[int, ...]]) -> None:
    right = {name: s for n in range(3) for name, s in lora(f"layers.{n}.attention.to_q").items()}
    wrong = {f"layers.9.attention.to_q.{part}": shape for part, shape in parts.items()}
    anatomy = described({**right, **wrong})
    assert anatomy.unmatched == tuple(sorted(wrong))
    assert "layers.9.attention.to_q" not in anatomy.modules


def test_a_bias_may_be_changed_where_there_is_one() -> None:
    module = "layers.0.adaLN_modulation.0"
    parts = {f"{module}.diff": (256, 64), f"{module}.diff_b": (256,)}
    assert described(parts).modules == (module,)


def test_a_second_key_of_one_part_is_unmatched() -> None:
    both = {**lora("layers.0.attention.to_q"), "layers.0.attention.to_q.lora_down.weight": (4, 64)}
    assert described(both).unmatched == ("layers.0.attention.to_q.lora_down.weight",)


def test_the_bias_of_a_factor_is_unmatched_and_its_module_is_not() -> None:
    bias = {"layers.0.attention.to_q.lora_B.bias": (64,)}
    anatomy = described({**bias, **lora("layers.0.attention.to_q")})
    assert anatomy.unmatched == tuple(bias)
    assert anatomy.modules == ("layers.0.attention.to_q",)


def test_a_few_names_in_common_do_not_make_a_family() -> None:
    """The first Llamas called their feed-forward layers as Z-Image does."""
    tensors = lora("layers.0.feed_forward.w1")
    for part in ("wq", "wk", "wo"):
        tensors |= lora(f"layers.0.attention.{part}")
    assert described(tensors).family is None


def test_modules_under_two_prefixes_are_a_mixed_layout() -> None:
    both = {**lora("layers.0.attention.to_q"), **lora("transformer.layers.1.attention.to_q")}
    assert described(both).layout == "mixed"


def test_lumina_is_told_by_its_width_alone() -> None:
    module = "diffusion_model.layers.0.attention.out"
    assert described(lora(module, 2304, 2304)).family == "Lumina 2"
    assert described(lora(module, 3840, 3840)).family == "Z-Image"


# -- other families ------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "shape", "family"),
    [
        ("double_blocks_0_img_mlp_0", (3072, 3072), "FLUX"),
        ("joint_blocks.0.x_block.attn.qkv", (4608, 1536), "SD 3"),
        ("transformer_blocks.0.attn.to_q", (2432, 2432), "SD 3"),
        ("transformer_blocks.18.attn.to_q", (3072, 3072), "FLUX"),
        ("transformer_blocks.19.attn.to_q", (3072, 3072), "Qwen-Image"),
        ("distilled_guidance_layer.in_proj", (64, 64), "Chroma"),
        ("double_stream_blocks.0.block.attn1.to_q", (2560, 2560), "HiDream"),
        ("blocks.0.self_attn.q_proj", (2048, 2048), "Cosmos"),
        ("blocks.0.cross_attn.k_img", (5120, 5120), "Wan"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", (640, 1024), "SD 2"),
        ("down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q", (640, 640), "SDXL"),
        ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", (9, 9), "Stable Diffusion"),
        ("something.else", (64, 64), None),
    ],
)
def test_another_family(module: str, shape: tuple[int, int], family: str | None) -> None:
    assert other_family({module: shape}) == family
    assert described(lora(f"diffusion_model.{module}", *shape)).family == family


# -- metadata ------------------------------------------------------------------


def stated(**metadata: str) -> Anatomy:
    return described(lora("layers.0.attention.to_q"), metadata)


@pytest.mark.parametrize("alpha", ["", "None", "nan", "inf", "-inf", "1e999", "many"])
def test_an_alpha_that_is_no_number_is_not_stated(alpha: str) -> None:
    assert stated(ss_network_alpha=alpha).alpha is None


@pytest.mark.parametrize(
    "frequency",
    ["", "[]", "null", "{", '{"a":[]}', '{"a":{"b":"c"}}', '{"a":{"b":NaN}}', "[" * 100_000,
     '{"a":{"b":true,"c":-1,"d":1.5}}', '{"a":{"b":1' + "0" * 5000 + "}}"],
    ids=lambda text: text[:20] or "nothing",
)  # fmt: skip
def test_tags_that_are_nonsense_are_no_trigger_words(frequency: str) -> None:
    assert stated(ss_tag_frequency=frequency).trigger_words == ()


def test_trigger_words_are_few_plain_and_the_commonest() -> None:
    tags = {f"tag {n}": n for n in range(1, 50)} | {"<b>\n\x1b": 100}
    words = stated(ss_tag_frequency=json.dumps({"10_set": tags})).trigger_words
    assert words == ("<b>", *(f"tag {n}" for n in range(49, 42, -1)))


def test_trainer_notes_are_useful_short_and_plain() -> None:
    notes = stated(
        **{"modelspec.title": "Ink\n\x1b[31m" + "x" * 900, "ss_bucket_info": "{}", "ss_steps": "\0"}
    ).trainer
    assert list(notes) == ["modelspec.title"]
    assert notes["modelspec.title"].isprintable() and len(notes["modelspec.title"]) == 200


def test_of_a_model_on_somebodys_disk_only_its_name_is_kept() -> None:
    assert stated(ss_sd_model_name="C:\\Users\\me\\z.safetensors").base_model == "z.safetensors"


# -- stock diffusers -----------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [one for one in corpus() if one.family == "Z-Image" and one.changes],
    ids=lambda a: a.name,
)
def test_what_stock_diffusers_applies(one: Adapter) -> None:
    """The expectations were seen: each file was loaded with diffusers 0.42.1 and PEFT."""
    assert set(one.modules) - set(read(one).by_diffusers) == set(one.left_out)


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("diffusers", False), ("bare", False), ("peft", False), ("comfyui-fused", False),
        ("comfyui-dora", False), ("diffusers-named-adapter", False),
        ("comfyui-fused-alpha", True), ("diffusers-alpha", True),
        ("lycoris-lora", True), ("kohya-lokr", True), ("comfyui-loha", True),
        ("comfyui-norms", True), ("comfyui-half-a-pair", True), ("comfyui-float8", True),
    ],
)  # fmt: skip
def test_where_stock_diffusers_fails_and_where_it_says_nothing(name: str, fails: bool) -> None:
    assert read(adapter(name)).diffusers_fails is fails


# -- any names -----------------------------------------------------------------

WORDS = """
    layers 0 29 attention to_q to q qkv out to_out feed_forward w1 adaLN_modulation transformer
    lora_unet lycoris diffusion_model default lora_A lora_B lora_down lora_up lora down up weight
    alpha dora_scale lokr_w1 lokr_w2_a hada_w1_a diff diff_b lora_te
    transformer_blocks 59 attn2 to_k blocks
"""
NAMES = st.lists(st.sampled_from([*WORDS.split(), "", "é"]), max_size=9).flatmap(
    lambda words: st.sampled_from([".".join(words), "_".join(words)])
)
SHAPES = st.lists(st.sampled_from([0, 1, 4, 64, 192, 2304, 2**60]), max_size=3).map(tuple)
TENSORS = st.dictionaries(
    NAMES | st.text(max_size=40),
    st.builds(TensorInfo, st.sampled_from(["BF16", "F32", "F8_E4M3"]), SHAPES),
    max_size=12,
)
KNOWN = sorted({"ss_tag_frequency", "ss_network_alpha", "ss_instance_prompt", "name", "base_model"})


@FUZZ
@given(TENSORS, st.dictionaries(st.sampled_from(KNOWN) | st.text(), st.text(), max_size=4))
def test_any_header_has_an_anatomy(
    tensors: dict[str, TensorInfo], metadata: dict[str, str]
) -> None:
    anatomy = examine(Header(tensors, metadata, 8, None))
    assert set(anatomy.unmatched) <= set(tensors)
    assert set(anatomy.by_diffusers) <= LINEARS
    assert 0 <= anatomy.text_encoder <= len(tensors)
    if anatomy.kind is not Kind.NOT_AN_ADAPTER and anatomy.family == "Z-Image":
        assert set(anatomy.modules) <= set(MODULES)


@FUZZ
@given(NAMES | st.text())
def test_any_key_can_be_taken_apart(name: str) -> None:
    key = split_key(name)
    assert key.name == name and name.startswith(key.prefix + key.module)


@FUZZ
@given(TENSORS)
def test_any_names_have_a_stock_result(tensors: dict[str, TensorInfo]) -> None:
    result = stock_result(tensors)
    assert result.applied <= LINEARS
    assert not (result.fails and result.applied)
