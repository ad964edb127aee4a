"""Recipes of other tools: what maps onto the endpoint's fields is taken, the rest named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from history.metadata import a1111
from history.metadata.limits import load_object
from history.metadata.values import Found, pairs

# "512x768", "(1152, 896)", "1152×896"
_SIZE = re.compile(r"\W*([0-9]{1,6})[\Wx]{1,8}([0-9]{1,6})\W*")

_INVOKEAI_LABELS: Final = {
    "negative_prompt": "negative prompt",
    "scheduler": "scheduler",
    "cfg_scale": "CFG scale",
    "vae": "VAE",
    "controlnets": "ControlNets",
    "ipAdapters": "IP adapters",
    "strength": "image strength",
}
_SWARMUI_LABELS: Final = {
    "negativeprompt": "negative prompt",
    "sampler": "sampler",
    "comfyuisampler": "sampler",
    "scheduler": "scheduler",
    "cfgscale": "CFG scale",
    "vae": "VAE",
    "initimagecreativity": "image strength",
    "refinermethod": "refiner",
}
_FOOOCUS_LABELS: Final = {
    "negative_prompt": "negative prompt",
    "styles": "styles",
    "performance": "performance",
    "guidance_scale": "guidance scale",
    "sharpness": "sharpness",
    "sampler": "sampler",
    "scheduler": "scheduler",
    "refiner_model": "refiner",
    "vae": "VAE",
}
# Said in other words, or of no consequence for the picture.
_A1111_KNOWN: Final = frozenset(
    {"Steps", "Seed", "Size", "Model", "Acceleration", "Version", "User", "Model hash", "VAE hash"}
    | {"Lora hashes", "Lora weights", "TI hashes", "Hashes", "Civitai resources", "RNG"}
    | {"Civitai metadata", "Raw prompt", "Raw negative prompt", "Created Date", "App"}
)


def invokeai(texts: Mapping[str, str]) -> Found | None:
    """InvokeAI: `invokeai/app/invocations/metadata.py`, CoreMetadataInvocation."""
    data = load_object(texts.get("invokeai_metadata", ""))
    if data is None:
        return None
    found = Found("InvokeAI")
    found.prompt(data.get("positive_prompt"))
    found.seed(data.get("seed"))
    found.steps(data.get("steps"))
    found.size(data.get("width"), data.get("height"))
    found.model(data.get("model"))
    found.name_all(data, _INVOKEAI_LABELS)
    for row in _rows(data.get("loras")):
        model = row.get("model") or row.get("lora")
        name = model.get("name") or model.get("model_name") if isinstance(model, dict) else model
        found.lora(name, row.get("weight"))
    return found


def swarmui(texts: Mapping[str, str]) -> Found | None:
    """SwarmUI: docs/Image Metadata Format.md in its repository."""
    whole = load_object(texts.get("parameters", ""))
    data = whole and whole.get("sui_image_params")
    if not isinstance(data, dict):
        return None
    found = Found("SwarmUI")
    _tagged_prompt(found, data.get("prompt"))
    found.seed(data.get("seed"))
    found.steps(data.get("steps"))
    found.size(data.get("width"), data.get("height"))
    found.model(data.get("model"))
    found.name_all(data, _SWARMUI_LABELS)
    for name, weight in pairs(data.get("loras"), data.get("loraweights")):
        found.lora(name, weight)
    return found


def fooocus(texts: Mapping[str, str]) -> Found | None:
    """Fooocus: `modules/meta_parser.py`, FooocusMetadataParser."""
    data = load_object(texts.get("parameters", ""))
    if data is None or not data.keys() & {"full_prompt", "base_model", "performance"}:
        return None
    found = Found("Fooocus")
    _tagged_prompt(found, data.get("prompt"))
    found.seed(data.get("seed"))
    found.steps(data.get("steps"))
    _size(found, data.get("resolution"))
    found.model(data.get("base_model"))
    found.name_all(data, _FOOOCUS_LABELS)
    loras = data.get("loras")
    for row in loras if isinstance(loras, list) else []:
        if isinstance(row, list) and len(row) >= 2:
            found.lora(row[0], row[1])
    return found


def a1111_text(texts: Mapping[str, str]) -> Found | None:
    """Automatic1111, Forge and everyone who writes as they do; our own text where it's alone."""
    text = texts.get("parameters", "").strip()
    if not text or text.startswith("{"):
        return None
    info = a1111.read(text)
    found = Found("Automatic1111 or Forge")
    found.prompt(info.prompt)
    found.name("negative prompt", info.negative)
    found.seed(info.settings.get("Seed"))
    found.steps(info.settings.get("Steps"))
    _size(found, info.settings.get("Size"))
    found.model(info.settings.get("Model"))
    if info.settings.get("Acceleration"):
        found.values["acceleration"] = info.settings["Acceleration"]
    for key, value in info.settings.items():
        if key not in _A1111_KNOWN and not key.startswith("Module "):
            found.name(key, value)
    for name, weight in info.loras:
        found.lora(name, weight)
    return found if found.values else None


def _tagged_prompt(found: Found, value: Any) -> None:
    if isinstance(value, str):
        prompt, loras = a1111.split_tags(value)
        found.prompt(prompt)
        for name, weight in loras:
            found.lora(name, weight)


def _size(found: Found, value: Any) -> None:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match:
        found.size(*match.groups())


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
