"""The endpoint's input schema, checked as fal checks it, written from its documentation.

On purpose none of the playground's own code: a stand-in that shared it would share its mistakes.
Unknown fields are ignored, as fal does; a model error is the list under `detail`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
MAX_PIXELS = 2048 * 2048
"""Our choice: the documentation says up to about 4 megapixels and no more."""

Loc = tuple[str | int, ...]
Check = Callable[[Any, Loc], Any]


class Invalid(Exception):
    """The body breaks the schema; `details` is the list that fal answers with."""

    def __init__(self, details: Sequence[dict[str, Any]]) -> None:
        super().__init__(details)
        self.details = list(details)


def detail(
    loc: Sequence[str | int],
    msg: str,
    type_: str,
    *,
    value: object = None,
    ctx: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One entry of fal's `detail` list; `loc` starts with `body`."""
    url = f"https://docs.fal.ai/errors#{type_}"
    entry = {"loc": list(loc), "msg": msg, "type": type_, "url": url, "input": value}
    return entry | ({"ctx": dict(ctx)} if ctx else {})


def _refuse(
    loc: Loc, msg: str, type_: str, value: object, ctx: Mapping[str, Any] | None = None
) -> Invalid:
    return Invalid([detail(loc, msg, type_, value=value, ctx=ctx)])


def _text(value: Any, loc: Loc) -> str:
    if not isinstance(value, str):
        raise _refuse(loc, "Input should be a valid string", "string_type", value)
    return value


def _boolean(value: Any, loc: Loc) -> bool:
    if not isinstance(value, bool):
        raise _refuse(loc, "Input should be a valid boolean", "bool_type", value)
    return value


def _integer(value: Any, loc: Loc) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse(loc, "Input should be a valid integer", "int_type", value)
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise _refuse(loc, "Input should be a valid integer", "int_from_float", value)
    return int(value)


def _number(value: Any, loc: Loc) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse(loc, "Input should be a valid number", "float_type", value)
    return value


def _between(check: Check, low: int, high: int) -> Check:
    def bounded(value: Any, loc: Loc) -> Any:
        number = check(value, loc)
        if not number >= low:  # so that NaN is refused as well
            msg = f"Input should be greater than or equal to {low}"
            raise _refuse(loc, msg, "greater_than_equal", value, {"ge": low})
        if number > high:
            msg = f"Input should be less than or equal to {high}"
            raise _refuse(loc, msg, "less_than_equal", value, {"le": high})
        return number

    return bounded


def _one_of(*names: str) -> Check:
    def listed(value: Any, loc: Loc) -> str:
        if value not in names:
            expected = ", ".join(repr(name) for name in names)
            msg = f"Input should be one of: {expected}"
            raise _refuse(loc, msg, "one_of", value, {"expected": list(names)})
        return str(value)

    return listed


def _optional(check: Check) -> Check:
    return lambda value, loc: None if value is None else check(value, loc)


def _image_size(value: Any, loc: Loc) -> tuple[int, int]:
    if not isinstance(value, dict):
        return PRESETS[_one_of(*PRESETS)(value, loc)]
    size = _fields({"width": (512, _SIDE), "height": (512, _SIDE)}, value, loc)
    if size["width"] * size["height"] > MAX_PIXELS:
        raise _refuse(loc, f"At most {MAX_PIXELS} pixels", "image_too_large", value)
    return size["width"], size["height"]


def _lora(value: Any, loc: Loc) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(loc, "Input should be a valid dictionary", "dict_type", value)
    return _fields({"path": (REQUIRED, _text), "scale": (1, _SCALE)}, value, loc)


def _loras(value: Any, loc: Loc) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _refuse(loc, "Input should be a valid list", "list_type", value)
    if len(value) > 3:
        msg = f"List should have at most 3 items after validation, not {len(value)}"
        raise _refuse(loc, msg, "sequence_too_long", value, {"max_length": 3})
    return [_lora(item, (*loc, index)) for index, item in enumerate(value)]


def _fields(fields: Mapping[str, tuple[Any, Check]], given: Any, loc: Loc) -> dict[str, Any]:
    """Every field checked or defaulted; all complaints together, as fal gives them."""
    values: dict[str, Any] = {}
    complaints: list[dict[str, Any]] = []
    for name, (default, check) in fields.items():
        try:
            values[name] = _field(given, name, default, check, (*loc, name))
        except Invalid as invalid:
            complaints += invalid.details
    if complaints:
        raise Invalid(complaints)
    return values


def _field(given: Any, name: str, default: Any, check: Check, loc: Loc) -> Any:
    if name not in given and default is REQUIRED:
        raise _refuse(loc, "Field required", "missing", given)
    return check(given.get(name, default), loc)


REQUIRED = object()
_SIDE = _between(_integer, 1, 14142)
_SCALE = _between(_number, 0, 4)
_FIELDS: dict[str, tuple[Any, Check]] = {
    "prompt": (REQUIRED, _text),
    "image_size": ("landscape_4_3", _image_size),
    "num_inference_steps": (8, _between(_integer, 1, 8)),
    "seed": (None, _optional(_integer)),
    "sync_mode": (False, _boolean),
    "num_images": (1, _between(_integer, 1, 4)),
    "enable_safety_checker": (True, _boolean),
    "output_format": ("png", _one_of("jpeg", "png", "webp")),
    "acceleration": ("regular", _one_of("none", "regular", "high")),
    "enable_prompt_expansion": (False, _boolean),
    "loras": ([], _loras),
}


def checked(body: Any) -> dict[str, Any]:
    """The arguments with defaults filled in, `image_size` as (width, height).

    Raises Invalid with every complaint.
    """
    if not isinstance(body, dict):
        raise _refuse(("body",), "Input should be a valid dictionary", "dict_type", body)
    return _fields(_FIELDS, body, ("body",))
