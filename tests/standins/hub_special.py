"""The catalogue's repositories with fixed ids, each for something that goes wrong out there."""

import json
from typing import Any

from .fal_images import picture
from .hub_repos import BASE, TURBO, Repo, RepoFile
from .hub_weights import control_net, flux_lora, lora, merged_model, weights

PIXEL_ART = "studio-lumen/Pixel-Art-Turbo"
"""All is well here: one file, a trigger, pictures, a licence."""
SEVERAL_FILES = "nordlicht/film-grain-zit"
GATED = "aurora-lab/portrait-glow"
GATED_BY_HAND = "aurora-lab/house-style"
PRIVATE = "papercrane/unreleased-style"
OLD_NAME, NEW_NAME = "inkhouse/ink-wash-old", "inkhouse/ink-wash-turbo"
NO_SAFETENSORS = "lakehouse/pickled-style"
GGUF = "quant-corner/Z-Image-Turbo-GGUF"
CONTROL_NET = "ctrl-works/Z-Image-Turbo-ControlNet-Union"
TRAININGADAPTER = "trainer-tools/zimage_turbo_training_adapter"
MERGED_MODEL = "Halcyon/z-image-turbo-merge"
OTHER_FAMILY = "greyscale/flux-style-mislabelled"
TRIGGER_IN_PROSE = "mossgarden/herbarium-zit"
TRIGGER_IN_HEADER = "mossgarden/lichen-zit"
LARGE_HEADER = "lakehouse/long-memory-zit"
"""Its header doesn't fit into the first 100 kB of the file."""
HTML_WEIGHTS = "lakehouse/page-not-weights"
CUT_WEIGHTS = "lakehouse/half-uploaded"
CJK_PICTURES = "k-okabe/yoru-no-machi"
HOSTILE_TEXT = "owl-and-ink/script-style"
MATURE = ("velvet-room/boudoir-zit", "velvet-room/afterdark-nsfw-turbo", "lustre/Uncensored-ZIT")
MALFORMED = (
    "ferrofluid/card-is-text", "ferrofluid/card-of-wrong-types", "ferrofluid/no-card",
    "ferrofluid/tags-of-wrong-types",
)  # fmt: skip
FOR_BASE = tuple(
    f"basecamp/{name}-z-image" for name in ("gouache", "oil", "pastel", "crayon", "sepia")
)
ADAPTER = f"base_model:adapter:{TURBO}"
"""The tag by which adapters are found."""
TAGS = ["text-to-image", "lora", "diffusers", "template:diffusion-lora"]
FIRST, SECOND = "2026-03-02T09:00:00.000Z", "2026-03-02T11:30:00.000Z"


def _card(**fields: Any) -> dict[str, Any]:
    return {"tags": TAGS, "base_model": TURBO, "license": "apache-2.0"} | fields


def _png(name: str, seed: int) -> RepoFile:
    return RepoFile(name, picture((256, 320), "png", seed))


def _one(name: str = "lora.safetensors", rank: int = 16) -> tuple[RepoFile, ...]:
    return (weights(name, lora(rank)),)


def special_repos() -> tuple[Repo, ...]:
    """In no order that a listing would show."""
    return (
        *_good(), *_guarded(), *_not_adapters(), *_odd_cards(), *_mature(), *_malformed(),
        *_for_base(),
    )  # fmt: skip


def _good() -> tuple[Repo, ...]:
    pictures = (_png("images/castle.png", 901), _png("images/a market.png", 902))
    widgets = [{"text": "pixel art, a castle", "output": {"url": file.name}} for file in pictures]
    pixel = Repo(
        PIXEL_ART,
        (*_one("pixel_art_zit.safetensors", 32), *pictures),
        _card(instance_prompt="pixel art", widget=widgets),
        "# Pixel Art\n\nUse a strength of 0.8.\n",
        likes=1834, downloads=90210, trending=12,
    )  # fmt: skip
    steps = {"film_grain_000001250": FIRST, "film_grain_000002750": SECOND, "film_grain": SECOND}
    files = (
        weights(f"{name}.safetensors", lora(8), {"ss_output_name": name}, date=day)
        for name, day in steps.items()
    )
    grain = Repo(
        SEVERAL_FILES,
        tuple(files),
        _card(instance_prompt="grainy film photo", license="mit"),
        likes=640, downloads=31000, trending=7,
    )  # fmt: skip
    return pixel, grain, *_headers()


def _headers() -> tuple[Repo, ...]:
    """Files whose header says more than the card, or says it at length, or isn't one."""
    frequency = {"10_lichen": {"lichen macro": 40, "moss": 12, "stone": 3}}
    told = {"ss_tag_frequency": json.dumps(frequency), "modelspec.trigger_phrase": "lichen macro"}
    told |= {"ss_network_dim": "16", "ss_network_alpha": "8.0", "ss_base_model_version": "zimage"}
    page = b"<!DOCTYPE html><html><body>Please log in</body></html>"
    whole = weights("half.safetensors", lora(4))
    cut = RepoFile(whole.name, whole.body[: len(whole.body) // 2])
    long = weights("memory.safetensors", lora(4), {"ss_datasets": "x" * 150_000})
    return (
        Repo(
            TRIGGER_IN_HEADER, (weights("lichen.safetensors", lora(16), told),), _card(), likes=66
        ),
        Repo(LARGE_HEADER, (long,), _card(), likes=12),
        Repo(HTML_WEIGHTS, (RepoFile("page.safetensors", page),), _card(), likes=2),
        Repo(CUT_WEIGHTS, (cut,), _card(), likes=2),
    )


def _guarded() -> tuple[Repo, ...]:
    return (
        Repo(GATED, _one(), _card(instance_prompt="GLOW"), likes=480, downloads=900, gated="auto"),
        Repo(GATED_BY_HAND, _one(), _card(), likes=35, downloads=60, gated="manual"),
        Repo(PRIVATE, _one(), _card(instance_prompt="UNRLSD"), private=True),
        Repo(NEW_NAME, _one("ink.safetensors"), _card(), likes=77, former=(OLD_NAME,)),
    )


def _not_adapters() -> tuple[Repo, ...]:
    pickled = (RepoFile("style.ckpt", b"\x80\x02}q\x00.", 40_000), RepoFile("style.pt", b"PK"))
    trained = weights("training_adapter_v1.safetensors", lora(16, feed_forward=True))
    return (
        Repo(NO_SAFETENSORS, pickled, _card(), likes=21),
        Repo(GGUF, (RepoFile("z_image_turbo-Q4_K_M.gguf", b"GGUF\x03\0\0\0", 4_000_000),), _card()),
        Repo(CONTROL_NET, (weights("union.safetensors", control_net()),), _card(), likes=310),
        Repo(TRAININGADAPTER, (trained,), _card(tags=["lora"]), likes=150),
        Repo(MERGED_MODEL, (weights("merge.safetensors", merged_model()),), _card(), likes=44),
        Repo(OTHER_FAMILY, (weights("flux.safetensors", flux_lora()),), _card(), likes=9),
    )


def _odd_cards() -> tuple[Repo, ...]:
    herbarium = "## Trigger words\n\nYou should use `herbarium sheet` to trigger the image.\n"
    named = [_png("images/夜の街 01.png", 903), _png("images/雨 & 灯り #2 100%.png", 904)]
    widgets: list[Any] = [{"text": "-", "output": {"url": file.name}} for file in named]
    widgets += [{"text": "no picture"}, {"text": "gone", "output": {"url": "images/gone.png"}}]
    foreign = {"text": "elsewhere", "output": {"url": "https://pictures.example/tracker.png"}}
    script = "<script>alert(1)</script>"
    return (
        Repo(TRIGGER_IN_PROSE, _one(), _card(instance_prompt=None), herbarium, likes=88),
        Repo(CJK_PICTURES, (*_one("夜の街.safetensors"), *named), _card(widget=widgets), likes=203),
        Repo(
            HOSTILE_TEXT,
            _one(),
            _card(instance_prompt=script, widget=[foreign], license=script),
            f"{script}<img src=x onerror=alert(1)>\n",
            likes=3,
        ),
    )


def _mature() -> tuple[Repo, ...]:
    """One says so in its tags, two only in their names; they trend above everything else."""
    tagged = _card(tags=[*TAGS, "not-for-all-audiences"], widget=_widget_of("images/1.png"))
    return (
        Repo(MATURE[0], (*_one(), _png("images/1.png", 905)), tagged, likes=700, trending=950),
        Repo(MATURE[1], _one(), _card(), likes=510, trending=900),
        Repo(MATURE[2], _one(), _card(), likes=505, trending=870),
    )


def _widget_of(name: str) -> list[dict[str, Any]]:
    return [{"text": "-", "output": {"url": name}}]


def _malformed() -> tuple[Repo, ...]:
    listed: dict[str, Any] = {"tags": [*TAGS, ADAPTER]}
    wrong = {
        "base_model": {"name": TURBO}, "instance_prompt": ["one", {"two": 2}, 3], "license": 7,
        "widget": {"text": "not a list"}, "tags": TAGS,
    }  # fmt: skip
    mixed = [ADAPTER, None, 3, {"tag": "lora"}, "lora"]
    return (
        Repo(MALFORMED[0], _one(), "a card that is no mapping", likes=5, **listed),
        Repo(MALFORMED[1], _one(), wrong, likes=4, **listed),
        Repo(MALFORMED[2], _one(), None, likes=2, **listed),
        Repo(MALFORMED[3], _one(), _card(), likes=1, tags=mixed),
    )


def _for_base() -> tuple[Repo, ...]:
    return tuple(
        Repo(name, _one(), _card(base_model=BASE, instance_prompt=name[9:]), likes=60 - index)
        for index, name in enumerate(FOR_BASE)
    )


def breaking_repos() -> tuple[Repo, ...]:
    """Cards that make `huggingface_hub` itself fail on a whole listing; not in the catalogue."""
    cards = (_card(ignore_metadata_errors=True), _card(tags=5))
    return tuple(
        Repo(f"ferrofluid/breaks-the-client-{index}", _one(), card, tags=[*TAGS, ADAPTER])
        for index, card in enumerate(cards)
    )
