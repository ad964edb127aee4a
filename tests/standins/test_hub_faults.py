"""Each fault of the stand-in Hub does what it says, where and as often as it says."""

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.standins import hub_faults as faults
from tests.standins.hub import HubStandIn
from tests.standins.hub_client import HubClient
from tests.standins.hub_faults import HubFault
from tests.standins.hub_repos import Repo, RepoFile
from tests.standins.hub_special import PIXEL_ART, SEVERAL_FILES

INFO = f"/api/models/{PIXEL_ART}"
FILE = ("mossgarden/plain", "a.safetensors")
CONTENT = bytes(range(250)) * 40


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        stand_in.add_repo(Repo(FILE[0], (RepoFile(FILE[1], CONTENT),)))
        yield stand_in


@pytest.fixture
def client(hub: HubStandIn) -> Iterator[HubClient]:
    asked = HubClient(hub)
    with asked.http:
        yield asked


def test_a_fault_strikes_its_stage_its_path_and_its_times(
    hub: HubStandIn, client: HubClient
) -> None:
    hub.inject(faults.unavailable("info", times=2, path="film-grain"))
    others = f"/api/models/{SEVERAL_FILES}"
    paths = [INFO, others, others, others, "/api/models?limit=1"]
    assert [client.get(path).status_code for path in paths] == [200, 503, 503, 200, 200]
    assert [r.fault for r in hub.ledger.requests()] == [None, "answer", "answer", None, None]


def test_down_is_down_until_it_is_over(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.unavailable("*", 502, times=None), faults.html("list"))
    assert [client.get(path).status_code for path in (INFO, "/api/models", INFO)] == [502, 200, 502]
    hub.clear_faults()
    assert client.get(INFO).status_code == 200


@pytest.mark.parametrize(("stage", "bucket"), [("info", "api"), ("resolve", "resolvers")])
def test_limits_are_told_as_the_hub_tells_them(
    hub: HubStandIn, client: HubClient, stage: faults.Stage, bucket: str
) -> None:
    path = INFO if stage == "info" else f"/{PIXEL_ART}/resolve/main/README.md"
    hub.inject(faults.limited(stage, 17), faults.limited(stage, 17, retry_after="99"))
    bare, with_retry = client.get(path), client.get(path)
    assert bare.status_code == with_retry.status_code == 429
    assert bare.headers["ratelimit"] == f'"{bucket}";r=0;t=17'
    assert "retry-after" not in bare.headers and with_retry.headers["retry-after"] == "99"
    assert len(bare.headers.get_list("ratelimit")) == 1


def test_pages_in_place_of_json_and_weights(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.html("info"), faults.html("cdn", 200))
    page, weights = client.get(INFO), client.file(*FILE)
    for answer in (page, weights):
        assert answer.status_code == 200 and answer.text.startswith("<!DOCTYPE html>")
        assert answer.headers["content-type"].startswith("text/html")


def test_json_that_stops_half_way(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.truncated_json("info"))
    answer = client.get(INFO)
    assert answer.status_code == 200 and answer.text.startswith('{"_id"')
    with pytest.raises(ValueError):
        answer.json()


def test_redirects_to_anywhere(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.redirected("resolve", "http://169.254.169.254/latest"))
    answer = client.get(f"/{PIXEL_ART}/resolve/main/README.md")
    assert (answer.status_code, answer.headers["location"]) == (
        302,
        "http://169.254.169.254/latest",
    )


def test_headers_replaced_and_taken_away(hub: HubStandIn, client: HubClient) -> None:
    wrong = (("X-Repo-Commit", ""), ("X-Linked-Size", "1"))
    hub.inject(faults.with_headers("resolve", wrong))
    headers = client.head(f"/{FILE[0]}/resolve/main/{FILE[1]}").headers
    assert "x-repo-commit" not in headers and headers["x-linked-size"] == "1"


def test_a_range_that_is_ignored(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.ignores_range())
    answer = client.file(*FILE, "bytes=0-9")
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_body_cut_short(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.truncated_body("cdn", 1234))
    with pytest.raises(httpx.RemoteProtocolError, match="received 1234 bytes, expected 10000"):
        client.file(*FILE)
    hub.ledger.wait_until(lambda ledger: ledger.requests("cdn")[0].sent_bytes == 1234)


@pytest.mark.parametrize("fault", [faults.reset("cdn"), faults.reset_midway("cdn", 100)])
def test_resets(hub: HubStandIn, client: HubClient, fault: HubFault) -> None:
    hub.inject(fault)
    with pytest.raises(httpx.ReadError):
        client.file(*FILE)
    assert not hub.ledger.requests("cdn")[0].answered
    assert client.file(*FILE).content == CONTENT


def test_slow_headers(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.slow("info", 0.2), faults.slow("info", 9))
    began = time.monotonic()
    assert client.get(INFO).status_code == 200
    assert time.monotonic() - began >= 0.2
    with pytest.raises(httpx.ReadTimeout):
        client.get(INFO, timeout=0.1)


def test_a_throttled_body(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.throttled("cdn", 40_000))
    began = time.monotonic()
    assert client.file(*FILE).content == CONTENT
    assert 0.2 <= time.monotonic() - began < 2


def test_an_answer_that_hangs_until_it_is_released(hub: HubStandIn, client: HubClient) -> None:
    hub.inject(faults.hang("info"))
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(client.get(INFO).status_code))
    asking.start()
    hub.ledger.wait_until(lambda ledger: len(ledger) == 1)
    assert client.get("/api/models?limit=1").status_code == 200 and statuses == []
    hub.release()
    asking.join(5)
    assert statuses == [200]


def test_the_stand_in_ends_although_somebody_waits(hub: HubStandIn) -> None:
    hub.inject(faults.hang("info"), faults.slow("info", 60))
    with HubClient(hub).http as http:
        failed: list[Exception] = []

        def ask() -> None:
            try:
                http.get(INFO)
            except httpx.HTTPError as exc:
                failed.append(exc)

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        hub.ledger.wait_until(lambda ledger: len(ledger) == 2)
        hub.close()
        for thread in asking:
            thread.join(5)
    assert len(failed) == 2
