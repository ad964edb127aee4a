"""Who asks the Hub for which repository, and whether they may: the same for every route."""

from collections.abc import Callable
from urllib.parse import unquote

from .fal_routes import Call, Handler
from .hub_answers import bad_credentials, redirect, repo_not_found, revision_not_found
from .hub_repos import ANONYMOUS, Repo, Visitor
from .hub_store import RepoStore
from .wire import Answer, Head, header

OWNER = r"(?P<owner>[^/?]+)"
NAME = r"(?P<name>[^/?]+)"
ForRepo = Callable[[Call, Repo, Visitor], Answer]


def token_of(head: Head) -> str | None:
    """The bearer token of a request; an empty one counts as none."""
    scheme, _, token = (header(head.headers, "authorization") or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def repo_id(call: Call) -> str:
    return unquote(f"{call.names['owner']}/{call.names['name']}")


class Gate:
    """Finds a request's visitor and repository, or the answer that turns it away."""

    def __init__(self, store: RepoStore) -> None:
        self.store = store

    def visitor(self, call: Call) -> Visitor | None:
        return self.store.visitor(token_of(call.head))

    def for_visitor(self, handler: Callable[[Call, Visitor], Answer]) -> Handler:
        """A handler that is reached without a token or with a good one."""

        def handle(call: Call) -> Answer:
            visitor = self.visitor(call)
            return bad_credentials() if visitor is None else handler(call, visitor)

        return handle

    def for_repo(self, handler: ForRepo, *, lenient: bool = False) -> Handler:
        """A handler that gets the repository at the revision in the path.

        `lenient`: a bad token counts as none, as where files are resolved.
        """

        def handle(call: Call) -> Answer:
            visitor = self.visitor(call) or (ANONYMOUS if lenient else None)
            if visitor is None:
                return bad_credentials()
            return self._reach(call, visitor, handler)

        return handle

    def _reach(self, call: Call, visitor: Visitor, handler: ForRepo) -> Answer:
        asked = repo_id(call)
        repo = self.store.find(asked)
        if repo is None or (repo.private and not visitor.may_read(repo)):
            return repo_not_found(visitor is ANONYMOUS)
        if repo.id != asked:
            return redirect(307, _moved(call, repo))
        revision = unquote(call.names.get("revision") or "main")
        there = self.store.at(repo, revision)
        return revision_not_found(revision) if there is None else handler(call, there, visitor)


def _moved(call: Call, repo: Repo) -> str:
    """The same path and query under the repository's proper name, without a host."""
    asked = f"/{call.names['owner']}/{call.names['name']}"
    before, _, after = call.head.target.partition(asked)
    return f"{before}/{repo.id}{after}"
