"""Buttons and links on a job; `assets/stage.js` acts on their `data-action`."""

from __future__ import annotations

from ui.markup import Html, tag


def button(
    action: str,
    label: str,
    *,
    keys: str | None = None,
    primary: bool = False,
    pressed: bool | None = None,
    countdown: str | None = None,
) -> Html:
    return tag(
        "button",
        label,
        tag("kbd", keys) if keys else None,
        type="button",
        class_="action primary" if primary else "action",
        data_action=action,
        data_countdown=countdown,
        aria_pressed=None if pressed is None else str(pressed).lower(),
    )


def link(address: str, label: str) -> Html:
    return tag("a", label, href=address, target="_blank", rel="noopener", class_="action")
