"""The two languages say the same: same keys, same facts, nothing missing, nothing left over."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from generation.errors import PlaygroundError
from generation.request import GenerationRequest, ImageSize, LoraRef
from history.records import State
from ui.texts import LANGUAGES, catalogue, explain, language_of, say

UI = Path(__file__).resolve().parents[2] / "ui"
ERRORS = PlaygroundError.tree()


@cache
def written(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((UI / "locales" / f"{language}.json").read_text("utf-8"))
    return found


def facts(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def sample(kind: type[PlaygroundError]) -> PlaygroundError:
    """An error of this kind with all the facts that its templates ask for."""
    names = facts(kind.message) | facts(kind.hint)
    return kind(**{name: f"<{name}>" for name in names})


# -- the same in both ----------------------------------------------------------


def test_chinese_has_every_text_and_no_other() -> None:
    """English of fields and errors is written where the thing itself is."""
    assert set(written("zh")) == set(catalogue("en")) == set(catalogue("zh"))


@pytest.mark.parametrize("key", sorted(catalogue("en")))
def test_both_languages_name_the_same_facts(key: str) -> None:
    english, chinese = catalogue("en")[key], catalogue("zh")[key]
    assert facts(english) == facts(chinese)
    assert bool(english.strip()) == bool(chinese.strip())
    assert english == english.strip() and chinese == chinese.strip()


def test_chinese_is_chinese() -> None:
    """A text that nobody translated is still the English one."""
    same = {key for key, text in written("zh").items() if text == catalogue("en")[key]}
    assert {key for key in same if re.search(r"[a-z]{4}", written("zh")[key])} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_is_written_twice(language: str) -> None:
    pairs: list[str] = []
    text = (UI / "locales" / f"{language}.json").read_text("utf-8")
    json.loads(text, object_pairs_hook=lambda found: pairs.extend(key for key, _ in found))
    assert len(pairs) == len(set(pairs))


# -- everything that can be said -----------------------------------------------


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_is_explained(language: Any, kind: type[PlaygroundError]) -> None:
    error = sample(kind)
    cause, hint = explain(language, error)
    assert cause and hint
    for name, value in error.facts.items():
        assert str(value) in cause + hint, name
    if language == "en":
        assert (cause, hint) == (error.cause, error.remedy)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_journal(kind: type[PlaygroundError]) -> None:
    error = sample(kind)
    again = PlaygroundError.from_record(json.loads(json.dumps(error.record())))
    assert type(again) is kind and again.facts == error.facts and str(again) == str(error)


def test_errors_have_names_of_their_own() -> None:
    assert len({kind.__name__ for kind in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_field_has_its_words(language: Any) -> None:
    for model in (GenerationRequest, ImageSize, LoraRef):
        for name in model.model_fields:
            assert catalogue(language)[f"field.{name}.title"]
            assert catalogue(language)[f"field.{name}.description"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_has_its_word(language: Any) -> None:
    assert all(say(language, f"state.{state}") for state in State)


# -- the code and the texts ----------------------------------------------------


@cache
def literals() -> tuple[frozenset[str], frozenset[str]]:
    """Plain strings of the page's code, and its f-strings as patterns."""
    plain, patterns = set(), set()
    for path in UI.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                plain.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                patterns.add("".join(_pattern(part) for part in node.values))
    return frozenset(plain), frozenset(patterns)


def _pattern(part: ast.expr) -> str:
    return re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w+"


def test_every_text_that_is_asked_for_exists() -> None:
    families = {key.split(".")[0] for key in catalogue("en")}
    plain, _ = literals()
    asked = {text for text in plain if re.fullmatch(r"[a-z]+(\.[A-Za-z_]+)+", text)}
    ours = {text for text in asked if text.split(".")[0] in families}
    assert {text for text in ours if not re.search(r"\.(js|css|py|json)$", text)} <= set(
        catalogue("en")
    )


def test_every_text_is_used() -> None:
    plain, patterns = literals()
    dynamic = re.compile("|".join(pattern for pattern in patterns if r"\." in pattern))
    unused = {key for key in catalogue("en") if key not in plain and not dynamic.fullmatch(key)}
    assert unused == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("de-DE,zh-TW;q=0.7", "zh"),
        ("fr", "en"),
        (";;,,*", "en"),
    ],
)
def test_the_language_of_a_browser(accepted: str | None, language: str) -> None:
    assert language_of(accepted) == language
