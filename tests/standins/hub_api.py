"""The Hub's API about models: the listing, a repository, its tree and paths, and who asks."""

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from .fal_routes import Call, Handler, Route
from .hub_answers import bad_credentials, bad_request, gated, refusal
from .hub_gate import NAME, OWNER, Gate
from .hub_paging import BadQuery, Pager, Query
from .hub_records import (
    EXPANDABLE,
    INFO,
    LISTED,
    LISTED_IN_FULL,
    folder_entry,
    record,
    tree_entry,
)
from .hub_repos import ANONYMOUS, MAIN, Repo, RepoFile, Visitor
from .wire import Answer

MODEL = rf"/api/models/{OWNER}/{NAME}"
REVISION = r"(?P<revision>[^/]+)"
SORTS: dict[str, Callable[[Repo], int | str]] = {
    "likes": lambda repo: repo.likes,
    "downloads": lambda repo: repo.downloads,
    "trendingScore": lambda repo: repo.trending,
    "createdAt": lambda repo: repo.created,
    "lastModified": lambda repo: repo.updated,
}
TREE_PAGE, EXPANDED_TREE_PAGE = 1000, 50
FORM_LIMIT = 1000
"""Most paths in one question."""


class ModelsApi:
    """Handlers below `/api/`; `page_size` is the most rows of the listing in one answer."""

    def __init__(self, gate: Gate, page_size: int) -> None:
        self._gate = gate
        self._page_size = page_size

    def routes(self) -> tuple[Route, ...]:
        listing = _checked(self._gate.for_visitor(self.listing))
        info = _checked(self._gate.for_repo(self.info))
        tree = _checked(self._gate.for_repo(self.tree))
        paths = _checked(self._gate.for_repo(self.paths_info))
        inside = rf"{MODEL}/tree/{REVISION}(?:/(?P<folder>.+))?"
        return (
            Route("GET", "/api/models", "list", listing),
            Route("GET", MODEL, "info", info),
            Route("GET", rf"{MODEL}/revision/{REVISION}", "info", info),
            Route("GET", inside, "tree", tree),
            Route("POST", rf"{MODEL}/paths-info/{REVISION}", "paths", paths),
            Route("GET", rf"{MODEL}/auth-check", "auth", self._gate.for_repo(self.auth_check)),
            Route("GET", rf"{MODEL}/refs", "refs", self._gate.for_repo(self.refs)),
            Route("GET", "/api/whoami-v2", "whoami", self._gate.for_visitor(self.whoami)),
            Route("GET", "/api/agent-harnesses", "harnesses", _nothing_here),
        )

    def listing(self, call: Call, visitor: Visitor) -> Answer:
        query = Query.read(call.head.query)
        key = self._sort_key(query)
        descending = query.get("direction") != "1"
        repos = [repo for repo in self._gate.store.all() if _is_listed(repo, query, visitor)]
        repos.sort(key=key, reverse=descending)
        size = query.number("limit", self._page_size)
        if size < 1:
            raise BadQuery("limit: expected a number above 0")
        names = _asked_fields(query, LISTED_IN_FULL if query.flag("full") else LISTED)
        return Pager(key, descending).answer(
            call, repos, min(size, self._page_size), lambda repo: record(repo, names, call.base)
        )

    def _sort_key(self, query: Query) -> Callable[[Repo], Any]:
        name = query.get("sort") or "trendingScore"
        if name not in SORTS:
            raise BadQuery(f"sort: expected one of {', '.join(SORTS)}")
        value = SORTS[name]
        return lambda repo: [value(repo), repo.object_id, repo.id]

    def info(self, call: Call, repo: Repo, _: Visitor) -> Answer:
        query = Query.read(call.head.query)
        blobs = query.flag("blobs")
        names = _asked_fields(query, INFO)
        return Answer.json(200, record(repo, names, call.base, blobs=blobs))

    def tree(self, call: Call, repo: Repo, _: Visitor) -> Answer:
        query = Query.read(call.head.query)
        expand, folder = query.flag("expand"), unquote(call.names.get("folder") or "")
        entries = _tree(repo, folder, expand=expand, recursive=query.flag("recursive"))
        if folder and not entries:
            return refusal(404, f'path "{folder}" does not exist on "{MAIN}"', "EntryNotFound")
        size = query.number("limit", EXPANDED_TREE_PAGE if expand else TREE_PAGE)
        pager = Pager[dict[str, Any]](key=lambda entry: entry["path"])
        return pager.answer(call, entries, size, lambda entry: entry)

    def paths_info(self, call: Call, repo: Repo, _: Visitor) -> Answer:
        """Asked as a form; paths that aren't there are left out."""
        form = Query.read(call.body.decode())
        paths = form.all("paths")
        if len(paths) > FORM_LIMIT:
            raise BadQuery("paths: too many")
        entries = _tree(repo, "", expand=form.flag("expand"), recursive=True)
        return Answer.json(200, [entry for entry in entries if entry["path"] in paths])

    def auth_check(self, call: Call, repo: Repo, visitor: Visitor) -> Answer:
        if repo.gated and not visitor.may_read(repo):
            return gated(repo, call.base, visitor is ANONYMOUS)
        return Answer.json(200, {})

    def refs(self, call: Call, repo: Repo, _: Visitor) -> Answer:
        main = {"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": repo.sha}
        return Answer.json(200, {"branches": [main], "converts": [], "tags": []})

    def whoami(self, call: Call, visitor: Visitor) -> Answer:
        if visitor is ANONYMOUS:
            return bad_credentials()
        token = {"accessToken": {"displayName": "test", "role": "read"}, "type": "access_token"}
        user = {"type": "user", "id": Repo(visitor.name).object_id, "name": visitor.name}
        return Answer.json(200, user | {"fullname": visitor.name, "orgs": [], "auth": token})


def _checked(handler: Handler) -> Handler:
    def handle(call: Call) -> Answer:
        try:
            return handler(call)
        except BadQuery as exc:
            return bad_request(str(exc))

    return handle


def _nothing_here(_: Call) -> Answer:
    return refusal(404, "Sorry, we can't find the page you are looking for.")


def _is_listed(repo: Repo, query: Query, visitor: Visitor) -> bool:
    """The filters: every tag, every word of the search in the id, author, gating."""
    tags = repo.all_tags if isinstance(repo.all_tags, list) else ()
    author, asked = query.get("author"), query.get("gated")
    return (
        (not repo.private or visitor.may_read(repo))
        and all(tag in tags for wanted in query.all("filter") for tag in wanted.split(","))
        and all(word in repo.id.lower() for word in (query.get("search") or "").lower().split())
        and (author is None or repo.author.lower() == author.lower())
        and (asked is None or bool(repo.gated) == (asked.lower() == "true"))
    )


def _asked_fields(query: Query, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    expand = query.all("expand")
    for name in expand:
        if name not in EXPANDABLE:
            options = "|".join(f'"{option}"' for option in EXPANDABLE)
            raise BadQuery(f"Invalid option: expected one of {options}")
    extra = ("cardData",) if query.flag("cardData") else ()
    return tuple(expand) if expand else (*otherwise, *extra)


def _tree(repo: Repo, folder: str, *, expand: bool, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below a folder, by path; only its own where not `recursive`."""
    prefix = f"{folder}/" if folder else ""
    inside = [file for file in repo.all_files if file.name.startswith(prefix)]
    folders = {parent for file in inside for parent in _parents(file) if parent != folder}
    below = [path for path in folders if path.startswith(prefix)]
    entries = [tree_entry(repo, file, expand) for file in inside]
    entries += [folder_entry(repo, path, expand) for path in below]
    near = [e for e in entries if recursive or "/" not in e["path"].removeprefix(prefix)]
    return sorted(near, key=lambda entry: entry["path"])


def _parents(file: RepoFile) -> list[str]:
    parts = file.name.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]
