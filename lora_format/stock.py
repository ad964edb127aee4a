"""What stock diffusers makes of an adapter file, by its keys alone.

fal doesn't publish its loader; diffusers' is the one that is known. The steps
are those of `ZImageLoraLoaderMixin` in diffusers 0.42.1 with PEFT, and the
corpus of the tests was loaded with both to see that this tells the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lora_format.families import LINEARS
from lora_format.header import TensorInfo

_PAIRS: Final = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
)
_KEPT_TOGETHER: Final = re.compile(r"(?<![^_])(to_[qkv]|to_out|feed_forward)(?=_|$)")
_ORIGINAL_OUT: Final = re.compile(r"\.out(?=\.(?:lora_down|lora_up)\.weight$|\.alpha$)")
_MENDED: Final = (
    "context_refiner.", "noise_refiner.", "adaLN_modulation.", "all_final_layer.",
    "all_x_embedder.", "cap_embedder.", "t_embedder.",
)  # fmt: skip
_TO_OUT: Final = re.compile(r"(?<!\.to_out)\.out$")
_TO_QKV: Final = re.compile(r"\.to\.([qkv])$")
_METHOD: Final = re.compile(r"\.(?=lora_|lokr_)")
_TUNED: Final = re.compile(r"\.(lora_[AB]\.weight|lokr_w[12](_[ab])?)$")


@dataclass(frozen=True, slots=True)
class Stock:
    """The modules whose change is applied as it was trained; `fails` if loading raises."""

    applied: frozenset[str]
    fails: bool = False


class _Fails(Exception):
    """Loading raises."""


def stock_result(tensors: Mapping[str, TensorInfo]) -> Stock:
    """What loading the file into a Z-Image pipeline does. Shapes are not looked at."""
    names = [name for name in tensors if "dora_scale" not in name]
    lossy = len(names) < len(tensors)  # DoRA without its scales is another adapter
    small = any(tensor.dtype.startswith("F8") for tensor in tensors.values())
    try:
        modules = _injected(_for_peft(names, small))
    except _Fails:
        return Stock(frozenset(), fails=True)
    return Stock(frozenset() if lossy else modules)


def _for_peft(names: list[str], small: bool) -> list[str]:
    """`lora_state_dict` and the check after it."""
    ours = any(name.startswith("diffusion_model.") for name in names)
    alphas = any(name.endswith(".alpha") for name in names)
    if any(".lokr_" in name for name in names):
        names = _lokr_converted(names) if ours or alphas else names
    elif ours or alphas or any(n.startswith("lora_unet_") or "default." in n for n in names):
        if small:  # the conversion multiplies, which torch can't do in eight bits
            raise _Fails
        names = _lora_converted(names)
    if not all("lora" in name or "lokr" in name for name in names):
        raise _Fails
    return names


def _injected(names: list[str]) -> frozenset[str]:
    """PEFT ignores foreign modules unless there is no other, and numbers by another name always."""
    own = [name.removeprefix("transformer.") for name in names if name.startswith("transformer.")]
    if own and "lora_A" not in own[0]:  # diffusers' own old spelling
        own = [n.replace(".lora.down", ".lora_A").replace(".lora.up", ".lora_B") for n in own]
    ranked = any("lora_B" in name or "lokr_" in name for name in own)
    if own and not (ranked and LINEARS & {_METHOD.split(name)[0] for name in own}):
        raise _Fails
    return LINEARS & {_TUNED.sub("", name) for name in own if _TUNED.search(name)}


def _lokr_converted(names: list[str]) -> list[str]:
    plain = [name.removeprefix("diffusion_model.") for name in names]
    kept = [name for name in plain if not name.endswith(".alpha")]
    if not all(".lokr_" in name for name in kept):
        raise _Fails
    return [f"transformer.{name}" for name in kept]


def _lora_converted(names: list[str]) -> list[str]:
    """`_convert_non_diffusers_z_image_lora_to_diffusers`; what it leaves over makes it raise."""
    left = dict.fromkeys(_renamed(names))
    modules: list[str] = []
    for down, up in _styles(left):
        for name in [name for name in left if name.endswith(down)]:
            module = name.removesuffix(down)
            if f"{module}{up}" not in left:
                raise _Fails
            dotted = down == _PAIRS[2][0]
            alpha = f"{_mended_module(module) if dotted else module}.alpha"
            for taken in (name, f"{module}{up}", alpha):
                left.pop(taken, None)
            modules += _split(module) if dotted else [module]
    if left:
        raise _Fails
    return [f"transformer.{module}{end}" for module in modules for end in _PAIRS[1]]


def _styles(names: Iterable[str]) -> list[tuple[str, str]]:
    """The spellings that are looked for: the first of two, and the dotted one."""
    first, second, dotted = _PAIRS
    old = any(end in name for name in names for end in first)
    return [first if old else second, dotted]


def _renamed(names: list[str]) -> list[str]:
    names = [name.removeprefix("diffusion_model.") for name in names]
    if any(name.startswith("lora_unet_") for name in names):
        names = [_dotted(name.removeprefix("lora_unet_")) for name in names]
    names = [n if ".to_out" in n else _ORIGINAL_OUT.sub(".to_out.0", n) for n in names]
    return [_mended(name.replace("default.", "")) for name in names]


def _dotted(name: str) -> str:
    """Underscores become dots but in a few names, and but in the last part."""
    module, dot, part = name.rpartition(".")
    pieces = _KEPT_TOGETHER.sub(lambda kept: kept[0].replace("_", "\0"), module)
    return pieces.replace("_", ".").replace("\0", "_") + dot + part


def _mended(name: str) -> str:
    """Names that were dotted too much."""
    for right in _MENDED:
        name = name.replace(right.replace("_", "."), right)
    return name


def _mended_module(module: str) -> str:
    """What a dotted name stands for: `to.q` was cut too much, `out` is the original's."""
    return _TO_OUT.sub(".to_out.0", _TO_QKV.sub(r".to_\1", module))


def _split(module: str) -> list[str]:
    """A fused module's three, or the module itself."""
    if module.endswith(".qkv"):
        return [f"{module.removesuffix('qkv')}to_{one}" for one in "qkv"]
    return [_mended_module(module)]
