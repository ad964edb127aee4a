"""How an adapter gets to a backend: an address that anyone may read, or a file that is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
