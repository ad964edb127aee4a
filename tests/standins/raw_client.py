"""A client that asks the fal stand-in once and shows the bare answer."""

import io
import ssl
from typing import Any, Self

import httpx
from PIL import Image

from .fal import FalStandIn
from .fal_queue import ENDPOINT

KEY = {"Authorization": "Key id:secret"}


class RawClient:
    """Plain requests to a stand-in, no retries, with a key."""

    def __init__(self, fal: FalStandIn) -> None:
        trust = ssl.create_default_context(cafile=fal.ca_path)
        self.http = httpx.Client(verify=trust, headers=KEY, timeout=5, base_url=fal.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def submit(self, **arguments: Any) -> httpx.Response:
        return self.http.post(f"/{ENDPOINT}", json={"prompt": "a cat"} | arguments)

    def finished(self, fal: FalStandIn, **arguments: Any) -> dict[str, Any]:
        """Submit, complete, and the submit's answer."""
        submitted: dict[str, Any] = self.submit(**arguments).json()
        fal.finish(submitted["request_id"])
        return submitted

    def result(self, fal: FalStandIn, **arguments: Any) -> dict[str, Any]:
        answer = self.http.get(self.finished(fal, **arguments)["response_url"])
        result: dict[str, Any] = answer.raise_for_status().json()
        return result

    def image(self, fal: FalStandIn, **arguments: Any) -> Image.Image:
        url = self.result(fal, **arguments)["images"][0]["url"]
        return Image.open(io.BytesIO(self.http.get(url).raise_for_status().content))
