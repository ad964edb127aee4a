"""The fal stand-in as a process of its own, seen from the test that started it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from .fault_table import Fault
from .ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]


class FalProcess:
    """Addresses and controls of a running stand-in."""

    def __init__(self, announced: dict[str, Any]) -> None:
        self.environment: dict[str, str] = announced["environment"]
        self.proxy_environment: dict[str, str] = announced["proxy_environment"]
        self.url: str = announced["url"]
        self.ca_path = Path(announced["ca"])
        self.ledger_path = Path(announced["ledger"])
        self._control: str = announced["control"]

    def ledger(self) -> Ledger:
        """The ledger as it stands; once the process has ended, `Ledger.read(ledger_path)`."""
        return Ledger.from_rows(self._call("GET", "ledger"))

    def jobs(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self._call("GET", "jobs")
        return jobs

    def inject(self, *faults: Fault) -> None:
        self._call("POST", "faults", [fault.to_json() for fault in faults])

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def hold(self) -> None:
        self._call("POST", "hold")

    def release(self) -> None:
        self._call("POST", "release")

    def advance(self, seconds: float) -> None:
        self._call("POST", "advance", seconds)

    def finish(self, request_id: str) -> None:
        self._call("POST", "finish", request_id)

    def _call(self, method: str, name: str, value: object = None) -> Any:
        with httpx.Client(trust_env=False) as client:
            answer = client.request(method, f"{self._control}/{name}", json=value)
        return answer.raise_for_status().json()


@contextlib.contextmanager
def fal_process(directory: Path, *options: str) -> Iterator[FalProcess]:
    """Run the stand-in beside the test; `options` as on its command line."""
    command = [sys.executable, "-m", "tests.standins.fal", "--directory", str(directory), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield FalProcess(json.loads(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(10)
