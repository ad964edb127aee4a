"""Files that lie, bloat or aren't safetensors: each must be refused, quickly and in plain words."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.standins.adapters.tensors import framed

MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Hostile:
    """`make` builds the bytes, `says` is part of the reason that a person must read."""

    name: str
    says: str
    make: Callable[[], bytes]

    def data(self) -> bytes:
        return self.make()


def entry(**changed: Any) -> dict[str, Any]:
    """A right tensor of four bytes, or one with a lie in it."""
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changed}


def _tensor(**changed: Any) -> Callable[[], bytes]:
    return lambda: framed(json.dumps({"a": entry(**changed)}).encode()) + bytes(4)


def _text(text: str | bytes, body: bytes = bytes(4)) -> Callable[[], bytes]:
    raw = text.encode() if isinstance(text, str) else text
    return lambda: framed(raw) + body


def _two(first: list[int], second: list[int], body: int) -> Callable[[], bytes]:
    both = {"a": entry(data_offsets=first), "b": entry(data_offsets=second)}
    return _text(json.dumps(both), bytes(body))


def _metadata(value: str) -> Callable[[], bytes]:
    return _text(f'{{"__metadata__":{value},"a":{json.dumps(entry())}}}')


def _million_tensors(count: int, name: str = "%d") -> Callable[[], bytes]:
    def make() -> bytes:
        one = '"' + name + '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        return framed(("{" + ",".join(one % n for n in range(count)) + "}").encode())

    return make


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


def hostile() -> tuple[Hostile, ...]:
    """Every hostile file, made when it is asked for."""
    return (*_not_safetensors(), *_lengths(), *_json(), *_tensors(), *_words())


def _not_safetensors() -> tuple[Hostile, ...]:
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
    return (
        Hostile("nothing", "empty", lambda: b""),
        Hostile("seven-bytes", "cut off", lambda: b"\x08" + bytes(6)),
        Hostile("html", "web page", lambda: page),
        Hostile("html-late", "web page", lambda: b"\n  <html>" + page),
        Hostile("zip", "zip", _zip),
        Hostile("pickle", "pickle", lambda: b"\x80\x02}q\x00X\x05\x00\x00\x00helloq\x01."),
        Hostile("gguf", "GGUF", lambda: b"GGUF\x03\x00\x00\x00" + bytes(64)),
        Hostile("lfs-pointer", "Git LFS", lambda: pointer),
        Hostile("png", "not a safetensors", lambda: b"\x89PNG\r\n\x1a\n" + bytes(64)),
    )


def _lengths() -> tuple[Hostile, ...]:
    def length(n: int, rest: bytes = b"{}      ") -> Callable[[], bytes]:
        return lambda: n.to_bytes(8, "little") + rest

    return (
        Hostile("length-2^63", "not a safetensors", length(2**63)),
        Hostile("length-2^64", "not a safetensors", length(2**64 - 1)),
        Hostile("length-zero", "no header", length(0)),
        Hostile("length-one", "no header", length(1)),
        Hostile("header-67-MB", "more than 2 MiB", length(67 * 2**20, b"{" + b" " * (67 * 2**20))),
        Hostile("header-over-the-limit", "more than 2 MiB", length(2 * 2**20 + 8)),
        Hostile("truncated-header", "cut off", length(1000)),
        Hostile("a-million-tensors", "more than 2 MiB", _million_tensors(MANY)),
        Hostile("too-many-tensors", "more than 10,000", _million_tensors(10_001)),
        Hostile("empty-names", "more than 10,000", _million_tensors(30_000, "%.0s")),
    )


def _json() -> tuple[Hostile, ...]:
    double = '{"a":%s,"a":%s}' % ((json.dumps(entry()),) * 2)
    inner = '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    lists = "[" * 1_000_000
    return (
        Hostile("not-json", "isn't JSON", _text("{hello}")),
        Hostile("a-list", "isn't JSON", _text("[]")),
        Hostile("trailing", "isn't JSON", _text("{} {}")),
        Hostile("not-utf-8", "isn't UTF-8", _text(b'{"\xff":1}')),
        Hostile("byte-order-mark", "isn't JSON", _text("\ufeff{}")),
        Hostile("duplicate-names", "twice", _text(double)),
        Hostile("duplicate-fields", "twice", _text(inner)),
        Hostile("deep-lists", "isn't JSON", _text(lists)),
        Hostile("deep-objects", "nested", _text('{"a":' * 300_000)),
        Hostile("deep-and-closed", "nested", _text('{"a":' * 150_000 + "1" + "}" * 150_000)),
        Hostile("deep-shape", "nested", _text('{"a":' + "[" * 900_000 + "]" * 900_000 + "}")),
        Hostile("many-objects", "more than 10,000", _text('{"a":[' + "{}," * 600_000 + "{}]}")),
        Hostile("many-numbers", "describe a tensor", _text('{"a":[' + "0," * 900_000 + "0]}")),
        Hostile("long-number", "describe a tensor", _tensor_text("[1" + "0" * 1_900_000 + "]")),
        Hostile("nan", "describe a tensor", _tensor_text("[NaN]")),
        Hostile("infinity", "describe a tensor", _tensor_text("[Infinity]")),
        Hostile("float", "describe a tensor", _tensor_text("[1.0]")),
        Hostile("exponent", "describe a tensor", _tensor_text("[1e9]")),
    )


def _tensor_text(shape: str) -> Callable[[], bytes]:
    return _text(f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}')


def _tensors() -> tuple[Hostile, ...]:
    field = {"a": {"dtype": "F32", "shape": [1]}}
    return (
        Hostile("missing-field", "describe a tensor", _text(json.dumps(field))),
        Hostile("extra-field", "describe a tensor", _tensor(code="import os")),
        Hostile("tensor-is-text", "describe a tensor", _text('{"a":"b"}')),
        Hostile("unknown-type", "number type", _tensor(dtype="F128")),
        Hostile("type-is-a-list", "describe a tensor", _tensor(dtype=["F32"])),
        Hostile("negative-size", "describe a tensor", _tensor(shape=[-1])),
        Hostile("true-size", "describe a tensor", _tensor(shape=[True])),
        Hostile("huge-size", "describe a tensor", _tensor(shape=[10**30])),
        Hostile("overflowing-shape", "don't add up", _tensor(shape=[2**33, 2**33])),
        Hostile("many-dimensions", "describe a tensor", _tensor(shape=[1] * 100)),
        Hostile("wrong-shape", "don't add up", _tensor(shape=[2])),
        Hostile("negative-offset", "describe a tensor", _tensor(data_offsets=[-4, 0])),
        Hostile("backward-offsets", "don't add up", _tensor(data_offsets=[4, 0])),
        Hostile("offset-outside", "don't add up", _tensor(data_offsets=[2**40, 2**40 + 4])),
        Hostile("one-offset", "describe a tensor", _tensor(data_offsets=[0])),
        Hostile("overlap", "don't add up", _two([0, 4], [0, 4], 4)),
        Hostile("partial-overlap", "don't add up", _two([0, 4], [2, 6], 6)),
        Hostile("hole", "don't add up", _two([0, 4], [8, 12], 12)),
        Hostile("body-cut-off", "cut off", _two([0, 4], [4, 8], 6)),
        Hostile("bytes-left-over", "belong to no tensor", _two([0, 4], [4, 8], 100)),
    )


def _words() -> tuple[Hostile, ...]:
    def named(name: str) -> Callable[[], bytes]:
        return _text(json.dumps({name: entry()}))

    return (
        Hostile("metadata-list", "metadata", _metadata("[]")),
        Hostile("metadata-number", "metadata", _metadata('{"a":1}')),
        Hostile("metadata-float", "metadata", _metadata('{"a":1.5}')),
        Hostile("metadata-nan", "metadata", _metadata('{"a":NaN}')),
        Hostile("metadata-nested", "metadata", _metadata('{"a":{"b":"c"}}')),
        Hostile("huge-metadata", "more than 2 MiB", _metadata('{"a":"' + "x" * 3_000_000 + '"}')),
        Hostile("metadata-surrogate", "metadata", _metadata('{"a":"\\ud800"}')),
        Hostile("newline-in-a-name", "names a tensor", named("a\nb")),
        Hostile("escape-in-a-name", "names a tensor", named("a\x1b[31mb")),
        Hostile("nul-in-a-name", "names a tensor", named("a\0b")),
        Hostile("right-to-left-name", "names a tensor", named("a\u202eb")),
        Hostile("surrogate-name", "names a tensor", named("\ud800")),
        Hostile("empty-name", "names a tensor", named("")),
        Hostile("long-name", "names a tensor", named("a" * 100_000)),
    )
