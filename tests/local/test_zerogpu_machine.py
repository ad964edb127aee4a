"""Jobs on ZeroGPU: the real `spaces`, with its service played on loopback and no GPU.

One process runs them all and reports (`zerogpu_machine.py`): its start takes longer than they do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.api.browser import Browser
from tests.process.playground import ROOT, playground
from tests.standins.adapters import adapter
from tests.standins.tiny_pipeline import save_tiny_classifier, save_tiny_pipeline
from tests.standins.zerogpu import Call, ZeroGpuStandIn, token

SEQUENCE = ("A", "none", "B", "A+B", "none", "broken", "none", "A")


@dataclass(frozen=True)
class Seen:
    """What the process reported, and what its service saw."""

    told: dict[str, Any]
    service: ZeroGpuStandIn

    def calls(self, visitor: str) -> list[tuple[Call, list[Call]]]:
        """Each of a visitor's requests for a GPU, with what followed up to the next request."""
        found: list[tuple[Call, list[Call]]] = []
        for call in self.service.calls:
            if call.path == "/schedule":
                found.append((call, []))
            elif found:
                found[-1][1].append(call)
        return [(asked, then) for asked, then in found if asked.visitor == visitor]

    def forks(self, visitor: str) -> int:
        return sum(one.path == "/allow" for _, then in self.calls(visitor) for one in then)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("zerogpu")
    save_tiny_pipeline(made / "model")
    save_tiny_classifier(made / "safety")
    for name in ("comfyui", "kohya", "flux"):
        (made / f"{name}.safetensors").write_bytes(adapter(name).data())
    (made / "cgroup").write_text("0::/here\n")
    return made


@contextmanager
def lending() -> Iterator[ZeroGpuStandIn]:
    """The service; at the end, the forks of a process that was killed end too."""
    service = ZeroGpuStandIn().start()
    try:
        yield service
    finally:
        service.close()
        for call in service.seen("/allow"):
            with suppress(ProcessLookupError):
                os.kill(int(call.query["pid"]), signal.SIGKILL)


@pytest.fixture(scope="module")
def service() -> Iterator[ZeroGpuStandIn]:
    with lending() as started:
        yield started


def environment(folder: Path, service: ZeroGpuStandIn) -> dict[str, str]:
    return {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": service.address,
        "ZEROGPU_OFFLOAD_DIR": str(folder / "packed"),
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(folder / "cgroup"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def seen(folder: Path, service: ZeroGpuStandIn) -> Seen:
    own = os.environ | environment(folder, service)
    command = [sys.executable, "-m", "tests.local.zerogpu_machine", str(folder), "report"]
    ran = subprocess.run(command, env=own, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    return Seen(json.loads(ran.stdout.splitlines()[-1]), service)


def test_the_weights_wait_for_a_gpu(seen: Seen, folder: Path) -> None:
    """All that the model has, in bfloat16; what a driver would say of memory is accepted."""
    files = [path for path in (folder / "model").rglob("*.safetensors")]
    assert seen.told["placement"] == "all on the GPU"
    stored = sum(path.stat().st_size for path in files)
    assert 0.4 * stored < seen.told["packed"] < 0.6 * stored


def test_a_kept_fork_makes_what_a_new_one_makes(seen: Seen) -> None:
    single = seen.told["single"]
    assert len(set(single.values())) == len(single)
    assert seen.forks("single") == len(single)
    wanted = [single.get(name, "AdapterRefused") for name in SEQUENCE]
    assert seen.told["sequence"] == wanted
    assert seen.forks("sequence") == 0  # the last single one's


def test_two_forks_at_once(seen: Seen) -> None:
    assert seen.told["pair"] == [seen.told["single"]["A"], seen.told["single"]["B"]]
    scheduled = [then for visitor in ("pair-a", "pair-b") for _, then in seen.calls(visitor)]
    assert sum(one.path == "/allow" for then in scheduled for one in then) == 1  # one was kept


def test_a_job_stops_within_a_step(seen: Seen) -> None:
    """Of eight: the first one, the one that was under way, and at most the next."""
    stopped = seen.told["stopped"]
    assert stopped["forwards"] <= 3
    assert stopped["next"] == seen.told["single"]["none"]
    ((_, (release,)),) = seen.calls("stopper")
    assert release.path == "/release" and release.at - stopped["at"] < 1
    assert seen.forks("someone") == 1  # after the crash alone


def test_a_stop_while_it_waits_takes_no_gpu(seen: Seen) -> None:
    left = seen.told["left"]
    assert left == {"said": ["Waiting for a GPU to become available"], "open": 0}
    assert seen.service.left == 1
    assert seen.forks("left") == 0


def test_a_share_that_is_used_up_is_said_in_words(seen: Seen) -> None:
    refused = seen.told["refused"]
    assert refused["type"] == "GpuNotLent"
    assert "(20s requested vs. 7s left). Try again in 1:00:00" in refused["facts"]["reason"]


def test_a_fork_that_dies_costs_its_job_alone(seen: Seen) -> None:
    assert seen.told["crashed"] == ["EngineCrashed", seen.told["single"]["none"]]


def test_nothing_is_compiled(seen: Seen) -> None:
    high = seen.told["high"]
    assert high["mode"] == "regular" and high["made"] == seen.told["single"]["none"]
    (said,) = high["said"]
    assert "'high' isn't to be had here: ZeroGPU compiles nothing" in said


def test_a_job_of_an_earlier_process_takes_nobodys_share(seen: Seen) -> None:
    assert seen.told["resumed"] == "refused"
    assert all(call.visitor or not call.query for call in seen.service.seen("/schedule"))


def test_each_job_takes_the_share_of_who_clicked(seen: Seen) -> None:
    """The third of them waited until one of the two GPUs was free."""
    assert seen.told["clicks"] == ["STORED"] * 3
    visitors = ("ada", "bea", "cleo")
    asked = [call for call in seen.service.seen("/schedule") if call.visitor in visitors]
    assert sorted(call.visitor or "" for call in asked) == list(visitors)
    given_back = [call.at for call in seen.service.seen("/release") if call.at > asked[-1].at]
    assert len(given_back) == 3


def test_a_page_lends_each_visitor_their_own_share(folder: Path, tmp_path: Path) -> None:
    """It loads and reports its start before it serves; a click's token reaches the service."""
    local = {
        "PYTHONPATH": str(ROOT),
        "PLAYGROUND_BACKEND": "local",
        "PLAYGROUND_LOCAL_MODEL": str(folder / "model"),
        "PLAYGROUND_LOCAL_SAFETY": str(folder / "safety"),
    }
    program = ("-m", "tests.local.zerogpu_machine", str(folder), "page")
    with (
        lending() as service,
        playground(tmp_path, environment(folder, service), local, program=program) as page,
    ):
        assert [call.path for call in service.calls] == ["/startup-report"]
        for visitor in ("dora", "emil"):
            with Browser(page, headers={"X-IP-Token": token(visitor)}) as browser:
                size = {"width": 64, "height": 48}
                asked = {"prompt": "a fox", "image_size": size, "num_inference_steps": 2}
                images, receipt = browser.call("generate", backend="local", **asked)
                assert images and receipt["backend"] == "local"
        (allowed,) = service.seen("/allow")  # one fork served both
        fork = psutil.Process(int(allowed.query["pid"]))
        ports = {one.laddr.port for one in fork.net_connections("tcp")}
        assert urlsplit(page.url).port not in ports  # it holds no visitor's connection open
        assert page.terminate() == 0
    assert [call.visitor for call in service.seen("/schedule")] == ["dora", "emil"]
