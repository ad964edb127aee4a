"""The folder of a Space: the product's own files, and the two that the kind decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.kinds import ROOT, TITLE, Kind, card, requirements
from generation.errors import FolderNotEmpty

PARTS: Final = (
    "generation", "lora_format", "backends", "lora_registry", "history", "jobs", "ui",
)  # fmt: skip
FILES: Final = ("app.py", "settings.py", "outbound.py", "zerogpu.py", "LICENSE")
ABOUT: Final = """
# {title}

Every parameter of fal's endpoint `fal-ai/z-image/turbo/lora` as a control, LoRA adapters from the
Hub, what a click costs before it, and the recipe of every image kept. This Space is of the kind
*{kind}*: {about}. Every visitor has a history of their own.
"""


def write_folder(kind: Kind, sdk_version: str, folder: Path) -> int:
    """Write all files of a Space below `folder`, which is made if absent; how many there are.

    Raises:
        FolderNotEmpty: something else is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FolderNotEmpty(folder=str(folder))
    for source in product_files():
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "README.md").write_text(readme(kind, sdk_version), "utf-8")
    (folder / "requirements.txt").write_text(requirements(kind), "utf-8")
    return sum(path.is_file() for path in folder.rglob("*"))


def product_files() -> Iterator[Path]:
    """What runs: no tests, benchmarks, data, caches or hidden files."""
    yield from (ROOT / name for name in FILES)
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and not _is_left_out(path.relative_to(ROOT)):
                yield path


def _is_left_out(path: Path) -> bool:
    return any(name.startswith(".") or name == "__pycache__" for name in path.parts)


def readme(kind: Kind, sdk_version: str) -> str:
    """The Space's README: its card, and what it is."""
    about = ABOUT.format(title=TITLE, kind=kind.name, about=kind.about)
    return f"---\n{card(kind, sdk_version)}\n---\n{about}"
