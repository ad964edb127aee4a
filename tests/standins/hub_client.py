"""Two clients of the stand-in Hub: a bare one, and help with the unmodified `huggingface_hub`."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import _detect_agent

from .hub import HubStandIn


def without_stray_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """`huggingface_hub` asks its default endpoint, once in a process, which agent runs it; in a
    test that would leave this machine."""
    monkeypatch.setattr(_detect_agent, "_registry", {"standardEnvVars": [], "harnesses": {}})


def download(hub: HubStandIn, folder: Path, repo: str, name: str, **rest: Any) -> Path:
    """A file by `hf_hub_download` into a cache of its own, without a token unless given."""
    options: dict[str, Any] = {"token": False, "endpoint": hub.url, "cache_dir": folder} | rest
    return Path(hf_hub_download(repo, name, **options))


class HubClient:
    """Plain requests to a stand-in: no retries, redirects shown and not followed."""

    def __init__(self, hub: HubStandIn) -> None:
        self.http = httpx.Client(timeout=5, base_url=hub.url, trust_env=False)

    def get(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        return self.http.get(path, headers=_headers(token, options), **options)

    def head(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        return self.http.head(path, headers=_headers(token, options), **options)

    def file(self, repo: str, name: str, byte_range: str | None = None) -> httpx.Response:
        """A file through its redirect, as a whole or in part."""
        headers = {"Range": byte_range} if byte_range else {}
        path = f"/{repo}/resolve/main/{quote(name)}"
        return self.http.get(path, headers=headers, follow_redirects=True)

    def pages(self, **query: Any) -> list[list[str]]:
        """The ids of a listing, page by page."""
        answer = self.http.get("/api/models", params=query).raise_for_status()
        found = [[row["id"] for row in answer.json()]]
        while "next" in answer.links:
            answer = self.http.get(answer.links["next"]["url"]).raise_for_status()
            found.append([row["id"] for row in answer.json()])
        return found


def _headers(token: str | None, options: dict[str, Any]) -> dict[str, str]:
    given: dict[str, str] = options.pop("headers", {})
    return given | ({"Authorization": f"Bearer {token}"} if token else {})


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)
