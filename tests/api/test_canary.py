"""Two keys that must appear nowhere: the server's own and one that a visitor entered.

fal's answers quote the key in every way that a careless service might. Afterwards all that
was said, logged and written is searched for both keys, whole and in pieces.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from tests.api.browser import Browser, Said
from tests.process.playground import Playground, playground, wait_for
from tests.standins import fal_faults as faults
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.fault_table import Fault

SMALL = {"width": 64, "height": 64}
SLOWLY = ("--queue-seconds", "0.03", "--job-seconds", "0.01")  # held, a job is in the queue
PIECE = 10  # characters of a secret that are no coincidence


def new_key() -> str:
    return f"{secrets.token_hex(8)}:{secrets.token_hex(16)}"


SERVER_KEY, VISITOR_KEY = new_key(), new_key()


def needles(key: str) -> set[bytes]:
    """A key as it may turn up: in pieces, backwards, in other alphabets."""
    plain = key.encode()
    shapes = [plain, plain[::-1], plain.hex().encode(), quote(key, safe="").encode()]
    for lead in range(3):  # base64 depends on where in its text the key begins
        encoded = base64.b64encode(b"x" * lead + plain)
        shapes += [encoded[4:-4], base64.urlsafe_b64encode(b"x" * lead + plain)[4:-4]]
    return {shape[at : at + PIECE] for shape in shapes for at in range(len(shape) - PIECE + 1)}


def found_in(text: bytes) -> list[bytes]:
    keys = (SERVER_KEY, VISITOR_KEY)
    return [needle for key in keys for needle in needles(key) if needle in text]


@dataclass(frozen=True)
class Evidence:
    """All that a playground has said and left behind."""

    fal: FalProcess
    page: Playground
    browser: Browser


def echoes(key: str) -> list[tuple[Fault, str]]:
    """Faults whose answers quote what was sent, and what the playground may say of each."""
    seen = f"Authorization: Key {key}"
    field = {"loc": ["body", f"prompt {key}"], "msg": f"bad ({seen})", "type": "value_error"}
    failed = {"error": None, "error_type": None}
    return [
        (faults.answer("submit", 401, {"detail": seen}), "The key was rejected"),
        (faults.answer("submit", 402, {"detail": seen}), "no balance left"),
        (faults.answer("submit", 403, {"detail": f"{seen} lacks scope"}), "may not use the endpoi"),
        (faults.answer("submit", 403, {"detail": f"locked: {key[9:20]}…"}), "no balance left"),
        (faults.answer("submit", 404, {"detail": seen}), "Model unavailable"),
        (faults.answer("submit", 400, {"detail": quote(seen)}), "refused the request"),
        (faults.answer("submit", 422, {"detail": [field]}), "The endpoint rejected"),
        (faults.answer("submit", 500, seen), "its answer was lost"),
        (faults.answer("submit", 200, f"<html>{seen}"), "its answer was lost"),
        (faults.job_fails(error=f"upstream said {seen}"), "failed while making the image"),
        (faults.job_fails(422, {"detail": [field]}, **failed), "The endpoint rejected"),
        (faults.answer("result", 401, {"detail": seen}, times=2), "The key no longer works"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    with fal_process(tmp_path_factory.mktemp("fal"), *SLOWLY) as fal:
        directory = tmp_path_factory.mktemp("page")
        with playground(directory, fal.environment, {"FAL_KEY": SERVER_KEY}) as page:
            with Browser(page) as browser:
                use_every_part(fal, browser, SERVER_KEY)
                enter(browser, VISITOR_KEY)
                use_every_part(fal, browser, VISITOR_KEY)
                yield Evidence(fal, page, browser)


def enter(browser: Browser, key: str) -> None:
    answer = browser.serve("account", "set_key", {"key": key}).json()
    assert "Your key" in answer["html"]
    wrong = browser.serve("account", "set_key", {"key": f"{key} with a space"}).json()
    assert "doesn't look like a fal key" in wrong["error"]


def use_every_part(fal: FalProcess, browser: Browser, key: str) -> None:
    """Jobs that go well, that fail in every way, and that are cancelled; then all the pages."""
    for output_format in ("png", "jpeg", "webp"):
        browser.call("generate", prompt="a", image_size=SMALL, output_format=output_format)
    for fault, said in echoes(key):
        refuse(fal, browser, fault, said)
    cancel(fal, browser)
    look_around(browser, key)


def refuse(fal: FalProcess, browser: Browser, fault: Fault, said: str) -> None:
    fal.inject(fault)
    with pytest.raises(Said) as caught:
        browser.call("generate", prompt=f"{fault.stage} {fault.kind}", image_size=SMALL)
    assert said in str(caught.value)
    fal.clear_faults()


def cancel(fal: FalProcess, browser: Browser) -> None:
    fal.hold()
    started = browser.http.post(
        "/gradio_api/call/v2/generate", json={"prompt": "stop", "image_size": SMALL}
    )
    assert started.status_code == 200
    row = wait_for("the job", lambda: in_state(browser, "stop", "SUBMITTED"))
    assert browser.act("stop", row["id"]) == {}
    wait_for("its end", lambda: in_state(browser, "stop", "CANCELLED"))
    fal.release()
    browser.act("delete", row["id"])


def in_state(browser: Browser, prompt: str, state: str) -> dict[str, Any] | None:
    rows = browser.history(query=prompt)
    return next((row for row in rows if row["status"] == state), None)


def look_around(browser: Browser, key: str) -> None:
    """Every kind of answer, also to requests that carry the key where it doesn't belong."""
    for path in ("/", "/config", "/gradio_api/info", "/theme.css", "/manifest.json"):
        assert browser.http.get(path).status_code == 200
    browser.changes()
    browser.serve("gallery", "list_jobs", {"query": "", "before": None})
    for row in browser.history(limit=200):
        browser.http.get(f"/media/{row['id']}/0")
    images, _receipt = browser.call("generate", prompt="ranges", image_size=SMALL)
    carried = {"Authorization": f"Key {key}", "Cookie": f"key={quote(key)}"}
    file = f"/gradio_api/file={images[0]['path']}"
    ranged = {**carried, "Range": "bytes=0-99"}
    assert browser.http.get(file, headers=ranged).status_code == 206
    for path in ("/nowhere", "/media/x/0", "/gradio_api/file=/etc/passwd", "/gradio_api/deep_link"):
        assert browser.http.get(path, headers=carried).status_code in (403, 404)
    foreign = {**carried, "Origin": "https://elsewhere.example"}
    assert browser.http.post("/recipe", content=b"", headers=foreign).status_code == 403
    assert browser.http.post("/recipe", content=b"?", headers=carried).status_code == 422


# -- the search ----------------------------------------------------------------


def test_the_search_finds_a_key_in_any_shape() -> None:
    for key in (SERVER_KEY, VISITOR_KEY):
        shapes = [key, key[::-1], quote(key), base64.b64encode(b"Key " + key.encode()).decode()]
        assert all(found_in(f"… {shape} …".encode()) for shape in [*shapes, key[-PIECE:]])
    assert not found_in(new_key().encode())


def test_fal_was_given_both_keys(evidence: Evidence) -> None:
    for key in (SERVER_KEY, VISITOR_KEY):
        stages = {exchange.stage for exchange in evidence.fal.ledger().mentioning(key)}
        assert {"submit", "status", "result", "cancel"} <= stages


def test_no_media_request_carried_a_key(evidence: Evidence) -> None:
    for exchange in evidence.fal.ledger().exchanges("media"):
        assert not found_in(repr(exchange).encode())


def test_no_key_in_any_answer(evidence: Evidence) -> None:
    answers = evidence.browser.answers
    assert len(answers) > 100
    assert [hit for answer in answers if (hit := found_in(answer))] == []


def test_no_key_in_the_log(evidence: Evidence) -> None:
    assert found_in(evidence.page.log().encode()) == []
    assert "Traceback" not in evidence.page.log()


def test_no_key_in_any_file(evidence: Evidence) -> None:
    files = [path for path in evidence.page.directory.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".sqlite3", ".sqlite3-wal", ".png", ".jpg", ".webp", ".log"} <= kinds
    assert [path for path in files if found_in(path.read_bytes())] == []


def test_no_key_in_what_an_image_says_of_itself(evidence: Evidence) -> None:
    pictures = list((evidence.page.data_dir / "images").rglob("*.*"))
    assert len(pictures) >= 8
    assert [path for path in pictures if found_in(metadata(path))] == []


def metadata(path: Path) -> bytes:
    """Compressed texts and EXIF as Pillow reads them."""
    with Image.open(path) as image:
        return repr([image.info, dict(image.getexif()), image.getexif().get_ifd(0x8769)]).encode()
