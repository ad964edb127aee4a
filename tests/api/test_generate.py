"""The Gradio API as its Python client sees it: by names, with files, and in plain errors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from generation.parsing import parse_request
from generation.request import ENDPOINT, MAX_SEED, GenerationRequest, ImageSizePreset
from tests.process.playground import Playground
from tests.standins import fal_faults as faults
from tests.standins.fal_images import picture
from tests.standins.fal_process import FalProcess

SMALL = {"width": 96, "height": 64}
WORKERS = 4
BATCH = 20


@pytest.fixture(scope="module")
def client(page: Playground) -> Client:
    return page.client()


@pytest.fixture(scope="module")
def workers(page: Playground) -> Iterator[Workers]:
    with ThreadPoolExecutor(WORKERS) as pool:
        yield Workers(pool, list(pool.map(lambda _: page.client(), range(WORKERS))))


@dataclass(frozen=True)
class Workers:
    """Clients side by side: one alone loses answers when it is asked from several threads."""

    pool: ThreadPoolExecutor
    clients: list[Client]

    def generate(self, batch: list[dict[str, Any]]) -> list[tuple[list[str], dict[str, Any]]]:
        shares = [batch[start::WORKERS] for start in range(WORKERS)]
        answers = self.pool.map(generate_all, self.clients, shares)
        turns = [iter(share) for share in answers]
        return [next(turns[index % WORKERS]) for index in range(len(batch))]


def generate_all(
    client: Client, share: list[dict[str, Any]]
) -> list[tuple[list[str], dict[str, Any]]]:
    return [generate(client, values) for values in share]


def generate(client: Client, values: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    images, receipt = client.predict(**values, api_name="/generate")
    return images, receipt


def body_of(fal: FalProcess, prompt: str) -> dict[str, Any]:
    (body,) = [b for b in fal.ledger().submitted_bodies() if b["prompt"] == prompt]
    found: dict[str, Any] = body
    return found


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


# -- one call ------------------------------------------------------------------


def test_files_and_a_receipt(client: Client, fal: FalProcess) -> None:
    values = {
        "prompt": "two foxes",
        "image_size": SMALL,
        "num_images": 2,
        "seed": str(MAX_SEED - 1),
        "loras": [{"path": "owner/name", "scale": 0.5}],
    }
    images, receipt = generate(client, values)
    for index, file in enumerate(images):
        expected = picture((96, 64), "png", MAX_SEED - 1 + index)
        assert pixels(Path(file).read_bytes()) == pixels(expected)
    assert len(images) == 2
    assert receipt["seed"] == str(MAX_SEED - 1)
    assert receipt["image_size"] == SMALL
    assert receipt["backend"] == "hosted" and receipt["model"] == ENDPOINT
    assert receipt["request_id"] in fal.ledger().paid_jobs()
    assert receipt["cost_usd"] == pytest.approx(2 * 96 * 64 / 1e6 * 0.0085)
    assert receipt["has_nsfw_concepts"] == [False, False]
    (lora,) = receipt["loras"]
    assert (lora["path"], lora["scale"]) == ("owner/name", 0.5)


def test_the_receipt_has_every_part_that_was_promised(client: Client) -> None:
    _images, receipt = generate(client, {"prompt": "a receipt", "image_size": SMALL})
    assert {
        "request_id": str, "backend": str, "model": str, "seed": str, "prompt": str,
        "expanded_prompt": type(None), "image_size": dict, "num_inference_steps": int,
        "acceleration": str, "loras": list, "has_nsfw_concepts": list, "timings": dict,
        "cost_usd": float, "ignored": list, "warnings": list,
    }.items() <= {name: type(value) for name, value in receipt.items()}.items()  # fmt: skip


def test_the_expanded_prompt_is_in_the_receipt(client: Client) -> None:
    values = {"prompt": "a short one", "image_size": SMALL, "enable_prompt_expansion": True}
    _images, receipt = generate(client, values)
    assert receipt["prompt"] == "a short one"
    assert receipt["expanded_prompt"].startswith("a short one, ")
    assert receipt["cost_usd"] == pytest.approx(96 * 64 / 1e6 * 0.0085 + 0.0025)


def test_every_parameter_is_in_the_api_with_its_default(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    fields = GenerationRequest.model_fields
    defaults: dict[str, Any] = {
        name: None if field.is_required() else field.default for name, field in fields.items()
    }
    shown = {p["parameter_name"]: p for p in info["/estimate_cost"]["parameters"]}
    assert {name: p["parameter_default"] for name, p in shown.items()} == {**defaults, "loras": []}
    assert [n for n, p in shown.items() if not p["parameter_has_default"]] == ["prompt"]
    names = [p["parameter_name"] for p in info["/generate"]["parameters"]]
    assert names == [*fields, "backend"]
    assert info["/generate"]["parameters"][-1]["parameter_default"] == ""


def test_the_named_endpoints(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    named = info["named_endpoints"]
    assert {"/generate", "/estimate_cost", "/history", "/restore"} <= named.keys()
    assert info["unnamed_endpoints"] == {}
    assert all(endpoint["description"] for endpoint in named.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", "square"),
        ("image_size", SMALL),
        ("image_size", {"width": 2048, "height": 2048}),
        ("num_inference_steps", 3),
        ("seed", "7"),
        ("sync_mode", True),
        ("num_images", 3),
        ("enable_safety_checker", False),
        ("output_format", "webp"),
        ("acceleration", "high"),
        ("enable_prompt_expansion", True),
        ("loras", [{"path": "owner/name"}]),
        ("backend", "hosted"),
    ],
)
def test_partial_calls(name: str, value: Any, client: Client, fal: FalProcess) -> None:
    prompt = f"only {name} {value}"
    images, _receipt = generate(client, {"prompt": prompt, name: value})
    body = body_of(fal, prompt)
    given = {} if name == "backend" else {name: value}
    expected = parse_request({"prompt": prompt, **given}).request.payload()
    assert body.pop("seed") is not None
    expected.pop("seed", None)
    assert body == expected
    assert len(images) == expected["num_images"]


def test_another_backend_for_one_call(client: Client, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    images, receipt = generate(client, {"prompt": "drawn", "image_size": SMALL, "backend": "demo"})
    assert receipt["backend"] == "demo" and receipt["cost_usd"] == 0
    assert pixels(Path(images[0]).read_bytes())[0] == (96, 64)
    assert len(fal.ledger().posts()) == before


# -- two hundred random requests -----------------------------------------------

SIDES = st.integers(1, 160)
SIZES = st.integers(0, 9).flatmap(
    lambda dice: (
        st.fixed_dictionaries({"width": SIDES, "height": SIDES})
        if dice  # mostly small ones: large ones take time, and are no different
        else st.sampled_from(get_args(ImageSizePreset))
    )
)
NAMES = r"[A-Za-z0-9](?:[_.-]?[A-Za-z0-9]){0,6}"
HUB_IDS = st.from_regex(rf"{NAMES}/{NAMES}", fullmatch=True)
LORAS = st.lists(
    st.fixed_dictionaries(
        {"path": HUB_IDS | st.just("https://x.example/ä.safetensors")},
        optional={"scale": st.floats(0, 4)},
    ),
    max_size=3,
    unique_by=lambda lora: lora["path"],
)  # fmt: skip
PROMPTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
REQUESTS = st.fixed_dictionaries(
    {"prompt": PROMPTS},
    optional={
        "image_size": SIZES,
        "num_inference_steps": st.integers(1, 8),
        "seed": st.integers(0, MAX_SEED).map(str),
        "sync_mode": st.booleans(),
        "num_images": st.integers(1, 4),
        "enable_safety_checker": st.booleans(),
        "output_format": st.sampled_from(["jpeg", "png", "webp"]),
        "acceleration": st.sampled_from(["none", "regular", "high"]),
        "enable_prompt_expansion": st.booleans(),
        "loras": LORAS,
    },
)
NUMBERS = count()


@settings(
    max_examples=10, derandomize=True, deadline=None, database=None,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(batch=st.lists(REQUESTS, min_size=BATCH, max_size=BATCH))
def test_what_is_asked_is_what_is_sent(
    workers: Workers, fal: FalProcess, batch: list[dict[str, Any]]
) -> None:
    for values in batch:
        values["prompt"] += f" #{next(NUMBERS)}"
    answers = workers.generate(batch)
    bodies = {body["prompt"]: body for body in fal.ledger().submitted_bodies()}
    for values, (images, receipt) in zip(batch, answers, strict=True):
        request = parse_request(values).request
        seed = request.seed if request.seed is not None else int(receipt["seed"])
        assert bodies[request.prompt] == {**request.payload(), "seed": seed}
        assert receipt["seed"] == str(seed) and receipt["prompt"] == request.prompt
        assert [type_and_size(file) for file in images] == [
            (request.output_format.upper(), request.pixels)
        ] * request.num_images


def type_and_size(file: str) -> tuple[str | None, tuple[int, int]]:
    with Image.open(file) as image:
        return image.format, image.size


# -- refusals ------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": " \n"}, "prompt: is empty"),
    ({"prompt": None}, "prompt: must be a valid string"),
    ({"prompt": "word " * 4000}, "prompt: holds 20,000 characters; 4,000 at most"),
    ({"num_images": 0}, "num_images: must be a whole number between 1 and 4"),
    ({"num_images": 5}, "num_images: must be a whole number between 1 and 4"),
    ({"num_images": 2.5}, "num_images: must be a whole number between 1 and 4"),
    ({"num_inference_steps": 9}, "num_inference_steps: must be a whole number between 1 and 8"),
    ({"seed": "-1"}, "seed: must be a whole number of digits"),
    ({"seed": 1.5}, "seed: must be a whole number of digits"),
    ({"seed": str(2**64)}, f"seed: must be a whole number between 0 and {2**64 - 1:,}"),
    ({"image_size": "huge"}, "image_size: must be one of square_hd, square"),
    ({"image_size": {"width": 0, "height": 9}}, "image_size.width: must be a whole number above 0"),
    ({"image_size": {"width": 4096, "height": 4096}}, "image_size: is 4096 × 4096, more than 4 m"),
    ({"output_format": "gif"}, "output_format: must be 'jpeg', 'png' or 'webp'"),
    ({"acceleration": "fast"}, "acceleration: must be 'none', 'regular' or 'high'"),
    ({"sync_mode": "maybe"}, "sync_mode: must be a valid boolean"),
    ({"loras": "owner/name"}, "loras: must be a list of {path, scale}"),
    ({"loras": [{"path": "../up"}]}, "loras.0.path: must be a Hugging Face id"),
    ({"loras": [{"path": "a/b", "scale": 5}]}, "loras.0.scale: must be a number between -4 and 4"),
    ({"loras": [{"path": "a/b", "scale": -1}]}, "loras.0.scale: must be between 0 and 4 here"),
    ({"loras": [{"path": "a/b", "weight_name": "c"}]}, "loras.0.weight_name: is not a parameter"),
    ({"loras": [{"path": f"a/b{n}"} for n in range(4)]}, "loras: holds 4 entries; 3 at most"),
    ({"backend": "nowhere"}, "The nowhere backend isn't ready: there is no such backend"),
    ({"backend": ["hosted"]}, "backend: must be the name of a backend"),
]


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_refused_before_anything_is_posted(
    values: dict[str, Any], said: str, client: Client, fal: FalProcess
) -> None:
    before = len(fal.ledger().posts())
    with pytest.raises(AppError) as caught:
        generate(client, {"prompt": "refused", **values})
    assert str(caught.value).startswith(said)
    assert len(fal.ledger().posts()) == before


# -- rows of the table of faults that are seen only from here --------------------


@pytest.mark.parametrize(
    "prompt", ["狐狸 🦊👩‍👩‍👧‍👦 e\u0301", "שועל \u202eمعكوس\u202c", "{x} ${y} `z` \\u0041 \u2028"]
)
def test_row_70_unicode_arrives_byte_exact(prompt: str, client: Client, fal: FalProcess) -> None:
    _images, receipt = generate(client, {"prompt": prompt, "image_size": SMALL})
    assert body_of(fal, prompt)["prompt"].encode() == prompt.encode()
    assert receipt["prompt"] == prompt
    assert prompt in [row["prompt"] for row in history(client)]


def test_row_77_four_adapters_are_refused_first(client: Client, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    with pytest.raises(AppError, match="loras: holds 4 entries; 3 at most"):
        generate(client, {"prompt": "x", "loras": [{"path": f"a/b{n}"} for n in range(4)]})
    assert len(fal.ledger().posts()) == before


def test_row_79_an_error_is_text(client: Client, fal: FalProcess) -> None:
    """Gradio shows an error as markup: whatever it quotes is escaped."""
    script = "<script>alert(1)</script>"
    quoted = "&lt;script&gt;alert(1)&lt;/script&gt;"
    said = {"loc": ["body", script], "msg": script, "type": "value_error"}
    fal.inject(faults.answer("submit", 422, {"detail": [said]}))
    for values in ({"output_format": script}, {"backend": script}, {}):
        with pytest.raises(AppError) as caught:
            generate(client, {"prompt": script, **values})
        assert quoted in str(caught.value) and "<script" not in str(caught.value)


# -- the other endpoints -------------------------------------------------------


def test_estimate_cost(client: Client, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    cost = client.predict(
        prompt="x", num_images=2, image_size="square_hd", enable_prompt_expansion=True,
        api_name="/estimate_cost",
    )  # fmt: skip
    assert cost == {
        "usd": 0.020325792,
        "megapixels": 2.097152,
        "images_usd": 0.017825792,
        "expansion_usd": 0.0025,
    }
    with pytest.raises(AppError, match="num_images: must be a whole number between 1 and 4"):
        client.predict(prompt="x", num_images=5, api_name="/estimate_cost")
    assert len(fal.ledger().posts()) == before


@pytest.fixture(scope="module")
def five(client: Client) -> list[str]:
    """Prompts of five jobs, oldest first, none of which anybody else looks for."""
    prompts = [f"zebra {word}" for word in ("uno", "dos", "tres", "cuatro", "cinco")]
    for prompt in prompts:
        generate(client, {"prompt": prompt, "image_size": SMALL, "seed": str(MAX_SEED)})
    return prompts


def history(client: Client, **asked: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.predict(**asked, api_name="/history")
    return rows


def test_history_is_newest_first_and_paged_by_before(client: Client, five: list[str]) -> None:
    seen: list[str] = []
    before = None
    while page := history(client, query="zebra", limit=2, before=before):
        assert len(page) <= 2
        seen += [row["prompt"] for row in page]
        before = page[-1]["id"]
    assert seen == five[::-1]


def test_history_is_searched_by_words(client: Client, five: list[str]) -> None:
    assert [r["prompt"] for r in history(client, query="TRES zeb")] == ["zebra tres"]
    assert history(client, query="zebra seis") == []
    assert history(client, query="zebra_%") == []
    assert len(history(client)) >= len(five)


def test_a_row_of_the_history(client: Client, page: Playground, five: list[str]) -> None:
    (row,) = history(client, query=five[-1])
    assert row["status"] == "STORED" and row["backend"] == "hosted" and row["favourite"] is False
    assert datetime.fromisoformat(row["created"]).utcoffset() is not None
    assert row["request"] == {
        "prompt": five[-1], "image_size": SMALL, "num_inference_steps": 8, "seed": str(MAX_SEED),
        "sync_mode": False, "num_images": 1, "enable_safety_checker": True, "output_format": "png",
        "acceleration": "regular", "enable_prompt_expansion": False, "loras": [],
    }  # fmt: skip
    assert row["receipt"]["seed"] == str(MAX_SEED) and row["error"] is None
    (image,) = row["images"]
    stored = (page.data_dir / image["file"]).read_bytes()
    assert sha256(stored).hexdigest() == image["sha256"] and len(stored) == image["size_bytes"]
    with page.http() as http:
        assert http.get(f"/media/{row['id']}/0").content == stored


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limit": 0}, "limit: must be a whole number between 1 and 200"),
        ({"limit": 201}, "limit: must be a whole number between 1 and 200"),
        ({"limit": "many"}, "limit: must be a whole number between 1 and 200"),
        ({"limit": None}, "limit: must be a whole number between 1 and 200"),
        ({"query": 5}, "query: must be text"),
        ({"before": 5}, "before: must be the id of a row"),
        ({"before": "' OR 1=1"}, "There is no such job in your history"),
    ],
)
def test_history_refuses_in_words(asked: dict[str, Any], said: str, client: Client) -> None:
    with pytest.raises(AppError) as caught:
        history(client, **asked)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_restore_gives_the_same_request_back(output_format: str, client: Client) -> None:
    prompt = f"狐狸 <b>&</b> “fox” \\ {output_format}\nsecond line 🦊"
    values = {
        "prompt": prompt,
        "image_size": {"width": 80, "height": 48},
        "num_inference_steps": 5,
        "seed": str(2**53 + 1),
        "num_images": 2,
        "enable_safety_checker": False,
        "output_format": output_format,
        "acceleration": "none",
        "loras": [{"path": "a/b", "scale": 0.25}, {"path": "https://x.example/c", "scale": 4}],
    }
    images, _receipt = generate(client, values)
    for image in images:
        found = client.predict(handle_file(image), api_name="/restore")
        assert found["request"] == {
            **values, "sync_mode": False, "enable_prompt_expansion": False,
        }  # fmt: skip
        assert found["not_restored"] == []


def test_restore_refuses_what_is_no_image(client: Client, tmp_path: Path) -> None:
    text = tmp_path / "page.png"
    text.write_text("<html>")
    with pytest.raises(AppError, match="it is not a PNG, JPEG or WebP image"):
        client.predict(handle_file(str(text)), api_name="/restore")
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(AppError, match="This image carries no recipe"):
        client.predict(handle_file(str(plain)), api_name="/restore")
