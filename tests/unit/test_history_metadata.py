"""Our recipe in a file: complete, replaced in place, and not a pixel or foreign chunk touched."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from generation.errors import MediaRefused, RecipeMissing
from generation.imagefile import check_image
from generation.parsing import parse_request
from generation.request import GenerationRequest, LoraRef
from generation.result import AppliedLora, GenerationResult, ImageFile, Receipt, make_receipt
from history.metadata import embed_recipe, exif, jpeg, make_recipe, read_recipe, webp
from history.metadata.recipes import adapter_name, parameters

SEED = 2**64 - 1
LORAS = (
    LoraRef(path="owner/pixel-art", scale=0.8),
    LoraRef(path="https://example.com/a%20b/ink.safetensors?download=true", scale=-1.5),
)
APPLIED = (
    AppliedLora(path=LORAS[0].path, scale=0.8, file="pixel_v2.safetensors", sha="ab" * 32),
    AppliedLora(path=LORAS[1].path, scale=-1.5, applied=True),
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
ICC = b"\0" * 36 + b"acsp" + b"\0" * 88


def receipt_of(request: GenerationRequest, expanded: str = "") -> Receipt:
    result = GenerationResult(
        images=(ImageFile(),), seed=SEED, prompt=expanded, request_id="r-1", loras=APPLIED
    )
    info = check_image(picture("PNG")).info
    return make_receipt(request, result, [info], backend="hosted", billed=True)


def recipe_of(prompt: str = "a fox", **values: Any) -> dict[str, Any]:
    request = GenerationRequest(prompt=prompt, **values)
    return make_recipe(request, receipt_of(request), app_version="1.2.3")


def canvas(mode: str = "RGB", side: int = 24) -> Image.Image:
    data = random.Random(mode).randbytes(side * side * 4)
    return Image.frombytes("RGBA", (side, side), data).convert(mode)


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    canvas(mode).save(out, kind, **options)
    return out.getvalue()


def camera() -> bytes:
    """EXIF as a camera writes it: strings, rationals, a directory of its own, an orientation."""
    tags = Image.Exif()
    tags[exif.MAKE] = "Maker"
    tags[0x0112] = 6
    tags[exif.DESCRIPTION] = "a holiday"
    tags.get_ifd(0x8769)[0x829A] = IFDRational(1, 125)
    tags.get_ifd(0x8769)[0x927C] = b"private notes, with offsets of their own" * 3
    tags.get_ifd(0x8825)[0x0001] = "N"
    return tags.tobytes()


def png_with_chunks() -> bytes:
    info = PngInfo()
    info.add_text("Title", "kept")
    info.add_itxt("parameters", "an older recipe: 狐")
    info.add(b"prVt", b"private")
    data = picture("PNG", "P", pnginfo=info, gamma=0.45, dpi=(72, 72), icc_profile=ICC)
    late = b"playground_recipe\0late"
    chunk = struct.pack(">I", len(late)) + b"tEXt" + late + bytes(4)
    return data[:-12] + chunk + data[-12:]


def animation(kind: str) -> bytes:
    out = io.BytesIO()
    frames = [canvas(mode) for mode in ("RGB", "RGBA", "L")]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=40)
    return out.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "png": lambda: picture("PNG"),
    "png palette and chunks": png_with_chunks,
    "png 16 bit": lambda: picture("PNG", "I;16"),
    "png with exif": lambda: picture("PNG", exif=camera()),
    "apng": lambda: animation("PNG"),
    "jpeg": lambda: picture("JPEG"),
    "jpeg progressive": lambda: picture("JPEG", progressive=True, comment=b"kept"),
    "jpeg camera": lambda: picture("JPEG", exif=camera(), xmp=XMP, icc_profile=ICC),
    "jpeg without jfif": lambda: re.sub(
        rb"\xff\xe0\x00\x10JFIF.{10}", b"", picture("JPEG"), count=1, flags=re.DOTALL
    ),
    "jpeg fill bytes": lambda: picture("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    "webp lossy": lambda: picture("WEBP"),
    "webp lossless": lambda: picture("WEBP", lossless=True),
    "webp lossy alpha": lambda: picture("WEBP", "RGBA"),
    "webp lossless alpha": lambda: picture("WEBP", "RGBA", lossless=True),
    "webp extended": lambda: picture("WEBP", exif=camera(), xmp=XMP, icc_profile=ICC),
    "webp xmp": lambda: picture("WEBP", xmp=XMP),
    "webp animation": lambda: animation("WEBP"),
}
one_of_each = pytest.mark.parametrize("name", FILES)


def pixels(data: bytes) -> list[tuple[Any, ...]]:
    with Image.open(io.BytesIO(data)) as image:
        return [
            (frame.mode, frame.size, frame.info.get("duration"), frame.tobytes())
            for frame in ImageSequence.Iterator(image)
        ]


def foreign_parts(data: bytes) -> list[bytes]:
    """Every chunk or segment that isn't a recipe's, and the pixels' bytes."""
    if data.startswith(b"\x89PNG"):
        parts, start = [], 8
        while start < len(data):
            end = start + 12 + int.from_bytes(data[start : start + 4], "big")
            keyword = data[start + 8 : end].partition(b"\0")[0]
            if keyword not in (b"playground_recipe", b"parameters"):
                parts.append(data[start:end])
            start = end
        return parts
    if data.startswith(b"RIFF"):
        found = [(kind, start, end) for kind, start, end in webp._chunks(data)]
        kept = [data[a:b] for kind, a, b in found if kind not in (b"EXIF", b"VP8X")]
        return [*kept, data[found[-1][2] :]]
    found_segments = list(jpeg._segments(data))
    kept = [data[a:b] for _, a, b in found_segments if data[a + 4 : a + 10] != b"Exif\0\0"]
    return [*kept, data[found_segments[-1][2] :]]


# -- what stays ----------------------------------------------------------------


@one_of_each
def test_not_a_pixel_and_no_foreign_chunk_changes(name: str) -> None:
    before = FILES[name]()
    after = embed_recipe(before, recipe_of("狐狸 \U0001f98a"))
    assert pixels(after) == pixels(before)
    assert foreign_parts(after) == foreign_parts(before)
    with Image.open(io.BytesIO(after)) as image:
        image.verify()


@one_of_each
def test_a_second_recipe_takes_the_place_of_the_first(name: str) -> None:
    original = FILES[name]()
    first = embed_recipe(original, recipe_of("the first"))
    second = embed_recipe(first, recipe_of("the second"))
    assert read_recipe(second).values["prompt"] == "the second"
    assert pixels(second) == pixels(original)
    if "camera" not in name and "extended" not in name:
        assert second == embed_recipe(original, recipe_of("the second"))
        assert b"the first" not in second


@pytest.mark.parametrize("name", ["jpeg camera", "webp extended"])
def test_a_cameras_exif_is_kept(name: str) -> None:
    after = embed_recipe(FILES[name](), recipe_of())
    with Image.open(io.BytesIO(after)) as image:
        tags = image.getexif()
        inner = tags.get_ifd(0x8769)
        assert (tags[exif.MAKE], tags[0x0112]) == ("Maker", 6)
        assert float(inner[0x829A]) == pytest.approx(1 / 125)
        assert inner[0x927C].startswith(b"private notes")
        assert tags.get_ifd(0x8825)[0x0001] == "N"
        assert "playground_recipe" in tags[exif.DESCRIPTION]
        assert image.info["icc_profile"] == ICC
        assert image.info["xmp"] == XMP


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_extended_in_their_own(order: str) -> None:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entry = struct.pack(f"{order}HHI4s", exif.MODEL, 2, 4, b"R5\0\0")
    block = head + struct.pack(f"{order}IH", 8, 1) + entry + struct.pack(f"{order}I", 0)
    tags = exif.read_tags(exif.with_recipe(block, b'{"playground_recipe": 1}', "a 狐"))
    assert tags == {
        exif.DESCRIPTION: '{"playground_recipe": 1}',
        exif.MODEL: "R5",
        exif.COMMENT: "a 狐",
    }


def test_a_webp_that_had_no_room_announces_its_exif_and_alpha() -> None:
    for name, alpha in (("webp lossless alpha", 0x10), ("webp lossless", 0), ("webp lossy", 0)):
        after = embed_recipe(FILES[name](), recipe_of())
        assert after[12:16] == b"VP8X"
        assert after[20] == 0x08 | alpha
        assert int.from_bytes(after[4:8], "little") == len(after) - 8
        with Image.open(io.BytesIO(after)) as image:
            assert image.size == (24, 24)
            assert exif.DESCRIPTION in image.getexif()


# -- what is written -----------------------------------------------------------


@one_of_each
def test_everything_comes_back(name: str) -> None:
    recipe = recipe_of("狐狸, 8k", loras=LORAS, num_inference_steps=6, output_format="webp")
    restored = read_recipe(embed_recipe(FILES[name](), recipe))
    assert restored.values == recipe["request"]
    assert restored.values["seed"] == str(SEED)
    assert (restored.backend, restored.adapters) == ("hosted", APPLIED)
    assert restored.not_restored == ()
    request = parse_request(restored.values).request
    assert (request.seed, request.loras, request.num_inference_steps) == (SEED, LORAS, 6)


prompts = st.text(max_size=300).filter(lambda text: _valid(text) is not None)


def _valid(text: str) -> str | None:
    try:
        return GenerationRequest(prompt=text).prompt
    except ValueError:
        return None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_any_prompt_survives_to_the_letter(kind: str) -> None:
    original = picture(kind)

    @settings(max_examples=120, deadline=None, database=None)
    @given(prompts)
    def survives(text: str) -> None:
        recipe = recipe_of(text)
        after = embed_recipe(original, recipe)
        assert read_recipe(after).values["prompt"] == _valid(text)
        assert _common_text(after) == parameters(recipe)

    survives()


def _common_text(data: bytes) -> str:
    """The `parameters` text as another program gets it, by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            image.load()
            return str(image.text["parameters"])  # type: ignore[attr-defined]
        comment = image.getexif().get_ifd(0x8769)[exif.COMMENT]
    assert comment[:8] == b"UNICODE\0"
    return str(comment[8:].decode("utf-16-be"))


def test_the_common_text_is_what_other_readers_expect() -> None:
    text = parameters(recipe_of("a fox,\nat dawn", loras=LORAS))
    *prompt, last = text.split("\n")
    assert prompt == ["a fox,", "at dawn <lora:pixel_v2:0.8> <lora:ink:-1.5>"]
    settings_of = dict(pair.split(": ", 1) for pair in last.split(", "))
    assert settings_of == {
        "Steps": "8",
        "Seed": str(SEED),
        "Size": "1024x768",
        "Model": "Z-Image-Turbo",
        "Acceleration": "regular",
        "Version": "Z-Image Turbo LoRA Playground 1.2.3",
    }


@pytest.mark.parametrize(
    ("path", "file", "name"),
    [
        ("owner/pixel-art", None, "pixel-art"),
        ("owner/x", "weights/v2.safetensors", "v2"),
        ("https://h.co/a%20b/ink%20x.safetensors?x=1", None, "ink x"),
        ("https://h.co", None, "adapter"),
    ],
)
def test_adapters_have_the_name_of_their_file(path: str, file: str | None, name: str) -> None:
    assert adapter_name({"path": path, "file": file}) == name


def test_the_receipt_is_inside_with_files_and_shas() -> None:
    with Image.open(io.BytesIO(embed_recipe(picture("PNG"), recipe_of()))) as image:
        image.load()
        written = json.loads(image.text["playground_recipe"])  # type: ignore[attr-defined]
    assert written["playground_recipe"] == 1
    assert written["app_version"] == "1.2.3"
    assert written["receipt"]["loras"][0]["sha"] == "ab" * 32
    assert written["receipt"]["request_id"] == "r-1"


# -- no room, no sense ---------------------------------------------------------


@pytest.mark.parametrize(("letter", "complete"), [("x", True), ("狐", True), ("\U0001f98a", False)])
def test_a_jpeg_without_room_keeps_what_makes_the_image_again(letter: str, complete: bool) -> None:
    request = GenerationRequest(prompt=letter * 4000, loras=LORAS)
    recipe = make_recipe(request, receipt_of(request, letter * 4001), app_version="1")
    restored = read_recipe(embed_recipe(picture("JPEG"), recipe))
    assert restored.values == recipe["request"]
    assert (restored.adapters == APPLIED) is complete


def test_a_jpeg_with_no_room_at_all_stays_as_it_was() -> None:
    tags = Image.Exif()
    tags[exif.MAKE] = "x" * 65_000
    original = picture("JPEG", exif=tags.tobytes())
    assert embed_recipe(original, recipe_of("y" * 900)) == original


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", b"RIFF\0\0\0\0WAVE", b"\xff\xd8"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(MediaRefused):
        embed_recipe(data, recipe_of())
    with pytest.raises(MediaRefused):
        read_recipe(data)


def test_a_vendors_broken_text_breaks_no_file() -> None:
    request = GenerationRequest(prompt="a fox")
    recipe = make_recipe(request, receipt_of(request, "half \ud800 a letter"), app_version="1")
    for kind in ("PNG", "JPEG", "WEBP"):
        assert read_recipe(embed_recipe(picture(kind), recipe)).values["prompt"] == "a fox"


@settings(max_examples=400, deadline=None, database=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=4)), max_size=6),
    st.integers(0, 3000),
)
def test_damaged_files_raise_nothing_unexpected(
    name: str, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(embed_recipe(_made(name), recipe_of()))
    for at, value in edits:
        data[at : at + len(value)] = value
    damaged = bytes(data[: -cut or None])
    for work in (lambda: embed_recipe(damaged, recipe_of()), lambda: read_recipe(damaged)):
        try:
            work()
        except (MediaRefused, RecipeMissing):
            pass


_files: dict[str, bytes] = {}


def _made(name: str) -> bytes:
    return _files.setdefault(name, FILES[name]())


def test_a_checksum_is_right_in_every_chunk_we_write() -> None:
    data, start = embed_recipe(picture("PNG"), recipe_of("狐")), 8
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        body = data[start + 4 : start + 8 + length]
        [checksum] = struct.unpack_from(">I", data, start + 8 + length)
        assert checksum == zlib.crc32(body), kind
        start += 12 + length
