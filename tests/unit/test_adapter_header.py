"""Reading a safetensors header: what is right is read, all else refused, whatever it is."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.errors import AdapterRefused
from lora_format.header import FIRST_READ, MAX_HEADER, Header, header_size, parse_header
from tests.standins.adapters import Adapter, adapter, corpus, large
from tests.standins.adapters.tensors import framed

SLOW = os.environ.get("PLAYGROUND_SLOW_TESTS") == "1"
settings.register_profile("header fuzz", max_examples=10_000 if SLOW else 300, deadline=None)
FUZZ = settings.get_profile("header fuzz")
SMALL = adapter("comfyui-rank-1").data()
TEXT_BEGINS, TEXT_ENDS = 8, 8 + int.from_bytes(SMALL[:8], "little")


def parse(data: bytes, file_bytes: int | None = None) -> Header:
    return parse_header(data, name="ink.safetensors", file_bytes=file_bytes)


@pytest.mark.parametrize("one", corpus(), ids=lambda one: one.name)
def test_a_header_says_what_was_written(one: Adapter) -> None:
    data = one.data()
    header = parse(data, len(data))
    assert {name: (t.dtype, t.shape) for name, t in header.tensors.items()} == {
        name: (t.dtype, t.shape) for name, t in one.tensors.items()
    }
    assert header.metadata == one.metadata
    assert (header.header_bytes, header.file_bytes) == (len(one.header()), len(data))


def test_bytes_behind_the_header_do_not_matter() -> None:
    """A first read may end anywhere behind it."""
    start = SMALL[:TEXT_ENDS]
    assert parse(start).tensors == parse(start + SMALL[TEXT_ENDS : TEXT_ENDS + 3]).tensors


def test_the_first_read_holds_the_header_of_a_large_adapter() -> None:
    one = large()
    assert one.size() > 170_000_000
    assert len(parse(one.header(), one.size()).tensors) == 540
    assert len(one.header()) < FIRST_READ


@pytest.mark.parametrize("size", [2, 60 + 65 * 256, 0x80, 0x8002, 100_000, MAX_HEADER])
def test_eight_bytes_tell_the_size(size: int) -> None:
    """Also where they look like the beginning of a web page or a pickle."""
    assert header_size(size.to_bytes(8, "little")) == size
    assert header_size(size.to_bytes(8, "little") + b"{") == size


def test_a_refusal_names_the_file_and_the_reason() -> None:
    with pytest.raises(AdapterRefused) as refused:
        parse(b"<!DOCTYPE html><html>")
    assert refused.value.facts["name"] == "ink.safetensors"
    assert "ink.safetensors can't be used: it is a web page" in refused.value.cause


def test_foreign_text_in_a_reason_is_escaped_and_short() -> None:
    wild = {"a" * 400: {"dtype": "\x1b]0;" + "x" * 500, "shape": [], "data_offsets": [0, 0]}}
    with pytest.raises(AdapterRefused) as refused:
        parse(framed(json.dumps(wild).encode()))
    assert refused.value.cause.isprintable() and len(refused.value.cause) < 200


@pytest.mark.parametrize("missing", [1, 1000])
def test_a_shorter_file_is_refused(missing: int) -> None:
    with pytest.raises(AdapterRefused, match="cut off"):
        parse(SMALL, len(SMALL) - missing)


# -- any bytes -----------------------------------------------------------------


def read_or_refused(data: bytes, file_bytes: int | None) -> Header | None:
    """Nothing but AdapterRefused may be raised; what is read is bounded and consistent."""
    try:
        header = parse(data, file_bytes)
    except AdapterRefused as refused:
        assert refused.cause.isprintable()
        return None
    assert header.header_bytes <= len(data)
    assert all(name.isprintable() for name in header.tensors)
    assert all(size >= 0 for tensor in header.tensors.values() for size in tensor.shape)
    assert all(isinstance(text, str) for pair in header.metadata.items() for text in pair)
    json.dumps(dict(header.metadata), ensure_ascii=False).encode()
    return header


@FUZZ
@given(st.binary(max_size=200), st.none() | st.integers(0, 400))
def test_any_bytes(data: bytes, file_bytes: int | None) -> None:
    read_or_refused(data, file_bytes)


@FUZZ
@given(st.binary(max_size=200))
def test_any_text_behind_a_right_length(text: bytes) -> None:
    read_or_refused(framed(b"{" + text), None)


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, TEXT_ENDS - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_right_header_with_wrong_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for place, byte in changes:
        data[place] = byte
    read_or_refused(bytes(data), len(data))


SIZES = st.integers(-2, 2**70) | st.sampled_from([0, 1, 2, 4, 8])
FIELDS = {
    "dtype": st.sampled_from(["F32", "BF16", "U8", "F4", "F128", "", 1, None]),
    "shape": st.lists(SIZES | st.floats() | st.booleans(), max_size=4) | st.text(),
    "data_offsets": st.lists(SIZES, max_size=3) | st.none(),
}
ENTRIES: st.SearchStrategy[Any] = st.fixed_dictionaries(FIELDS) | st.fixed_dictionaries(
    {}, optional={**FIELDS, "more": st.none()}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(
    st.dictionaries(st.text(max_size=12) | st.just("__metadata__"), ENTRIES | JSON, max_size=4),
    st.none() | st.integers(0, 400),
)
def test_any_json(whole: dict[str, Any], file_bytes: int | None) -> None:
    read_or_refused(framed(json.dumps(whole).encode()), file_bytes)


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(["F32", "F16", "U8"]), st.integers(0, 9)), max_size=6))
def test_every_right_header_is_read(described: list[tuple[str, int]]) -> None:
    whole, ends = {}, 0
    for number, (dtype, count) in enumerate(described):
        begins, ends = ends, ends + count * {"F32": 4, "F16": 2, "U8": 1}[dtype]
        places = {"shape": [count], "data_offsets": [begins, ends]}
        whole[f"t{number}"] = {"dtype": dtype, **places}
    text = framed(json.dumps(whole).encode())
    header = read_or_refused(text, len(text) + ends)
    assert header is not None and len(header.tensors) == len(described)
