"""`/_control/…`: the stand-in Hub's ledger, faults and repositories, from another process."""

import json
from collections.abc import Callable
from typing import Any

from .fal_routes import Call, Route
from .hub_exchange import CONTROL
from .hub_faults import HubFault, HubFaults
from .hub_ledger import HubLedger
from .hub_repos import Repo, Visitor
from .hub_store import RepoStore
from .wire import Answer

Action = Callable[[Any], object]


class HubControl:
    """Each route takes JSON and answers with JSON."""

    def __init__(
        self,
        store: RepoStore,
        faults: HubFaults,
        ledger: HubLedger,
        release: Callable[[], None],
    ) -> None:
        self._store = store
        self._faults = faults
        self._ledger = ledger
        self._release = release

    def routes(self) -> tuple[Route, ...]:
        actions: dict[tuple[str, str], Action] = {
            ("GET", "ledger"): lambda _: self._ledger.rows(),
            ("GET", "faults"): lambda _: [fault.to_json() for fault in self._faults.pending()],
            ("POST", "faults"): lambda rows: self._faults.inject(*map(HubFault.from_json, rows)),
            ("DELETE", "faults"): lambda _: self._faults.clear(),
            ("GET", "repos"): lambda _: [repo.id for repo in self._store.all()],
            ("POST", "repos"): self._add_repos,
            ("DELETE", "repos"): lambda repo_id: self._store.remove(repo_id),
            ("POST", "rename"): lambda names: self._store.rename(*names),
            ("POST", "tokens"): self._add_token,
            ("POST", "release"): lambda _: self._release(),
        }
        return tuple(
            Route(method, f"/_control/{name}", CONTROL, _handler(action))
            for (method, name), action in actions.items()
        )

    def _add_repos(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._store.add(Repo.from_json(row))

    def _add_token(self, row: dict[str, Any]) -> None:
        self._store.add_token(row["token"], Visitor(row["name"], frozenset(row["reads"])))


def _handler(action: Action) -> Callable[[Call], Answer]:
    def handle(call: Call) -> Answer:
        try:
            return Answer.json(200, action(json.loads(call.body or b"null")))
        except (ValueError, KeyError, TypeError) as exc:
            return Answer.json(400, {"error": repr(exc)})

    return handle
