"""Curated palettes: four tones from light to dark, the ink, and one accent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from backends.demo.color import Lab, blend, lab_from_hex, mix

_HEX: Final = {
    "dune": "f3e9dc e8c9a0 c98b5e 7a4a3a 2b1f24 d9482b",
    "harbor": "f0ede4 bfd0d4 6c96a6 2f5a70 12263a e4572e",
    "moss": "f1eedf cbd0ae 8a9f75 47684f 1c3230 e2a72e",
    "ember": "fbe3c0 f6a668 de5b4c 8c2f55 2a1638 ffd27a",
    "lilac": "f2eaf0 d6c3da 9c86b8 5a4a86 231d3f f08a5d",
    "night": "cfd8e8 8497c0 43598f 1f2d57 0c1229 f4d58d",
    "snow": "f7f8f8 dce5ec afc3d2 6b87a0 2a3e54 d94f3d",
    "gold": "fbf1d6 f1cf7e d79a2b 8a5a1c 2f2010 e2563a",
    "rose": "faedea f0c3bb d9837f 9a4656 3b1c2b f2b45a",
    "teal": "eaf2ec a9d3c5 4fa196 1f6468 0c2b36 f2b134",
    "clay": "f4ebe1 ddb79b b5694b 6e3b33 2a1a1c f3c566",
    "ink": "f4f1ea d5d0c6 9a958c 55524e 1c1b1c d13b2a",
    "riso": "fff4e2 ffc9b5 ff7464 2b59c3 1b1f3b ffc83d",
    "red": "f8ebe0 efb9a0 d64a34 8e1f2a 2b0f1a f2c14e",
    "orange": "fbeedd f7c48d e8772e 9c3f1f 2e1512 ffdf9a",
    "green": "eff3e2 c3d9a8 6fa86a 2c6a4a 0f2e2a f3c14b",
    "blue": "eaf0f6 b3cbe6 5a8fcf 23559b 0e2250 ff8a5c",
    "violet": "f3edf6 d3bfe4 9a78c2 563a86 211643 ffb45c",
    "pink": "fdeef0 f8c3cc ec7f9c a83b6b 3a1230 ffcf6b",
    "fjord": "e9eef0 b4c6c9 6e8e93 37555e 15262e e9b949",
}


@dataclass(frozen=True, slots=True)
class Palette:
    """`tones` run from light to dark. `dark` turns day into night: light on dark ground."""

    tones: tuple[Lab, ...]
    accent: Lab
    dark: bool = False

    def tone(self, depth: float) -> Lab:
        """A colour between the lightest (0) and the darkest (1) tone."""
        place = min(max(depth, 0.0), 1.0) * (len(self.tones) - 1)
        index = min(int(place), len(self.tones) - 2)
        return mix(self.tones[index], self.tones[index + 1], place - index)

    def air(self, nearness: float) -> Lab:
        """The sky or the background, from its far end (0) to the horizon (1)."""
        high, low = (0.97, 0.62) if self.dark else (0.3, 0.04)
        return self.tone(high + nearness * (low - high))

    def land(self, nearness: float) -> Lab:
        """Solid things, from the hazy distance (0) to the foreground (1)."""
        far, near = (0.6, 1.0) if self.dark else (0.2, 0.96)
        return self.tone(far + nearness * (near - far))

    def line(self, strength: float) -> Lab:
        """Ink for lines, from quiet (0) to strong (1): light on dark ground."""
        quiet, strong = (0.55, 0.08) if self.dark else (0.42, 0.97)
        return self.tone(quiet + strength * (strong - quiet))

    @property
    def light(self) -> Lab:
        """What shines: the moon at night, the accent by day."""
        return mix(self.tones[0], self.accent, 0.25) if self.dark else self.accent

    @property
    def clearest(self) -> Lab:
        """The colour that the palette is remembered by."""
        return self.tones[2]

    def dyed(self, other: Palette) -> Palette:
        """Nearly half way to another palette, with its accent."""
        tones = tuple(blend(a, b, 0.4) for a, b in zip(self.tones, other.tones, strict=True))
        return replace(self, tones=tones, accent=other.accent)

    def at_night(self) -> Palette:
        """The same colours, light on dark."""
        return replace(self, dark=True)


def _read(codes: str) -> Palette:
    *tones, accent = (lab_from_hex(code) for code in codes.split())
    return Palette(tuple(tones), accent)


PALETTES: Final = {name: _read(codes) for name, codes in _HEX.items()}
