"""The corpus: an adapter in every layout that is met in the wild, and files that are none.

What stock diffusers makes of each (`drops`) was seen with diffusers 0.42.1 and PEFT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

from tests.standins.adapters import dialects as d
from tests.standins.adapters.adapter import (
    ALL,
    IN_PART,
    NOT_AN_ADAPTER,
    Adapter,
    Maker,
    changes,
)
from tests.standins.adapters.changes import (
    Spec,
    difference,
    dora,
    dora_of_peft,
    loha,
    lokr,
    lokr_full,
    lora,
    norm_difference,
)
from tests.standins.adapters.foreign import foreign_adapters, other_files, pair
from tests.standins.adapters.model import (
    ATTENTION,
    FEED_FORWARD,
    MODULATION,
    NORMS,
    REAL,
    TINY,
    Size,
    norm_width,
    targets,
)

QKV = ATTENTION[:3]
EVERYTHING = ATTENTION + FEED_FORWARD + MODULATION
HALF = Spec(alpha=2)


@cache
def corpus(size: Size = TINY) -> tuple[Adapter, ...]:
    """Every file of the corpus; the Z-Image ones at a size."""
    make = Maker(size)
    return (
        *_plain(make),
        *_fused(make),
        *_unheard(make),
        *_other_methods(make),
        *_mixed(make),
        *_numbers(make),
        *_described(make),
        *foreign_adapters(),
        *other_files(size),
    )


def adapter(name: str, size: Size = TINY) -> Adapter:
    """The one of that name."""
    return next(one for one in corpus(size) if one.name == name)


def large(rank: int = 32, alpha: float | None = None) -> Adapter:
    """Of the real width: 170 MB and more, described and not made."""
    spec = Spec(rank, alpha)
    return Maker(REAL)("large", d.COMFYUI, spec=spec, parts=EVERYTHING, refiners=True)


def _plain(make: Maker) -> Iterator[Adapter]:
    """One tensor pair per linear of diffusers' model."""
    yield make("diffusers", d.DIFFUSERS)
    yield make("diffusers-attention-only", d.DIFFUSERS, parts=ATTENTION)
    yield make("diffusers-old", d.DIFFUSERS_OLDEST)
    yield make("comfyui", d.COMFYUI)
    yield make("comfyui-alpha", d.COMFYUI, spec=HALF)
    yield make("comfyui-down-up-alpha", d.COMFYUI_OLD, spec=HALF)
    yield make("comfyui-down-up", d.COMFYUI_OLD)
    yield make("comfyui-default-infix", d.COMFYUI_INFIX)
    yield make("kohya", d.KOHYA, spec=HALF)
    yield make("kohya-modulation", d.KOHYA, spec=HALF, parts=EVERYTHING)
    yield make("comfyui-refiners", d.COMFYUI, parts=EVERYTHING, refiners=True)
    yield make("kohya-refiners", d.KOHYA, spec=HALF, parts=EVERYTHING, refiners=True)
    ends = (
        "all_x_embedder.2-1",
        "all_final_layer.2-1.linear",
        "cap_embedder.1",
        "t_embedder.mlp.0",
    )
    yield make("diffusers-embedders", d.DIFFUSERS, others=ends)
    yield make("kohya-embedders", d.KOHYA, spec=HALF, others=ends)


def _fused(make: Maker) -> Iterator[Adapter]:
    """Queries, keys and values as one weight, the original model's way."""
    yield make("kohya-fused", d.KOHYA_FUSED, spec=HALF)
    # Some trainers write both; the fused ones only repeat the others, and diffusers skips them.
    again = make("fused", d.KOHYA_FUSED, spec=HALF, parts=ATTENTION).tensors
    yield make("kohya-split-and-fused", d.KOHYA, spec=HALF, extra=again)
    yield make("comfyui-fused", d.COMFYUI_FUSED, drops=ATTENTION)
    yield make("comfyui-fused-down-up-alpha", d.COMFYUI_FUSED_OLD, spec=HALF, drops=QKV)
    yield make("comfyui-fused-alpha", d.COMFYUI_FUSED, spec=HALF, drops=ALL)
    ends = ("all_x_embedder.2-1", "all_final_layer.2-1.linear")
    yield make("kohya-fused-embedders", d.KOHYA_FUSED, spec=HALF, others=ends, drops=ends)
    yield make("bare-fused", d.BARE_FUSED, drops=ALL)


def _unheard(make: Maker) -> Iterator[Adapter]:
    """Whole LoRAs that stock diffusers doesn't apply at all, mostly without a word."""
    yield make("bare", d.BARE, drops=ALL)
    yield make("bare-down-up", d.BARE_OLD, drops=ALL)
    yield make("bare-alpha", d.BARE, spec=HALF)
    yield make("bare-default-infix", d.BARE_INFIX)
    yield make("peft", d.PEFT, drops=ALL)
    yield make("diffusers-alpha", d.DIFFUSERS, spec=HALF, drops=ALL)
    yield make("diffusers-down-up", d.DIFFUSERS_OLD, drops=ALL)
    yield make("comfyui-whole-prefix", d.COMFYUI_MODEL, drops=ALL)
    yield make("diffusers-named-adapter", d.DIFFUSERS_NAMED, drops=ALL)
    yield make("lycoris-lora", d.LYCORIS, spec=HALF, drops=ALL)


def _other_methods(make: Maker) -> Iterator[Adapter]:
    yield make("comfyui-lokr", d.COMFYUI, lokr, kind="LoKr", spec=HALF)
    yield make("comfyui-lokr-full", d.COMFYUI, lokr_full, kind="LoKr", spec=HALF)
    yield make("kohya-lokr", d.KOHYA, lokr, kind="LoKr", spec=HALF, drops=ALL)
    yield make("lycoris-lokr", d.LYCORIS, lokr, kind="LoKr", spec=HALF, drops=ALL)
    yield make("comfyui-loha", d.COMFYUI, loha, kind="LoHa", spec=HALF, drops=ALL)
    yield make("lycoris-loha", d.LYCORIS, loha, kind="LoHa", spec=HALF, drops=ALL)
    yield make("comfyui-dora", d.COMFYUI, dora, kind="DoRA", drops=ALL)
    yield make("kohya-dora", d.KOHYA, dora, kind="DoRA", spec=HALF, drops=ALL)
    yield make("diffusers-dora", d.DIFFUSERS_DORA, dora_of_peft, kind="DoRA")
    yield make("comfyui-difference", d.COMFYUI, difference, kind="full difference", drops=ALL)


def _mixed(make: Maker) -> Iterator[Adapter]:
    """What doesn't name a linear of the transformer, next to what does."""
    norms = tuple(
        norm_difference(module, module, norm_width(module, make.size), Spec())
        for module in targets(make.size, NORMS)
    )
    yield make("comfyui-norms", d.COMFYUI, more=norms, drops=ALL)
    te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    clip = pair(te, d.KOHYA.down, d.KOHYA.up)
    qwen = pair("text_encoder.model.layers.0.self_attn.q_proj")
    for name, dialect, spec, keys in (
        ("kohya-text-encoder", d.KOHYA, HALF, clip),
        ("diffusers-text-encoder", d.DIFFUSERS, Spec(), qwen),
    ):
        yield make(
            name, dialect, spec=spec, extra=keys, text_encoder=2, hosted=IN_PART, local=IN_PART
        )  # fmt: skip
    strays = {"stray-module": "layers.0.attention.to_x", "30-layers": "layers.30.attention.to_q"}
    for name, module in strays.items():
        stray = pair(f"diffusion_model.{module}")
        yield make(
            f"comfyui-{name}", d.COMFYUI, extra=stray, unmatched=tuple(sorted(stray)),
            hosted=IN_PART, local=IN_PART,
        )  # fmt: skip
    down, tensor = next(iter(pair("diffusion_model.layers.1.attention.to_out.0").items()))
    yield make(
        "comfyui-half-a-pair", d.COMFYUI, parts=QKV, extra={down: tensor}, unmatched=(down,),
        drops=ALL, local=IN_PART,
    )  # fmt: skip


def _numbers(make: Maker) -> Iterator[Adapter]:
    """Types and ranks."""
    for dtype in ("F16", "F32"):
        yield make(f"comfyui-{dtype.lower()}", d.COMFYUI, spec=Spec(dtype=dtype))
    small = Spec(dtype="F8_E4M3")
    yield make("diffusers-float8", d.DIFFUSERS, spec=small)
    yield make("comfyui-float8", d.COMFYUI, spec=small, drops=ALL)  # torch can't multiply it
    yield make("comfyui-rank-1", d.COMFYUI, spec=Spec(rank=1))
    yield make("comfyui-rank-16-alpha-8", d.COMFYUI_OLD, spec=Spec(rank=16, alpha=8))
    wide = changes(d.COMFYUI, targets(make.size, FEED_FORWARD), make.size, lora, Spec(rank=8))
    yield make("comfyui-mixed-ranks", d.COMFYUI, parts=ATTENTION, more=wide)


def _described(make: Maker) -> Iterator[Adapter]:
    """Metadata of the common trainers."""
    frequency = {"10_zxc fox": {"zxc fox": 30, "forest": 12, "snow": 3}}
    kohya = {
        "ss_network_module": "networks.lora_zimage",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
        "ss_base_model_version": "z_image",
        "ss_sd_model_name": "z_image_turbo_bf16.safetensors",
        "ss_num_train_images": "30",
        "ss_tag_frequency": json.dumps(frequency),
    }
    yield make(
        "kohya-metadata", d.KOHYA, spec=HALF, metadata=kohya, alpha=2.0,
        base_model="z_image_turbo_bf16.safetensors", trigger_words=("zxc fox", "forest", "snow"),
    )  # fmt: skip
    modelspec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "z-image/lora",
        "modelspec.title": "Ink",
        "modelspec.trigger_phrase": "ink wash style",
    }
    yield make(
        "comfyui-modelspec", d.COMFYUI, metadata=modelspec,
        base_model="z-image/lora", trigger_words=("ink wash style",),
    )  # fmt: skip
    toolkit = {
        "format": "pt",
        "name": "pixel_zimage_lora",
        "ss_base_model_version": "zimage",
        "ss_output_name": "pixel_zimage_lora",
        "software": json.dumps({"name": "ai-toolkit", "version": "0.7.4"}),
        "training_info": json.dumps({"step": 2750, "epoch": 91}),
    }
    yield make("comfyui-ai-toolkit", d.COMFYUI, metadata=toolkit, base_model="zimage")
    training = {**toolkit, "name": "zimage_turbo_training_adapter_v1"}
    yield make(
        "training-adapter", d.COMFYUI, metadata=training, base_model="zimage",
        kind=NOT_AN_ADAPTER, layout="training adapter",
        hosted=NOT_AN_ADAPTER, local=NOT_AN_ADAPTER, demo=NOT_AN_ADAPTER,
    )  # fmt: skip
