"""The smallest Gradio page, launched as the playground is: the yardstick of `startup.py`."""

import gradio as gr

with gr.Blocks(analytics_enabled=False) as page:
    gr.Button("Generate")

page.launch(ssr_mode=False, share=False)
