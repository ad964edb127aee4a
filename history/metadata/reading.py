"""What a dropped image holds, as values of the request; what doesn't fit is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from generation.errors import InvalidRequest, RecipeMissing
from generation.parsing import parse_request
from generation.request import MAX_LORAS
from generation.result import AppliedLora
from history.metadata import comfy, exif, jpeg, others, png, webp
from history.metadata.limits import MAX_NAMED, load_object
from history.metadata.recipes import KEY, PARAMETERS, SOURCE, image_kind
from history.metadata.values import Found


@dataclass(frozen=True, slots=True)
class RestoredRecipe:
    """What an image says of how it was made.

    `values` are by wire names, each one within the request's bounds, for
    `generation.parsing.parse_request`; the prompt may be missing. `seed` is
    text. `source` is the tool that wrote it. `not_restored` names what has no
    place here, in words for a person. `backend` and `adapters` (their files and
    shas) are known for our own images only.
    """

    values: dict[str, Any]
    source: str
    not_restored: tuple[str, ...] = ()
    backend: str | None = None
    adapters: tuple[AppliedLora, ...] = ()


def read_recipe(image: bytes) -> RestoredRecipe:
    """Read the recipe in PNG, JPEG or WebP bytes; no pixel is decoded.

    Raises:
        MediaRefused: not such a file, or too large.
        RecipeMissing: nothing that we know how to read.
    """
    texts = _texts(image)
    for read in _READERS:
        if found := read(texts):
            return _restored(found)
    raise RecipeMissing


# -- from the file to texts ----------------------------------------------------


def _texts(image: bytes) -> dict[str, str]:
    """Every text by PNG's keywords, wherever the format keeps it."""
    kind = image_kind(image)
    if kind == "PNG":
        return _exif_texts(png.read_exif(image)) | png.read_texts(image)
    return _exif_texts((jpeg if kind == "JPEG" else webp).read_exif(image))


def _exif_texts(block: bytes | None) -> dict[str, str]:
    tags = exif.read_tags(block or b"")
    texts = {PARAMETERS: tags[exif.COMMENT]} if exif.COMMENT in tags else {}
    for tag in (exif.DESCRIPTION, exif.MAKE, exif.MODEL):
        text = tags.get(tag, "")
        if f'"{KEY}"' in text:
            texts[KEY] = text
        elif text.startswith(("prompt:", "Prompt:")):  # ComfyUI
            texts["prompt"] = text.partition(":")[2]
        elif text.lstrip().startswith("{"):  # SwarmUI before 0.9
            texts.setdefault(PARAMETERS, text)
    return texts


# -- our own -------------------------------------------------------------------


def _ours(texts: Mapping[str, str]) -> Found | None:
    recipe = load_object(texts.get(KEY, ""))
    if recipe is None or not isinstance(recipe.get("request"), dict):
        return None
    found = Found(SOURCE, dict(recipe["request"]))
    backend, receipt = recipe.get("backend"), recipe.get("receipt")
    found.backend = backend if isinstance(backend, str) else None
    if isinstance(receipt, dict) and isinstance(receipt.get("loras"), list):
        found.adapters = [lora for lora in map(_adapter, receipt["loras"][:MAX_LORAS]) if lora]
    return found


def _adapter(value: Any) -> AppliedLora | None:
    try:
        return AppliedLora.model_validate(value)
    except (ValueError, RecursionError):
        return None


# The most complete first: many tools write the common text beside their own.
_READERS: Final[tuple[Callable[[Mapping[str, str]], Found | None], ...]] = (
    _ours,
    others.invokeai,
    others.swarmui,
    others.fooocus,
    others.a1111_text,
    comfy.comfyui,
)


# -- only what a request takes -------------------------------------------------


def _restored(found: Found) -> RestoredRecipe:
    values, problems = _acceptable(found.values)
    missing = [*found.missing, *problems]
    if len(missing) > MAX_NAMED:
        missing = [*missing[:MAX_NAMED], f"and {len(missing) - MAX_NAMED} more"]
    return RestoredRecipe(
        values, found.source, tuple(missing), found.backend, tuple(found.adapters)
    )


def _acceptable(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """One value that is out of range costs that value, not the whole recipe."""
    kept: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in values.items():
        if name == "loras" and isinstance(value, list):
            kept[name] = _acceptable_loras(value, problems)
        elif problem := _problem(name, value):
            problems.append(f"{name[:50]} ({problem})")
        else:
            kept[name] = value
    return kept, problems


def _acceptable_loras(rows: list[Any], problems: list[str]) -> list[Any]:
    kept = []
    for index, row in enumerate(rows[:MAX_LORAS], start=1):
        if problem := _problem("loras", [row]):
            problems.append(f"adapter {index} ({problem})")
        else:
            kept.append(row)
    if len(rows) > MAX_LORAS:
        problems.append(f"{len(rows) - MAX_LORAS} adapters beyond the {MAX_LORAS} that are taken")
    return kept


def _problem(name: str, value: Any) -> str | None:
    """Why the endpoint would refuse the value, or None."""
    try:
        parse_request({"prompt": "-", name: value})
    except InvalidRequest as exc:
        return str(exc.facts["problem"])[:200]
    except RecursionError:  # nested so deeply that even describing it fails
        return "it can't be read"
    return None
