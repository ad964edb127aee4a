"""Foreign values as the endpoint's; what has no place is named for a person."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from generation.parsing import bounds
from generation.request import MAX_PROMPT, PRESET_PIXELS, GenerationRequest
from generation.result import AppliedLora
from history.metadata.limits import clean

MAX_STEPS: Final = int(bounds(GenerationRequest.model_fields["num_inference_steps"])["le"])
_WORD_LIMIT = 60  # characters of a foreign value that are repeated to a person


@dataclass(slots=True)
class Found:
    """A recipe being read: values by wire names, and the names of what has no place."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    backend: str | None = None
    adapters: list[AppliedLora] = field(default_factory=list)

    def prompt(self, value: Any) -> None:
        """The prompt, cut where it is longer than the endpoint takes."""
        if not isinstance(value, str) or not value.strip():
            return
        text = clean(value).strip()
        if len(text) > MAX_PROMPT:
            self.missing.append(f"the prompt beyond {MAX_PROMPT:,} of {len(text):,} characters")
        self.values["prompt"] = text[:MAX_PROMPT]

    def seed(self, value: Any) -> None:
        """The seed, as text."""
        if (seed := whole(value)) is not None and seed >= 0:
            self.values["seed"] = str(seed)
        elif value is not None:
            self.name("seed", value)

    def steps(self, value: Any) -> None:
        """The steps, no more than the distilled model has."""
        steps = whole(value)
        if steps is None or steps < 1:
            return
        if steps > MAX_STEPS:
            self.missing.append(f"steps {_short(steps)} (set to {MAX_STEPS}, the most there are)")
        self.values["num_inference_steps"] = min(steps, MAX_STEPS)

    def size(self, width: Any, height: Any) -> None:
        """Width and height in pixels; a preset's name where they are a preset's."""
        pixels = whole(width), whole(height)
        if None in pixels:
            return
        preset = next((name for name, size in PRESET_PIXELS.items() if size == pixels), None)
        self.values["image_size"] = preset or {"width": pixels[0], "height": pixels[1]}

    def lora(self, name: Any, scale: Any) -> None:
        """An adapter: taken where its name is an address, named where it is a file of theirs.

        A name with one slash isn't taken for a Hub id: other tools mean a folder.
        """
        weight = number(scale)
        if isinstance(name, str) and name.startswith("https://"):
            row = {"path": name} | ({} if weight is None else {"scale": weight})
            self.values.setdefault("loras", []).append(row)
        else:
            at = "" if weight is None else f" at {weight:g}"
            self.missing.append(f"LoRA {_short(name)}{at} (the image doesn't say where it is)")

    def name(self, label: str, value: Any) -> None:
        """Name a value that has no place here, unless it says nothing."""
        if value not in (None, "", "None", [], {}):
            self.missing.append(f"{label} {_short(value)}")

    def name_all(self, values: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """Name those of `values` that have a label."""
        for key, label in labels.items():
            self.name(label, values.get(key))

    def model(self, value: Any) -> None:
        """Name the model unless it is this one."""
        name = value.get("name") if isinstance(value, dict) else value
        if not re.search(r"z[-_ ]?image", str(name)[:200], re.IGNORECASE):
            self.name("model", name)


def whole(value: Any) -> int | None:
    """An integer from a number or digits; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}", value.strip()):
        return int(value)
    return None


def number(value: Any) -> float | None:
    """A finite float from a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def pairs(names: Any, weights: Any) -> Iterable[tuple[Any, Any]]:
    """Names with their weights, both as lists or as text between commas."""
    names, weights = _listed(names), _listed(weights)
    return [(name, weights[i] if i < len(weights) else 1) for i, name in enumerate(names)]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    """A value as a few words; of a structure, only that it is one."""
    if not isinstance(value, str | int | float):
        return "(settings)"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "(a very large number)"
    text = " ".join(clean(str(value)).split())
    return text if len(text) <= _WORD_LIMIT else text[: _WORD_LIMIT - 1] + "…"
