"""A repository's card: what the page shows of it.

Everything in it was written by somebody else. Texts become short plain text,
pictures are addresses on Hub hosts, and whatever has another shape than it
should is left out: no row is lost over it, and none raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

from lora_registry.references import (
    HUB,
    SUFFIX,
    is_commit,
    is_repo,
    is_visible,
    is_weight_file,
)
from lora_registry.triggers import TriggerWord, from_card, from_widgets, one_line

Base = Literal["turbo", "base"]
TURBO: Final = "Tongyi-MAI/Z-Image-Turbo"
BASE_MODELS: Final[dict[Base, str]] = {"turbo": TURBO, "base": "Tongyi-MAI/Z-Image"}
MAX_FILES: Final = 200

_MATURE: Final = re.compile(
    r"(?<![a-z])(nsfw|not for all audiences|adult|porn\w*|nud(e|es|ity|ist)|naked|hentai|xxx"
    r"|x rated|uncensored|lewd|erotic\w*|eroge|ecchi|sexy?|sexual(ly)?|r18(?!\d)"
    r"|(?<!\d)18 ?plus|boobs?|breasts?|topless|nipples?|genitals?|pussy|penis|vagina|cum|blowjob"
    r"|bdsm|fetish|milf|onlyfans)(?![a-z])"
)
_SOUND_OR_FILM: Final = (".mp4", ".webm", ".mov", ".m4v", ".avi", ".mkv", ".mp3", ".wav", ".flac")
_PICTURE_HOSTS: Final = ("huggingface.co", "hf.co")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A safetensors file: its path in the repository, bytes, ISO date, SHA-256 where known."""

    name: str
    size: int | None = None
    date: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One adapter on the Hub.

    `picture` is an https address on a Hub host. `storage` is what the whole
    repository takes in bytes, all its revisions included, where the Hub said so.
    """

    id: str
    author: str
    name: str
    likes: int = 0
    downloads: int = 0
    license: str | None = None
    picture: str | None = None
    mature: bool = False
    gated: bool = False
    private: bool = False
    trigger_words: tuple[TriggerWord, ...] = ()
    files: tuple[WeightFile, ...] = ()
    sha: str | None = None
    created: str | None = None
    updated: str | None = None
    base: Base = "turbo"
    base_models: tuple[str, ...] = ()
    storage: int | None = None


def bare_card(repo: str) -> Card:
    """A card of which nothing but the repository's name is known."""
    author, _, name = repo.partition("/")
    return Card(repo, author, name)


def card_of(row: object, hub: str = HUB, base: Base | None = None) -> Card | None:
    """The card of a row as the Hub's API gives it; None where even its id can't be used.

    `base` says by which base model it was found; else its own words decide.
    """
    if not isinstance(row, Mapping) or not is_repo(str(row.get("id"))):
        return None
    repo, data = str(row["id"]), _mapping(row.get("cardData"))
    tags = tuple(_strings(row.get("tags")))
    widgets = [*_mappings(data.get("widget")), *_mappings(row.get("widgetData"))]
    sha = str(row.get("sha"))
    models = _base_models(data, tags)
    author, _, name = repo.partition("/")
    return Card(
        id=repo,
        author=author,
        name=name,
        likes=_count(row.get("likes")) or 0,
        downloads=_count(row.get("downloads")) or 0,
        license=_license(data, tags),
        picture=_picture(widgets, f"{hub}/{repo}/resolve/{sha if is_commit(sha) else 'main'}", hub),
        mature=is_mature((name, *tags)),
        gated=bool(row.get("gated")),
        private=bool(row.get("private")),
        trigger_words=from_card(data.get("instance_prompt")) or from_widgets(_texts(widgets)),
        files=tuple(islice(_files(row.get("siblings")), MAX_FILES)),
        sha=sha if is_commit(sha) else None,
        created=_date(row.get("createdAt")),
        updated=_date(row.get("lastModified")),
        base=base or _base(models),
        base_models=models,
        storage=_count(row.get("usedStorage")),
    )


def plain(value: object, most: int) -> str:
    """Text as one line of at most `most` characters, nothing invisible in it; "" for non-text."""
    return one_line(value, most)[:most].strip() if isinstance(value, str) else ""


def is_mature(texts: Iterable[str]) -> bool:
    """Whether a tag or a name says so, each as words: "nude-art" does, "denuded" doesn't."""
    words = re.sub(r"[\W_]+", " ", " 0 ".join(texts).lower())  # a 0: no phrase spans two texts
    return _MATURE.search(words) is not None


def _base_models(data: Mapping[str, Any], tags: Iterable[str]) -> tuple[str, ...]:
    stated = data.get("base_model")
    named = [stated] if isinstance(stated, str) else list(_strings(stated))
    tagged = [tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")]
    return tuple(dict.fromkeys(name for name in (*named, *tagged) if is_repo(name)))[:8]


def _base(models: tuple[str, ...]) -> Base:
    return "base" if BASE_MODELS["base"] in models and TURBO not in models else "turbo"


def _license(data: Mapping[str, Any], tags: Iterable[str]) -> str | None:
    stated = data.get("license")
    listed = [stated] if isinstance(stated, str) else list(_strings(stated))
    tagged = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    # "other" has its real name beside it.
    named = plain(data.get("license_name"), 60) if listed[:1] == ["other"] else ""
    return named or next((text for each in (*listed, *tagged) if (text := plain(each, 60))), None)


def _picture(widgets: Iterable[Mapping[str, Any]], root: str, hub: str) -> str | None:
    """The first of the widgets' outputs that is an image."""
    urls = (_mapping(widget.get("output")).get("url") for widget in widgets)
    return next((found for url in urls if (found := _picture_address(url, root, hub))), None)


def _picture_address(url: object, root: str, hub: str) -> str | None:
    if not isinstance(url, str) or not url.strip() or len(url) > 1000:
        return None
    path = url.strip()
    if path.partition("?")[0].lower().endswith(_SOUND_OR_FILM):
        return None
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|//", path):
        return path if _on_the_hub(path, hub) else None
    parts = path.removeprefix("./").split("/")
    if {"", ".", ".."} & set(parts) or not is_visible(path) or "\\" in path:
        return None
    return f"{root}/{quote('/'.join(parts))}"


def _on_the_hub(url: str, hub: str) -> bool:
    try:
        given, own = urlsplit(url), urlsplit(hub)
        host = given.hostname or ""
        port = given.port
    except ValueError:
        return False
    if not re.fullmatch(r"[!#-;=?-\[\]_a-z~]+", url, re.IGNORECASE) or "@" in given.netloc:
        return False  # an address as browsers write it, without quotes, spaces or backslashes
    if (given.scheme, given.netloc) == (own.scheme, own.netloc):
        return True
    known = any(host == name or host.endswith(f".{name}") for name in _PICTURE_HOSTS)
    return given.scheme == "https" and known and port in (None, 443)


def _texts(widgets: Iterable[Mapping[str, Any]]) -> list[str]:
    """The widgets' prompts, each once: a row gives its widgets twice."""
    texts = (plain(widget.get("text"), 400) for widget in widgets)
    return list(dict.fromkeys(text for text in texts if text.strip("-")))[:20]


def _files(siblings: object) -> Iterator[WeightFile]:
    for sibling in _mappings(siblings, 10_000):
        name = sibling.get("rfilename")
        if isinstance(name, str) and name.lower().endswith(SUFFIX) and is_weight_file(name):
            lfs = _mapping(sibling.get("lfs"))
            digest = str(lfs.get("sha256"))
            known = re.fullmatch(r"[0-9a-f]{64}", digest) is not None
            size = _count(sibling.get("size"))
            yield WeightFile(name, size, sha256=digest if known else None)


def _date(value: object) -> str | None:
    try:
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _count(value: object) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if usable and isinstance(value, int) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object, most: int = 100) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (entry for entry in value[:most] if isinstance(entry, Mapping))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (entry for entry in value[:200] if isinstance(entry, str))
