"""The modules of Z-Image Turbo's transformer under diffusers' names, at the real or a tiny width.

Source: `transformer_z_image.py` of diffusers 0.42.1.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, int]
"""Of a linear weight: (out features, in features)."""

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
MODULATION = ("adaLN_modulation.0",)
NORMS = (
    "attention.norm_q", "attention.norm_k",
    "attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """`width` 3840 is the real one; the default is a transformer that a CPU runs at once."""

    width: int = 64
    layers: int = 2
    refiners: int = 1
    heads: int = 2
    caption: int = 32

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(f"layers.{n}" for n in range(self.layers))

    @property
    def refiner_blocks(self) -> tuple[str, ...]:
        kinds = ("noise_refiner", "context_refiner")
        return tuple(f"{kind}.{n}" for kind in kinds for n in range(self.refiners))


TINY = Size()
REAL = Size(width=3840, layers=30, refiners=2, heads=30, caption=2560)


def linear_shape(module: str, size: Size) -> Shape:
    """The weight's shape of any linear module."""
    width, modulated = size.width, min(size.width, 256)
    hidden = int(width / 3 * 8)
    ends: dict[str, Shape] = {
        **dict.fromkeys(ATTENTION, (width, width)),
        "feed_forward.w1": (hidden, width),
        "feed_forward.w2": (width, hidden),
        "feed_forward.w3": (hidden, width),
        "adaLN_modulation.0": (4 * width, modulated),
        "adaLN_modulation.1": (width, modulated),
        "all_x_embedder.2-1": (width, 64),
        "all_final_layer.2-1.linear": (64, width),
        "cap_embedder.1": (width, size.caption),
        "t_embedder.mlp.0": (1024, 256),
        "t_embedder.mlp.2": (modulated, 1024),
    }
    return next(shape for end, shape in ends.items() if module.endswith(end))


def norm_width(module: str, size: Size) -> int:
    """The length of a norm's weight."""
    return size.width // size.heads if ".norm_" in module else size.width


def targets(size: Size, parts: tuple[str, ...], refiners: bool = False) -> tuple[str, ...]:
    """Modules of all layers, of the refiners too if asked; context refiners aren't modulated."""
    blocks = (*size.blocks, *(size.refiner_blocks if refiners else ()))
    names = (f"{block}.{part}" for block in blocks for part in parts)
    return tuple(n for n in names if "context_refiner" not in n or "adaLN" not in n)
