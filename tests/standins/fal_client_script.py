"""Runs a few lines against the unmodified `fal_client`, in a process that is led to a stand-in.

A process of its own because `fal_client` reads its hosts when it is imported.
"""

import json
import os
import subprocess
import sys
from typing import Any, Literal

from .fal import FalStandIn
from .fal_queue import ENDPOINT

KEY = "canary-id:canary-secret"
Way = Literal["hosts", "proxy"]

PRELUDE = f"""
import asyncio, dataclasses, json, fal_client, httpx
ENDPOINT, KEY = {ENDPOINT!r}, {KEY!r}
client = fal_client.SyncClient(key=KEY, default_timeout=TIMEOUT)

def shown(value):
    return [type(value).__name__, dataclasses.asdict(value)]

def caught(call):
    try:
        return {{"value": call()}}
    except Exception as exc:
        status = getattr(exc, "status_code", None)
        return {{"error": type(exc).__name__, "status": status, "said": str(exc)}}

def advance(seconds):
    httpx.post("CONTROL/advance", json=seconds, trust_env=False).raise_for_status()

def say(value):
    print(json.dumps(value))
"""


def run(fal: FalStandIn, script: str, way: Way = "hosts", timeout: float = 30.0) -> Any:
    """What the script said, by `say(value)`, once.

    It finds `client`, `ENDPOINT`, `KEY`, `shown(status)`, `caught(call)` and, for the stand-in's
    clock, `advance(seconds)`. `way` is by the host variables or by `HTTPS_PROXY`; `timeout` is
    fal_client's own, for one HTTP request.
    """
    led = fal.environment if way == "hosts" else fal.proxy_environment
    control = f"{fal.plain_url}/_control"
    prelude = PRELUDE.replace("TIMEOUT", str(timeout)).replace("CONTROL", control)
    done = subprocess.run(
        [sys.executable, "-c", prelude + script],
        env={"PATH": os.environ["PATH"], **led},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
