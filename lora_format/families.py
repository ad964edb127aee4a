"""Which model an adapter's modules belong to: Z-Image by its names and shapes, others by signs.

Z-Image's modules are those of `transformer_z_image.py` (diffusers 0.42.1), by
diffusers' names and by the original model's, which ComfyUI keeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from lora_format.deltas import Shape

ZIMAGE: Final = "Z-Image"
LUMINA: Final = "Lumina 2"
_LUMINA_WIDTH: Final = 2304  # its modules have Z-Image's names
Pair = tuple[int, int]

_BLOCKS: Final = (
    *(f"layers.{n}" for n in range(30)),
    *(f"{kind}_refiner.{n}" for kind in ("noise", "context") for n in range(2)),
)
_QKV: Final = ("attention.to_q", "attention.to_k", "attention.to_v")

# The weight's shape (out, in) by the width; None where it doesn't follow from it.
_IN_A_BLOCK: Final[Mapping[str, Callable[[int], Shape] | None]] = {
    **dict.fromkeys((*_QKV, "attention.to_out.0"), lambda d: (d, d)),
    **dict.fromkeys(("feed_forward.w1", "feed_forward.w3"), lambda d: (int(d / 3 * 8), d)),
    "feed_forward.w2": lambda d: (d, int(d / 3 * 8)),
    "adaLN_modulation.0": lambda d: (4 * d, min(d, 256)),
    **dict.fromkeys(("attention.norm_q", "attention.norm_k"), None),
    **dict.fromkeys(
        ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"), lambda d: (d,)
    ),
}
_OUTSIDE: Final[Mapping[str, Callable[[int], Shape] | None]] = {
    "all_x_embedder.2-1": lambda d: (d, 64),
    "all_final_layer.2-1.linear": lambda d: (64, d),
    "all_final_layer.2-1.adaLN_modulation.1": lambda d: (d, min(d, 256)),
    "cap_embedder.0": None,
    "cap_embedder.1": None,
    "t_embedder.mlp.0": lambda _: (1024, 256),
    "t_embedder.mlp.2": lambda d: (min(d, 256), 1024),
}
_ORIGINAL: Final = (
    (".attention.to_out.0", ".attention.out"),
    (".attention.to_out.0", ".attention.to_out"),
    (".attention.norm_q", ".attention.q_norm"),
    (".attention.norm_k", ".attention.k_norm"),
    ("all_x_embedder.2-1", "x_embedder"),
    ("all_final_layer.2-1.", "final_layer."),
)
_TELLS_WIDTH: Final = (".attention.to_", ".feed_forward.w")
_WITH_BIAS: Final = ("adaLN_modulation.", "all_", "cap_embedder.1", "t_embedder.")


def _modules() -> dict[str, Callable[[int], Shape] | None]:
    """Every module that has a weight, by diffusers' name."""
    inside = {f"{block}.{part}": size for block in _BLOCKS for part, size in _IN_A_BLOCK.items()}
    unmodulated = {
        n: s for n, s in inside.items() if not n.startswith("context") or "adaLN" not in n
    }
    return {**unmodulated, **_OUTSIDE}


def _written_names() -> dict[str, tuple[str, ...]]:
    """The modules behind each name that a file may use: dotted, or with underscores only."""
    names: dict[str, tuple[str, ...]] = {module: (module,) for module in MODULES}
    for module in MODULES:
        for ours, theirs in _ORIGINAL:
            if ours in module:
                names[module.replace(ours, theirs)] = (module,)
    for block in _BLOCKS:
        names[f"{block}.attention.qkv"] = tuple(f"{block}.{part}" for part in _QKV)
    return names | {name.replace(".", "_"): modules for name, modules in names.items()}


MODULES: Final = _modules()
_NAMES: Final = _written_names()
LINEARS: Final = frozenset(module for module in MODULES if "norm" not in module) - {
    "cap_embedder.0"
}


def zimage_modules(written: str) -> tuple[str, ...]:
    """Diffusers' names of what a file calls `written`: three if fused, none if unknown."""
    return _NAMES.get(written, ())


def width_of(modules: tuple[str, ...], shape: Shape) -> int | None:
    """The model's width that a change of this shape speaks of, if it does."""
    if len(shape) != 2 or not any(part in modules[0] for part in _TELLS_WIDTH):
        return None
    return shape[0] if modules[0].endswith("w2") else shape[1]


def fits_module(modules: tuple[str, ...], shape: Shape, width: int | None) -> bool:
    """Whether a change of this shape can be one of these modules in a model of this width."""
    size = MODULES[modules[0]]
    if size is None or width is None:
        return len(shape) == (1 if "norm" in modules[0] or modules[0] == "cap_embedder.0" else 2)
    first, *rest = size(width)
    return shape == (first * len(modules), *rest)


def has_bias(module: str) -> bool:
    return any(part in module for part in _WITH_BIAS)


def is_lumina(width: int | None) -> bool:
    return width == _LUMINA_WIDTH


# -- other families ------------------------------------------------------------

_UNET: Final = "UNet"
_JOINT: Final = "joint"
_SIGNS: Final = tuple(
    (family, re.compile(pattern))
    for family, pattern in (
        ("HunyuanVideo", r"(double|single)_blocks_\d+_(img|txt)_mlp_fc|(img|txt)_in_individual_"),
        ("Chroma", r"distilled_guidance_layer"),
        ("HiDream", r"(double|single)_stream_blocks_\d+_"),
        ("Qwen-Image", r"transformer_blocks_\d+_(img|txt)_(mlp|mod)"),
        ("FLUX", r"single_transformer_blocks_\d+_|(double|single)_blocks_\d+_"),
        ("SD 3", r"joint_blocks_\d+_"),
        ("LTX-Video", r"transformer_blocks_\d+_attn[12]_"),
        (_JOINT, r"transformer_blocks_\d+_(attn_|ff_|norm1_)"),
        ("Wan", r"blocks_\d+_(self|cross)_attn_([qkvo]|[kv]_img)$|blocks_\d+_(attn[12]_|ffn_)"),
        ("Cosmos", r"blocks_\d+_((self|cross)_attn|mlp|adaln)_"),
        (_UNET, r"(down|up|input|output)_blocks_\d+_|mid_block_|middle_block_"),
        ("a language model", r"(model_)*layers_\d+_(self_attn|mlp)_"),
    )
)
_INDEX: Final = re.compile(r"transformer_blocks_(\d{1,3})_")
_TEXT_WIDTHS: Final = {2048: "SDXL", 768: "SD 1.5", 1024: "SD 2"}


def other_family(shapes: Mapping[str, Shape | None]) -> str | None:
    """The family that modules (as written, with ΔW's shape if defined) bear the sign of."""
    plain = {module.replace(".", "_"): shape for module, shape in shapes.items()}
    found = (family for family, sign in _SIGNS if any(map(sign.match, plain)))
    family = next(found, None)
    if family == _UNET:
        return _which_unet(plain)
    return _which_joint(plain) if family == _JOINT else family


def _which_unet(shapes: Mapping[str, Shape | None]) -> str:
    """By the width of the text that it attends to; else by how deep its blocks are."""
    for module, shape in shapes.items():
        if "_attn2_to_" in module and module.endswith(("_k", "_v")) and shape and len(shape) == 2:
            return _TEXT_WIDTHS.get(shape[1], "Stable Diffusion")
    return "SDXL" if any(n > 0 for n in _indices(shapes)) else "Stable Diffusion"


def _which_joint(shapes: Mapping[str, Shape | None]) -> str:
    """Of the models whose blocks attend to text and image jointly: by width, then by depth."""
    if any(shape and {1536, 2432} & set(shape) for shape in shapes.values()):
        return "SD 3"
    return "Qwen-Image" if max(_indices(shapes), default=0) >= 19 else "FLUX"


def _indices(modules: Iterable[str]) -> list[int]:
    return [int(found[1]) for module in modules if (found := _INDEX.search(module))]


_ON_CARDS: Final = (
    ("z-image", ZIMAGE), ("flux", "FLUX"), ("stable-diffusion-xl", "SDXL"), ("sdxl", "SDXL"),
    ("stable-diffusion-v1", "SD 1.5"), ("stable-diffusion-3", "SD 3"), ("qwen-image", "Qwen-Image"),
    ("wan2", "Wan"), ("hunyuanvideo", "HunyuanVideo"), ("ltx-video", "LTX-Video"),
    ("chroma", "Chroma"), ("lumina", LUMINA),
)  # fmt: skip


def family_on_card(base_models: Iterable[str]) -> str | None:
    """The family that a card's base models speak of; Z-Image if any of them does."""
    named = [_named(model) for model in base_models]
    return ZIMAGE if ZIMAGE in named else next((family for family in named if family), None)


def _named(model: str) -> str | None:
    plain = model.lower().replace("_", "-").replace("zimage", "z-image")
    return next((family for sign, family in _ON_CARDS if sign in plain), None)


def made_for_base(base_models: Iterable[str]) -> bool:
    """Whether Tongyi's own Z-Image is named among them, and no Turbo is."""
    own = [model.lower() for model in base_models if _named(model) == ZIMAGE]
    named = any(model.startswith("tongyi-mai/") for model in own)
    return named and not any("turbo" in model for model in own)
