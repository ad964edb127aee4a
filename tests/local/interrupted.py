"""A playground without a page that is killed in the middle of its first local job.

    python -m tests.local.interrupted DATA_FOLDER MODEL SAFETY

It prints what it saw until then, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

from backends.local.backend import LocalBackend
from backends.local.desk import EngineDesk
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from generation.events import Running
from generation.parsing import parse_request
from history.store import History
from jobs import Runner

OWNER: Final = "me"
ASKED: Final = {
    "prompt": "To be interrupted",
    "image_size": {"width": 512, "height": 384},
    "seed": 7,
}


def main() -> None:
    """Submit, wait for the first step, report, die."""
    folder, model, safety = sys.argv[1:]
    options = LocalOptions(model, device="cpu", safety=safety)
    engine = EngineProcess(options)
    backend = LocalBackend(options, EngineDesk(engine))
    runner = Runner(History.open(Path(folder)), {"local": backend})
    runner.start()
    backend.start()
    job = runner.submit(parse_request(ASKED), OWNER, "local")
    asyncio.run(_first_step(runner, job.id))
    assert engine._child is not None
    maps = Path("/proc/self/maps").read_text()
    seen = {"job": job.id, "engine": engine._child.process.pid, "torch": "torch" in maps}
    print(json.dumps(seen), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def _first_step(runner: Runner, job_id: str) -> None:
    async for view in runner.watch(job_id, OWNER):
        if isinstance(view.live, Running) and view.live.step:
            return
    raise AssertionError("it ended before it could be interrupted")


if __name__ == "__main__":
    main()
