"""What the stand-in Hub holds, as values: repositories, their files, and who may read them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any, Literal, Self
from urllib.parse import quote

TURBO = "Tongyi-MAI/Z-Image-Turbo"
BASE = "Tongyi-MAI/Z-Image"
LFS_SUFFIXES = frozenset((".safetensors", ".gguf", ".bin", ".ckpt", ".pt", ".png", ".zip"))
CONTENT_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
TEXTS = frozenset((".md", ".txt", ".json", ".gitattributes"))
PIECE = 1024 * 1024
MAIN = "main"


@lru_cache(maxsize=4096)
def _padded_sha256(body: bytes, size: int) -> str:
    digest = hashlib.sha256(body)
    left = size - len(body)
    while left > 0:
        digest.update(bytes(min(left, PIECE)))
        left -= PIECE
    return digest.hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class RepoFile:
    """A file: `body`, then zeros up to `size` bytes, so that a big one costs no memory."""

    name: str
    body: bytes
    size: int | None = None
    date: str | None = None
    """ISO time of its last commit; None: the repository's own."""

    @property
    def length(self) -> int:
        return len(self.body) if self.size is None else self.size

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, which is not part of them."""
        head = self.body[start:end]
        return head + bytes(min(end, self.length) - start - len(head))

    @cached_property
    def sha256(self) -> str:
        return _padded_sha256(self.body, self.length)

    @cached_property
    def pointer(self) -> bytes:
        """The text that git keeps in place of an LFS file."""
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}")
        return "\n".join((*lines, f"size {self.length}", "")).encode()

    @cached_property
    def oid(self) -> str:
        return _git_oid(self.pointer if self.is_lfs else self.body)

    @property
    def is_lfs(self) -> bool:
        return self.size is not None or self.suffix in LFS_SUFFIXES

    @property
    def suffix(self) -> str:
        path = PurePosixPath(self.name)
        return (path.suffix or path.name).lower()

    @property
    def content_type(self) -> str:
        plain = "text/plain; charset=utf-8"
        other = plain if self.suffix in TEXTS else "application/octet-stream"
        return CONTENT_TYPES.get(self.suffix, other)

    @property
    def etag(self) -> str:
        """As the Hub has it: the SHA-256 of an LFS file, the git hash of any other."""
        return f'"{self.sha256 if self.is_lfs else self.oid}"'


@dataclass(frozen=True)
class Repo:
    """A model repository at one commit; whatever git or the Hub would compute follows from it."""

    id: str
    files: tuple[RepoFile, ...] = ()
    card: Any = field(default_factory=dict)
    """The card's metadata as parsed; any JSON, None for a card without metadata."""
    prose: str = ""
    """The card's text below its metadata."""
    likes: int = 0
    downloads: int = 0
    trending: int = 0
    created: str = "2026-01-15T10:00:00.000Z"
    updated: str = "2026-02-01T10:00:00.000Z"
    gated: bool | Literal["auto", "manual"] = False
    private: bool = False
    relation: str = "adapter"
    """Of the repository to its base models: the word in its `base_model:…:` tags."""
    library: str | None = "diffusers"
    former: tuple[str, ...] = ()
    """Names that it had before, which lead here."""
    tags: Any = None
    """In place of the tags that follow from the card: what a broken listing says."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the API's record that are replaced, whatever they would be."""

    @property
    def author(self) -> str:
        return self.id.partition("/")[0]

    @cached_property
    def all_files(self) -> tuple[RepoFile, ...]:
        """Its files with those that every repository has, sorted as git does."""
        named = {file.name: file for file in self._made() + self.files}
        return tuple(named[name] for name in sorted(named, key=lambda name: name.encode()))

    def _made(self) -> tuple[RepoFile, ...]:
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        readme = RepoFile("README.md", self._readme(), date=self.created)
        return (RepoFile(".gitattributes", attributes, date=self.created), readme)

    def _readme(self) -> bytes:
        known = self.card if isinstance(self.card, dict) else {}
        lines = (f"{json.dumps(key)}: {json.dumps(known[key])}" for key in known)  # JSON is YAML
        front = "---\n" + "".join(f"{line}\n" for line in lines) + "---\n" if known else ""
        return (front + self.prose).encode()

    def file(self, name: str) -> RepoFile | None:
        return next((file for file in self.all_files if file.name == name), None)

    @cached_property
    def sha(self) -> str:
        """The commit: it changes with the card and the files, not with likes."""
        digest = hashlib.sha1(self.id.encode())
        for file in self.all_files:
            digest.update(f"{file.name}\0{file.length}\0".encode() + file.body)
        return digest.hexdigest()

    @cached_property
    def object_id(self) -> str:
        """As Mongo makes them: the time of creation, then what is its own."""
        seconds = int(datetime.fromisoformat(self.created).timestamp())
        return f"{seconds:08x}{hashlib.sha1(self.id.encode()).hexdigest()[:16]}"

    @cached_property
    def base_models(self) -> tuple[str, ...]:
        value = self.card.get("base_model") if isinstance(self.card, dict) else None
        values = value if isinstance(value, list) else [value]
        return tuple(name for name in values if isinstance(name, str))

    @cached_property
    def all_tags(self) -> Any:
        return self._derived_tags() if self.tags is None else self.tags

    def _derived_tags(self) -> list[str]:
        card = self.card if isinstance(self.card, dict) else {}
        own = card.get("tags")
        tags = [self.library] if self.library else []
        tags += [tag for tag in own if isinstance(tag, str)] if isinstance(own, list) else []
        for model in self.base_models:
            tags += [f"base_model:{model}", f"base_model:{self.relation}:{model}"]
        licence = card.get("license")
        tags += [f"license:{licence}"] if isinstance(licence, str) else []
        return [*dict.fromkeys(tags), "region:us"]

    def picture_url(self, base: str, name: str) -> str:
        return f"{base}/{self.id}/resolve/{MAIN}/{quote(name)}"

    def to_json(self) -> dict[str, Any]:
        """For another process; bytes as Base64."""
        values = asdict(self)
        for file in values["files"]:
            file["body"] = base64.b64encode(file["body"]).decode()
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        files = tuple(
            RepoFile(**{**file, "body": base64.b64decode(file["body"])}) for file in values["files"]
        )
        return cls(**{**values, "files": files, "former": tuple(values["former"])})

    def renamed(self, new_id: str) -> Self:
        return replace(self, id=new_id)


@dataclass(frozen=True)
class Visitor:
    """Whose token it is, and the private and gated repositories that it opens; `*`: all."""

    name: str
    reads: frozenset[str] = frozenset()

    def may_read(self, repo: Repo) -> bool:
        return bool({"*", repo.id} & self.reads) or repo.author == self.name


ANONYMOUS = Visitor("")
READER_TOKEN = "hf_standinReaderOfAll"
"""A good token that opens everything."""
STRANGER_TOKEN = "hf_standinStranger"
"""A good token that opens nothing."""
TOKENS = {
    READER_TOKEN: Visitor("reader", frozenset("*")),
    STRANGER_TOKEN: Visitor("stranger"),
}
