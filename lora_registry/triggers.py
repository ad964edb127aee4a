"""Trigger words: what a prompt must hold for an adapter to show, and who says so.

Only what is plainly meant as one is taken; a wrong chip is worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_WORDS: Final = 8
MAX_LENGTH: Final = 100

_NOTHING: Final = frozenset(("", "-", "--", "none", "null", "n/a", "na", "no", "nan", "undefined"))
_COMMON: Final = frozenset(
    "a an the of in on at with and or for by to this that photo image".split()
)
_QUOTED: Final = re.compile(r"[`\"“]([^`\"“”\n]{1,100})[`\"”]")
_STATED: Final = re.compile(
    r"trigger\s*(?:words?|phrases?|tokens?)\W{0,12}?(?:is|are)?\W{0,6}?(?=[`\"“])", re.IGNORECASE
)
# What the Hub's own card template says.
_TEMPLATE: Final = re.compile(
    r"use\s+(?=[`\"“])([^\n]{1,300}?)\s+to trigger the (?:image|generation)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class TriggerWord:
    """A text for the prompt; `source` is "card", "widget", "header" or "prose"."""

    text: str
    source: str


def one_line(text: str, most: int) -> str:
    """The beginning of a text, at least `most` characters, with nothing invisible in it."""
    start = text[: 4 * most]
    if not start.isprintable():
        start = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in start)
    return " ".join(start.split())


def trigger_words(texts: Iterable[object], source: str) -> tuple[TriggerWord, ...]:
    """The usable ones of some texts, each once."""
    cleaned = (_clean(text) for text in texts)
    kept = (TriggerWord(text, source) for text in cleaned if text.casefold() not in _NOTHING)
    return merge(kept)


def merge(*groups: Iterable[TriggerWord]) -> tuple[TriggerWord, ...]:
    """All groups in order; of the same text the first one's source stays."""
    kept: dict[str, TriggerWord] = {}
    for word in (word for group in groups for word in group):
        kept.setdefault(word.text.casefold(), word)
    return tuple(kept.values())[:MAX_WORDS]


def from_card(instance_prompt: object) -> tuple[TriggerWord, ...]:
    """The card's `instance_prompt`: a text, several by commas, or a list."""
    if isinstance(instance_prompt, str):
        return trigger_words(instance_prompt[:2000].split(","), "card")
    if isinstance(instance_prompt, list):
        return trigger_words(instance_prompt[:MAX_WORDS], "card")
    return ()


def from_widgets(texts: Sequence[str]) -> tuple[TriggerWord, ...]:
    """What all of several example prompts begin with, if it reads like a trigger."""
    if len(texts) < 2:
        return ()
    heads = {text.partition(",")[0].strip().casefold() for text in texts}
    if len(heads) == 1 and all("," in text for text in texts):
        head = texts[0].partition(",")[0].strip()
        words = head.casefold().split()
        if len(words) <= 5 and not set(words) <= _COMMON:
            return trigger_words([head], "widget")
    firsts = {text.split()[0].strip(".,:;") for text in texts if text.split()}
    first = firsts.pop() if len(firsts) == 1 else ""
    return trigger_words([first], "widget") if _is_made_up(first) else ()


def from_prose(readme: str) -> tuple[TriggerWord, ...]:
    """Quoted words where a card's text says outright that they are triggers."""
    text = readme[:100_000]
    found: list[str] = []
    for line in text.splitlines():
        if match := _STATED.search(line[:1000]):
            found += _QUOTED.findall(line[match.end() : match.end() + 400])
        elif match := _TEMPLATE.search(line[:1000]):
            found += _QUOTED.findall(match.group(1))
    return trigger_words(found, "prose")


def _is_made_up(word: str) -> bool:
    """A word that nobody writes by chance: with a digit or underscore, or in capitals."""
    return len(word) >= 3 and (any(c.isdigit() or c == "_" for c in word) or word.isupper())


def _clean(text: object) -> str:
    if not isinstance(text, str):
        return ""
    joined = one_line(text, MAX_LENGTH).strip("`\"“”' ")
    return joined if len(joined) <= MAX_LENGTH else ""
