"""Private adapters on fal's storage: by the unmodified `fal_client`, once each, and not for long.

`fal_client` uploads to fixed hosts, which only a proxy leads elsewhere, and reads its own when
it is imported. So the functions of the second half run in a process of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import fal_client
import pytest
from pydantic import SecretStr

from backends import fal_storage
from backends.base import Resources
from backends.fal_storage import FalStorage
from backends.hosted import HostedBackend
from generation.errors import PlaygroundError
from generation.lora_file import LoraFile
from generation.parsing import parse_request
from history.store import History
from jobs import Runner
from tests.faults.bench import QUICK
from tests.standins import fal_faults as faults
from tests.standins.fal import FalStandIn
from tests.standins.fal_jobs import Timing

ROOT = Path(__file__).resolve().parents[2]
KEY, OTHER_KEY = "canary-id:canary-secret", "another-id:another-secret"
OWNER = "me"
PATH, NAME = "papercrane/unreleased-style", "unreleased.safetensors"
SHA = "7" * 40
WEIGHTS = bytes(range(250)) * 40
TWO_HOURS = {"expiration_duration_seconds": 7200}
PART, PARTS = 4000, 3  # bytes of each, and how many the weights then are
AWAY = pytest.mark.parametrize("status", [500, 503])


@pytest.fixture
def fal() -> Iterator[FalStandIn]:
    """With one good key; its jobs are instant."""
    with FalStandIn(Timing(job_seconds=0.05), key=KEY) as stand_in:
        yield stand_in


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy, whose name on this machine says nothing."""
    path = tmp_path / f"{'3f' * 20}.safetensors"
    path.write_bytes(WEIGHTS)
    return path


def elsewhere(fal: FalStandIn, work: Callable[..., Any], *values: object) -> Any:
    """What a function of this module returns in a process that is led to the stand-in."""
    name = work.__name__
    script = f"import sys; from tests.unit.test_fal_storage import say, {name} as work; say(work)"
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(values, default=str)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **fal.environment, **fal.proxy_environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    return json.loads(done.stdout)


def addresses(fal: FalStandIn) -> list[str]:
    """Of the adapters of each job that was posted."""
    return [body["loras"][0]["path"] for body in fal.ledger.submitted_bodies()]


# -- once, and for a short while -----------------------------------------------


def test_one_upload_for_jobs_at_once_and_for_later_ones(
    fal: FalStandIn, adapter: Path, data_folder: Path
) -> None:
    jobs = elsewhere(fal, run_jobs, data_folder, adapter, [2, 1])
    assert [job["state"] for job in jobs] == ["STORED"] * 3
    [(file_id, file)] = fal.files().items()
    assert file.body == WEIGHTS
    assert json.loads(file.lifecycle or "{}") == TWO_HOURS
    assert len(fal.ledger.uploads()) == 1
    [address] = set(addresses(fal))
    assert file_id in address and address.startswith("https://v3.fal.media/")
    for job in jobs:
        assert job["loras"] == [
            {"path": PATH, "file": NAME, "sha": SHA, "scale": 1.0, "applied": None}
        ]


def test_the_keys_bearer_stays_with_fals_own_hosts(fal: FalStandIn, adapter: Path) -> None:
    elsewhere(fal, upload_again, adapter, [KEY])
    carried = {(e.stage, e.host) for e in fal.ledger.mentioning(KEY)}
    assert carried == {("token", "rest.fal.ai")}
    assert not fal.ledger.uploads()[0].mentions(KEY)


def test_nobody_is_given_what_another_key_uploaded(adapter: Path) -> None:
    with FalStandIn() as any_key:
        first, second, third = elsewhere(any_key, upload_again, adapter, [KEY, OTHER_KEY, KEY])
        assert first == third != second
        assert len(any_key.ledger.uploads()) == 2


def test_an_address_is_not_handed_out_until_it_expires(fal: FalStandIn, adapter: Path) -> None:
    first, soon, late = elsewhere(fal, upload_over_time, adapter, [0, 3500, 3700])
    assert first == soon != late
    assert len(fal.ledger.uploads()) == 2


def test_what_has_an_address_is_not_uploaded(fal: FalStandIn) -> None:
    assert elsewhere(fal, leave_public) == ["https://huggingface.co/a/b", None]
    assert fal.ledger.exchanges() == []


def test_a_large_adapter_goes_in_parts(fal: FalStandIn, adapter: Path) -> None:
    elsewhere(fal, upload_in_parts, adapter)
    [file] = fal.files().values()
    assert (file.body, len(fal.ledger.uploads())) == (WEIGHTS, PARTS)
    assert json.loads(file.lifecycle or "{}") == TWO_HOURS


# -- storage that doesn't take it ----------------------------------------------


@pytest.mark.parametrize("large", [False, True], ids=["small", "in parts"])
def test_a_key_that_may_not_upload_is_said_to_be_rejected(
    adapter: Path, data_folder: Path, large: bool
) -> None:
    with FalStandIn(key=OTHER_KEY) as refusing:
        [job] = elsewhere(refusing, run_jobs, data_folder, adapter, [1], large)
        assert (job["state"], job["error"]) == ("FAILED", "KeyRejected")
        assert refusing.ledger.posts() == []


@AWAY
@pytest.mark.parametrize("large", [False, True], ids=["small", "in parts"])
def test_storage_that_is_down_costs_nothing(
    fal: FalStandIn, adapter: Path, data_folder: Path, status: int, large: bool
) -> None:
    fal.inject(faults.answer("token", status, {"detail": "Down"}, times=None))
    [job] = elsewhere(fal, run_jobs, data_folder, adapter, [1], large)
    assert (job["state"], job["error"]) == ("FAILED", "AdapterUnavailable")
    assert NAME in job["said"] and "Nothing was sent" in job["said"]
    assert (fal.ledger.posts(), fal.files()) == ([], {})


def test_the_next_try_uploads_again(fal: FalStandIn, adapter: Path, data_folder: Path) -> None:
    fal.inject(faults.answer("token", 500, {"detail": "Down"}, times=2))  # both ways to upload
    failed, made = elsewhere(fal, run_jobs, data_folder, adapter, [1, 1])
    assert (failed["error"], made["state"]) == ("AdapterUnavailable", "STORED")
    assert len(fal.files()) == len(fal.ledger.posts()) == 1


def test_the_older_storage_is_as_good(fal: FalStandIn, adapter: Path, data_folder: Path) -> None:
    fal.inject(faults.answer("upload", 500))
    [job] = elsewhere(fal, run_jobs, data_folder, adapter, [1])
    assert job["state"] == "STORED"
    [address] = addresses(fal)
    assert any(file_id in address for file_id in fal.files())


@pytest.mark.parametrize(
    "answer", ["<html>Sorry</html>", "{}", "[]", '{"token": 1}'], ids=["HTML", "{}", "[]", "odd"]
)
def test_an_answer_that_is_none_is_no_traceback(
    fal: FalStandIn, adapter: Path, data_folder: Path, answer: str
) -> None:
    fal.inject(faults.answer("token", 200, answer, times=None))
    [job] = elsewhere(fal, run_jobs, data_folder, adapter, [1])
    assert (job["state"], job["error"]) == ("FAILED", "AdapterUnavailable")
    assert fal.ledger.posts() == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 500])
def test_no_error_quotes_the_key(fal: FalStandIn, adapter: Path, status: int) -> None:
    said = {"detail": f"Authorization: Key {KEY}"}
    fal.inject(faults.answer("token", status, said, times=None))
    for told in elsewhere(fal, fail_to_upload, adapter):
        assert told and "canary" not in told


def test_a_file_that_is_gone_is_not_available(fal: FalStandIn, tmp_path: Path) -> None:
    said, _ = elsewhere(fal, fail_to_upload, tmp_path / "gone.safetensors")
    assert f"{PATH} could not be brought to the backend" in said


# -- in the other process ------------------------------------------------------


def say(work: Callable[..., Any]) -> None:
    """Run it with what the command line holds, and print what it returns."""
    print(json.dumps(work(*json.loads(sys.argv[1]))))


class OneAdapter:
    """A registry with one private adapter in it."""

    def __init__(self, local: Path) -> None:
        self._local = local

    async def hand_over(self, path: str, owner: str, **_options: Any) -> LoraFile:
        return LoraFile(path, NAME, SHA, local=self._local)


def cut_small() -> None:
    """Let a few kilobytes be as much as a hundred megabytes are to `fal_client`."""
    fal_client.client.MULTIPART_THRESHOLD = PART
    fal_client.client.MULTIPART_CHUNK_SIZE = PART


def run_jobs(data: str, local: str, waves: list[int], large: bool = False) -> list[dict[str, Any]]:
    """So many jobs at once, again and again, all with the same adapter; what became of them."""
    if large:
        cut_small()
    found = []
    with History.open(Path(data)) as history:
        backend = HostedBackend(SecretStr(KEY), QUICK)
        runner = Runner(history, {"hosted": backend}, OneAdapter(Path(local)))
        runner.start()
        for count in waves:
            ids = [runner.submit(_request(), OWNER, "hosted").id for _ in range(count)]
            found += [asyncio.run(_end(runner, job_id)) for job_id in ids]
        runner.close()
    return found


def _request() -> Any:
    size = {"width": 64, "height": 48}
    return parse_request({"prompt": "a fox", "image_size": size, "loras": [{"path": PATH}]})


async def _end(runner: Runner, job_id: str) -> dict[str, Any]:
    view = [view async for view in runner.watch(job_id, OWNER)][-1]
    receipt = view.job.receipt
    return {
        "state": view.job.state,
        "error": type(view.problem).__name__,
        "said": str(view.problem),
        "loras": receipt.as_json()["loras"] if receipt else None,
    }


async def _address(storage: FalStorage, local: str, key: str = KEY) -> str | None:
    files = await storage.reachable({PATH: LoraFile(PATH, local=Path(local))}, key)
    return files[PATH].url


def _one_after_the_other(asked: list[Callable[[FalStorage], Awaitable[Any]]]) -> list[Any]:
    async def ask() -> list[Any]:
        storage = FalStorage()
        return [await each(storage) for each in asked]

    return asyncio.run(ask())


def upload_again(local: str, keys: list[str]) -> list[Any]:
    return _one_after_the_other([lambda s, key=key: _address(s, local, key) for key in keys])  # type: ignore[misc]


def upload_over_time(local: str, moments: list[float]) -> list[Any]:
    """The addresses that are given at these seconds."""

    async def at(storage: FalStorage, moment: float) -> str | None:
        class Clock:
            monotonic = staticmethod(lambda: moment)

        setattr(fal_storage, "time", Clock)  # noqa: B010
        return await _address(storage, local)

    return _one_after_the_other([lambda s, m=m: at(s, m) for m in moments])  # type: ignore[misc]


def upload_in_parts(local: str) -> list[Any]:
    cut_small()
    return _one_after_the_other([lambda storage: _address(storage, local)])


def leave_public() -> list[Any]:
    """A file that anybody may read, and a path that names neither file nor address."""
    files = {"a": LoraFile("a", url="https://huggingface.co/a/b"), "b": LoraFile("b")}

    async def ask(storage: FalStorage) -> list[str | None]:
        return [each.url for each in (await storage.reachable(files, KEY)).values()]

    [found] = _one_after_the_other([ask])
    answer: list[Any] = found
    return answer


def fail_to_upload(local: str) -> list[str]:
    """What a person reads about it, and what the journal keeps."""

    async def prepare() -> PlaygroundError:
        backend = HostedBackend(SecretStr(KEY), QUICK)
        files = {PATH: LoraFile(PATH, local=Path(local))}
        try:
            await backend.prepare(_request().request, Resources(lora_files=files))
        except PlaygroundError as exc:
            return exc
        raise AssertionError("it was uploaded")

    error = asyncio.run(prepare())
    return [str(error), json.dumps(error.record())]
