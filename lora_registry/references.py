"""What a person pastes as an adapter, understood or refused with the reason.

owner/name · owner/name/folder/file.safetensors · upload:<sha-256>
a page or a file on the Hub, with or without https://
the https address of a safetensors file anywhere else
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from generation.errors import ReferenceInvalid

HUB: Final = "https://huggingface.co"
HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"})
SUFFIX: Final = ".safetensors"
MAX_REFERENCE: Final = 2048

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
_FILE_PAGES: Final = ("blob", "resolve", "raw")
_NO_MODELS: Final = frozenset(
    "api blog chat collections datasets docs join kernels login models new organizations papers"
    " posts pricing settings spaces tasks".split()
)


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository of the Hub, perhaps one file of it, perhaps at one revision."""

    repo: str
    file: str | None = None
    revision: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, whose files never change."""
        return self.revision is not None and is_commit(self.revision)


@dataclass(frozen=True, slots=True)
class UrlReference:
    """Any other https address of a safetensors file."""

    url: str


@dataclass(frozen=True, slots=True)
class UploadReference:
    """A file that its owner dropped on the page, by its SHA-256 in hexadecimal."""

    sha256: str


Reference = HubReference | UrlReference | UploadReference


class _Problem(ValueError):
    """Why a reference can't be taken; completes “it …”."""


def parse_reference(text: str, hub: str = HUB) -> Reference:
    """Understand what was typed; `hub` is the Hub's configured address.

    Raises:
        ReferenceInvalid: with the reason, in words that complete “it …”.
    """
    typed = text.strip().strip("\"'<>`").strip()
    try:
        return _parse(typed, hub.rstrip("/"))
    except _Problem as exc:
        raise ReferenceInvalid(reference=_shown(typed), problem=str(exc)) from exc


@lru_cache(maxsize=4096)  # the same few base models stand on every card
def is_repo(repo: str) -> bool:
    """Whether this is an owner and a name as the Hub allows them."""
    parts = repo.split("/")
    ordinary = all(_NAME.fullmatch(part) for part in parts) and not re.search(r"--|\.\.", repo)
    return len(parts) == 2 and ordinary and len(repo) <= 96


def is_weight_file(name: str) -> bool:
    """Whether this is a safetensors file's name that is safe in an address."""
    try:
        return _weight_file(name.split("/")) == name
    except _Problem:
        return False


def is_visible(text: str) -> bool:
    """Whether it holds no control, format, surrogate or unassigned character."""
    return text.isprintable() or not any(unicodedata.category(char)[0] == "C" for char in text)


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's whole hash."""
    return _COMMIT.fullmatch(revision) is not None


def _parse(text: str, hub: str) -> Reference:
    if not text:
        _refuse("is empty")
    if len(text) > MAX_REFERENCE:
        _refuse(f"is longer than {MAX_REFERENCE:,} characters")
    if not is_visible(text):
        _refuse("holds control characters")
    if text.startswith("upload:"):
        return _upload(text.removeprefix("upload:"))
    if _SCHEME.match(text):
        return _address(text, hub)
    return _path(text)


def _upload(sha256: str) -> UploadReference:
    if not _SHA256.fullmatch(sha256):
        _refuse("is not the SHA-256 of an uploaded file")
    return UploadReference(sha256)


def _address(text: str, hub: str) -> Reference:
    try:
        url = urlsplit(text)
        port, own = url.port, urlsplit(hub)
    except ValueError:
        _refuse("can't be read as an address")
    at_hub = (url.scheme, url.netloc.lower()) == (own.scheme, own.netloc.lower())
    if url.scheme != "https" and not at_hub:
        _refuse(f"starts with {text.partition(':')[0]}:, and only https: is taken")
    if "@" in url.netloc:
        _refuse("holds a user name or a password")
    if not url.hostname or port == 0 or "\\" in text:
        _refuse("can't be read as an address")
    if at_hub:
        return _hub_page(url, own.path)
    if url.hostname in HUB_HOSTS and port in (None, 443):
        return _hub_page(url, "")
    return _elsewhere(text, url)


def _elsewhere(text: str, url: SplitResult) -> UrlReference:
    name = unquote(url.path).rpartition("/")[2]
    if not name:
        _refuse("names no file")
    if "." in name:  # some hosts name a download by a number: its header will tell
        _check_suffix(name)
    return UrlReference(text.partition("#")[0])


def _path(text: str) -> Reference:
    first = text.partition("/")[0].lower()
    if first in HUB_HOSTS:
        return _hub_page(urlsplit(f"https://{text}"), "")
    if text[0] in "/~." or "\\" in text:
        _refuse("is a path on a computer: drop the file on the page instead")
    return _hub_reference(text.strip("/").split("/"), None)


def _hub_page(url: SplitResult, prefix: str) -> HubReference:
    segments = [unquote(part) for part in url.path.removeprefix(prefix).strip("/").split("/")]
    # The Hub's own file list opens a header view, which names the file in the query.
    shown = parse_qs(url.query).get("show_file_info", [None])[0]
    return _hub_reference(segments, shown)


def _hub_reference(segments: list[str], shown: str | None) -> HubReference:
    if segments[0].lower() in _NO_MODELS:
        _refuse(f"leads to the Hub's {segments[0]}, not to a model")
    repo, rest = "/".join(segments[:2]), segments[2:]
    if not is_repo(repo):
        _refuse("has no owner/name of the Hub's form")
    kind, at_page = (rest[0] if rest else ""), len(rest) > 1
    if kind in _FILE_PAGES and at_page:
        revision, path = _revision(rest[1:])
        return HubReference(repo, _weight_file(path), revision)
    if kind in ("tree", "commit") and at_page:
        file = _weight_file(shown.split("/")) if shown else None
        return HubReference(repo, file, _revision(rest[1:])[0])
    if kind in ("discussions", "commits", "tree"):
        return HubReference(repo)
    return HubReference(repo, _weight_file(rest) if rest else None)


def _revision(segments: list[str]) -> tuple[str, list[str]]:
    """A branch, tag or commit, and what follows; refs/pr/1 is one of them."""
    count = 3 if segments[0] == "refs" and len(segments) >= 3 else 1
    revision = "/".join(segments[:count])
    _check_parts(revision.split("/"))
    return revision, segments[count:]


def _weight_file(parts: list[str]) -> str:
    _check_parts(parts)
    _check_suffix(parts[-1])
    return "/".join(parts)


def _check_parts(parts: list[str]) -> None:
    # All once more: what was percent-encoded a moment ago may hold anything.
    text = "/".join(parts)
    if any(part in ("", ".", "..") for part in text.split("/")):
        _refuse("names no file inside the repository")
    if "\\" in text or not is_visible(text):
        _refuse("holds control characters")
    if len(text) > 512:
        _refuse("names a file longer than 512 characters")


def _check_suffix(name: str) -> None:
    lower = name.lower()
    if lower.endswith(_PICKLES):
        suffix = lower[lower.rindex(".") :]
        _refuse(f"is a {suffix} file, which may run code; only {SUFFIX} files are taken")
    if not lower.endswith(SUFFIX):
        _refuse(f"names no {SUFFIX} file")


def _refuse(problem: str) -> NoReturn:
    raise _Problem(problem)


def _shown(text: str) -> str:
    """The reference for an error: short, and with nothing in it that can't be seen."""
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
