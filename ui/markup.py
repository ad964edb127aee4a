"""HTML made of escaped text: outside words can't become markup by accident.

`gr.HTML` compiles its template as Handlebars and as a JavaScript template
literal. Every template of ours is `${value}` alone, so that a prompt with
braces or a dollar sign in it is data and never code.
"""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset({"img", "input", "br", "hr", "meta", "link"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | Html | None


def tag(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """One element. `class_` and `for_` lose their underscore, `data_x` becomes `data-x`.

    Content is escaped unless it is `Html`; attributes that are None or False are left out.
    """
    opening = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*content)}</{name}>")


def join(*content: Content) -> Html:
    """Pieces one after the other; plain text is escaped, None left out."""
    return Html("".join(_safe(piece) for piece in content if piece is not None))


def _safe(piece: str) -> str:
    return piece if isinstance(piece, Html) else escape(piece)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
