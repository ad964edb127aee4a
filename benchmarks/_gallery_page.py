"""Gradio's own gallery, given PIL images that are in memory already: the yardstick of `gallery.py`.

`python _gallery_page.py FOLDER` loads every PNG in the folder; each call of `/png` or `/webp`
shows them all in a `gr.Gallery` of that format (WebP is Gradio's default).
"""

import sys
from pathlib import Path

import gradio as gr
from PIL import Image

pictures = [Image.open(path) for path in sorted(Path(sys.argv[1]).glob("*.png"))]
for picture in pictures:
    picture.load()

with gr.Blocks(analytics_enabled=False) as page:
    for kind in ("png", "webp"):
        show = gr.Button(kind)
        show.click(lambda: pictures, outputs=gr.Gallery(format=kind), queue=False, api_name=kind)

page.launch(ssr_mode=False, share=False)
