"""The stand-in's own promises: a fault that struck wrongly would make other tests mean nothing."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.standins import fal_faults as faults
from tests.standins.fal import FalStandIn
from tests.standins.fal_jobs import Timing
from tests.standins.fal_process import ROOT, fal_process
from tests.standins.fal_queue import ENDPOINT
from tests.standins.fault_table import Fault
from tests.standins.ledger import Ledger
from tests.standins.raw_client import KEY, RawClient

# Submit

LORA = {"path": "owner/repo"}
REFUSED: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "no prompt": ({"prompt": None}, ["body", "prompt"], "string_type"),
    "steps": ({"num_inference_steps": 9}, ["body", "num_inference_steps"], "less_than_equal"),
    "images": ({"num_images": 0}, ["body", "num_images"], "greater_than_equal"),
    "preset": ({"image_size": "huge"}, ["body", "image_size"], "one_of"),
    "side": ({"image_size": {"width": 0}}, ["body", "image_size", "width"], "greater_than_equal"),
    "loras": ({"loras": [LORA] * 4}, ["body", "loras"], "sequence_too_long"),
    "scale": (
        {"loras": [LORA, LORA | {"scale": 4.5}]},
        ["body", "loras", 1, "scale"],
        "less_than_equal",
    ),
    "path": ({"loras": [{"scale": 1}]}, ["body", "loras", 0, "path"], "missing"),
    "seed": ({"seed": 1.5}, ["body", "seed"], "int_from_float"),
    "format": ({"output_format": "gif"}, ["body", "output_format"], "one_of"),
}


@pytest.mark.parametrize(("arguments", "loc", "kind"), REFUSED.values(), ids=REFUSED)
def test_a_body_against_the_schema_is_a_422(
    client: RawClient, fal: FalStandIn, arguments: dict[str, Any], loc: list[Any], kind: str
) -> None:
    answer = client.submit(**arguments)
    assert answer.status_code == 422
    (entry,) = answer.json()["detail"]
    assert (entry["loc"], entry["type"]) == (loc, kind)
    assert fal.ledger.paid_jobs() == []


def test_fields_that_fal_does_not_know_are_ignored(client: RawClient, fal: FalStandIn) -> None:
    assert client.submit(negative_prompt="x", loras=[LORA | {"weight_name": "a"}]).is_success


@pytest.mark.parametrize("header", [None, "secret", "Bearer id:secret", "Key"])
def test_without_a_proper_key_nothing_is_accepted(
    client: RawClient, fal: FalStandIn, header: str | None
) -> None:
    client.http.headers.pop("Authorization")
    headers = {"Authorization": header} if header else {}
    answer = client.http.post(f"/{ENDPOINT}", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == 401 and isinstance(answer.json()["detail"], str)
    assert fal.ledger.paid_jobs() == []


def test_only_the_one_endpoint_exists(client: RawClient) -> None:
    assert client.http.post("/fal-ai/other", json={"prompt": "x"}).status_code == 404
    assert client.http.get("/fal-ai/z-image/requests/none/status").status_code == 404


SEVERED: dict[str, tuple[Fault, int | None, bool]] = {
    "before reading": (faults.reset_before_reading("submit"), 0, False),
    "mid-upload": (faults.reset_mid_upload("submit", after=7), 7, False),
    "after accepting": (faults.reset_after_accept("submit"), None, True),
}


@pytest.mark.parametrize(("fault", "read", "accepted"), SEVERED.values(), ids=SEVERED)
def test_the_ledger_says_how_far_a_severed_submit_got(
    client: RawClient, fal: FalStandIn, fault: Fault, read: int | None, accepted: bool
) -> None:
    fal.inject(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.submit()
    (post,) = fal.ledger.posts()
    assert post.fault == fault.kind
    assert (post.accepted, post.received, post.answered) == (accepted, accepted, False)
    assert post.status is None
    assert post.accepted_bytes == (len(post.body) if read is None else read)
    assert len(fal.ledger.paid_jobs()) == len(fal.jobs()) == int(accepted)


def test_a_slow_answer_is_accepted_before_it_is_answered(
    fal: FalStandIn, client: RawClient
) -> None:
    fal.inject(faults.slow("submit", 30))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.submit)
        fal.ledger.wait_until(lambda ledger: bool(ledger.paid_jobs()))
        assert not fal.ledger.posts()[0].answered
        fal.close()
        assert isinstance(waiting.exception(), httpx.HTTPError)


# Poll and result


def test_positions_fall_to_zero_and_rise_when_told() -> None:
    timing = Timing(queue_seconds=3, queue_length=3, job_seconds=1)
    with FalStandIn(timing) as fal, RawClient(fal) as client:
        fal.hold()
        fal.inject(faults.rising_position())
        rising, falling = client.submit().json(), client.submit().json()
        seen = []
        for _ in range(4):
            states = [client.http.get(job["status_url"]).json() for job in (rising, falling)]
            seen.append([state.get("queue_position") for state in states])
            fal.advance(1)
        assert seen == [[1, 2], [2, 1], [3, 0], [None, None]]


def test_the_status_stream_ends_with_the_job(client: RawClient, fal: FalStandIn) -> None:
    url = client.submit().json()["status_url"] + "/stream?logs=1"
    lines = [line for line in client.http.get(url).text.splitlines() if line]
    states = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert states[-1]["status"] == "COMPLETED" and len(states[-1]["logs"]) == 9


def test_a_result_before_its_time_is_refused(client: RawClient, fal: FalStandIn) -> None:
    fal.hold()
    assert client.http.get(client.submit().json()["response_url"]).status_code == 400


def test_a_result_carries_what_it_cost(client: RawClient, fal: FalStandIn) -> None:
    submitted = client.finished(fal, num_images=2, image_size="square_hd")
    headers = client.http.get(submitted["response_url"]).headers
    assert headers["x-fal-billable-units"] == "2.09715"
    assert headers["x-fal-request-id"] == submitted["request_id"]


def test_refusals_that_only_the_result_tells(client: RawClient, fal: FalStandIn) -> None:
    fal.inject(faults.content_policy_violation(), faults.lora_unreadable(1))
    locs = []
    for _ in range(2):
        submitted = client.finished(fal)
        assert "error" not in client.http.get(submitted["status_url"]).json()
        refused = client.http.get(submitted["response_url"])
        assert refused.status_code == 422
        locs.append(refused.json()["detail"][0]["loc"])
    assert locs == [["body", "prompt"], ["body", "loras", 1, "path"]]


def test_a_job_that_never_completes(client: RawClient, fal: FalStandIn) -> None:
    submitted = client.submit().json()
    fal.inject(faults.never_completes(request_id=submitted["request_id"]))
    fal.advance(1e6)
    assert client.http.get(submitted["status_url"]).json()["status"] == "IN_PROGRESS"


def test_a_fault_strikes_its_own_request_only(client: RawClient, fal: FalStandIn) -> None:
    one, two = client.finished(fal), client.finished(fal)
    fal.inject(faults.answer("result", 500, request_id=two["request_id"], times=None))
    fetched = [client.http.get(job["response_url"]).status_code for job in (one, two, two)]
    assert fetched == [200, 500, 500]


def test_a_wrong_date_and_type_leave_the_body_alone(client: RawClient, fal: FalStandIn) -> None:
    skew = (("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Content-Type", "text/plain"))
    fal.inject(faults.with_headers("submit", skew))
    answer = client.submit()
    assert answer.headers["date"].endswith("1970 00:00:00 GMT") and answer.json()["request_id"]
    assert answer.headers.get_list("content-type") == ["text/plain"]


def test_a_key_sent_to_a_foreign_host_is_seen(client: RawClient, fal: FalStandIn) -> None:
    fal.inject(faults.foreign_urls("https://attacker.example"))
    url = client.submit().json()["status_url"]
    trust = ssl.create_default_context(cafile=fal.ca_path)
    httpx.get(url, headers=KEY, verify=trust, proxy=fal.proxy_url)
    assert [e.host for e in fal.ledger.mentioning("id:secret")][1:] == ["attacker.example"]
    assert fal.ledger.connections_to("attacker.example")


# The whole


def test_two_hundred_jobs_at_once(client: RawClient, fal: FalStandIn) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        sizes = list(pool.map(lambda seed: client.image(fal, seed=seed).size, range(200)))
    assert sizes == [(1024, 768)] * 200
    assert len(set(fal.ledger.paid_jobs())) == 200
    assert time.monotonic() - began < 20


def test_a_fault_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault 'explode'"):
        Fault("submit", "explode")


def test_as_a_process_it_outlives_a_killed_client(tmp_path: Path) -> None:
    with fal_process(tmp_path, "--job-seconds", "0") as fal:
        fal.inject(faults.slow("submit", 30))
        submit = f"import httpx; httpx.post({fal.url!r} + '/{ENDPOINT}', json={{'prompt': 'x'}}"
        script = f"{submit}, headers={KEY!r})"
        environment = {"PATH": os.environ["PATH"]} | fal.environment
        with subprocess.Popen([sys.executable, "-c", script], env=environment) as victim:
            while not fal.ledger().paid_jobs():
                assert victim.poll() is None
            victim.kill()
        (paid,) = fal.ledger().paid_jobs()
        assert [job["status"] for job in fal.jobs()] == ["COMPLETED"]
    afterwards = Ledger.read(fal.ledger_path)
    assert afterwards.paid_jobs() == [paid]
    assert [post.answered for post in afterwards.posts()] == [False]
    assert afterwards.submitted_bodies() == [{"prompt": "x"}]


def test_as_a_process_it_ends_by_itself_and_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.standins.fal", "--directory", str(tmp_path)]
    own = subprocess.run([*command, "--lifetime", "0.1"], cwd=ROOT, capture_output=True, timeout=10)
    assert own.returncode == 0 and json.loads(own.stdout)["environment"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
