"""The repositories of the stand-in Hub, by name, by old name, and at every commit they had."""

import threading
from collections.abc import Iterable

from .hub_repos import ANONYMOUS, MAIN, TOKENS, Repo, RepoFile, Visitor


class RepoStore:
    """Filled by tests, read by the stand-in's thread."""

    def __init__(self, repos: Iterable[Repo] = ()) -> None:
        self._lock = threading.Lock()
        self._repos: dict[str, Repo] = {}
        self._commits: dict[tuple[str, str], Repo] = {}
        self._moved: dict[str, str] = {}
        self._blobs: dict[str, RepoFile] = {}
        self._tokens = dict(TOKENS)
        for repo in repos:
            self.add(repo)

    def add(self, repo: Repo) -> None:
        """A new repository, or a new commit of one that is there: the old ones stay readable."""
        with self._lock:
            self._repos[repo.id.lower()] = repo
            self._commits[repo.id, repo.sha] = repo
            self._moved |= {name.lower(): repo.id for name in repo.former}

    def remove(self, repo_id: str) -> None:
        with self._lock:
            del self._repos[repo_id.lower()]

    def rename(self, old: str, new: str) -> None:
        """The old name leads to the new one from now on, and so do its commits."""
        with self._lock:
            repo = self._repos.pop(old.lower())
            self._repos[new.lower()] = repo.renamed(new)
            for (repo_id, sha), commit in list(self._commits.items()):
                if repo_id == old:
                    self._commits[new, sha] = commit.renamed(new)
            self._commits[new, self._repos[new.lower()].sha] = self._repos[new.lower()]
            self._moved[old.lower()] = new

    def add_token(self, token: str, visitor: Visitor) -> None:
        with self._lock:
            self._tokens[token] = visitor

    def all(self) -> list[Repo]:
        with self._lock:
            return list(self._repos.values())

    def find(self, repo_id: str) -> Repo | None:
        """The repository of that name, in any case; `Repo.id` has its proper one."""
        with self._lock:
            name = repo_id.lower()
            moved = self._moved.get(name, "").lower()
            return self._repos.get(name) or self._repos.get(moved)

    def at(self, repo: Repo, revision: str) -> Repo | None:
        """The repository as it was at a commit; `main` is what it is now."""
        with self._lock:
            return repo if revision == MAIN else self._commits.get((repo.id, revision))

    def visitor(self, token: str | None) -> Visitor | None:
        """Whose token that is; None where it is nobody's."""
        with self._lock:
            return ANONYMOUS if token is None else self._tokens.get(token)

    def publish(self, file: RepoFile) -> None:
        """Let the CDN serve a file by its hash."""
        with self._lock:
            self._blobs[file.sha256] = file

    def blob(self, sha256: str) -> RepoFile | None:
        with self._lock:
            return self._blobs.get(sha256)
