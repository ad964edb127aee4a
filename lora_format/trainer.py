"""What a trainer wrote into a file's metadata. All of it is other people's text."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

USEFUL: Final = (
    "modelspec.title", "modelspec.author", "modelspec.architecture", "modelspec.date",
    "modelspec.license", "modelspec.description", "modelspec.trigger_phrase", "modelspec.tags",
    "ss_output_name", "ss_network_module", "ss_network_dim", "ss_network_alpha",
    "ss_base_model_version", "ss_sd_model_name", "ss_num_train_images", "ss_num_epochs", "ss_epoch",
    "ss_steps", "ss_max_train_steps", "ss_learning_rate", "ss_optimizer", "ss_resolution",
    "ss_training_comment", "name", "software", "training_info", "base_model",
)  # fmt: skip
_BASE_MODEL: Final = (
    "base_model", "ss_sd_model_name", "ss_base_model_version", "modelspec.architecture",
)  # fmt: skip
_LONGEST: Final = 200
_MOST_WORDS: Final = 8


def trainer_notes(metadata: Mapping[str, str]) -> dict[str, str]:
    """The useful entries, each a line of at most 200 characters."""
    notes = {name: plain(metadata[name]) for name in USEFUL if name in metadata}
    return {name: text for name, text in notes.items() if text}


def plain(text: str) -> str:
    """One line without control characters, cut to 200."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST])
    return " ".join(shown.split())[:_LONGEST]


def stated_alpha(metadata: Mapping[str, str]) -> float | None:
    """The network's alpha where it is stated as a finite number."""
    try:
        alpha = float(metadata.get("ss_network_alpha", ""))
    except ValueError:
        return None
    return alpha if math.isfinite(alpha) else None


def base_model(metadata: Mapping[str, str]) -> str | None:
    """What it was made for, by name; of a path only the file."""
    for name in _BASE_MODEL:
        stated = plain(metadata.get(name, ""))
        if name == "ss_sd_model_name":
            stated = stated.replace("\\", "/").rpartition("/")[2]
        if stated and stated != "None":
            return stated
    return None


def is_training_adapter(metadata: Mapping[str, str]) -> bool:
    """Whether it exists to train others with: it undoes Turbo's distillation."""
    named = (metadata.get(name, "") for name in ("name", "ss_output_name", "modelspec.title"))
    plain_names = (text.lower().replace("-", "_").replace(" ", "_") for text in named)
    return any("training_adapter" in text for text in plain_names)


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Stated phrases first, then the commonest tags of its training images; at most eight."""
    words = dict.fromkeys(text for text in map(plain, _words(metadata)) if text)
    return tuple(words)[:_MOST_WORDS]


def _words(metadata: Mapping[str, str]) -> Iterator[str]:
    yield metadata.get("modelspec.trigger_phrase", "")
    yield from (text for name, text in metadata.items() if name.startswith("ss_instance"))
    yield from _common_tags(metadata.get("ss_tag_frequency", ""))


def _common_tags(text: str) -> list[str]:
    """From {folder: {tag: images}}."""
    counts: Counter[str] = Counter()
    for tags in _objects(_json(text)):
        counts.update({tag.strip(): n for tag, n in tags.items() if type(n) is int and n > 0})
    return [tag for tag, _ in counts.most_common(_MOST_WORDS)]


def _objects(folders: Any) -> list[dict[str, Any]]:
    found = folders.values() if isinstance(folders, dict) else ()
    return [tags for tags in found if isinstance(tags, dict)]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
