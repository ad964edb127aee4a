"""What the unmodified `huggingface_hub` raises, retries and waits for, against the stand-in.

These pin down the behaviour of this version of the client that `lora_registry` translates.
"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.standins import hub_faults as faults
from tests.standins.hub import HubStandIn
from tests.standins.hub_client import download, without_stray_request
from tests.standins.hub_repos import READER_TOKEN, STRANGER_TOKEN
from tests.standins.hub_special import GATED, PIXEL_ART, PRIVATE, SEVERAL_FILES


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    without_stray_request(monkeypatch)
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def api(hub: HubStandIn) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGER_TOKEN, 403)])
def test_gated_files(
    hub: HubStandIn, api: HfApi, tmp_path: Path, token: str | bool, status: int
) -> None:
    assert api.model_info(GATED, token=token).gated == "auto"
    with pytest.raises(GatedRepoError) as of_header:
        api.parse_safetensors_file_metadata(GATED, "lora.safetensors", token=token)
    with pytest.raises(GatedRepoError) as of_file:
        download(hub, tmp_path, GATED, "lora.safetensors", token=token)
    assert {e.value.response.status_code for e in (of_header, of_file)} == {status}
    assert isinstance(of_file.value, RepositoryNotFoundError)  # so it is to be caught first
    path = download(hub, tmp_path, GATED, "lora.safetensors", token=READER_TOKEN)
    assert path.stat().st_size == hub.repo(GATED).files[0].length


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGER_TOKEN, 404)])
@pytest.mark.parametrize("repo", ["nobody/nothing", PRIVATE])
def test_missing_and_private_look_alike(
    hub: HubStandIn, api: HfApi, tmp_path: Path, repo: str, token: str | bool, status: int
) -> None:
    with pytest.raises(RepositoryNotFoundError) as of_info:
        api.model_info(repo, token=token)
    with pytest.raises(RepositoryNotFoundError) as of_file:
        download(hub, tmp_path, repo, "lora.safetensors", token=token)
    for caught in (of_info, of_file):
        assert not isinstance(caught.value, GatedRepoError)
        assert caught.value.response.status_code == status


def test_a_bad_token_is_not_a_missing_repository(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        api.model_info(PIXEL_ART, token="hf_revoked")
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_missing_files_and_revisions(hub: HubStandIn, api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        api.parse_safetensors_file_metadata(PIXEL_ART, "none.safetensors")
    with pytest.raises(RemoteEntryNotFoundError):
        download(hub, tmp_path, PIXEL_ART, "none.safetensors")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(PIXEL_ART, revision="0" * 40)
    with pytest.raises(RevisionNotFoundError):
        download(hub, tmp_path, PIXEL_ART, "README.md", revision="0" * 40)


def test_a_limit_is_raised_for_one_repository_and_waited_out_in_listings(
    hub: HubStandIn, api: HfApi, pauses: list[float]
) -> None:
    hub.inject(faults.limited("info", 55), faults.limited("list", 7), faults.limited("list", 9))
    with pytest.raises(HfHubHTTPError, match=r"(?s)429.*Retry after 55 seconds \(0/500 requests"):
        api.model_info(PIXEL_ART)
    assert pauses == []
    assert PIXEL_ART in [m.id for m in api.list_models(author="studio-lumen")]
    assert pauses == [8.0, 10.0]  # so a listing may sleep for five minutes


def test_a_server_error_is_raised_or_tried_again(
    hub: HubStandIn, api: HfApi, pauses: list[float]
) -> None:
    hub.inject(faults.unavailable("info"), faults.unavailable("list", 502))
    with pytest.raises(HfHubHTTPError, match="503"):
        api.model_info(PIXEL_ART)
    list(api.list_models(limit=1))
    assert pauses == [1.0]


def test_a_page_in_place_of_an_answer(hub: HubStandIn, api: HfApi) -> None:
    hub.inject(faults.html("info"), faults.html("list"), faults.truncated_json("info"))
    with pytest.raises(ValueError):
        api.model_info(PIXEL_ART)
    with pytest.raises(ValueError):
        list(api.list_models(limit=1))
    with pytest.raises(ValueError):
        api.model_info(PIXEL_ART)


def test_whoami_and_access(api: HfApi) -> None:
    assert api.whoami(token=READER_TOKEN)["name"] == "reader"
    api.auth_check(GATED, token=READER_TOKEN)
    for token in (False, STRANGER_TOKEN):
        with pytest.raises(GatedRepoError):
            api.auth_check(GATED, token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_unknown")


def test_a_download_goes_on_where_it_was_cut(
    hub: HubStandIn, tmp_path: Path, pauses: list[float]
) -> None:
    """In whole pieces, which are as large as the steps of its progress: ten megabytes."""
    hub.inject(faults.truncated_body("cdn", 11_000_000))
    path = download(hub, tmp_path, SEVERAL_FILES, "film_grain.safetensors")
    assert pauses == [1]
    whole, rest = hub.ledger.requests("cdn")
    assert (whole.sent_bytes, whole.answered) == (11_000_000, False)
    assert (rest.range, rest.status) == (f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-", 206)
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == hub.repo(SEVERAL_FILES).files[-1].sha256
