"""The look: a light table. Neutral greys, one accent, system fonts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gradio.themes import Base, Color

ASSETS: Final = Path(__file__).parent / "assets"
VARIABLES: Final = ASSETS / "variables.css"
STYLES: Final = [VARIABLES, ASSETS / "style.css", ASSETS / "adapters.css"]

# Greys without a hue, so that colours in images are judged true.
GREY: Final = Color(
    "#fafafa", "#f4f4f4", "#e8e8e8", "#d4d4d4", "#a8a8a8", "#767676", "#565656", "#3d3d3d",
    "#292929", "#1b1b1b", "#111111", name="light-table-grey",
)  # fmt: skip
ACCENT: Final = Color(
    "#eef3ff", "#dde7ff", "#bccfff", "#91adff", "#6486f5", "#3f63dd", "#2f4fc4", "#263f9e",
    "#1e327d", "#172661", "#0f1a45", name="light-table-blue",
)  # fmt: skip
SANS: Final = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO: Final = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> Base:
    """Gradio's own variables; what they can't say is in `assets/style.css`."""
    return Base(primary_hue=ACCENT, neutral_hue=GREY, font=SANS, font_mono=MONO).set(
        body_background_fill="#ececec",
        body_background_fill_dark="#161616",
        body_text_color="#1b1b1b",
        body_text_color_dark="#ededed",
        body_text_color_subdued="#5c5c5c",
        body_text_color_subdued_dark="#a3a3a3",
        background_fill_primary="#f7f7f7",
        background_fill_primary_dark="#1f1f1f",
        background_fill_secondary="#f0f0f0",
        background_fill_secondary_dark="#1b1b1b",
        border_color_primary="#d9d9d9",
        border_color_primary_dark="#333333",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_padding="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#5c5c5c",
        block_label_text_color_dark="#a3a3a3",
        block_title_text_color="#5c5c5c",
        block_title_text_color_dark="#a3a3a3",
        block_title_text_size="13px",
        block_title_text_weight="500",
        block_info_text_size="12px",
        block_radius="6px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#262626",
        input_border_color="#cfcfcf",
        input_border_color_dark="#3d3d3d",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="none",
        input_radius="6px",
        layout_gap="16px",
        form_gap_width="0px",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="#e2e2e2",
        button_secondary_background_fill_hover_dark="#2c2c2c",
        button_large_radius="6px",
        button_small_radius="6px",
        slider_color="#767676",
        slider_color_dark="#a8a8a8",
        checkbox_background_color_selected="#3d3d3d",
        checkbox_background_color_selected_dark="#d4d4d4",
        checkbox_border_color_focus="*primary_500",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        shadow_drop="none",
        shadow_drop_lg="none",
    )
