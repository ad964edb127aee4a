"""ZeroGPU, the shared hardware of Spaces: what it asks of a program at its start.

Its package patches torch when it is imported, so this comes before anything that imports torch.
It reports the start from Gradio's first `launch()`, but only if a GPU function is registered by
then; a Space that never reports is ended: "No @spaces.GPU function detected". (spaces 0.51.)
"""

from __future__ import annotations

import os
from typing import Final

ON_ZEROGPU: Final = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")

if ON_ZEROGPU:
    import spaces  # the Space's builder brings it


def register() -> None:
    """Call before the page is launched: where images come from elsewhere, nothing else would."""
    if ON_ZEROGPU:
        spaces.GPU(_needs_no_gpu)


def _needs_no_gpu() -> None:
    """The GPU function of a page that has none; nobody calls it."""
