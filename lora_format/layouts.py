"""How trainers spell the keys of an adapter file: a prefix, a module, the part of it.

diffusion_model.layers.0.attention.to_q.lora_A.weight
lora_unet_layers_0_attention_qkv.lora_down.weight
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PREFIXES: Final[Mapping[str, str]] = {
    "model.diffusion_model.": "comfyui",
    "diffusion_model.": "comfyui",
    "base_model.model.": "peft",
    "transformer.": "diffusers",
    "unet.": "diffusers",
    "lora_unet_": "kohya",
    "lora_transformer_": "kohya",
    "lycoris_": "lycoris",
}
"""The longest one of those that begin alike comes first."""

TEXT_ENCODERS: Final = (
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lycoris_te_",
    "text_encoder.", "text_encoder_2.", "text_encoder_3.", "text_encoders.",
)  # fmt: skip

_PART: Final = re.compile(
    r"\.(?:(lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|lora_magnitude_vector)"
    r"(?:\.(?!bias$)[\w-]+)?(?:\.weight)?"  # PEFT puts its adapter's name in between
    r"|(alpha|dora_scale|diff|diff_b|weight|bias"
    r"|lokr_w[12](?:_[ab])?|hada_w[12]_[ab]))$"
)
_SAME: Final = {
    "lora_A": "down", "lora_down": "down", "lora.down": "down",
    "lora_B": "up", "lora_up": "up", "lora.up": "up",
    "lora_magnitude_vector": "dora_scale",
}  # fmt: skip
PLAIN: Final = ("weight", "bias", "")
"""Parts of a model itself, or of nothing known."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart. `part` is "down", "up", "alpha", "lokr_w1" …, or one of PLAIN."""

    name: str
    prefix: str
    module: str
    part: str

    @property
    def of_text_encoder(self) -> bool:
        return self.name.startswith(TEXT_ENCODERS)


def split_key(name: str) -> Key:
    """Take a key apart; every text is some key."""
    prefix = next((one for one in PREFIXES if name.startswith(one)), "")
    found = _PART.search(name, len(prefix))
    if found is None:
        return Key(name, prefix, name[len(prefix) :], "")
    part = found[1] or found[2]
    return Key(name, prefix, name[len(prefix) : found.start()], _SAME.get(part, part))


def layout_of(prefixes: Iterable[str], fused: bool) -> str:
    """The layout's common name; `fused` where queries, keys and values are one module."""
    names = Counter(PREFIXES.get(prefix, "bare") for prefix in prefixes)
    name = "mixed" if len(names) > 1 else next(iter(names), "bare")
    return f"{name} fused qkv" if fused else name


def layout_of_no_adapter(names: Iterable[str]) -> str:
    """What a file is instead: "empty", "ControlNet", "full model", "embedding" or "unknown"."""
    keys = list(names)
    if not keys:
        return "empty"
    if any(key.startswith("control") or "controlnet" in key for key in keys):
        return "ControlNet"
    if any(key.endswith((".weight", ".bias")) for key in keys):
        return "full model"
    return "unknown" if any("." in key for key in keys) else "embedding"
