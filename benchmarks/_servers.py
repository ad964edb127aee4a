"""The playground and fal's stand-in, each as a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks._common import Server, clean_environment, cpu_seconds, gradio_server, process
from tests.standins.ledger import Ledger

KEY: Final = "benchmark-id:benchmark-secret"


@dataclass(frozen=True, slots=True)
class StandIn:
    """Where the stand-in is. `environment` leads `fal_client` and httpx to it."""

    pid: int
    environment: dict[str, str]
    ledger_path: Path

    def cpu(self) -> float:
        """CPU seconds until now."""
        return cpu_seconds(self.pid)

    def ledger(self) -> Ledger:
        """Everything that it saw, from its file."""
        return Ledger.read(self.ledger_path)


@contextmanager
def stand_in(folder: Path, job_seconds: float, lifetime: float = 3600) -> Iterator[StandIn]:
    """fal's stand-in whose jobs take `job_seconds`; it ends by itself after `lifetime` seconds."""
    command = ["-m", "tests.standins.fal", "--directory", str(folder), "--key", KEY]
    command += ["--job-seconds", str(job_seconds), "--lifetime", str(lifetime)]
    with process(command, clean_environment(), stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        announced: dict[str, Any] = json.loads(running.stdout.readline())
        yield StandIn(running.pid, announced["environment"], Path(announced["ledger"]))


@contextmanager
def playground(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`python app.py` with the hosted backend and its data below `folder`.

    `environment` adds to it: `StandIn.environment`, another PLAYGROUND_BACKEND, …
    """
    added = {
        "FAL_KEY": KEY,
        "PLAYGROUND_BACKEND": "hosted",
        "PLAYGROUND_DATA_DIR": str(folder / "data"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    everything = clean_environment(**{**added, **(environment or {})})
    with gradio_server(["app.py"], folder, everything) as server:
        yield server
