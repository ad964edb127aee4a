"""The record that says that `high` was compared with `none` on real weights, and how it did.

`python -m backends.local.quality` writes it; one file a model revision, in the data folder.
Free of torch.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Final

from huggingface_hub import try_to_load_from_cache
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

UNVALIDATED: Final = (
    "'high' computes in eight bits and is not yet compared on real weights; "
    "run python -m backends.local.quality."
)

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SAMPLE: Final = 2**20  # bytes from each end of a file


class Validation(BaseModel):
    """Means over the fixed recipes, `high` against `none`; PSNR in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str
    date: str
    device: str
    psnr: FiniteFloat
    ssim: FiniteFloat
    lpips: FiniteFloat | None = None


@cache
def revision(model: Path) -> str:
    """Of a model's folder: the Hub's commit, or else a digest of the transformer's files, by
    name, size and both ends."""
    if _COMMIT.fullmatch(model.name):
        return model.name
    digest = hashlib.sha256()
    for path in sorted((model / "transformer").glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, path.stat().st_size - _SAMPLE))
            digest.update(file.read())
    return digest.hexdigest()[:40]


def validated(data: Path | None, model: Path) -> Validation | None:
    """The record of this model's revision; None if nobody has compared it yet."""
    if data is None:
        return None
    try:
        found = Validation.model_validate_json(_record(data, revision(model)).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.revision == revision(model) else None


def folder_here(model: str) -> Path | None:
    """The folder of a model (a folder itself, or a Hub id) if it is on this machine already."""
    if Path(model).is_dir():
        return Path(model)
    found = try_to_load_from_cache(model, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def record(data: Path, validation: Validation) -> Path:
    """Write a record where `validated` finds it; returns its path."""
    path = _record(data, validation.revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(validation.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def _record(data: Path, which: str) -> Path:
    return data / "validation" / f"{which}.json"
