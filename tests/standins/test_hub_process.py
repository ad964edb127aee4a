"""The stand-in Hub as a process of its own, as browser tests run it."""

from pathlib import Path

import httpx
import pytest

from tests.standins import hub_faults as faults
from tests.standins.hub_ledger import HubLedger
from tests.standins.hub_process import hub_process
from tests.standins.hub_repos import Repo, RepoFile, Visitor
from tests.standins.hub_special import PIXEL_ART

INFO = f"/api/models/{PIXEL_ART}"


def test_a_process_is_steered_from_outside(tmp_path: Path) -> None:
    with hub_process(tmp_path, "--repos", "70", "--page-size", "50") as hub:
        assert len(hub.repos()) == 70
        made = Repo("someone/new", (RepoFile("a.safetensors", b"abc"),), former=("someone/old",))
        hub.add_repo(made)
        hub.remove_repo(PIXEL_ART)
        hub.rename("someone/new", "someone/newest")
        hub.add_token("hf_mine", Visitor("someone"))
        with httpx.Client(base_url=hub.url, trust_env=False, follow_redirects=True) as http:
            assert http.get(f"/api/models/{PIXEL_ART}").status_code == 401
            assert http.get("/api/models/someone/new").json()["id"] == "someone/newest"
            assert http.get("/someone/newest/resolve/main/a.safetensors").content == b"abc"
            assert http.get("/api/models").links
            mine = {"Authorization": "Bearer hf_mine"}
            assert http.get("/api/whoami-v2", headers=mine).json()["name"] == "someone"
            bad = http.post("/_control/tokens", json={"token": "x"})
            assert bad.status_code == 400
        assert [r.stage for r in hub.ledger().requests()][:2] == ["info", "info"]
    assert len(HubLedger.read(hub.ledger_path).requests("whoami")) == 1


def test_faults_reach_a_process(tmp_path: Path) -> None:
    with hub_process(tmp_path) as hub:
        hub.inject(faults.limited("info", 5), faults.hang("list"), faults.html("info", 502))
        with httpx.Client(base_url=hub.url, trust_env=False) as http:
            assert [http.get(INFO).status_code for _ in range(2)] == [429, 502]
            hub.clear_faults()
            assert http.get("/api/models?limit=1").status_code == 200
            hub.inject(faults.hang("list"))
            with pytest.raises(httpx.ReadTimeout):
                http.get("/api/models", timeout=0.2)
            hub.release()
            assert http.get("/api/models?limit=1").status_code == 200
        assert [r.fault for r in hub.ledger().requests()][:2] == ["answer", "answer"]
