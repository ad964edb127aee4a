"""How trainers spell the keys of an adapter file."""

from __future__ import annotations

from dataclasses import dataclass

from tests.standins.adapters.model import ATTENTION

FUSED = "attention.qkv"
NATIVE = {
    "attention.to_out.0": "attention.out",
    "attention.norm_q": "attention.q_norm",
    "attention.norm_k": "attention.k_norm",
    "all_x_embedder.2-1": "x_embedder",
    "all_final_layer.2-1": "final_layer",
}
"""Parts of diffusers' names that the original model, and so ComfyUI, calls otherwise."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`layout` is what a reader should call it. `native` uses the original model's names."""

    layout: str
    prefix: str
    down: str = "lora_A.weight"
    up: str = "lora_B.weight"
    underscores: bool = False
    native: bool = False
    magnitude: str = "dora_scale"

    def key(self, written: str, part: str) -> str:
        """`written` is a dotted module name."""
        module = written.replace(".", "_") if self.underscores else written
        spelled = {"down": self.down, "up": self.up, "dora_scale": self.magnitude}
        ending = spelled.get(part, part)
        return f"{self.prefix}{module}.{ending}"

    def written(self, modules: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """The name in the file of each module, with diffusers' names behind it."""
        if not self.native:
            return {module: (module,) for module in modules}
        names: dict[str, tuple[str, ...]] = {}
        for module in modules:
            name, group = _native(module)
            names[name] = group
        return names


def _native(module: str) -> tuple[str, tuple[str, ...]]:
    block, _, part = module.partition(".attention.")
    if f"attention.{part}" in ATTENTION[:3]:
        return f"{block}.{FUSED}", tuple(f"{block}.{name}" for name in ATTENTION[:3])
    name = module
    for theirs, original in NATIVE.items():
        name = name.replace(theirs, original)
    return name, (module,)


DOWN, UP = "lora_down.weight", "lora_up.weight"
DEFAULT_A, DEFAULT_B = "lora_A.default.weight", "lora_B.default.weight"

DIFFUSERS = Dialect("diffusers", "transformer.")
DIFFUSERS_OLD = Dialect("diffusers", "transformer.", DOWN, UP)
DIFFUSERS_OLDEST = Dialect("diffusers", "transformer.", "lora.down.weight", "lora.up.weight")
DIFFUSERS_DORA = Dialect("diffusers", "transformer.", magnitude="lora_magnitude_vector")
COMFYUI = Dialect("comfyui", "diffusion_model.")
COMFYUI_OLD = Dialect("comfyui", "diffusion_model.", DOWN, UP)
COMFYUI_INFIX = Dialect("comfyui", "diffusion_model.", DEFAULT_A, DEFAULT_B)
COMFYUI_FUSED = Dialect("comfyui fused qkv", "diffusion_model.", native=True)
COMFYUI_FUSED_OLD = Dialect("comfyui fused qkv", "diffusion_model.", DOWN, UP, native=True)
COMFYUI_MODEL = Dialect("comfyui", "model.diffusion_model.")
KOHYA = Dialect("kohya", "lora_unet_", DOWN, UP, underscores=True)
KOHYA_FUSED = Dialect("kohya fused qkv", "lora_unet_", DOWN, UP, underscores=True, native=True)
DIFFUSERS_NAMED = Dialect("diffusers", "transformer.", "lora_A.ink.weight", "lora_B.ink.weight")
BARE = Dialect("bare", "")
BARE_OLD = Dialect("bare", "", DOWN, UP)
BARE_INFIX = Dialect("bare", "", DEFAULT_A, DEFAULT_B)
BARE_FUSED = Dialect("bare fused qkv", "", native=True)
PEFT = Dialect("peft", "base_model.model.")
LYCORIS = Dialect("lycoris", "lycoris_", DOWN, UP, underscores=True)
