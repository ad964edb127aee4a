"""A page without a GPU function on ZeroGPU hardware, where each Space must report one.

The real `spaces` package, with the hardware's own service played on loopback.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.api.browser import Browser
from tests.standins.space_machine import installed, started


@contextmanager
def hardware() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was told."""
    told: list[str] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def without_torch(folder: Path) -> dict[str, str]:
    """As the hosted kind is: `spaces` patches torch where there is one, if it is a CUDA build."""
    folder.mkdir()
    (folder / "torch.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder)}


def test_the_hosted_kind_lives_there(tmp_path: Path) -> None:
    """It reports its start; events queue up, where Gradio would take one at a time."""
    with hardware() as (address, told):
        settings = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": address}
        bare = without_torch(tmp_path / "bare")
        with started(installed(tmp_path), "python app.py", tmp_path, settings, bare) as page:
            assert told == ["/startup-report"]
            with Browser(page) as visitor:
                asked = {"prompt": "a fox", "image_size": "square"}
                with ThreadPoolExecutor(16) as crowd:
                    post = partial(visitor.http.post, "/gradio_api/call/v2/estimate_cost")
                    joins = list(crowd.map(lambda _: post(json=asked), range(64)))
                assert [join.status_code for join in joins] == [200] * 64
                images, _ = visitor.call("generate", backend="demo", **asked)
                assert images
            assert page.terminate() == 0
