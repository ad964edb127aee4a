"""Cards are other people's text: shown plainly, whatever its shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_registry.cards import Card, WeightFile, card_of, is_mature, plain
from lora_registry.triggers import TriggerWord, from_card, from_prose, from_widgets, merge

SHA = "0123456789abcdef0123456789abcdef01234567"
HUB = "https://huggingface.co"
ROW: dict[str, Any] = {
    "id": "maker/Pixel-Art",
    "sha": SHA,
    "likes": 12,
    "downloads": 3400,
    "private": False,
    "gated": False,
    "createdAt": "2026-01-02T03:04:05.000Z",
    "lastModified": "2026-02-03T04:05:06.000Z",
    "tags": ["lora", "base_model:adapter:Tongyi-MAI/Z-Image-Turbo", "license:apache-2.0"],
    "cardData": {
        "base_model": ["Tongyi-MAI/Z-Image-Turbo"],
        "instance_prompt": "pixel art, p1x3l",
        "license": "apache-2.0",
        "widget": [{"text": "-", "output": {"url": "images/深 1.png"}}],
    },
    "siblings": [
        {"rfilename": "README.md"},
        {"rfilename": "a.safetensors", "size": 5, "lfs": {"sha256": "ab" * 32}},
        {"rfilename": "old/b_000002750.safetensors"},
        {"rfilename": "model.bin"},
    ],
}


def card(**changes: Any) -> Card:
    made = card_of({**ROW, **changes})
    assert made is not None
    return made


def data(**changes: Any) -> dict[str, Any]:
    return {**ROW["cardData"], **changes}


def test_a_whole_row_becomes_a_card() -> None:
    assert card_of(ROW) == Card(
        id="maker/Pixel-Art",
        author="maker",
        name="Pixel-Art",
        likes=12,
        downloads=3400,
        license="apache-2.0",
        picture=f"{HUB}/maker/Pixel-Art/resolve/{SHA}/images/%E6%B7%B1%201.png",
        trigger_words=(TriggerWord("pixel art", "card"), TriggerWord("p1x3l", "card")),
        files=(
            WeightFile("a.safetensors", 5, sha256="ab" * 32),
            WeightFile("old/b_000002750.safetensors"),
        ),
        sha=SHA,
        created="2026-01-02T03:04:05+00:00",
        updated="2026-02-03T04:05:06+00:00",
        base="turbo",
        base_models=("Tongyi-MAI/Z-Image-Turbo",),
    )


@pytest.mark.parametrize(
    "row", [None, [], "text", 7, {}, {"id": 3}, {"id": "no-owner"}, {"id": "../x"}]
)
def test_a_row_without_a_usable_id_is_no_card(row: object) -> None:
    assert card_of(row) is None


@pytest.mark.parametrize(
    "broken",
    [None, 7, "text", [], [None], [[]], {}, {"widget": "x"}, {"widget": [1, None, {"output": 3}]},
     {"base_model": 3}, {"base_model": [None, {}]}, {"instance_prompt": {"a": 1}},
     {"license": [None]}, {"self": 1, "ignore_metadata_errors": True}],
)  # fmt: skip
def test_a_malformed_card_is_a_plain_one(broken: object) -> None:
    plain_one = card(cardData=broken, tags=broken, siblings=broken, widgetData=broken)
    assert (plain_one.id, plain_one.likes) == ("maker/Pixel-Art", 12)
    assert plain_one.picture is None and plain_one.files == () and plain_one.trigger_words == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["widget", "output", "url", "text", "base_model", "instance_prompt", "license",
                 "rfilename", "size", "lfs", "sha256", "license_name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*ROW, "widgetData", "usedStorage"]), JSON))
def test_no_row_raises(changes: dict[str, Any]) -> None:
    made = card_of({**ROW, **changes, "id": "maker/name"})
    assert made is not None
    assert made.picture is None or made.picture.startswith("https://huggingface.co/")
    texts = (made.license or "", *(word.text for word in made.trigger_words))
    assert all(text.isprintable() and len(text) <= 100 for text in texts)
    assert made.likes >= 0 and made.downloads >= 0


def picture(url: object, **changes: Any) -> str | None:
    return card(cardData=data(widget=[{"text": "x", "output": {"url": url}}]), **changes).picture


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("images/x.jpg", f"{HUB}/maker/Pixel-Art/resolve/{SHA}/images/x.jpg"),
        ("./a b/ü#1?.png", f"{HUB}/maker/Pixel-Art/resolve/{SHA}/a%20b/%C3%BC%231%3F.png"),
        (f"{HUB}/o/n/resolve/main/x.png", f"{HUB}/o/n/resolve/main/x.png"),
        ("https://cdn-uploads.huggingface.co/x.png", "https://cdn-uploads.huggingface.co/x.png"),
        ("https://cas-bridge.xethub.hf.co/x", "https://cas-bridge.xethub.hf.co/x"),
    ],
)
def test_a_picture_is_an_address_on_the_hub(url: str, shown: str) -> None:
    assert picture(url) == shown


@pytest.mark.parametrize(
    "url",
    ["https://example.com/x.png", "https://huggingface.co.evil.example/x.png",
     "https://evilhuggingface.co/x.png", "http://huggingface.co/x.png", "//example.com/x.png",
     "https://user@huggingface.co/x.png", "https://huggingface.co:8080/x.png", "data:image/png,x",
     "javascript:alert(1)", "file:///x.png", "../x.png", "a/../../x.png", "/x.png", "a//x.png",
     "a\\x.png", "a\x00.png", "clip.mp4", "clip.webm?x=1", "", "  ", None, 3, {}, "x" * 2000,
     'https://huggingface.co/x.png" onerror="alert(1)', "https://huggingface.co/a b.png",
     "https://[/x.png", "https://huggingface.co:x/x.png"],
)  # fmt: skip
def test_any_other_picture_is_left_out(url: object) -> None:
    assert picture(url) is None


def test_a_film_gives_way_to_the_next_picture() -> None:
    widgets = [{"output": {"url": "a.mp4"}}, {"output": {}}, {"output": {"url": "b.webp"}}]
    shown = card(widgetData=widgets, cardData={}).picture
    assert shown == f"{HUB}/maker/Pixel-Art/resolve/{SHA}/b.webp"


def test_a_configured_hub_shows_its_own_pictures_and_the_commit_may_be_unknown() -> None:
    hub = "http://127.0.0.1:5000"
    made = card_of({**ROW, "sha": "main; x"}, hub)
    assert made is not None and made.sha is None
    assert made.picture == f"{hub}/maker/Pixel-Art/resolve/main/images/%E6%B7%B1%201.png"


@pytest.mark.parametrize(
    "text",
    ["not-for-all-audiences", "NSFW", "my_nsfw_lora", "Porn-Style", "pornographic", "nude",
     "Nudity", "hentai", "xxx", "uncensored-v2", "lewd", "erotica", "R18", "18plus", "topless"],
)  # fmt: skip
def test_mature_words_are_found_in_tags_and_names(text: str) -> None:
    assert is_mature(["lora", text])
    assert card(tags=[text]).mature and card(id=f"maker/{text}").mature


@pytest.mark.parametrize(
    "text",
    ["lora", "denuded-hills", "unicorn", "essex", "cumulus", "sussex-coast", "breastplates",
     "document", "r180", "adulthood", "pussywillow", "text-to-image"],
)  # fmt: skip
def test_words_that_only_contain_them_are_not_mature(text: str) -> None:
    assert not is_mature([text])


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ("p1x3l", ["p1x3l"]),
        ("a, b ,a,, -", ["a", "b"]),
        (["a", "B", None, "b"], ["a", "B"]),
        ("null", []),
        (" - ", []),
        ("None", []),
        (None, []),
        (7, []),
        ("`tok` \u202e\x00x", ["tok` x"]),
        ("x" * 200, []),
        (",".join(map(str, range(1, 40))), [str(n) for n in range(1, 9)]),
    ],
)
def test_the_cards_trigger_words(stated: object, words: list[str]) -> None:
    assert from_card(stated) == tuple(TriggerWord(word, "card") for word in words)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["p1x3l, a fox", "p1x3l, a crow"], ["p1x3l"]),
        (["pixel art style, a fox", "Pixel art style, a crow"], ["pixel art style"]),
        (["TOK a fox", "TOK in the rain"], ["TOK"]),
        (["zimg_style fox", "zimg_style. crow"], ["zimg_style"]),
        (["p1x3l, a fox"], []),
        (["a photo of a fox", "a photo of a crow"], []),
        (["A fox, red", "A crow, black"], []),
        (["photo, fox", "photo, crow"], []),
        (["fox runs", "fox sleeps"], []),
        ([], []),
    ],
)
def test_widgets_give_a_trigger_only_where_it_reads_like_one(
    texts: list[str], words: list[str]
) -> None:
    assert from_widgets(texts) == tuple(TriggerWord(word, "widget") for word in words)


def test_example_prompts_that_say_nothing_are_no_trigger() -> None:
    widgets = [{"text": "-", "output": {"url": "a.png"}}, {"text": "-"}, {"text": None}]
    assert card(cardData={"widget": widgets, "instance_prompt": None}).trigger_words == ()


@pytest.mark.parametrize(
    ("prose", "words"),
    [
        ("Trigger word: `p1x3l`", ["p1x3l"]),
        ("**Trigger words**: `p1x3l`, `pixel art`", ["p1x3l", "pixel art"]),
        ('The trigger phrase is "in the style of x".', ["in the style of x"]),
        ("You should use `TOK` to trigger the image generation.", ["TOK"]),
        ("You should use `a` and `b` to trigger the generation.", ["a", "b"]),
        ("No trigger word needed.", []),
        ("Trigger words: none", []),
        ("I like `code` and triggers", []),
        ("The trigger words are explained below.\n`x`", []),
    ],
)
def test_prose_counts_only_where_it_is_plain(prose: str, words: list[str]) -> None:
    assert from_prose(f"# Card\n\n{prose}\n") == tuple(TriggerWord(w, "prose") for w in words)


def test_the_first_source_of_a_word_stays() -> None:
    card_words, header = (TriggerWord("Tok", "card"),), (TriggerWord("tok", "header"),)
    assert merge(card_words, header, (TriggerWord("x", "prose"),)) == (
        TriggerWord("Tok", "card"),
        TriggerWord("x", "prose"),
    )


@given(st.text(), st.integers(1, 50))
def test_plain_text_is_one_short_visible_line(text: str, most: int) -> None:
    shown = plain(text, most)
    assert len(shown) <= most and shown.isprintable() and shown == shown.strip()


@pytest.mark.parametrize(
    ("stated", "tags", "shown"),
    [
        ("mit", [], "mit"),
        (["mit", "x"], [], "mit"),
        (None, ["license:openrail"], "openrail"),
        (7, [], None),
        ("<b>x</b>", [], "<b>x</b>"),
    ],
)
def test_the_licence(stated: object, tags: list[str], shown: str | None) -> None:
    assert card(cardData={"license": stated}, tags=tags).license == shown


def test_a_licence_with_a_name_of_its_own() -> None:
    named = {"license": "other", "license_name": "faipl-1.0"}
    assert card(cardData=named, tags=[]).license == "faipl-1.0"


@pytest.mark.parametrize(
    ("models", "base"),
    [
        ("Tongyi-MAI/Z-Image", "base"),
        (["Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo"], "turbo"),
        ("Tongyi-MAI/Z-Image-Turbo", "turbo"),
        ("x/other", "turbo"),
    ],
)
def test_what_it_was_made_for(models: object, base: str) -> None:
    assert card(cardData={"base_model": models}, tags=[]).base == base
    asked = card_of({**ROW, "cardData": {"base_model": models}}, base="base")
    assert asked is not None and asked.base == "base"
