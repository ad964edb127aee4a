"""The stand-in Hub as a process of its own, seen from the test that started it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from .hub_faults import HubFault
from .hub_ledger import HubLedger
from .hub_repos import Repo, Visitor

ROOT = Path(__file__).resolve().parents[2]


class HubProcess:
    """Addresses and controls of a running stand-in."""

    def __init__(self, announced: dict[str, Any]) -> None:
        self.environment: dict[str, str] = announced["environment"]
        self.url: str = announced["url"]
        self.cdn_url: str = announced["cdn"]
        self.tokens: dict[str, str] = announced["tokens"]
        """Good ones: `reader` opens every repository, `stranger` none."""
        self.ledger_path = Path(announced["ledger"])
        self._control: str = announced["control"]

    def ledger(self) -> HubLedger:
        """The ledger as it stands; once the process has ended, `HubLedger.read(ledger_path)`."""
        return HubLedger.from_rows(self._call("GET", "ledger"))

    def inject(self, *faults: HubFault) -> None:
        self._call("POST", "faults", [fault.to_json() for fault in faults])

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def release(self) -> None:
        self._call("POST", "release")

    def repos(self) -> list[str]:
        ids: list[str] = self._call("GET", "repos")
        return ids

    def add_repo(self, *repos: Repo) -> None:
        self._call("POST", "repos", [repo.to_json() for repo in repos])

    def remove_repo(self, repo_id: str) -> None:
        self._call("DELETE", "repos", repo_id)

    def rename(self, old: str, new: str) -> None:
        self._call("POST", "rename", [old, new])

    def add_token(self, token: str, visitor: Visitor) -> None:
        row = {"token": token, "name": visitor.name, "reads": sorted(visitor.reads)}
        self._call("POST", "tokens", row)

    def _call(self, method: str, name: str, value: object = None) -> Any:
        with httpx.Client(trust_env=False, timeout=30) as client:
            answer = client.request(method, f"{self._control}/{name}", json=value)
        return answer.raise_for_status().json()


@contextlib.contextmanager
def hub_process(directory: Path, *options: str) -> Iterator[HubProcess]:
    """Run the stand-in beside the test; `options` as on its command line."""
    command = [sys.executable, "-m", "tests.standins.hub", "--directory", str(directory), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield HubProcess(json.loads(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(10)
