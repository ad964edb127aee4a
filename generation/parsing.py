"""From outside values to a GenerationRequest, or one clear InvalidRequest.

The only way in: the page, the Gradio API and a restored recipe all pass here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from generation.errors import InvalidRequest
from generation.request import GenerationRequest, ImageSize, ImageSizePreset, LoraRef


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid request, and what was tidied on the way."""

    request: GenerationRequest
    notices: tuple[str, ...] = ()


def parse_request(values: Mapping[str, Any]) -> Parsed:
    """Check `values` (wire names) against every bound.

    Raises:
        InvalidRequest: names the first offending field and its range.
    """
    loras, notices = merge_same_adapters(values.get("loras") or ())
    try:
        request = GenerationRequest.model_validate({**values, "loras": loras})
    except ValidationError as exc:
        raise _invalid(exc) from exc
    return Parsed(request, notices)


def merge_same_adapters(rows: Sequence[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Keep the first of several rows with one path; say which were dropped."""
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InvalidRequest(field="loras", problem="must be a list of {path, scale}")
    kept: dict[Any, Any] = {}
    notices = []
    for index, row in enumerate(rows):
        path = str(row["path"]).strip() if isinstance(row, Mapping) and "path" in row else index
        if path in kept:
            notices.append(f"{path} was listed twice and is applied once.")
        kept.setdefault(path, row)
    return list(kept.values()), tuple(notices)


def bounds(field: FieldInfo) -> dict[str, Any]:
    """A field's limits by their JSON-schema-like names: ge, gt, le, lt, max_length."""
    names = ("ge", "gt", "le", "lt", "max_length")
    return {n: getattr(m, n) for m in field.metadata for n in names if hasattr(m, n)}


def _invalid(exc: ValidationError) -> InvalidRequest:
    errors = exc.errors(include_url=False)
    error = next((e for e in errors if _concerns_input(e)), errors[0])
    path = _wire_path(error["loc"])
    return InvalidRequest(field=".".join(map(str, path)), problem=_problem(error, path))


def _concerns_input(error: ErrorDetails) -> bool:
    """Of the two branches of image_size, only the one that the caller meant."""
    if error["loc"][0] != "image_size" or len(error["loc"]) == 1:
        return True
    preset_branch = str(error["loc"][1]).startswith("literal")
    meant_custom = len(error["loc"]) > 2 or error["type"] == "value_error"
    return meant_custom or (preset_branch and not isinstance(error["input"], dict))


def _wire_path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic's location without the names of union branches."""
    if loc and loc[0] == "image_size":
        return (loc[0], *(part for part in loc[2:]))
    return loc


def _problem(error: ErrorDetails, path: tuple[int | str, ...]) -> str:
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a parameter of this endpoint"
    if kind == "string_too_long":
        return f"holds {len(value):,} characters; {error['ctx']['max_length']:,} at most"
    if kind == "too_long":
        return f"holds {len(value)} entries; {error['ctx']['max_length']} at most"
    if path == ("image_size",):
        return f"must be one of {', '.join(get_args(ImageSizePreset))}, or width and height"
    return f"{_expected(path, error)} (got {_quoted(value)})"


def _expected(path: tuple[int | str, ...], error: ErrorDetails) -> str:
    """What the field takes, from its declaration."""
    field = _field(path)
    if field is None or error["type"] in ("bool_parsing", "bool_type"):
        return error["msg"].replace("Input should be", "must be")
    limits = bounds(field)
    kind = "a whole number" if "int" in str(field.annotation) else "a number"
    if "ge" in limits and "le" in limits:
        return f"must be {kind} between {limits['ge']:,} and {limits['le']:,}"
    if "gt" in limits:
        return f"must be {kind} above {limits['gt']}"
    return error["msg"].replace("Input should be", "must be")


def _field(path: tuple[int | str, ...]) -> FieldInfo | None:
    models: dict[tuple[str, int], type[BaseModel]] = {
        ("image_size", 2): ImageSize,
        ("loras", 3): LoraRef,
    }
    model = models.get((str(path[0]), len(path)), GenerationRequest)
    return model.model_fields.get(str(path[-1]))


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
