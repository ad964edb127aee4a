"""Colour in OKLab, where equal steps look equal and mixtures stay clean.

The matrices are Björn Ottosson's (https://bottosson.github.io/posts/oklab/).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]
"""Values per point; 32 bits wide wherever there are many."""
Lab = tuple[float, float, float]
"""Lightness 0 to 1, then the green-red and the blue-yellow axis, within ±0.3."""

_LMS_FROM_RGB: Final = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB_FROM_LMS: Final = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_RGB_FROM_LMS: Final = np.linalg.inv(_LMS_FROM_RGB).astype(np.float32)
_LMS_FROM_LAB: Final = np.linalg.inv(_LAB_FROM_LMS).astype(np.float32)

_LEVELS: Final = 2**14  # fine enough for sRGB's steep dark end
_LINEAR: Final = np.linspace(0, 1, _LEVELS)
_TO_SRGB: Final = np.round(
    255 * np.where(_LINEAR < 0.0031308, 12.92 * _LINEAR, 1.055 * _LINEAR ** (1 / 2.4) - 0.055)
).astype(np.uint8)


def lab_from_hex(code: str) -> Lab:
    """Read `rrggbb`."""
    srgb = np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lightness, a, b = (_LAB_FROM_LMS @ np.cbrt(_LMS_FROM_RGB @ linear)).tolist()
    return lightness, a, b


def to_srgb(lab: Plane) -> npt.NDArray[np.uint8]:
    """Turn (3, rows, columns) of OKLab into (rows, columns, 3) of 8-bit sRGB, clipped."""
    cones = _LMS_FROM_LAB @ lab.reshape(3, -1)
    linear = _RGB_FROM_LMS @ (cones * cones * cones)
    index = np.clip(linear * (_LEVELS - 1), 0, _LEVELS - 1).astype(np.uint16)
    planes = _TO_SRGB[index].reshape(lab.shape)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def mix(first: Lab, second: Lab, amount: float) -> Lab:
    """Go from the first colour (0) to the second (1)."""
    return (
        first[0] + amount * (second[0] - first[0]),
        first[1] + amount * (second[1] - first[1]),
        first[2] + amount * (second[2] - first[2]),
    )


def blend(first: Lab, second: Lab, amount: float) -> Lab:
    """Like `mix`, but two opposite hues keep most of their chroma instead of turning grey."""
    lightness, a, b = mix(first, second, amount)
    chromas = (1 - amount) * math.hypot(*first[1:]) + amount * math.hypot(*second[1:])
    boost = max(1.0, 0.85 * chromas / max(math.hypot(a, b), 1e-3))
    return lightness, a * boost, b * boost


def lit(color: Lab, amount: float) -> Lab:
    """The colour with its lightness moved by `amount`, kept between 0 and 1."""
    return min(1.0, max(0.0, color[0] + amount)), color[1], color[2]
