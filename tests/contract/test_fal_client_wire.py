"""The unmodified `fal_client` against the stand-in for fal.

Half of it shows that the stand-in speaks fal's wire, the other half pins down what this version
of the client does when things go wrong, which is why the playground sends its own submit POST.
`fal_client` reads its hosts when it is imported, so each test runs it in a process of its own.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.standins import fal_faults as faults
from tests.standins.fal import FalStandIn, closed_port
from tests.standins.fal_client_script import KEY, Way, run
from tests.standins.fal_jobs import Timing
from tests.standins.fal_queue import Behaviour
from tests.standins.fault_table import Fault

TIMING = Timing(queue_seconds=3, queue_length=3, job_seconds=4)
BOTH_WAYS = pytest.mark.parametrize("way", ["hosts", "proxy"])


@pytest.fixture
def fal() -> Iterator[FalStandIn]:
    """Time stands still until a test lets it pass."""
    with FalStandIn(TIMING, key=KEY) as stand_in:
        stand_in.hold()
        yield stand_in


SUBMIT = 'client.submit(ENDPOINT, {"prompt": "a cat"}).request_id'


def submit(fal: FalStandIn, way: Way = "hosts") -> str:
    request_id: str = run(fal, f"say({SUBMIT})", way)
    return request_id


# The stand-in speaks fal's wire


@BOTH_WAYS
def test_subscribe_follows_a_job_to_its_result(fal: FalStandIn, way: Way) -> None:
    arguments = {"prompt": "a cat – 猫", "num_images": 2, "image_size": "square"}
    said = run(
        fal,
        f"""
updates = []
def note(update):
    updates.append(shown(update))
    advance(1)
result = client.subscribe(ENDPOINT, {arguments!r}, with_logs=True, interval=0.001,
                          on_queue_update=note)
say([updates, result])
""",
        way,
    )
    updates, result = said
    assert [(name, v.get("position")) for name, v in updates] == [
        *(("Queued", position) for position in (2, 1, 0)),
        *[("InProgress", None)] * 4,
        ("Completed", None),
    ]
    assert [v["logs"][-1]["message"] for _, v in updates[3:]] == [
        "started", "step 2/8", "step 4/8", "step 6/8", "step 8/8",
    ]  # fmt: skip
    assert updates[-1][1]["metrics"] == {"inference_time": 4}
    assert [(i["width"], i["height"]) for i in result["images"]] == [(512, 512)] * 2
    assert result["seed"] > 2**53 and int(float(result["seed"])) != result["seed"]
    assert fal.ledger.submitted_bodies() == [arguments]
    assert len(fal.ledger.paid_jobs()) == 1
    assert fal.ledger.posts()[0].mentions(f"Key {KEY}")
    fal.ledger.wait_until(lambda ledger: all(e.answered for e in ledger.exchanges()))


@BOTH_WAYS
def test_status_result_and_cancel_by_request_id(fal: FalStandIn, way: Way) -> None:
    ask = "say(shown(client.status(ENDPOINT, {!r}, with_logs={})))"
    waiting, wanted = submit(fal, way), submit(fal, way)
    assert run(fal, ask.format(waiting, True), way) == ["Queued", {"position": 2}]
    fal.advance(2)
    assert run(fal, ask.format(waiting, True), way) == ["Queued", {"position": 0}]
    assert run(fal, f"say(client.cancel(ENDPOINT, {waiting!r}))", way) is None
    assert [e.status for e in fal.ledger.cancels()] == [202]
    fal.finish(wanted)
    assert run(fal, f"say(client.result(ENDPOINT, {wanted!r}))", way)["prompt"] == "a cat"
    status, values = run(fal, ask.format(waiting, False), way)
    assert status == "Completed" and values["error_type"] == "client_cancelled"
    assert {e.path.split("/requests/")[0] for e in fal.ledger.exchanges("status")} == {
        "/fal-ai/z-image"
    }


def test_the_proxy_way_reaches_fal_by_its_own_names(fal: FalStandIn) -> None:
    submit(fal, "proxy")
    assert [c.listener for c in fal.ledger.connections_to("queue.fal.run")] == ["tunnel", "tls"]
    assert fal.ledger.posts()[0].host == "queue.fal.run"


def test_the_async_client_works_as_well(fal: FalStandIn) -> None:
    script = """
async def main():
    return await fal_client.AsyncClient(key=KEY).subscribe(
        ENDPOINT, {"prompt": "x"}, interval=0.001, on_queue_update=lambda _: advance(9))
say(asyncio.run(main()))
"""
    assert len(run(fal, script)["images"]) == 1


UPLOAD = """
expiry = fal_client.client.StorageSettings(expires_in="1h")
say(client.upload(b"weights" * 1000, "application/octet-stream", "a.safetensors", lifecycle=expiry))
"""


def test_an_upload_goes_to_the_cdn_with_its_expiry(fal: FalStandIn) -> None:
    url = run(fal, UPLOAD, "proxy")
    assert url.startswith("https://v3.fal.media/") and url.endswith("/a.safetensors")
    (file,) = fal.files().values()
    assert file.body == b"weights" * 1000
    assert json.loads(file.lifecycle or "") == {"expiration_duration_seconds": 3600}
    assert [e.host for e in fal.ledger.uploads()] == ["v3.fal.media"]
    assert not fal.ledger.uploads()[0].mentions(KEY)


def test_an_upload_falls_back_to_the_older_storage(fal: FalStandIn) -> None:
    fal.inject(faults.answer("upload", 500))
    run(fal, UPLOAD, "proxy")
    assert [(e.host, e.method) for e in fal.ledger.uploads()] == [
        ("v3.fal.media", "POST"),
        ("rest.fal.ai", "PUT"),
    ]


def test_a_large_upload_comes_in_parts(fal: FalStandIn) -> None:
    script = """
fal_client.client.MULTIPART_THRESHOLD, fal_client.client.MULTIPART_CHUNK_SIZE = 1000, 400
say(client.upload(bytes(range(250)) * 5, "application/octet-stream", "big.bin"))
"""
    run(fal, script, "proxy")
    assert [file.body for file in fal.files().values()] == [bytes(range(250)) * 5]
    assert len(fal.ledger.uploads()) == 4


def test_cancelling_says_what_became_of_it(fal: FalStandIn) -> None:
    running, unknown = submit(fal), "00000000-0000-0000-0000-000000000000"
    fal.advance(TIMING.queue_seconds)
    cancel = "say(caught(lambda: client.cancel(ENDPOINT, {!r})))"
    assert run(fal, cancel.format(running)) == {"value": None}
    assert fal.jobs()[0]["status"] == "IN_PROGRESS"  # signalled, not stopped
    fal.finish(running)
    late, missing = run(fal, cancel.format(running)), run(fal, cancel.format(unknown))
    assert (late["status"], json.loads(late["said"])) == (400, {"status": "ALREADY_COMPLETED"})
    assert (missing["status"], json.loads(missing["said"])) == (404, {"status": "NOT_FOUND"})


# What this fal_client does that costs money or loses work

RESUBMITTED = {
    "dropped after the job was accepted": (faults.reset_after_accept("submit"), 2),
    "dropped before the body was read": (faults.reset_before_reading("submit"), 1),
    "dropped within the body": (faults.reset_mid_upload("submit", after=5), 1),
    "answer too late": (faults.slow("submit", 5), 2),
    "408": (faults.answer("submit", 408, {"detail": "Timeout"}), 1),
    "409": (faults.answer("submit", 409, {"detail": "Conflict"}), 1),
    "429, told to wait for an hour": (faults.too_many_requests("3600"), 1),
    "502 of a proxy": (faults.html("submit", 502), 1),
}


@pytest.mark.parametrize(("fault", "paid"), RESUBMITTED.values(), ids=RESUBMITTED)
def test_submit_posts_again(fal: FalStandIn, fault: Fault, paid: int) -> None:
    fal.inject(fault)
    began = time.monotonic()
    run(fal, f"say({SUBMIT})", timeout=0.5)
    assert len(fal.ledger.posts()) == 2
    assert len(fal.ledger.paid_jobs()) == paid
    assert time.monotonic() - began < 10


def test_submit_posts_ten_times_for_one_call(fal: FalStandIn) -> None:
    fal.inject(faults.reset_after_accept("submit", times=None))
    quick = "fal_client.client.BASE_DELAY = 0.001\n"
    said = run(fal, f"{quick}say(caught(lambda: {SUBMIT}))")
    assert said["error"] in ("ReadError", "RemoteProtocolError")
    assert len(fal.ledger.paid_jobs()) == 10


ACCEPTED_AS_THE_END = {
    "500": faults.answer("submit", 500, {"detail": "Internal"}),
    "503 of fal itself": faults.infrastructure_error("submit", 503, "runner_disconnected"),
    "HTML with 200": faults.html("submit", 200, times=1),
    "no request_id": faults.without_request_id(),
    "half of the JSON": faults.truncated_json("submit"),
    "401": faults.rejected_key(),
    "403": faults.exhausted_balance(),
}


@pytest.mark.parametrize("fault", ACCEPTED_AS_THE_END.values(), ids=ACCEPTED_AS_THE_END)
def test_submit_raises_after_one_post(fal: FalStandIn, fault: Fault) -> None:
    fal.inject(fault)
    assert "error" in run(fal, f"say(caught(lambda: {SUBMIT}))")
    assert len(fal.ledger.posts()) == 1


def test_a_failed_handshake_sends_nothing_and_is_tried_again(fal: FalStandIn) -> None:
    fal.inject(faults.tls_failure(times=2))
    run(fal, f"say({SUBMIT})")
    assert len(fal.ledger.posts()) == len(fal.ledger.paid_jobs()) == 1
    assert len(fal.ledger.connections()) == 3


def test_a_failed_handshake_sends_the_key_to_the_backup_domain(fal: FalStandIn) -> None:
    fal.inject(faults.tls_failure())
    run(fal, f"say({SUBMIT})", "proxy")
    assert [e.host for e in fal.ledger.posts()] == ["queue.falrun.com"]
    assert fal.ledger.posts()[0].mentions(KEY)


def test_a_closed_port_is_tried_ten_times(fal: FalStandIn) -> None:
    quick = "fal_client.client.BASE_DELAY = 0.001\n"
    with closed_port() as port:
        url = f"fal_client.client.QUEUE_URL_FORMAT = 'https://127.0.0.1:{port}/'\n"
        said = run(fal, f"{quick}{url}say(caught(lambda: {SUBMIT}))")
    assert said["error"] == "ConnectError"
    assert fal.ledger.exchanges() == []


def test_one_bad_poll_raises_at_once(fal: FalStandIn) -> None:
    fal.inject(
        faults.answer("status", 500, {"detail": "Internal"}),
        faults.answer("status", 503, {"detail": "Unavailable"}),
        faults.answer("status", 404, {"detail": "Not found"}),
        faults.html("status"),
        faults.unknown_status(),
        faults.missing_logs(),
    )
    request_id = submit(fal)
    fal.finish(request_id)
    poll = f"caught(lambda: client.status(ENDPOINT, {request_id!r}))"
    said = run(fal, f"say([{poll} for _ in range(6)])")
    assert [one["error"] for one in said] == [
        "FalClientHTTPError",
        "FalClientHTTPError",
        "FalClientHTTPError",
        "JSONDecodeError",
        "ValueError",
        "KeyError",
    ]
    assert len(fal.ledger.exchanges("status")) == 6


def test_a_failed_job_does_not_raise_until_its_result_is_fetched(fal: FalStandIn) -> None:
    fal.inject(faults.job_fails())
    request_id = submit(fal)
    fal.finish(request_id)
    ask = f"[shown(client.status(ENDPOINT, {request_id!r})), caught(lambda: client.result("
    (name, values), result = run(fal, f"say({ask}ENDPOINT, {request_id!r}))])")
    assert (name, values["error_type"]) == ("Completed", "runner_server_error")
    assert (result["error"], result["status"]) == ("FalClientHTTPError", 500)


def test_field_errors_come_as_a_list_in_the_message() -> None:
    with FalStandIn(Timing(job_seconds=0), Behaviour(validates="result"), key=KEY) as fal:
        loras = [{"path": "owner/repo", "scale": 9}]
        script = f"client.subscribe(ENDPOINT, {{'prompt': 'x', 'loras': {loras!r}}})"
        said = run(fal, f"say(caught(lambda: {script}))")
        assert said["status"] == 422
        assert "'loc': ['body', 'loras', 0, 'scale']" in said["said"]
        assert len(fal.ledger.paid_jobs()) == 1


def test_dropping_a_subscription_cancels_nothing(fal: FalStandIn) -> None:
    script = """
async def main():
    seen = asyncio.Event()
    task = asyncio.create_task(fal_client.AsyncClient(key=KEY).subscribe(
        ENDPOINT, {"prompt": "x"}, on_queue_update=lambda _: seen.set()))
    await seen.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
asyncio.run(main())
say(None)
"""
    run(fal, script)
    assert fal.ledger.cancels() == []
    assert fal.jobs()[0]["status"] == "IN_QUEUE"


def test_a_client_timeout_does_cancel(fal: FalStandIn) -> None:
    script = "client.subscribe(ENDPOINT, {'prompt': 'x'}, client_timeout=1.1)"
    assert run(fal, f"say(caught(lambda: {script}))")["error"] == "FalClientTimeoutError"
    fal.ledger.wait_until(lambda ledger: len(ledger.cancels()) == 1)
    assert fal.ledger.posts()[0].mentions("X-Fal-Request-Timeout")
