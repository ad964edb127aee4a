"""The stand-in Hub on the wire: what it answers, and what it notes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins import hub_files, hub_special
from tests.standins.hub import LEDGER_FILE, HubStandIn
from tests.standins.hub_client import HubClient, query_of
from tests.standins.hub_ledger import HubLedger, token_hash
from tests.standins.hub_repos import READER_TOKEN, STRANGER_TOKEN, Repo, RepoFile, Visitor
from tests.standins.hub_special import GATED, PIXEL_ART, PRIVATE, SEVERAL_FILES

WEIGHTS = "pixel_art_zit.safetensors"


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def client(hub: HubStandIn) -> Iterator[HubClient]:
    asked = HubClient(hub)
    with asked.http:
        yield asked


# The API


def test_expand_returns_the_named_fields_and_no_others(client: HubClient) -> None:
    path = f"/api/models/{PIXEL_ART}"
    fields = client.get(path, params={"expand[]": ["likes", "gated", "baseModels"]}).json()
    assert set(fields) == {"_id", "id", "likes", "gated", "baseModels"}
    assert fields["baseModels"]["relation"] == "adapter"
    (row,) = client.get("/api/models", params={"expand": "sha", "limit": 1}).json()
    assert set(row) == {"_id", "id", "sha"}
    refused = client.get(path, params={"expand": "secrets"})
    assert refused.status_code == 400 and "expected one of" in refused.json()["error"]


def test_without_expand_a_listing_says_less_than_a_repository(client: HubClient) -> None:
    (row,) = client.get("/api/models", params={"limit": 1}).json()
    info = client.get(f"/api/models/{PIXEL_ART}").json()
    assert {"likes", "tags", "modelId"} <= set(row) and not {"siblings", "sha"} & set(row)
    assert {"siblings", "sha", "cardData", "gated"} <= set(info) and "trendingScore" not in info


@pytest.mark.parametrize("query", [{"sort": "beauty"}, {"limit": "0"}, {"limit": "many"}])
def test_wrong_parameters_are_refused(client: HubClient, query: dict[str, str]) -> None:
    assert client.get("/api/models", params=query).status_code == 400


def test_pages_survive_a_change_between_them(hub: HubStandIn, client: HubClient) -> None:
    first = client.get("/api/models", params={"sort": "likes", "limit": 30})
    hub.add_repo(Repo("someone/at-the-top", likes=10**6))
    seen = [row["id"] for row in first.json()]
    seen += [row["id"] for row in client.get(first.links["next"]["url"]).json()]
    assert len(seen) == len(set(seen)) == 60


@pytest.mark.parametrize("direction", ["-1", "1"])
@pytest.mark.parametrize("size", [1, 7, 79, 80, 1000])
def test_every_size_of_page_gives_the_same_rows(
    client: HubClient, size: int, direction: str
) -> None:
    query = {"sort": "downloads", "direction": direction}
    pages = client.pages(limit=size, **query)
    assert all(len(page) == size for page in pages[:-1]) and pages[-1]
    assert [row for page in pages for row in page] == client.pages(**query)[0]


def test_a_bad_cursor_is_refused(client: HubClient) -> None:
    for cursor in ("%%%", "NQ==", "W10="):  # no Base64; 5; []
        answer = client.get("/api/models", params={"cursor": cursor})
        assert answer.status_code == 400


def test_the_tree_is_paged_where_it_is_expanded(hub: HubStandIn, client: HubClient) -> None:
    files = tuple(RepoFile(f"images/{n:03}.jpg", b"x") for n in range(120))
    hub.add_repo(Repo("mossgarden/album", files))
    path = "/api/models/mossgarden/album/tree/main"
    answer = client.get(path, params={"recursive": "true", "expand": "true"})
    assert len(answer.json()) == 50 and "next" in answer.links
    assert len(client.get(path, params={"recursive": "true"}).json()) == 123
    assert client.get(f"{path}/nowhere").headers["x-error-code"] == "EntryNotFound"


def test_other_names_lead_to_the_proper_one(client: HubClient) -> None:
    old = hub_special.OLD_NAME
    moved = client.get(f"/api/models/{old}/revision/main?blobs=true")
    assert moved.status_code == 307
    new = hub_special.NEW_NAME
    assert moved.headers["location"] == f"/api/models/{new}/revision/main?blobs=true"
    file = client.head(f"/{old}/resolve/main/ink.safetensors?download=true")
    assert file.headers["location"] == f"/{new}/resolve/main/ink.safetensors?download=true"
    assert client.get(f"/api/models/{PIXEL_ART.lower()}").status_code == 307


def test_a_name_that_is_taken_again_leads_there(hub: HubStandIn, client: HubClient) -> None:
    hub.rename(SEVERAL_FILES, "nordlicht/grain")
    assert client.get(f"/api/models/{SEVERAL_FILES}").status_code == 307
    hub.add_repo(Repo(SEVERAL_FILES, likes=1))
    assert client.get(f"/api/models/{SEVERAL_FILES}").json()["likes"] == 1


def test_rate_limits_are_told_in_every_answer(client: HubClient) -> None:
    told = client.get("/api/models/nobody/nothing").headers
    assert told["ratelimit"].startswith('"api";r=499;t=')
    assert told["ratelimit-policy"] == '"fixed window";"api";q=500;w=300'
    file = client.head(f"/{PIXEL_ART}/resolve/main/{WEIGHTS}").headers
    assert file["ratelimit"].startswith('"resolvers";r=2999;')


def test_a_quota_ends() -> None:
    with HubStandIn(quota=2) as hub, HubClient(hub).http as http:
        statuses = [http.get(f"/api/models/{PIXEL_ART}").status_code for _ in range(3)]
        refused = http.get(f"/api/models/{PIXEL_ART}")
    assert statuses == [200, 200, 429]
    assert refused.headers["ratelimit"].startswith('"api";r=0;t=')
    assert "retry-after" not in refused.headers


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "GatedRepo"), (STRANGER_TOKEN, 403, "GatedRepo"), ("hf_bad", 401, "GatedRepo")],
)
def test_gated_files_are_refused(
    client: HubClient, token: str | None, status: int, code: str
) -> None:
    refused = client.get(f"/{GATED}/resolve/main/lora.safetensors", token)
    assert (refused.status_code, refused.headers["x-error-code"]) == (status, code)
    assert "restricted" in refused.headers["x-error-message"]
    assert client.get(f"/api/models/{GATED}").status_code == 200


def test_tokens_open_what_they_are_for(hub: HubStandIn, client: HubClient) -> None:
    hub.add_token("hf_mine", Visitor("mine", frozenset([GATED])))
    hub.add_token("hf_author", Visitor(PRIVATE.partition("/")[0]))
    gated, private = (f"/{repo}/resolve/main/lora.safetensors" for repo in (GATED, PRIVATE))
    assert client.get(gated, "hf_mine").status_code == 302
    assert client.get(private, "hf_mine").headers["x-error-code"] == "RepoNotFound"
    assert client.get(private, "hf_author").status_code == 302
    assert client.get("/api/models", "hf_nobodys").status_code == 401


# Files


def test_a_big_file_is_on_the_cdn(hub: HubStandIn, client: HubClient) -> None:
    resolved = client.head(f"/{PIXEL_ART}/resolve/main/{WEIGHTS}")
    file = hub.repo(PIXEL_ART).files[0]
    assert resolved.status_code == 302 and resolved.content == b""
    assert resolved.headers["x-repo-commit"] == hub.repo(PIXEL_ART).sha
    assert resolved.headers["x-linked-size"] == str(file.length)
    assert resolved.headers["x-linked-etag"] == f'"{file.sha256}"'
    address = resolved.headers["location"]
    assert address.startswith(f"{hub.cdn_url}/repos/{file.sha256}?")
    assert WEIGHTS in query_of(address)["response-content-disposition"][0]
    assert client.head(address).headers["etag"] == f'"{file.sha256}"'
    assert [request.sent_bytes for request in hub.ledger.requests()] == [0, 0]


def test_the_cdn_serves_signed_addresses_only(hub: HubStandIn, client: HubClient) -> None:
    address = client.head(f"/{PIXEL_ART}/resolve/main/{WEIGHTS}").headers["location"]
    sha256 = hub.repo(PIXEL_ART).files[0].sha256
    for wrong in (f"{hub.cdn_url}/repos/{sha256}", address[:-4] + "0000", address + "0"):
        assert client.get(wrong, READER_TOKEN).status_code == 403
    later = address.replace("Expires=1", "Expires=2")
    assert client.get(later).status_code == 403


def test_addresses_on_the_cdn_expire(client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_files, "VALID_FOR", -1)
    assert client.file(PIXEL_ART, WEIGHTS).status_code == 403


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        (None, 200, 0, 14),
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, 14),
        ("bytes=-3", 206, 11, 14),
        ("bytes=12-99", 206, 12, 14),
        ("bytes=0-1,4-5", 200, 0, 14),
        ("lines=1-2", 200, 0, 14),
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.txt"])
def test_ranges(
    hub: HubStandIn,
    client: HubClient,
    name: str,
    asked: str | None,
    status: int,
    start: int,
    end: int,
) -> None:
    size = 14 if name == "a.safetensors" else None
    body = b"0123456789" if size else b"0123456789\0\0\0\0"
    hub.add_repo(Repo("mossgarden/ranges", (RepoFile(name, body, size),)))
    answer = client.file("mossgarden/ranges", name, asked)
    assert (answer.status_code, answer.content) == (status, b"0123456789\0\0\0\0"[start:end])
    told = f"bytes {start}-{end - 1}/14" if status == 206 else None
    assert answer.headers.get("content-range") == told
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_range_past_the_end_is_refused(client: HubClient) -> None:
    answer = client.file(PIXEL_ART, "README.md", "bytes=999999-")
    assert answer.status_code == 416
    assert answer.headers["content-range"].startswith("bytes */")


def test_pictures_are_pictures(hub: HubStandIn, client: HubClient) -> None:
    big = client.file(PIXEL_ART, "images/a market.png")
    assert big.headers["content-type"] == "image/png" and big.content.startswith(b"\x89PNG")
    assert [r.stage for r in hub.ledger.requests()] == ["resolve", "cdn"]
    small = next(
        (repo.id, file.name) for repo in hub.repos() for file in repo.files if file.suffix == ".jpg"
    )
    shown = client.file(*small)
    assert shown.headers["content-type"] == "image/jpeg" and shown.content.startswith(b"\xff\xd8")
    assert [r.stage for r in hub.ledger.requests()][2:] == ["resolve", "cache"]


def test_a_file_is_found_at_its_commit_only(hub: HubStandIn, client: HubClient) -> None:
    pinned = hub.file_url(SEVERAL_FILES, "film_grain.safetensors")
    first = hub.repo(SEVERAL_FILES).sha
    assert f"/resolve/{first}/" in pinned
    hub.add_repo(Repo(SEVERAL_FILES, (RepoFile("other.safetensors", b"x"),)))
    assert client.get(pinned).status_code == 302
    gone = client.get(hub.file_url(SEVERAL_FILES, "film_grain.safetensors", "main"))
    assert gone.headers["x-error-code"] == "EntryNotFound"
    unknown = client.get(hub.file_url(SEVERAL_FILES, "other.safetensors", "0" * 40))
    assert unknown.headers["x-error-code"] == "RevisionNotFound"


def test_likes_are_no_commit_and_a_word_on_the_card_is() -> None:
    assert Repo("a/b", likes=1).sha == Repo("a/b", likes=2).sha
    assert len({Repo("a/b", card=card).sha for card in ({}, {"license": "mit"}, None)}) == 2
    assert Repo("a/b", (RepoFile("x", b"1"),)).sha != Repo("a/b", (RepoFile("x", b"2"),)).sha


# The ledger


def test_the_ledger_notes_what_matters(hub: HubStandIn, client: HubClient) -> None:
    path = f"/{PRIVATE}/resolve/main/lora.safetensors?download=true"
    client.get(path, READER_TOKEN, headers={"Range": "bytes=0-99"}, follow_redirects=True)
    resolved, read = hub.ledger.requests()
    assert (resolved.method, resolved.path, resolved.query) == ("GET", *path.split("?"))
    assert resolved.authorized and resolved.token == token_hash(READER_TOKEN)
    assert not read.authorized and (read.range, read.sent_bytes) == ("bytes=0-99", 100)
    assert hub.ledger.with_token(READER_TOKEN) == [resolved]
    assert READER_TOKEN not in json.dumps(hub.ledger.rows())
    client.get("/api/models", params={"search": READER_TOKEN})
    assert [r.stage for r in hub.ledger.mentioning(READER_TOKEN)] == ["list"]


def test_unknown_paths_are_noted(hub: HubStandIn, client: HubClient) -> None:
    assert client.get("/api/agent-harnesses").status_code == 404
    assert client.get("/settings/tokens").status_code == 404
    assert [r.stage for r in hub.ledger.requests()] == ["harnesses", "unknown"]


def test_the_ledger_outlives_the_stand_in(tmp_path: Path) -> None:
    with HubStandIn(directory=tmp_path) as hub, HubClient(hub).http as http:
        http.get(f"/api/models/{PIXEL_ART}").raise_for_status()
        hub.ledger.wait_until(lambda ledger: ledger.requests()[-1].answered)
    kept = HubLedger.read(tmp_path / LEDGER_FILE).requests()
    assert kept == hub.ledger.requests() and kept[0].sent_bytes > 100
