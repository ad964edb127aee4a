"""The server's Hub token opens gated and private adapters, and appears nowhere else.

The Hub's answers quote the token in the ways of a careless service, and lead the client to
other hosts. Afterwards all that was said, sent, logged and written is searched for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api.browser import Browser, Said
from tests.api.test_canary import metadata, needles
from tests.process.playground import KEY, Playground, playground
from tests.standins import hub_faults as faults
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.hub_faults import HubFault, Stage
from tests.standins.hub_ledger import token_hash
from tests.standins.hub_process import HubProcess, hub_process
from tests.standins.hub_repos import TURBO, Repo, Visitor
from tests.standins.hub_weights import lora, weights

TOKEN = f"hf_{secrets.token_hex(17)}"
NEEDLES = needles(TOKEN)
SMALL = {"width": 64, "height": 64}
CARD = {"base_model": TURBO, "instance_prompt": "HSHHSH"}
FILE = "secret-style.safetensors"
GATED, PRIVATE, PUBLIC = (f"papercrane/{name}-tiny" for name in ("gated", "private", "public"))


def repos() -> tuple[Repo, ...]:
    """Each with a file of its own: two of one hash would be one upload."""
    files = [(weights(FILE, lora(rank, layers=2)),) for rank in (2, 3, 4)]
    return (
        Repo(GATED, files[0], CARD, gated="auto"),
        Repo(PRIVATE, files[1], CARD, private=True),
        Repo(PUBLIC, files[2], CARD),
    )


def found_in(text: bytes) -> list[bytes]:
    return [needle for needle in NEEDLES if needle in text]


@dataclass(frozen=True)
class Evidence:
    """All that a playground has said, sent and left behind."""

    fal: FalProcess
    hub: HubProcess
    page: Playground
    browser: Browser
    receipt: dict[str, Any]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    with (
        fal_process(tmp_path_factory.mktemp("fal"), "--job-seconds", "0") as fal,
        hub_process(tmp_path_factory.mktemp("hub")) as hub,
    ):
        hub.add_token(TOKEN, Visitor("the owner", frozenset("*")))
        hub.add_repo(*repos())
        settings = {"FAL_KEY": KEY, "HF_TOKEN": TOKEN}
        fals = fal.environment | fal.proxy_environment  # its storage's hosts are fixed
        with (
            playground(tmp_path_factory.mktemp("page"), fals, hub.environment, settings) as page,
            Browser(page) as browser,
        ):
            receipt = use_adapters(browser)
            look_around(browser)
            for fault in careless(hub):
                meet(hub, browser, fault)
            break_off(hub, browser)
            yield Evidence(fal, hub, page, browser, receipt)


def use_adapters(browser: Browser) -> dict[str, Any]:
    loras = [{"path": repo, "scale": 0.5} for repo in (GATED, PRIVATE, PUBLIC)]
    for _ in range(2):
        images, receipt = browser.call("generate", prompt="a fox", image_size=SMALL, loras=loras)
    browser.http.get(f"/gradio_api/file={images[0]['path']}")
    found: dict[str, Any] = receipt
    return found


def look_around(browser: Browser) -> None:
    """Every way to ask about an adapter, and the pages."""
    for repo in (GATED, PRIVATE, PUBLIC):
        assert browser.call("inspect_lora", reference=repo)[0]["rank"]
        asked = {"reference": repo, "backend": "hosted"}
        assert browser.serve("adapters", "look_at", asked).json()["html"]
    assert browser.call("search_loras", query="tiny")[0]
    assert browser.serve("finder", "find_adapters", {"text": "", "offset": 0}).json()["count"]
    browser.serve("finder", "your_adapters", {"ids": [GATED, PRIVATE]}).raise_for_status()
    for path in ("/", "/config", "/gradio_api/info"):
        assert browser.http.get(path).status_code == 200
    browser.changes()
    for row in browser.history(limit=200):
        browser.http.get(f"/media/{row['id']}/0")


def careless(hub: HubProcess) -> list[HubFault]:
    """Answers that quote the token or lead it elsewhere; each strikes a repository of its own."""
    said = f"Authorization: Bearer {TOKEN}"
    headers = (("X-Error-Message", said),)
    stages: tuple[Stage, ...] = ("info", "resolve", "cdn")
    answers = [
        faults.answer(stage, status, f'{{"error": "{said}"}}'.encode(), headers, times=None)
        for stage in stages
        for status in (400, 401, 403, 404, 500)
    ]
    elsewhere = [
        faults.redirected(stage, f"{hub.cdn_url}/elsewhere", times=None) for stage in stages[:2]
    ]
    return [*answers, *elsewhere]


def meet(hub: HubProcess, browser: Browser, fault: HubFault) -> None:
    """Look at a private adapter and use it while the fault lasts.

    A Hub that only seems to be away stops no job: its adapter's name is passed on as it is.
    """
    repo = f"papercrane/{fault.stage}-{fault.kind}-{fault.status}"
    hub.add_repo(Repo(repo, (weights(FILE, lora(1, layers=1)),), CARD, private=True))
    hub.inject(fault)
    asked = {"reference": repo, "backend": "hosted"}
    shown = browser.serve("adapters", "look_at", asked).raise_for_status().json()
    with suppress(Said):
        browser.call("generate", prompt=repo, image_size=SMALL, loras=[{"path": repo}])
    hub.clear_faults()
    assert "cause" in shown or "slot-problem" in shown["html"]


def break_off(hub: HubProcess, browser: Browser) -> None:
    """A file whose header could be read, and whose bytes then never come."""
    repo = "papercrane/never-whole"
    hub.add_repo(Repo(repo, (weights(FILE, lora(1, layers=1)),), CARD, private=True))
    assert browser.call("inspect_lora", reference=repo)[0]["rank"] == 1
    hub.inject(faults.answer("cdn", 500, f"Bearer {TOKEN}".encode(), times=None))
    with pytest.raises(Said, match="could not be brought"):
        browser.call("generate", prompt=repo, image_size=SMALL, loras=[{"path": repo}])
    hub.clear_faults()


# -- the search ----------------------------------------------------------------


def test_the_search_finds_the_token_in_any_shape() -> None:
    for shape in (TOKEN, TOKEN[::-1], TOKEN.encode().hex(), TOKEN[-10:]):
        assert found_in(f"… {shape} …".encode())
    assert not found_in(f"hf_{secrets.token_hex(17)}".encode())


def test_the_hub_was_shown_the_token(evidence: Evidence) -> None:
    requests = evidence.hub.ledger().requests("list", "info", "resolve")
    assert {r.stage for r in requests if r.token == token_hash(TOKEN)} == {
        "list",
        "info",
        "resolve",
    }


def test_the_hubs_cdn_was_not(evidence: Evidence) -> None:
    requests = evidence.hub.ledger().requests("cdn", "unknown")
    assert len([r for r in requests if r.answered]) > 3
    assert [r for r in requests if r.authorized] == []
    assert [r for r in evidence.hub.ledger().requests() if found_in(repr(r).encode())] == []


def test_fal_got_addresses_of_its_own_storage(evidence: Evidence) -> None:
    posted = evidence.fal.ledger().submitted_bodies()
    bodies = [body for body in posted if body["prompt"] == "a fox"]
    assert len(bodies) == 2
    for body in bodies:
        gated, private, public = (row["path"] for row in body["loras"])
        for address in (gated, private):
            assert address.startswith("https://v3.fal.media/") and "?" not in address
        assert public.startswith(f"https://huggingface.co/{PUBLIC}/resolve/")
    assert bodies[0]["loras"] == bodies[1]["loras"]
    assert len(evidence.fal.ledger().uploads()) == 2, "each file once"


def test_no_token_on_the_way_to_fal(evidence: Evidence) -> None:
    exchanges = evidence.fal.ledger().exchanges()
    assert {"submit", "upload", "token", "status"} <= {e.stage for e in exchanges}
    assert [e.path for e in exchanges if found_in(repr(e).encode())] == []


def test_the_receipt_names_what_was_used(evidence: Evidence) -> None:
    loras = evidence.receipt["loras"]
    assert [(row["path"], row["file"]) for row in loras] == [
        (repo, FILE) for repo in (GATED, PRIVATE, PUBLIC)
    ]
    assert [row["sha"] for row in loras] == [repo.sha for repo in repos()]


def test_no_token_in_any_answer(evidence: Evidence) -> None:
    answers = evidence.browser.answers
    assert len(answers) > 100
    assert [hit for answer in answers if (hit := found_in(answer))] == []


def test_no_token_in_the_log(evidence: Evidence) -> None:
    assert found_in(evidence.page.log().encode()) == []
    assert "Traceback" not in evidence.page.log()


def test_no_token_in_any_file(evidence: Evidence) -> None:
    """History rows, caches of the Hub's answers, copies of adapters, images."""
    files = [path for path in evidence.page.directory.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".sqlite3", ".sqlite3-wal", ".png", ".log", ".json", ".safetensors"} <= kinds
    assert [path for path in files if found_in(path.read_bytes())] == []


def test_no_token_in_what_an_image_says_of_itself(evidence: Evidence) -> None:
    pictures = list((evidence.page.data_dir / "images").rglob("*.*"))
    assert len(pictures) >= 2
    assert [path for path in pictures if found_in(metadata(path))] == []


def test_nothing_of_a_closed_repository_is_kept_but_its_copy(evidence: Evidence) -> None:
    """What is remembered of the Hub on disk may be shown to anybody."""
    cache = evidence.page.data_dir / "adapters" / "cache"
    kept = [path.read_text("utf-8") for path in cache.rglob("*.json")]
    assert any(PUBLIC in text for text in kept)
    assert [text for text in kept if PRIVATE in text] == []
