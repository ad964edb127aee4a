"""The `parameters` text of Automatic1111, which Forge, SD.Next, Civitai and others share.

    a fox in the snow <lora:pixel-art:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512

Read as `parse_generation_parameters` in AUTOMATIC1111/stable-diffusion-webui,
`modules/infotext_utils.py`, does, but in time that grows with the length only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_SETTINGS: Final = 64 * 1024  # characters of the last line

_NEGATIVE = "Negative prompt:"
_KEY = re.compile(r"\s*(\w[\w \-/]{1,60}):\s*")
_TAG = re.compile(r"<(lora|lyco|hypernet):([^<>]{1,300})>")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*+"')
_UNNAMEABLE = re.compile(r"[<>:,\n\"]")


@dataclass(frozen=True, slots=True)
class InfoText:
    """What the text says. `loras` are names and weights, taken out of the prompt."""

    prompt: str
    negative: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    loras: tuple[tuple[str, str], ...] = ()


def write(prompt: str, loras: Iterable[tuple[str, float]], settings: Mapping[str, object]) -> str:
    """The text: prompt, tags of the adapters, settings on the last line."""
    tags = [f"<lora:{_UNNAMEABLE.sub('_', name)}:{scale:g}>" for name, scale in loras]
    line = ", ".join(f"{key}: {_quote(str(value))}" for key, value in settings.items())
    return f"{' '.join([prompt, *tags])}\n{line}"


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n\"]", value) else value


def read(text: str) -> InfoText:
    """Take the text apart; without a line of settings it is all prompt."""
    lines = text.strip().split("\n")
    settings = read_settings(lines[-1])
    if len(settings) >= 3:
        lines.pop()
    else:
        settings = {}
    negative_lines = (i for i, line in enumerate(lines) if line.strip().startswith(_NEGATIVE))
    cut = next(negative_lines, len(lines))
    prompt = settings.get("Raw prompt") or "\n".join(lines[:cut])  # Fooocus's own words
    negative = "\n".join(lines[cut:]).strip().removeprefix(_NEGATIVE)
    prompt, loras = split_tags(prompt)
    return InfoText(prompt, negative.strip(), settings, loras)


def split_tags(prompt: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The prompt without adapter tags, which a text encoder would take for words."""
    loras = []
    for _kind, body in _TAG.findall(prompt):
        name, _, rest = body.partition(":")
        loras.append((name, rest.partition(":")[0] or "1"))
    return _TAG.sub("", prompt).strip() if loras else prompt.strip(), tuple(loras)


def read_settings(line: str) -> dict[str, str]:
    """`key: value` pairs between commas; a value with commas is quoted as in JSON."""
    settings: dict[str, str] = {}
    line, at = line[:MAX_SETTINGS], 0
    while at < len(line):
        key = _KEY.match(line, at)
        if key is None:
            at = _next_comma(line, at) + 1
            continue
        quoted = _QUOTED.match(line, key.end())
        end = quoted.end() if quoted else key.end()
        comma = _next_comma(line, end)
        value = quoted.group() if quoted else line[key.end() : comma]
        settings.setdefault(key.group(1), _unquote(value.strip()))
        at = comma + 1
    return settings


def _next_comma(line: str, at: int) -> int:
    comma = line.find(",", at)
    return len(line) if comma < 0 else comma


def _unquote(value: str) -> str:
    try:
        text = json.loads(value) if value.startswith('"') else value
    except ValueError:
        return value
    return text if isinstance(text, str) else value
