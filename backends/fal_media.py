"""The endpoint's images: fetched at once, since its storage forgets them, and looked at whole."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Final

from backends.fal_pace import Pace
from generation.errors import MediaBroken, MediaRefused
from generation.imagefile import CheckedImage, check_image
from generation.result import ImageFile
from outbound import Fetcher

PAUSES: Final = (1, 2)  # polls between three attempts


async def fetch(image: ImageFile, fetcher: Fetcher, pace: Pace) -> CheckedImage:
    """One image of a result, from its address or out of the answer itself.

    Raises:
        MediaError: expired, broken or refused.
    """
    if image.url.startswith("data:"):
        return await asyncio.to_thread(check_image, _inline(image.url))
    for pause in PAUSES:
        try:
            return await _fetch_once(image.url, fetcher)
        except MediaBroken:
            await asyncio.sleep(pause * pace.poll)
    return await _fetch_once(image.url, fetcher)


async def _fetch_once(url: str, fetcher: Fetcher) -> CheckedImage:
    data = await fetcher.get(url)
    if _is_cut_short(data):
        raise MediaBroken(reason="the file is cut short")
    return await asyncio.to_thread(check_image, data)


def _is_cut_short(data: bytes) -> bool:
    """What decoding would take for no image at all: nothing, and a WebP shorter than it says."""
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    return not data or (webp and len(data) < int.from_bytes(data[4:8], "little") + 8)


def trusted_hosts(overrides: frozenset[str]) -> frozenset[str]:
    """Where fal's host is overridden, its media comes from the same machine."""
    return frozenset(host.partition(":")[0] for host in overrides)


def _inline(url: str) -> bytes:
    """The bytes of a `data:` address."""
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MediaRefused(reason="its data address is not base64") from exc
