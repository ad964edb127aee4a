"""Adapters over the Gradio API: what is there, what one of them is, and the upload beside it."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from lora_registry.parts import MAX_FILE
from tests.api.browser import Browser, Said
from tests.process.playground import KEY, Playground, playground, wait_for
from tests.standins import hub_faults as faults
from tests.standins import hub_special as known
from tests.standins.fal_process import FalProcess
from tests.standins.hub_faults import HubFault
from tests.standins.hub_process import HubProcess, hub_process
from tests.standins.hub_weights import flux_lora, lora, weights

REPO, FILE = known.PIXEL_ART, "pixel_art_zit.safetensors"
PINNED = re.compile(rf"https://huggingface\.co/{REPO}/resolve/[0-9a-f]{{40}}/{re.escape(FILE)}")
SAFE = weights("mine.safetensors", lora(4, layers=2))
STARTERS = Path(__file__).resolve().parents[2] / "lora_registry" / "starters.json"
CARD_FIELDS = {
    "id", "author", "name", "likes", "downloads", "license", "picture", "mature", "gated",
    "private", "trigger_words", "files", "sha", "created", "updated", "base", "base_models",
    "storage",
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub")) as process:
        yield process


@contextmanager
def page_before(
    hub: HubProcess, fal: FalProcess, folder: Path, **settings: str
) -> Iterator[Playground]:
    """Whatever it was asked, it wrote no traceback."""
    with playground(folder, fal.environment, hub.environment, {"FAL_KEY": KEY}, settings) as page:
        yield page
        assert "Traceback" not in page.log()


@pytest.fixture(scope="module")
def page(
    hub: HubProcess, fal: FalProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    with page_before(hub, fal, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def public(
    hub: HubProcess, fal: FalProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    folder = tmp_path_factory.mktemp("public")
    with page_before(hub, fal, folder, PLAYGROUND_MODE="public") as running:
        yield running


@pytest.fixture(scope="module")
def client(page: Playground) -> Client:
    return page.client()


@pytest.fixture(autouse=True)
def no_faults(hub: HubProcess) -> Iterator[None]:
    yield
    hub.clear_faults()
    hub.release()


def search(client: Client, **values: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.predict(**values, api_name="/search_loras")
    return rows


def inspect(client: Client, reference: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.predict(reference=reference, api_name="/inspect_lora")
    return found


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def row_of(client: Client, repo: str, **values: Any) -> dict[str, Any]:
    [row] = [row for row in search(client, limit=100, **values) if row["id"] == repo]
    return row


# -- what is there -------------------------------------------------------------


def test_a_search_without_words_gives_the_most_liked(client: Client) -> None:
    rows = search(client)
    assert len(rows) == 24
    assert [row["likes"] for row in rows] == sorted((r["likes"] for r in rows), reverse=True)
    assert {frozenset(row) for row in rows} == {frozenset(CARD_FIELDS)}
    assert all(row["base"] == "turbo" for row in rows)


@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("likes", "likes"),
        ("downloads", "downloads"),
        ("newest", "created"),
        ("updated", "updated"),
    ],
)
def test_rows_come_in_the_order_that_was_asked_for(client: Client, sort: str, field: str) -> None:
    values = [row[field] for row in search(client, sort=sort, limit=40)]
    assert len(values) == 40 and values == sorted(values, reverse=True)


def test_trending_is_the_hubs_own_order(client: Client) -> None:
    assert ids(search(client, sort="trending", limit=9)) != ids(search(client, limit=9))


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_as_many_rows_as_asked_for(client: Client, limit: int) -> None:
    rows = search(client, limit=limit)
    assert ids(rows) == ids(search(client, limit=100))[:limit]
    assert len(rows) == limit


def test_words_narrow_it(client: Client) -> None:
    found = ids(search(client, query="pixel art"))
    assert REPO in found and len(found) < 24
    assert all("pixel" in repo.lower() for repo in found)
    assert search(client, query="no such style anywhere") == []


def test_a_row_says_what_the_card_says(client: Client) -> None:
    row = row_of(client, REPO)
    assert (row["author"], row["name"]) == tuple(REPO.split("/"))
    assert (row["likes"], row["downloads"], row["license"]) == (1834, 90210, "apache-2.0")
    assert row["trigger_words"] == [{"text": "pixel art", "source": "card"}]
    assert [file["name"] for file in row["files"]] == [FILE]
    assert re.fullmatch("[0-9a-f]{40}", row["sha"])
    assert (row["gated"], row["private"], row["mature"]) == (False, False, False)
    assert row_of(client, known.GATED)["gated"] is True


def test_mature_adapters_only_where_asked_for(client: Client) -> None:
    plain = ids(search(client, sort="trending", limit=100))
    everything = ids(search(client, sort="trending", limit=100, include_mature=True))
    assert set(known.MATURE).isdisjoint(plain)
    assert everything[:3] == list(known.MATURE)
    assert row_of(client, known.MATURE[1], include_mature=True)["mature"] is True


def test_private_repositories_are_in_no_list(client: Client) -> None:
    assert known.PRIVATE not in ids(search(client, query="unreleased", limit=100))


BAD_VALUES = [
    ({"sort": "loudest"}, "sort: must be one of likes, downloads, trending, newest, updated"),
    ({"limit": 0}, "limit: must be a whole number between 1 and 100"),
    ({"limit": 101}, "limit: must be a whole number between 1 and 100"),
    ({"limit": 2.5}, "limit: must be a whole number between 1 and 100"),
    ({"limit": "many"}, "limit: must be a whole number between 1 and 100"),
    ({"limit": True}, "limit: must be a whole number between 1 and 100"),
    ({"query": 7}, "query: must be text"),
    ({"query": "x" * 201}, "query: must be text"),
    ({"sort": ["likes"]}, "sort: must be one of"),
    ({"include_mature": "no"}, "include_mature: must be true or false"),
]


@pytest.mark.parametrize(("values", "said"), BAD_VALUES, ids=lambda each: str(each)[:30])
def test_a_bad_value_is_named_with_its_range(page: Playground, values: Any, said: str) -> None:
    with Browser(page) as browser, pytest.raises(Said) as caught:
        browser.call("search_loras", **values)
    assert said in str(caught.value)


def messages(client: Client, **values: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and what was said beside them."""

    async def follow() -> list[str]:
        job = client.submit(**values, api_name="/search_loras")
        logs = [update.log async for update in job if update.type == "status" and update.log]
        rows.extend(job.result())
        return [text for text, level in logs if level == "warning"]

    rows: list[dict[str, Any]] = []
    return rows, asyncio.run(follow())


def test_nothing_is_said_beside_a_fresh_answer(client: Client) -> None:
    rows, said = messages(client, query="film grain")
    assert rows and said == []


DOWN: dict[str, Callable[[], HubFault]] = {
    "503": lambda: faults.unavailable("list", times=None),
    "HTML": lambda: faults.html("list", times=None),
    "reset": lambda: faults.reset("list", times=None),
    "half": lambda: faults.truncated_json("list", times=None),
}


@pytest.mark.parametrize("kind", DOWN)
def test_without_the_hub_there_are_starters_and_a_word(
    client: Client, hub: HubProcess, kind: str
) -> None:
    hub.inject(DOWN[kind]())
    rows, said = messages(client, query=f"asked while it is down: {kind}")
    assert ids(rows) == json.loads(STARTERS.read_text("utf-8"))
    assert len(said) == 1 and "Hub can't be reached" in said[0]


def test_a_limited_hub_is_said_to_be_limited(client: Client, hub: HubProcess) -> None:
    hub.inject(faults.limited("list", reset=1))
    rows, said = messages(client, query="asked too often")
    assert ids(rows) == json.loads(STARTERS.read_text("utf-8"))
    assert len(said) == 1 and "asks to wait 1 s" in said[0]
    wait_for("its end", lambda: search(client, query="film grain and paper", limit=1) == [])


# -- what one is ---------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "{repo}",
        "  {repo} ",
        "{repo}/{file}",
        "https://huggingface.co/{repo}",
        "https://huggingface.co/{repo}/tree/main",
        "https://huggingface.co/{repo}/blob/main/{file}",
        "https://huggingface.co/{repo}/resolve/main/{file}?download=true",
        "https://huggingface.co/{repo}/resolve/{sha}/{file}",
        "https://www.huggingface.co/{repo}",
        "hf.co/{repo}",
    ],
)
def test_every_form_of_a_reference_is_one_adapter(client: Client, form: str) -> None:
    sha = row_of(client, REPO)["sha"]
    found = inspect(client, form.format(repo=REPO, file=FILE, sha=sha))
    assert PINNED.fullmatch(found["reference"])
    assert (found["repo"], found["file"], found["sha"]) == (REPO, FILE, sha)
    assert (found["kind"], found["layout"], found["rank"]) == ("LoRA", "comfyui", 32)
    assert found["family"] == "Z-Image"
    assert found["fit"] == {"hosted": "fits", "local": "fits", "demo": "fits"}
    assert [file["name"] for file in found["files"]] == [FILE]
    assert found["trigger_words"] == ["pixel art"]
    assert (found["moved_to"], found["private"], found["problem"]) == (None, False, None)


def test_what_is_inspected_can_be_inspected_again(client: Client) -> None:
    found = inspect(client, known.SEVERAL_FILES)
    assert inspect(client, found["reference"]) == found


def test_the_plain_answer_is_the_same_json(page: Playground, client: Client) -> None:
    with Browser(page) as browser:
        [raw] = browser.call("inspect_lora", reference=known.TRIGGER_IN_HEADER)
        [rows] = browser.call("search_loras", query="pixel", limit=5)
    assert raw == inspect(client, known.TRIGGER_IN_HEADER)
    assert rows == search(client, query="pixel", limit=5)
    assert json.loads(json.dumps(raw)) == raw


def test_all_files_with_size_and_date_are_there_to_choose_from(client: Client) -> None:
    found = inspect(client, known.SEVERAL_FILES)
    assert [file["name"] for file in found["files"]] == [
        "film_grain.safetensors",
        "film_grain_000001250.safetensors",
        "film_grain_000002750.safetensors",
    ]
    assert found["file"] == "film_grain.safetensors"
    for file in found["files"]:
        assert file["size"] > 10**6 and file["date"].startswith("2026-03-02T")
    other = inspect(client, f"{known.SEVERAL_FILES}/film_grain_000001250.safetensors")
    assert other["file"] == "film_grain_000001250.safetensors"


VERDICTS = [
    (known.OTHER_FAMILY, "another family", "FLUX"),
    (known.CONTROL_NET, "not an adapter", ""),
    (known.MERGED_MODEL, "not an adapter", ""),
    (known.FOR_BASE[0], "made for the base model", "Z-Image"),
    (known.LARGE_HEADER, "fits", ""),
]


@pytest.mark.parametrize(("repo", "fit", "reason"), VERDICTS, ids=lambda each: str(each))
def test_the_verdict_stands_under_the_backends_name(
    client: Client, repo: str, fit: str, reason: str
) -> None:
    found = inspect(client, repo)
    assert found["fit"].keys() == found["reasons"].keys() == {"hosted", "local", "demo"}
    assert found["fit"]["hosted"] == fit
    assert reason in found["reasons"]["hosted"]


@pytest.mark.parametrize(
    ("repo", "word", "source"),
    [
        (known.TRIGGER_IN_HEADER, "lichen macro", "header"),
        (known.TRIGGER_IN_PROSE, "herbarium sheet", "prose"),
        (REPO, "pixel art", "card"),
    ],
)
def test_a_trigger_word_says_where_it_stands(
    client: Client, repo: str, word: str, source: str
) -> None:
    found = inspect(client, repo)
    assert word in found["trigger_words"]
    assert found["trigger_sources"][word] == source


def test_a_renamed_repository_is_told_by_its_new_name(client: Client) -> None:
    found = inspect(client, known.OLD_NAME)
    assert (found["repo"], found["moved_to"]) == (known.NEW_NAME, known.NEW_NAME)
    assert found["fit"]["hosted"] == "fits"


@pytest.mark.parametrize("repo", known.MALFORMED)
def test_a_malformed_card_is_no_obstacle(client: Client, repo: str) -> None:
    assert inspect(client, repo)["fit"]["hosted"] == "fits"


def test_markup_of_a_card_is_text(client: Client) -> None:
    found = inspect(client, known.HOSTILE_TEXT)
    assert all("\n" not in word for word in found["trigger_words"])
    assert found["problem"] is None and found["fit"]["hosted"] == "fits"


def test_an_address_elsewhere_that_cant_be_read_now_is_kept(client: Client) -> None:
    address = "https://files.invalid/styles/ink.safetensors"
    found = inspect(client, address)
    assert (found["reference"], found["repo"], found["name"]) == (address, None, "ink")
    assert set(found["fit"].values()) == {"can't tell"}
    assert "ink.safetensors" in found["problem"]


def test_a_pasted_reference_works_without_the_hub(client: Client, hub: HubProcess) -> None:
    hub.inject(faults.unavailable("info", times=None))
    found = inspect(client, "somebody/asked-while-it-is-down")
    assert found["reference"] == "somebody/asked-while-it-is-down"
    assert (found["kind"], found["sha"], found["files"]) == (None, None, [])
    assert set(found["fit"].values()) == {"can't tell"}
    assert "can't be reached" in found["problem"]


REFUSED = [
    ("", "names no adapter"),
    ("one word", "names no adapter"),
    ("../../etc/passwd", "path on a computer"),
    ("file:///etc/passwd", "only https:"),
    ("javascript:alert(1)", "only https:"),
    ("http://huggingface.co/a/b", "only https:"),
    ("https://user:pass@huggingface.co/a/b", "names no adapter"),
    ("https://huggingface.co/datasets/a/b", "names no adapter"),
    ("someone/style/epoch-9.ckpt", "may run code"),
    ("https://127.0.0.1/a.safetensors", "can't be used"),
    ("https://169.254.169.254/a.safetensors", "can't be used"),
    ("upload:" + "0" * 64, "was not found"),
    ("nobody/nothing-here", "was not found, or it is private"),
    (f"{REPO}/no-such-file.safetensors", "was not found"),
    (known.PRIVATE, "was not found, or it is private"),
    (known.GATED, f"{known.GATED} is gated"),
    (known.GATED_BY_HAND, "asks you to accept terms"),
    (known.NO_SAFETENSORS, "holds no safetensors file"),
    (known.GGUF, "holds no safetensors file"),
    (known.HTML_WEIGHTS, "can't be used"),
    (known.CUT_WEIGHTS, "can't be used"),
    (5, "reference: must be text"),
    (None, "reference: must be text"),
    ("x" * 100_000, "names no adapter"),
]


@pytest.mark.parametrize(("reference", "said"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_is_wrong_is_one_clear_error(client: Client, reference: Any, said: str) -> None:
    with pytest.raises(AppError) as caught:
        inspect(client, reference)
    assert said in str(caught.value)
    assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 1000


def test_an_errors_text_is_no_markup(page: Playground) -> None:
    with Browser(page) as browser, pytest.raises(Said) as caught:
        browser.call("inspect_lora", reference="<img src=x onerror=alert(1)>")
    assert "names no adapter" in str(caught.value) and "<" not in str(caught.value)


# -- a file of one's own -------------------------------------------------------


def upload(browser: Browser, data: bytes, name: str = "mine.safetensors") -> httpx.Response:
    return browser.http.post("/adapter", params={"name": name}, content=data)


def whole(file: Any) -> bytes:
    data: bytes = file.read(0, file.length)
    return data


def test_an_uploaded_adapter_is_read_like_any_other(page: Playground) -> None:
    with Browser(page) as browser:
        answer = upload(browser, whole(SAFE))
        reference = answer.raise_for_status().json()["reference"]
        [found] = browser.call("inspect_lora", reference=reference)
    assert reference == f"upload:{SAFE.sha256}"
    assert (found["reference"], found["sha"]) == (reference, SAFE.sha256)
    assert (found["name"], found["file"], found["rank"]) == ("mine", "mine.safetensors", 4)
    assert found["fit"]["hosted"] == "fits" and found["private"] is True


def test_an_uploaded_file_of_another_family_is_told_so(page: Playground) -> None:
    file = weights("flux.safetensors", dict(list(flux_lora(1).items())[:6]))
    with Browser(page) as browser:
        reference = upload(browser, whole(file)).raise_for_status().json()["reference"]
        [found] = browser.call("inspect_lora", reference=reference)
    assert found["fit"]["hosted"] == "another family"


NOT_SAFETENSORS = {
    "nothing": b"",
    "HTML": b"<!DOCTYPE html><html></html>" * 10,
    "a pickle": b"PK\x03\x04" + bytes(200),
    "half": whole(SAFE)[: SAFE.length // 2],
    "a header only": whole(SAFE)[:100],
    "a long header": (2**40).to_bytes(8, "little") + b"{}",
}


def kept(page: Playground) -> set[str]:
    uploads = page.data_dir / "adapters" / "uploads"
    return {path.name for path in uploads.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data", NOT_SAFETENSORS.values(), ids=NOT_SAFETENSORS)
def test_what_is_no_adapter_is_refused_and_not_kept(page: Playground, data: bytes) -> None:
    before = kept(page)
    with Browser(page) as browser:
        answer = upload(browser, data, "../../<b>odd</b>.safetensors")
    assert answer.status_code == 422
    said = answer.json()
    assert "can't be used" in said["cause"] and said["hint"]
    assert ".." not in said["cause"]
    assert kept(page) == before


def test_a_file_of_any_size_is_refused_by_what_it_declares(page: Playground) -> None:
    """Before a byte of it is sent."""
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=30)
    connection.putrequest("POST", "/adapter?name=big.safetensors")
    connection.putheader("Content-Length", str(MAX_FILE + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert answer.read() == b"Refused: more than %d MiB." % (MAX_FILE >> 20)
    connection.close()


def test_an_upload_that_breaks_off_leaves_nothing(page: Playground) -> None:
    before, address = kept(page), urlsplit(page.url)
    data = whole(SAFE)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST /adapter HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(data)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + data[:50_000])
        wait_for("its beginning", lambda: kept(page) != before)
    wait_for("its end", lambda: kept(page) == before)
    assert "Traceback" not in page.log()


def test_another_sites_page_can_upload_nothing(page: Playground) -> None:
    before = kept(page)
    with page.http(headers={"Origin": "https://elsewhere.example"}) as http:
        assert http.post("/adapter", content=whole(SAFE)).status_code == 403
    assert kept(page) == before


def test_nobody_finds_anothers_upload(public: Playground) -> None:
    file = weights("theirs.safetensors", lora(3, layers=2))
    with Browser(public) as mine, Browser(public) as theirs:
        reference = upload(theirs, whole(file), "theirs.safetensors").json()["reference"]
        assert theirs.call("inspect_lora", reference=reference)[0]["rank"] == 3
        with pytest.raises(Said, match="was not found") as caught:
            mine.call("inspect_lora", reference=reference)
        assert "theirs" not in str(caught.value)
        asked = {"reference": reference, "backend": "hosted"}
        assert "was not found" in mine.serve("adapters", "look_at", asked).json()["cause"]
        with pytest.raises(Said, match="was not found"):
            mine.call("generate", prompt="a fox", loras=[{"path": reference}])


def test_the_same_file_of_two_visitors_is_each_ones_own(public: Playground) -> None:
    file = weights("both.safetensors", lora(2, layers=2))
    with Browser(public) as first, Browser(public) as second:
        for browser, name in ((first, "a.safetensors"), (second, "b.safetensors")):
            reference = upload(browser, whole(file), name).json()["reference"]
        names = [b.call("inspect_lora", reference=reference)[0]["name"] for b in (first, second)]
    assert names == ["a", "b"]
