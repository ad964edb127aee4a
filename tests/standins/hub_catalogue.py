"""Made-up repositories for the stand-in Hub: the same for the same seed, as odd as real ones.

The first `SPECIAL` ones have fixed ids, each for something that goes wrong out there; the rest
are ordinary adapters in any number.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from .fal_images import picture
from .hub_repos import BASE, TURBO, Repo, RepoFile
from .hub_special import special_repos
from .hub_weights import lora, weights

DEFAULT_COUNT = 80
SUBJECTS = (
    "Pixel Art", "Watercolor", "Ink Wash", "Film Grain", "Claymation", "Low Poly", "Ukiyo-e",
    "Neon Noir", "Botanical", "Blueprint", "Stained Glass", "Paper Cut", "Risograph", "Charcoal",
    "Isometric", "Vaporwave", "Linocut", "Polaroid", "Porcelain", "Embroidery", "Cel Shading",
    "Tilt Shift", "Frosted Glass", "Pop Art",
)  # fmt: skip
AUTHORS = (
    "studio-lumen", "nordlicht", "aurora-lab", "papercrane", "mossgarden", "tinylens", "k-okabe",
    "ferrofluid", "lakehouse", "Halcyon", "owl-and-ink", "greyscale",
)  # fmt: skip
LICENCES = ("apache-2.0", "mit", "creativeml-openrail-m", "cc-by-nc-4.0", "other", None, None)
FIRST_DAY = datetime(2025, 11, 28, 8, 0, tzinfo=UTC)
DAYS = 340
PICTURES = 24
"""Different pictures, however many repositories there are."""
PICTURE_SIZES = ((256, 320), (320, 256), (256, 256))


def catalogue(seed: int = 0, count: int = DEFAULT_COUNT) -> tuple[Repo, ...]:
    """At least 60 repositories, the special ones first."""
    if count < 60:
        raise ValueError("the catalogue has at least 60 repositories")
    special = special_repos()
    ordinary = _ordinary(random.Random(seed))
    return (*special, *(next(ordinary) for _ in range(count - len(special))))


def _ordinary(dice: random.Random) -> Iterator[Repo]:
    number = 0
    while True:
        number += 1
        subject = SUBJECTS[number % len(SUBJECTS)]
        yield _adapter(dice, subject, number)


def _adapter(dice: random.Random, subject: str, number: int) -> Repo:
    stem = subject.replace(" ", "-")
    name = dice.choice((f"{stem}-ZIT-{number}", f"z-image-turbo-{stem.lower()}-lora-{number}"))
    created, updated = _dates(dice)
    pictures = _pictures(dice)
    likes = min(9000, int(dice.paretovariate(0.8) * 2))
    return Repo(
        id=f"{dice.choice(AUTHORS)}/{name}",
        files=(*_checkpoints(dice, stem, created), *pictures),
        card=_card(dice, subject, pictures),
        prose=f"# {subject}\n\nTrained on {dice.randrange(12, 200)} pictures.\n",
        likes=likes,
        downloads=int(likes * dice.uniform(5, 60)),
        trending=dice.randrange(40),
        created=created,
        updated=updated,
    )


def _dates(dice: random.Random) -> tuple[str, str]:
    made = FIRST_DAY + timedelta(minutes=dice.randrange(DAYS * 24 * 60))
    changed = made + timedelta(minutes=dice.randrange(20 * 24 * 60))
    return _iso(made), _iso(changed)


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _pictures(dice: random.Random) -> tuple[RepoFile, ...]:
    """None now and then; PNGs are kept on the CDN, JPEGs are not."""
    made = []
    for index in range(dice.choice((0, 1, 1, 2, 3))):
        number = dice.randrange(PICTURES)
        size = PICTURE_SIZES[number % len(PICTURE_SIZES)]
        file_format, suffix = dice.choice((("png", "png"), ("jpeg", "jpg")))
        body = picture(size, file_format, number)
        made.append(RepoFile(f"images/example {index + 1}.{suffix}", body))
    return tuple(made)


def _checkpoints(dice: random.Random, stem: str, created: str) -> tuple[RepoFile, ...]:
    """One file, or one for every 250 steps; seldom under the name that diffusers looks for."""
    shapes = lora(dice.choice((4, 8, 16, 32)), feed_forward=dice.random() < 0.3)
    first = datetime.fromisoformat(created)
    plain = dice.choice((f"{stem}.safetensors", "pytorch_lora_weights.safetensors"))
    names = {plain: 250}
    if dice.random() < 0.3:
        last = 250 * dice.randrange(2, 7)
        names = {f"{stem}_{step:09d}.safetensors": step for step in range(250, last, 250)}
        names[f"{stem}.safetensors"] = last
    return tuple(
        weights(name, shapes, {"ss_steps": str(step)}, date=_iso(first + timedelta(minutes=step)))
        for name, step in names.items()
    )


def _card(dice: random.Random, subject: str, pictures: tuple[RepoFile, ...]) -> dict[str, Any]:
    base: object = dice.choice((TURBO, TURBO, [TURBO], [TURBO, BASE]))
    tags = ["text-to-image", "lora", "diffusers", "template:diffusion-lora"]
    card: dict[str, Any] = {"tags": tags, "base_model": base}
    licence = dice.choice(LICENCES)
    if licence:
        card["license"] = licence
    trigger = dice.choice((None, "", f"{subject.lower()} style", f"{subject[:3].upper()}ZIT"))
    if trigger != "":
        card["instance_prompt"] = trigger
    texts = ("-", f"a lighthouse at dusk, {subject.lower()}", "a cat in a paper boat")
    widgets = [{"text": dice.choice(texts), "output": {"url": f.name}} for f in pictures]
    return card | ({"widget": widgets} if widgets else {})
