"""A stand-in for the Hugging Face Hub on loopback: listing, records, files and their CDN.

In tests, `with HubStandIn() as hub:` runs it in a thread of its own, and an unmodified
`huggingface_hub` reaches it by `HfApi(endpoint=hub.url)`. `python -m tests.standins.hub
--directory DIR` runs it as a process for browser tests: it prints one JSON line with its
addresses and is steered through `/_control/…` (see `hub_process`).
"""

import argparse
import asyncio
import json
import secrets
import signal
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from .hub_answers import RateLimits
from .hub_api import ModelsApi
from .hub_catalogue import catalogue
from .hub_control import HubControl
from .hub_exchange import HubExchanges
from .hub_faults import HubFault, HubFaults
from .hub_files import Files
from .hub_gate import Gate
from .hub_ledger import HubLedger
from .hub_repos import READER_TOKEN, STRANGER_TOKEN, Repo, Visitor
from .hub_server import LOOPBACK, Listeners, Serve
from .hub_store import RepoStore
from .wire import HttpConnection

LEDGER_FILE = "hub.jsonl"
PAGE_SIZE = 1000


class HubStandIn:
    """The Hub on one loopback port, its CDN on another: to a client two origins."""

    def __init__(
        self,
        repos: Iterable[Repo] | None = None,
        *,
        page_size: int = PAGE_SIZE,
        quota: int | None = None,
        xet: bool = False,
        directory: Path | None = None,
        port: int = 0,
    ) -> None:
        """`repos`: the default is the catalogue. `quota`: requests to the API in five minutes,
        unlimited by default. `xet`: offer the newer storage in headers, without serving it.
        `directory` keeps the ledger's file."""
        self._store = RepoStore(catalogue() if repos is None else repos)
        self._faults = HubFaults()
        self.ledger = HubLedger(directory / LEDGER_FILE if directory else None)
        gate, limits = Gate(self._store), RateLimits(quota)
        files = Files(gate, lambda: self.cdn_url, secrets.token_bytes(16), xet)
        control = HubControl(self._store, self._faults, self.ledger, self.release)
        routes = (*control.routes(), *files.routes(), *ModelsApi(gate, page_size).routes())
        self._sides = {
            "hub": HubExchanges(routes, self._faults, self.ledger, limits),
            "cdn": HubExchanges(files.cdn_routes(), self._faults, self.ledger, limits),
        }
        serves = {name: _serve(side) for name, side in self._sides.items()}
        self._listeners = Listeners(serves, {"hub": port})

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        self._listeners.start()
        return self

    def close(self) -> None:
        """Break every connection and end; the ledger can still be read."""
        for side in self._sides.values():
            self._listeners.call(side.stopping.set)
        self._listeners.stop()
        self.ledger.close()

    # Where it is

    @property
    def url(self) -> str:
        """The endpoint, for `HfApi(endpoint=…)` and `HF_ENDPOINT`."""
        return f"http://{LOOPBACK}:{self._listeners.ports['hub']}"

    @property
    def cdn_url(self) -> str:
        return f"http://{LOOPBACK}:{self._listeners.ports['cdn']}"

    @property
    def environment(self) -> dict[str, str]:
        """Leads a `huggingface_hub` of a new process here."""
        return {"HF_ENDPOINT": self.url, "NO_PROXY": f"{LOOPBACK},localhost"}

    # What it does

    def inject(self, *faults: HubFault) -> None:
        """Let these strike, in this order per stage."""
        self._faults.inject(*faults)

    def clear_faults(self) -> None:
        self._faults.clear()

    def release(self) -> None:
        """Let the exchanges that hang go on."""
        for side in self._sides.values():
            self._listeners.call(side.released.set)

    def repos(self) -> list[Repo]:
        return self._store.all()

    def repo(self, repo_id: str) -> Repo:
        found = self._store.find(repo_id)
        if found is None:
            raise KeyError(repo_id)
        return found

    def add_repo(self, repo: Repo) -> Repo:
        """A new repository, or a new commit of one that is there."""
        self._store.add(repo)
        return repo

    def remove_repo(self, repo_id: str) -> None:
        self._store.remove(repo_id)

    def rename(self, old: str, new: str) -> None:
        self._store.rename(old, new)

    def add_token(self, token: str, visitor: Visitor) -> None:
        self._store.add_token(token, visitor)

    def file_url(self, repo_id: str, name: str, revision: str | None = None) -> str:
        """Where a file is read, pinned to its commit where no other revision is given."""
        repo = self.repo(repo_id)
        plain = repo.picture_url(self.url, name)
        return plain.replace("/resolve/main/", f"/resolve/{revision or repo.sha}/", 1)


def _serve(side: HubExchanges) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await side.serve(HttpConnection(reader, writer))

    return serve


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    options.directory.mkdir(parents=True, exist_ok=True)
    repos = () if options.empty else catalogue(options.seed, options.repos)
    placed: dict[str, Any] = {"directory": options.directory, "port": options.port}
    with HubStandIn(repos, page_size=options.page_size, quota=options.quota, **placed) as hub:
        print(json.dumps(_announcement(hub, options.directory)), flush=True)
        done.wait(options.lifetime)


def _announcement(hub: HubStandIn, directory: Path) -> dict[str, Any]:
    return {
        "url": hub.url,
        "cdn": hub.cdn_url,
        "control": f"{hub.url}/_control",
        "ledger": str(directory / LEDGER_FILE),
        "environment": hub.environment,
        "tokens": {"reader": READER_TOKEN, "stranger": STRANGER_TOKEN},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A stand-in for the Hugging Face Hub.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="of the Hub; 0: any")
    parser.add_argument("--seed", type=int, default=0, help="of the catalogue")
    parser.add_argument("--repos", type=int, default=80, help="in the catalogue, at least 60")
    parser.add_argument("--empty", action="store_true", help="no catalogue")
    parser.add_argument("--page-size", type=int, default=PAGE_SIZE)
    parser.add_argument("--quota", type=int, help="requests to the API in five minutes")
    parser.add_argument("--lifetime", type=float, default=600.0, help="seconds until it ends")
    return parser


if __name__ == "__main__":
    main()
