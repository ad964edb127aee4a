"""Adapters of other families, and files that are no adapters: shapes and names as in the wild."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.standins.adapters import dialects as d
from tests.standins.adapters.adapter import NOT_AN_ADAPTER, OTHER_FAMILY, PLAIN, UNKNOWN, Adapter
from tests.standins.adapters.changes import lora
from tests.standins.adapters.model import (
    ATTENTION,
    FEED_FORWARD,
    NORMS,
    Shape,
    Size,
    linear_shape,
    norm_width,
    targets,
)
from tests.standins.adapters.tensors import Tensor

Sizes = Mapping[str, Shape]

FLUX_DIFFUSERS: Sizes = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.add_q_proj": (3072, 3072),
    "transformer_blocks.0.ff.net.0.proj": (12288, 3072),
    "single_transformer_blocks.0.attn.to_q": (3072, 3072),
    "single_transformer_blocks.0.proj_out": (3072, 15360),
}
FLUX_ORIGINAL: Sizes = {
    "double_blocks.0.img_attn.qkv": (9216, 3072),
    "double_blocks.0.txt_attn.proj": (3072, 3072),
    "double_blocks.0.img_mlp.0": (12288, 3072),
    "single_blocks.0.linear1": (21504, 3072),
}
HUNYUAN: Sizes = {
    "double_blocks.0.img_attn_qkv": (9216, 3072),
    "double_blocks.0.img_mlp.fc1": (12288, 3072),
    "single_blocks.0.linear1": (21504, 3072),
}
SDXL: Sizes = {
    "input_blocks.4.1.transformer_blocks.1.attn1.to_q": (640, 640),
    "input_blocks.4.1.transformer_blocks.1.attn2.to_k": (640, 2048),
    "output_blocks.0.1.transformer_blocks.9.ff.net.0.proj": (10240, 1280),
}
SDXL_DIFFUSERS: Sizes = {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v": (640, 2048),
    "mid_block.attentions.0.transformer_blocks.9.attn1.to_q": (1280, 1280),
}
SD15: Sizes = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (320, 320),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768),
    "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj": (2560, 320),
}
QWEN_IMAGE: Sizes = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.59.attn.add_k_proj": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.2": (3072, 12288),
}
QWEN_ATTENTION: Sizes = {
    f"transformer_blocks.{n}.attn.{part}": (3072, 3072)
    for n in (0, 30, 59)
    for part in ("to_q", "to_k", "to_v", "add_q_proj", "to_add_out")
}
WAN: Sizes = {
    "blocks.0.self_attn.q": (5120, 5120),
    "blocks.0.cross_attn.k": (5120, 5120),
    "blocks.0.ffn.0": (13824, 5120),
}
WAN_DIFFUSERS: Sizes = {
    "blocks.0.attn1.to_q": (1536, 1536),
    "blocks.0.attn2.to_out.0": (1536, 1536),
    "blocks.0.ffn.net.2": (1536, 8960),
}
SD3: Sizes = {
    "transformer_blocks.0.attn.to_q": (1536, 1536),
    "transformer_blocks.0.attn.add_q_proj": (1536, 1536),
    "transformer_blocks.0.ff_context.net.2": (1536, 6144),
}
LUMINA: Sizes = {
    f"layers.{n}.{part}": shape
    for n in (0, 1)
    for part, shape in {
        "attention.qkv": (3840, 2304),
        "attention.out": (2304, 2304),
        "feed_forward.w1": (9216, 2304),
        "feed_forward.w2": (2304, 9216),
    }.items()
}
LANGUAGE: Sizes = {
    "model.layers.0.self_attn.q_proj": (4096, 2560),
    "model.layers.0.mlp.down_proj": (2560, 9728),
}
LTX: Sizes = {
    "transformer_blocks.0.attn1.to_q": (2048, 2048),
    "transformer_blocks.0.attn2.to_k": (2048, 2048),
    "transformer_blocks.0.ff.net.0.proj": (8192, 2048),
}
NOBODYS: Sizes = {"tower.0.mixer.gate": (512, 512), "tower.1.mixer.gate": (512, 512)}
UNET = d.Dialect("diffusers", "unet.")


def foreign_adapters() -> tuple[Adapter, ...]:
    return (
        _foreign("flux", "FLUX", d.DIFFUSERS, FLUX_DIFFUSERS),
        _foreign("flux-comfyui", "FLUX", d.COMFYUI, FLUX_ORIGINAL),
        _foreign("flux-kohya", "FLUX", d.KOHYA, FLUX_ORIGINAL),
        _foreign("hunyuan-kohya", "HunyuanVideo", d.KOHYA, HUNYUAN),
        _foreign("sdxl-kohya", "SDXL", d.KOHYA, SDXL),
        _foreign("sdxl-diffusers", "SDXL", UNET, SDXL_DIFFUSERS),
        _foreign("sd15-kohya", "SD 1.5", d.KOHYA, SD15),
        _foreign("qwen-image", "Qwen-Image", d.DIFFUSERS, QWEN_IMAGE),
        _foreign("qwen-image-kohya", "Qwen-Image", d.KOHYA, QWEN_IMAGE),
        _foreign("qwen-image-attention", "Qwen-Image", d.COMFYUI, QWEN_ATTENTION),
        _foreign("wan", "Wan", d.COMFYUI, WAN),
        _foreign("wan-diffusers", "Wan", d.DIFFUSERS, WAN_DIFFUSERS),
        _foreign("sd3", "SD 3", d.DIFFUSERS, SD3),
        _foreign("lumina", "Lumina 2", d.COMFYUI, LUMINA),
        _foreign("ltx", "LTX-Video", d.DIFFUSERS, LTX),
        _foreign("language-model", "a language model", d.PEFT, LANGUAGE),
        _foreign("nobodys", None, d.BARE, NOBODYS, fit=UNKNOWN),
    )


def _foreign(
    name: str, family: str | None, dialect: d.Dialect, sizes: Sizes, fit: str = OTHER_FAMILY
) -> Adapter:
    changes = tuple(lora(module, (module,), shape, PLAIN) for module, shape in sizes.items())
    fused = any(module.endswith("attention.qkv") for module in sizes)
    made = Adapter(
        name,
        "LoRA",
        f"{dialect.layout} fused qkv" if fused else dialect.layout,
        changes,
        dialect,
        family=family,
        hosted=fit,
        local=fit,
        demo=fit,
    )
    return made if family else replace(made, unmatched=tuple(sorted(made.tensors)))


def pair(
    module: str,
    down: str = d.COMFYUI.down,
    up: str = d.COMFYUI.up,
    shape: Shape = (64, 64),
) -> dict[str, Tensor]:
    """The two keys of one LoRA module, its name as it is in the file."""
    return {
        f"{module}.{down}": Tensor("BF16", (PLAIN.rank, shape[1]), seed=1),
        f"{module}.{up}": Tensor("BF16", (shape[0], PLAIN.rank), seed=2),
    }


def other_files(size: Size) -> tuple[Adapter, ...]:
    """Whole models and other weights that the Hub's filter returns next to adapters."""
    modules = targets(size, ATTENTION + FEED_FORWARD, refiners=True)
    linears = {f"{m}.weight": linear_shape(m, size) for m in modules}
    norms = {f"{m}.weight": (norm_width(m, size),) for m in targets(size, NORMS)}
    native = {
        f"model.diffusion_model.layers.0.{name}.weight": shape
        for name, shape in {
            "attention.qkv": (3 * size.width, size.width),
            "attention.out": (size.width, size.width),
        }.items()
    }
    control = {
        f"control_{block}.0.{name}.weight": (size.width, size.width)
        for block in ("layers", "noise_refiner")
        for name in ("attention.to_q", "after_proj")
    }
    return (
        _other("full-merge", "full model", {**linears, **norms}, "Z-Image"),
        _other("checkpoint", "full model", native, "Z-Image"),
        _other("controlnet", "ControlNet", control),
        _other("embedding", "embedding", {"emb_params": (8, 2560)}),
        _other("embedding-sdxl", "embedding", {"clip_l": (4, 768), "clip_g": (4, 1280)}),
        _other("oft", "unknown", {"layers.0.attention.to_q.oft_blocks": (4, 16, 16)}),
        _other("vae", "full model", {"decoder.conv_in.weight": (8, 16, 3, 3)}),
        _other("empty", "empty", {}),
    )


def _other(
    name: str, layout: str, shapes: Mapping[str, tuple[int, ...]], family: str | None = None
) -> Adapter:
    tensors = {key: Tensor("BF16", shape, seed=1) for key, shape in shapes.items()}
    return Adapter(
        name,
        NOT_AN_ADAPTER,
        layout,
        extra=tensors,
        family=family,
        dtype="BF16" if shapes else "",
        hosted=NOT_AN_ADAPTER,
        local=NOT_AN_ADAPTER,
        demo=NOT_AN_ADAPTER,
    )
