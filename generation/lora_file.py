"""How an adapter gets to a backend: an address that anyone may read, or a file that is here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

_PINNED: Final = re.compile(r"https://huggingface\.co/[^/]+/[^/]+/resolve/([0-9a-f]{40})/([^?#]+)")
_UPLOADED: Final = re.compile(r"upload:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One adapter of a request, found.

    `path` is the request's own. `url` needs no token and names one revision of
    one file; `local` is a file on this machine, which may be private. A backend
    takes either: one of them is always there. `file` and `sha` (a commit of the
    Hub, or the file's SHA-256) are for the receipt, None where nobody knows.
    """

    path: str
    file: str | None = None
    sha: str | None = None
    url: str | None = None
    local: Path | None = None


def pinned_address(repo: str, sha: str, file: str) -> str:
    """A file of one commit on the Hub; not a mirror's address, so that a recipe works anywhere."""
    return f"https://huggingface.co/{repo}/resolve/{sha}/{quote(file)}"


def as_written(path: str) -> LoraFile:
    """What a path says by itself: the file and commit of a pinned address, an upload's hash."""
    if pinned := _PINNED.fullmatch(path):
        return LoraFile(path, file=unquote(pinned[2]), sha=pinned[1], url=path)
    if uploaded := _UPLOADED.fullmatch(path):
        return LoraFile(path, sha=uploaded[1])
    return LoraFile(path)
