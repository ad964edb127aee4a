"""The unmodified `huggingface_hub` against the stand-in for the Hub.

They show that the stand-in speaks the Hub's wire, and pin down what this version of the client
asks for and follows; `tests/standins/test_hub_refusals.py` is about what it raises.
`HF_ENDPOINT` is read at import, so the endpoint is always passed.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ExpandModelProperty_T, ModelSort_T, RepoFile

from tests.standins import hub_repos, hub_special
from tests.standins.hub import HubStandIn
from tests.standins.hub_client import download, without_stray_request
from tests.standins.hub_ledger import token_hash
from tests.standins.hub_repos import READER_TOKEN, TURBO, Repo
from tests.standins.hub_special import GATED, PIXEL_ART, PRIVATE, SEVERAL_FILES
from tests.standins.hub_weights import lora, weights

ADAPTERS = f"base_model:adapter:{TURBO}"
WANTED: list[ExpandModelProperty_T] = [
    "cardData", "tags", "siblings", "sha", "downloads", "likes", "gated", "private",
    "lastModified", "createdAt", "trendingScore", "widgetData",
]  # fmt: skip
GRAIN = "film_grain.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    without_stray_request(monkeypatch)
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def api(hub: HubStandIn) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


# Listing


def test_a_listing_holds_the_fields_that_were_asked_for(api: HfApi) -> None:
    rows = {m.id: m for m in api.list_models(filter=ADAPTERS, expand=WANTED, sort="likes")}
    pixel = rows[PIXEL_ART]
    assert (pixel.likes, pixel.downloads, pixel.gated, pixel.private) == (1834, 90210, False, False)
    assert pixel.card_data is not None and pixel.card_data["instance_prompt"] == "pixel art"
    assert pixel.tags and ADAPTERS in pixel.tags and "license:apache-2.0" in pixel.tags
    assert pixel.siblings and "pixel_art_zit.safetensors" in [s.rfilename for s in pixel.siblings]
    assert pixel.created_at and pixel.last_modified and len(pixel.sha or "") == 40
    widgets: list[Any] = pixel.widget_data or []
    assert widgets[1]["output"]["url"].endswith("/resolve/main/images/a%20market.png")
    assert (pixel.author, pixel.pipeline_tag, pixel.library_name) == (None, None, None)
    assert not set(hub_special.FOR_BASE) & set(rows) and len(rows) >= 60


@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("likes", "likes"),
        ("downloads", "downloads"),
        ("trending_score", "trending_score"),
        ("created_at", "created_at"),
        ("last_modified", "last_modified"),
    ],
)
def test_a_listing_is_sorted_downwards(api: HfApi, sort: ModelSort_T, field: str) -> None:
    values = [getattr(m, field) for m in api.list_models(expand=WANTED, sort=sort)]
    assert len(set(values)) > 10 and values == sorted(values, reverse=True)


def test_what_trends_is_mature(api: HfApi) -> None:
    found = api.list_models(filter=ADAPTERS, sort="trending_score", limit=3)
    assert tuple(model.id for model in found) == hub_special.MATURE


def ids(found: Any) -> set[str]:
    return {model.id for model in found}


def test_search_author_gated_and_base(api: HfApi) -> None:
    assert PIXEL_ART in ids(api.list_models(search="pixel art turbo"))
    assert not ids(api.list_models(search="no such thing"))
    assert ids(api.list_models(author="nordlicht")) >= {SEVERAL_FILES}
    assert {m.id.split("/")[0] for m in api.list_models(author="nordlicht")} == {"nordlicht"}
    assert ids(api.list_models(gated=True)) == {GATED, hub_special.GATED_BY_HAND}
    assert GATED not in ids(api.list_models(gated=False))
    of_base = ids(api.list_models(filter=f"base_model:adapter:{hub_repos.BASE}"))
    assert of_base > set(hub_special.FOR_BASE)
    licensed = ids(api.list_models(filter=[ADAPTERS, "license:mit"]))
    assert SEVERAL_FILES in licensed and PIXEL_ART not in licensed


@pytest.mark.usefixtures("hub")
def test_paging_gives_every_row_once() -> None:
    with HubStandIn(page_size=7) as hub:
        api = HfApi(endpoint=hub.url, token=False)
        rows = [model.id for model in api.list_models(sort="likes")]
        public = {repo.id for repo in hub.repos() if not repo.private}
        assert len(rows) == len(set(rows)) and set(rows) == public
        assert len(hub.ledger) == -(-len(public) // 7)
        before = len(hub.ledger)
        assert [m.id for m in api.list_models(sort="likes", limit=10)] == rows[:10]
        assert len(hub.ledger) - before == 2


def test_private_repositories_are_listed_for_their_readers(hub: HubStandIn, api: HfApi) -> None:
    assert PRIVATE not in ids(api.list_models(author="papercrane"))
    assert PRIVATE in ids(api.list_models(author="papercrane", token=READER_TOKEN))
    anonymous, known = hub.ledger.requests("list")
    assert (anonymous.authorized, anonymous.token) == (False, None)
    assert (known.authorized, known.token) == (True, token_hash(READER_TOKEN))


def test_one_odd_card_takes_the_whole_listing_from_the_client(hub: HubStandIn, api: HfApi) -> None:
    """So a listing is better parsed without `ModelInfo`."""
    for repo in hub_special.breaking_repos():
        hub.add_repo(repo)
        with pytest.raises(TypeError):
            list(api.list_models(filter=ADAPTERS, expand=["cardData"]))
        hub.remove_repo(repo.id)
    assert ids(api.list_models(author="ferrofluid")) >= set(hub_special.MALFORMED)


# One repository


def test_files_with_sizes_and_hashes(hub: HubStandIn, api: HfApi, tmp_path: Path) -> None:
    info = api.model_info(SEVERAL_FILES, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or ()}
    readme, grain = files["README.md"], files[GRAIN]
    assert readme.lfs is None and (readme.size or 0) > 10 and len(readme.blob_id or "") == 40
    content = download(hub, tmp_path, SEVERAL_FILES, GRAIN).read_bytes()
    assert grain.lfs is not None and grain.size == grain.lfs.size == len(content)
    assert grain.lfs.sha256 == hashlib.sha256(content).hexdigest()


def test_dates_come_with_the_expanded_tree(api: HfApi) -> None:
    tree = api.list_repo_tree(SEVERAL_FILES, recursive=True, expand=True)
    dates = {f.path: f.last_commit for f in tree if isinstance(f, RepoFile)}
    first, last = dates["film_grain_000001250.safetensors"], dates[GRAIN]
    assert first is not None and last is not None and first.date < last.date
    (named,) = api.get_paths_info(SEVERAL_FILES, [GRAIN, "none.bin"], expand=True)
    assert isinstance(named, RepoFile) and named.last_commit == last


def test_folders_are_part_of_the_tree(api: HfApi) -> None:
    top = [entry.path for entry in api.list_repo_tree(PIXEL_ART)]
    assert "images" in top and "images/castle.png" not in top
    below = [entry.path for entry in api.list_repo_tree(PIXEL_ART, "images")]
    assert below == ["images/a market.png", "images/castle.png"]


def test_a_renamed_repository_is_followed(hub: HubStandIn, api: HfApi, tmp_path: Path) -> None:
    info = api.model_info(hub_special.OLD_NAME, files_metadata=True)
    assert info.id == hub_special.NEW_NAME
    moved = [(r.status, r.path) for r in hub.ledger.requests("info")]
    assert moved[0] == (307, f"/api/models/{hub_special.OLD_NAME}")
    path = download(hub, tmp_path, hub_special.OLD_NAME, "ink.safetensors")
    assert path.stat().st_size == hub.repo(hub_special.NEW_NAME).files[0].length


# Headers


def test_a_header_takes_one_range_request(hub: HubStandIn, api: HfApi) -> None:
    metadata = api.parse_safetensors_file_metadata(SEVERAL_FILES, GRAIN)
    assert len(metadata.tensors) == 240 and metadata.metadata == {"ss_output_name": "film_grain"}
    resolved, read = hub.ledger.requests()
    assert (resolved.stage, resolved.status) == ("resolve", 302)
    assert (read.stage, read.status, read.range) == ("cdn", 206, "bytes=0-100000")
    assert read.sent_bytes == 100_001


def test_a_large_header_takes_two(hub: HubStandIn, api: HfApi) -> None:
    api.parse_safetensors_file_metadata(hub_special.LARGE_HEADER, "memory.safetensors")
    first, second = hub.ledger.requests("cdn")
    assert first.range == "bytes=0-100000" and (second.range or "").startswith("bytes=8-")
    assert len(hub.ledger.requests("resolve")) == 2


def test_a_large_file_costs_no_more(hub: HubStandIn, api: HfApi) -> None:
    big = weights("big.safetensors", lora(96, feed_forward=True))
    hub.add_repo(Repo("lakehouse/big", (big,)))
    api.parse_safetensors_file_metadata("lakehouse/big", "big.safetensors")
    assert big.length > 170_000_000
    assert sum(r.sent_bytes for r in hub.ledger.requests("cdn")) <= 100_001


# Downloads


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub: HubStandIn, tmp_path: Path) -> None:
    path = download(hub, tmp_path, PRIVATE, "lora.safetensors", token=READER_TOKEN)
    assert path.stat().st_size == hub.repo(PRIVATE).files[0].length
    stages = [(r.stage, r.method, r.authorized) for r in hub.ledger.requests()]
    assert stages == [("resolve", "HEAD", True), ("cdn", "GET", False)]
    assert hub.ledger.mentioning(READER_TOKEN) == []
    assert f"/repos/{hub.repo(PRIVATE).files[0].sha256}" == hub.ledger.requests("cdn")[0].path


class Bar:
    """As much of `tqdm` as the client needs."""

    made: list["Bar"] = []

    def __init__(self, *, total: int, initial: int, **_: Any) -> None:
        self.total, self.done = total, [initial]
        Bar.made.append(self)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None:
        self.done.append(count)


def test_progress_is_told_to_the_tqdm_class(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4 * 2**20)
    monkeypatch.setattr(Bar, "made", [])
    path = download(hub, tmp_path, SEVERAL_FILES, GRAIN, tqdm_class=Bar)
    (bar,) = Bar.made
    assert len(bar.done) > 3 and sum(bar.done) == path.stat().st_size == bar.total


def test_a_commit_stays_what_it_was(hub: HubStandIn, tmp_path: Path) -> None:
    pinned = hub.repo(SEVERAL_FILES)
    newer = hub.add_repo(Repo(SEVERAL_FILES, (weights(GRAIN, lora(4)),)))
    old = download(hub, tmp_path, SEVERAL_FILES, GRAIN, revision=pinned.sha)
    new = download(hub, tmp_path, SEVERAL_FILES, GRAIN)
    assert newer.sha != pinned.sha and old.parent.name == pinned.sha
    assert new.parent.name == newer.sha and old.stat().st_size > new.stat().st_size


def test_small_files_are_served_by_the_hub_itself(hub: HubStandIn, tmp_path: Path) -> None:
    text = download(hub, tmp_path, hub_special.TRIGGER_IN_PROSE, "README.md").read_text()
    assert "`herbarium sheet`" in text and '"instance_prompt": null' in text
    assert [r.stage for r in hub.ledger.requests()] == ["resolve", "cache", "cache"]


def test_pictures_with_any_name_are_found(hub: HubStandIn, api: HfApi, tmp_path: Path) -> None:
    info: ModelInfo = api.model_info(hub_special.CJK_PICTURES)
    named = [s.rfilename for s in info.siblings or () if s.rfilename.endswith(".png")]
    assert "images/夜の街 01.png" in named and "images/雨 & 灯り #2 100%.png" in named
    for name in named:
        path = download(hub, tmp_path, hub_special.CJK_PICTURES, name)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_xet_is_used_where_the_server_offers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then does `HF_HUB_DISABLE_XET` matter: it is read at import, looked at in each call."""
    with HubStandIn(xet=True) as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        download(hub, tmp_path / "plain", PIXEL_ART, "pixel_art_zit.safetensors")
        assert [r.stage for r in hub.ledger.requests()] == ["resolve", "resolve", "cdn"]
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        with pytest.raises(HfHubHTTPError):
            download(hub, tmp_path / "xet", PIXEL_ART, "pixel_art_zit.safetensors")
        assert "/xet-read-token/" in hub.ledger.requests()[-1].path


# A process of its own


SCRIPT = """
import huggingface_hub
print(huggingface_hub.HfApi().model_info({repo!r}).likes)
"""


def test_the_environment_leads_a_new_process_here(hub: HubStandIn, tmp_path: Path) -> None:
    """Its first call is preceded by a stray one, which may fail."""
    environment = hub.environment | {"HF_HOME": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", SCRIPT.format(repo=PIXEL_ART)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "1834", said.stderr
    stray, info = hub.ledger.requests()
    assert (stray.stage, stray.path, stray.status) == ("harnesses", "/api/agent-harnesses", 404)
    assert info.stage == "info"
