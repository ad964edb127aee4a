"""From a dropped image to values for the controls."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from generation.errors import InvalidRequest
from generation.parsing import parse_request
from generation.request import GenerationRequest
from history.metadata import read_recipe
from history.records import request_json


class _Row(TypedDict):
    path: Any  # whatever it is, parse_request decides
    scale: Any
    on: bool


_ROWS: Final = TypeAdapter(list[_Row])


def restore_recipe(image: bytes) -> dict[str, Any]:
    """What an image says about how it was made.

    Returns `{"request": …, "source": …, "not_restored": […]}`; the request is
    complete and valid, with the endpoint's defaults where the image says nothing.

    Raises:
        RecipeMissing: no recipe in it.
        MediaRefused: not an image.
    """
    found = read_recipe(image)
    values, dropped = dict(found.values), list(found.not_restored)
    while True:
        try:
            request = parse_request(values).request
        except InvalidRequest as exc:
            field = str(exc.facts["field"]).partition(".")[0]
            if field not in values:
                raise
            dropped.append(f"{field} ({exc.facts['problem']})")
            del values[field]
        else:
            return {
                "request": request_json(request),
                "source": found.source,
                "not_restored": dropped,
            }


def control_values(request: GenerationRequest) -> dict[str, Any]:
    """A request as the values of the page's controls."""
    width, height = request.pixels
    preset = request.image_size if isinstance(request.image_size, str) else "custom"
    values = request.payload() | {
        "image_size": preset,
        "width": width,
        "height": height,
        "seed": "" if request.seed is None else str(request.seed),
    }
    rows = [{**lora, "on": True} for lora in values["loras"]]
    values["loras"] = json.dumps(rows, ensure_ascii=False)
    return values


def request_values(controls: dict[str, Any]) -> dict[str, Any]:
    """The page's controls as a request by wire names; rows that are off or empty are left out."""
    values = dict(controls)
    width, height = values.pop("width"), values.pop("height")
    if values["image_size"] == "custom":
        values["image_size"] = {"width": width, "height": height}
    values["loras"] = [
        {"path": row["path"], "scale": row["scale"]} for row in _rows(values["loras"]) if row["on"]
    ]
    return values


def _rows(text: Any) -> list[_Row]:
    """The slots' value, which a browser sent: JSON text of rows."""
    try:
        return _ROWS.validate_json(text)
    except (ValidationError, TypeError) as exc:
        raise InvalidRequest(field="loras", problem="can't be read; reload the page") from exc
