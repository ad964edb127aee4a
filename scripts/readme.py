"""Writes the parts of README.md that are derived from the code. `--check` only compares.

Run from the repository's root: python scripts/readme.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy.kinds import KINDS, card, gradio_floor  # noqa: E402
from generation.parsing import bounds  # noqa: E402
from generation.request import GenerationRequest, ImageSizePreset  # noqa: E402
from settings import Settings  # noqa: E402

README = Path(__file__).resolve().parents[1] / "README.md"


def parameter_table() -> str:
    """Every field of the request: name, values, default, meaning."""
    rows = ["| Parameter | Values | Default | Meaning |", "|---|---|---|---|"]
    for name, field in GenerationRequest.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        rows.append(f"| `{name}` | {_values(name, field)} | {default} | {field.description} |")
    return "\n".join(rows)


def settings_table() -> str:
    """Every environment variable."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        default = "" if field.default_factory or field.default is None else _shown(field.default)
        rows.append(f"| `{field.alias}` | {default} | {field.description} |")
    return "\n".join(rows)


def front_matter() -> str:
    """The card of a hosted Space, on the oldest gradio that requirements.txt takes."""
    return f"---\n{card(KINDS['hosted'], gradio_floor())}\n---\n"


def render(text: str) -> str:
    """README's text with its derived parts renewed; its front matter makes it a Space's."""
    text = re.sub(r"\A---\n.*?\n---\n", lambda _: front_matter(), text, flags=re.DOTALL)
    for name, content in {"parameters": parameter_table(), "settings": settings_table()}.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
        before, after = pattern.split(text)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def _values(name: str, field: Any) -> str:
    limits = bounds(field)
    if name == "image_size":
        return f"{_choices(ImageSizePreset)}, or width × height"
    if get_origin(field.annotation) is Literal:
        return _choices(field.annotation)
    if "ge" in limits:
        return f"{limits['ge']} – {limits['le']}"
    if "max_length" in limits:
        unit = "characters" if field.annotation is str else "adapters"
        return f"at most {limits['max_length']:,} {unit}"
    return "`true`, `false`"


def _choices(literal: Any) -> str:
    return ", ".join(f"`{value}`" for value in get_args(literal))


def _shown(value: Any) -> str:
    if value is None:
        return "drawn"
    if value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    renewed = render(README.read_text("utf-8"))
    if "--check" in sys.argv:
        sys.exit(renewed != README.read_text("utf-8"))
    README.write_text(renewed, "utf-8")
