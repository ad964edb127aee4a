"""The header of a safetensors file, read as what a stranger wrote.

A file begins with eight bytes, the little-endian length of a JSON object, then
that object: `{name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}`;
the numbers follow (https://github.com/huggingface/safetensors#format). All that
can be large is bounded before it is read: 2 MiB of JSON cost well under a second.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from generation.errors import AdapterRefused

FIRST_READ: Final = 100_000
"""Bytes of the first Range request: nearly every adapter's header; larger ones need a second."""
MAX_HEADER: Final = 2 * 2**20
MAX_TENSORS: Final = 10_000
MAX_NAME: Final = 512
MAX_DIMENSIONS: Final = 8
_LENGTH: Final = 8
_IMPLAUSIBLE: Final = 2**32  # a length above it is the beginning of another format

BITS: Final[Mapping[str, int]] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits per number of each type that safetensors knows."""

_OTHER_FORMATS: Final = (
    (b"GGUF", "it is a GGUF file, a whole model in another format"),
    (b"PK\x03\x04", "it is a zip archive or a pickle, which may run code"),
    (b"\x80", "it is a pickle, which may run code"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself"),
)
_WEB_PAGE: Final = re.compile(rb"\s*<[!?a-zA-Z]")
_NOT_SAFETENSORS: Final = "it is not a safetensors file"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor that the header describes."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """Checked: the tensors fill the file from its header to its end, without hole or overlap.

    `header_bytes` counts the length and the JSON; `file_bytes` is None where nobody said.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    header_bytes: int
    file_bytes: int | None


def header_size(start: bytes, name: str = "The file") -> int:
    """Bytes of the JSON, from a file's first eight bytes or more.

    Raises:
        AdapterRefused: another format, or a header above MAX_HEADER.
    """
    if not start:
        _refuse(name, "it is empty")
    _refuse_other_formats(start, name)
    if len(start) < _LENGTH:
        _refuse(name, "it is cut off in its first bytes")
    size = int.from_bytes(start[:_LENGTH], "little")
    if size > _IMPLAUSIBLE:
        _refuse(name, _NOT_SAFETENSORS)
    if size > MAX_HEADER:
        _refuse(name, f"its header claims {size:,} bytes, more than {MAX_HEADER // 2**20} MiB")
    if size < len("{}"):
        _refuse(name, "it has no header")
    return size


def parse_header(data: bytes, *, name: str, file_bytes: int | None) -> Header:
    """The header in a file's first bytes (eight, the JSON, or more than that).

    `name` is for the refusal; `file_bytes` is the size of the whole file if known.

    Raises:
        AdapterRefused: with a reason in plain words.
    """
    ends = _LENGTH + header_size(data, name)
    if len(data) < ends or (file_bytes is not None and file_bytes < ends):
        _refuse(name, "it is cut off in its header")
    try:
        tensors, metadata, body = _checked(_parsed(data[_LENGTH:ends]))
        _check_end(body, None if file_bytes is None else file_bytes - ends)
    except _Wrong as exc:
        raise AdapterRefused(name=name, reason=str(exc)) from exc
    return Header(tensors, metadata, ends, file_bytes)


class _Wrong(Exception):
    """Why the header is refused."""


def _refuse(name: str, reason: str) -> NoReturn:
    raise AdapterRefused(name=name, reason=reason)


def _refuse_other_formats(start: bytes, name: str) -> None:
    if start[_LENGTH : _LENGTH + 1] in (b"", b"{"):  # any bytes may be a length before a header
        return
    if _WEB_PAGE.match(start[:64]):
        _refuse(name, "it is a web page, not a file of weights")
    for magic, reason in _OTHER_FORMATS:
        if start.startswith(magic):
            _refuse(name, reason)


# -- the JSON ------------------------------------------------------------------


def _parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object; its size is bounded, its depth by Python."""
    if raw.count(b'"data_offsets"') > MAX_TENSORS:  # a quote within text has a backslash
        raise _Wrong(f"it holds more than {MAX_TENSORS:,} tensors")
    if not raw.startswith(b"{"):
        raise _Wrong("its header isn't JSON")
    try:
        return _decoder().decode(raw.decode("utf-8"))  # type: ignore[no-any-return]
    except UnicodeDecodeError as exc:
        raise _Wrong("its header isn't UTF-8 text") from exc
    except RecursionError as exc:
        raise _Wrong("its header is nested too deeply") from exc
    except ValueError as exc:
        raise _Wrong("its header isn't JSON") from exc


def _decoder() -> json.JSONDecoder:
    """Without double names, and of numbers only whole ones of up to 19 digits."""
    objects = _Objects()
    return json.JSONDecoder(
        object_pairs_hook=objects.build,
        parse_float=_nothing,
        parse_int=lambda digits: int(digits) if len(digits) < 20 else None,
        parse_constant=_nothing,
    )


def _nothing(_number: str) -> None:
    """No field of a header takes such a number, or nothing."""


@dataclass(slots=True)
class _Objects:
    """Counts objects, so that a header can't make more than a file of tensors needs."""

    count: int = 0

    def build(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.count += 1
        if self.count > MAX_TENSORS + 2:  # the metadata and the whole
            raise _Wrong(f"it describes more than {MAX_TENSORS:,} tensors")
        built = dict(pairs)
        if len(built) < len(pairs):
            raise _Wrong("its header says something twice")
        return built


# -- what it says --------------------------------------------------------------


def _checked(whole: dict[str, Any]) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Tensors, metadata, and the bytes that the numbers take."""
    metadata = _metadata(whole.pop("__metadata__", {}))
    if len(whole) > MAX_TENSORS:
        raise _Wrong(f"it holds more than {MAX_TENSORS:,} tensors")
    tensors, places = {}, []
    for name, entry in whole.items():
        _check_name(name)
        tensors[name], place = _tensor(name, entry)
        places.append(place)
    return tensors, metadata, _end_of(places)


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise _Wrong("its metadata isn't text")
    for text in (*found.keys(), *found.values()):
        _check_text(text, "its metadata isn't text")
    return found


def _check_text(text: str, problem: str) -> None:
    """Half a surrogate pair can be written in JSON, and nowhere else."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise _Wrong(problem) from exc


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _Wrong("it names a tensor with something that can't be shown")


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    """The description of a tensor, and where its numbers begin and end."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begins, ends]} if (
            len(entry) == 3
            and len(shape) <= MAX_DIMENSIONS
            and all(_is_size(number) for number in (*shape, begins, ends))
        ):
            pass
        case _:
            raise _Wrong(f"its header doesn't describe a tensor where it should ({_short(name)})")
    if dtype not in BITS:
        raise _Wrong(f"its number type {_short(dtype)} is unknown")
    if (ends - begins) * 8 != math.prod(shape) * BITS[dtype]:
        raise _Wrong(f"the sizes of its tensors don't add up ({_short(name)})")
    return TensorInfo(dtype, tuple(shape)), (begins, ends)


def _is_size(number: Any) -> bool:
    return type(number) is int and number >= 0


def _short(text: str) -> str:
    """Foreign text in a message: escaped and cut."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def _end_of(places: list[tuple[int, int]]) -> int:
    """Where the last tensor ends, if each begins where the one before it ends."""
    expected = 0
    for begins, ends in sorted(places):
        if begins != expected:
            raise _Wrong("the sizes of its tensors don't add up")
        expected = ends
    return expected


def _check_end(body: int, there: int | None) -> None:
    if there is not None and there < body:
        raise _Wrong("it is cut off: numbers are missing at its end")
    if there is not None and there > body:
        raise _Wrong("it has bytes that belong to no tensor")
