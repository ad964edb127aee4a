"""Pictures that compress like photographs, and a data folder that holds them as one stored job."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from generation.imagefile import check_image
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile, make_receipt
from history.records import State
from history.store import History

SIDE: Final = 1024
_HANDLE: Final = {"request_id": "benchmark"} | {
    name: f"https://queue.fal.run/fal-ai/z-image/requests/benchmark/{name}"
    for name in ("response_url", "status_url", "cancel_url")
}


def photograph(seed: int) -> bytes:
    """A PNG of `SIDE` × `SIDE` pixels: soft shapes under a grain, about 1.8 MB; same for a seed."""
    dice = random.Random(seed)
    shapes = Image.frombytes("RGB", (64, 64), dice.randbytes(64 * 64 * 3))
    shapes = shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grain = Image.frombytes("L", (SIDE, SIDE), dice.randbytes(SIDE * SIDE)).convert("RGB")
    out = io.BytesIO()
    Image.blend(shapes, grain, 0.05).save(out, "PNG")
    return out.getvalue()


def store_job(data_dir: Path, pictures: Sequence[bytes]) -> str:
    """Store the pictures as one job of the only visitor of a private playground; its id."""
    request = GenerationRequest(
        prompt="a lighthouse at dusk", image_size="square_hd", num_images=len(pictures), seed=7
    )
    images = [check_image(picture) for picture in pictures]
    result = GenerationResult(images=(ImageFile(),) * len(images), seed=7, request_id="benchmark")
    receipt = make_receipt(
        request, result, [each.info for each in images], backend="hosted", billed=True
    )
    with History.open(data_dir) as history:
        job = history.create("local", "hosted", request)
        history.advance(job.id, State.SUBMITTING)
        history.advance(job.id, State.SUBMITTED, handle=_HANDLE)
        history.advance(job.id, State.COMPLETED, result=result)
        history.store(job.id, images, receipt)
    return job.id
