"""The kinds of Space, and the two files that tell the Hub how to build one.

Fields of the card: huggingface.co/docs/hub/spaces-config-reference. The builder installs
requirements.txt, mounted alone, together with `gradio[oauth,mcp]` of the card's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from huggingface_hub import SpaceCardData, SpaceHardware
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[1]
TITLE: Final = "Z-Image Turbo LoRA Playground"
MODEL: Final = "Tongyi-MAI/Z-Image-Turbo"
MARK: Final = "z-image-playground"
"""The tag by which a Space is known to be one of these."""
PAGE: Final = "requirements.txt"
LOCAL: Final = "requirements-local.txt"


@dataclass(frozen=True)
class Kind:
    """One way to run as a Space.

    `startup` is how long the Hub waits for the first answer. `limits` are added to what the
    requirements files ask for. `secrets` are asked for.
    """

    name: str
    about: str
    suggested_hardware: SpaceHardware
    startup: str
    needs_hardware: bool = True
    requirements: tuple[str, ...] = (PAGE,)
    limits: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(
            "hosted",
            about="images from fal's endpoint, or the demo without a key",
            suggested_hardware=SpaceHardware.CPU_BASIC,
            needs_hardware=False,
            startup="15m",
            variables={"PLAYGROUND_BACKEND": "auto"},
            secrets=("FAL_KEY",),
        ),
        Kind(
            "gpu",
            about="images from the Space's own GPU",
            # The transformer twice (one stays pristine) and the text encoder: about 33 GB.
            suggested_hardware=SpaceHardware.L40SX1,
            startup="1h",
            requirements=(PAGE, LOCAL),
            variables={"PLAYGROUND_BACKEND": "local"},
        ),
        Kind(
            "zerogpu",
            about="images from a GPU that is lent for each of them",
            suggested_hardware=SpaceHardware.ZERO_A10G,
            startup="1h",
            requirements=(PAGE, LOCAL),
            # Its builder brings `spaces`. 20 GB of weights fit the half of a card that is lent.
            limits={"torch": "<2.12"},  # the newest that the hardware takes
            variables={"PLAYGROUND_BACKEND": "local"},
        ),
    )
}


def card(kind: Kind, sdk_version: str) -> SpaceCardData:
    """The front matter of the Space's README."""
    return SpaceCardData(
        title=TITLE,
        emoji="🎞️",
        colorFrom="gray",
        colorTo="blue",
        sdk="gradio",
        sdk_version=sdk_version,
        python_version="3.12",
        app_file="app.py",
        short_description="Explore prompts and LoRA adapters for Z-Image Turbo",
        license="apache-2.0",
        models=[MODEL],
        tags=["text-to-image", "lora", "fal", "z-image", MARK],
        hf_oauth=True,
        # A visitor's own adapters: gated ones of others, private ones of theirs. Nothing to write.
        hf_oauth_scopes=["gated-repos", "read-repos"],
        suggested_hardware=kind.suggested_hardware.value,
        startup_duration_timeout=kind.startup,
    )


def requirements(kind: Kind) -> str:
    """The kind's requirements.txt: floors, no includes, nothing pinned."""
    return "".join(f"{line}\n" for line in _requirements(kind))


def _requirements(kind: Kind) -> Iterator[Requirement]:
    for name in kind.requirements:
        for line in (ROOT / name).read_text("utf-8").splitlines():
            wanted = line.partition("#")[0].strip()
            if wanted and not wanted.startswith("-r"):
                requirement = Requirement(wanted)
                requirement.specifier &= kind.limits.get(requirement.name, "")
                yield requirement


def gradio_floor() -> str:
    """The oldest gradio that requirements.txt takes, as three numbers."""
    (wanted,) = (r for r in _requirements(KINDS["hosted"]) if r.name == "gradio")
    (floor,) = (part.version for part in wanted.specifier if part.operator == ">=")
    return ".".join([*floor.split("."), "0"][:3])
