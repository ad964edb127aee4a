"""The recipe inside an image file: ours put in, anybody's read.

    recipes.py     our JSON, complete, and the common `parameters` text
    reading.py     what a dropped image holds, as values of the request
    a1111.py       the `parameters` text of Automatic1111, Forge and many more
    others.py      InvokeAI, SwarmUI, Fooocus
    comfy.py       ComfyUI's graph
    png.py, jpeg.py, webp.py, exif.py    the bytes; no pixel is decoded or changed

A tool's own page or source is named where its format is read.
"""

from history.metadata.reading import RestoredRecipe, read_recipe
from history.metadata.recipes import embed_recipe, make_recipe

__all__ = ["RestoredRecipe", "embed_recipe", "make_recipe", "read_recipe"]
