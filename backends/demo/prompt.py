"""What a prompt says that can be drawn honestly: a subject, colours, an hour of the day.

The first clause names the subject, as prompts usually do; all words set mood
and place. A word that isn't listed here still moves the prompt's place among
the directions of `dice`, so it changes the picture too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from backends.demo.dice import Vector, embed, generator
from backends.demo.palette import PALETTES, Palette


def _any_of(words: str) -> re.Pattern[str]:
    """English words as whole words, with a plural's ending; Chinese ones anywhere."""
    latin = [word for word in words.split() if word.isascii()]
    others = [word for word in words.split() if not word.isascii()]
    return re.compile("|".join([rf"\b(?:{'|'.join(latin)})(?:s|es)?\b", *others]), re.IGNORECASE)


_SUBJECTS: Final = {
    "ridges": _any_of(
        "mountain peak alps hill valley landscape canyon cliff volcano 山 岭 峰 风景"
    ),
    "dunes": _any_of("desert dune sand sahara field meadow steppe prairie 沙漠 沙丘 草原 田"),
    "sea": _any_of(
        "sea ocean lake water river beach coast wave boat ship island sail harbor harbour "
        "lighthouse 海 湖 河 江 水 船 岛"
    ),
    "city": _any_of(
        "city cities skyline tower skyscraper downtown street town tokyo york 城 街 楼"
    ),
    "arches": _any_of(
        "architecture house room interior door arch stairs building temple palace wall "
        "courtyard museum church window kitchen 建筑 房 室 门 宫 庙 寺"
    ),
    "portrait": _any_of(
        "portrait woman women man men girl boy person face child children lady king queen "
        "dancer people fashion character 人 女 男 脸 肖像 孩"
    ),
    "botany": _any_of(
        "flower plant leaf leaves tree garden jungle botanical bouquet rose fern bamboo "
        "forest fruit 花 叶 树 植物 森林 竹 草"
    ),
    "celestial": _any_of(
        "space planet moon star galaxy cosmos universe astronaut orbit rocket comet "
        "月 星 宇宙 太空 行星"
    ),
    "flow": _any_of("wind silk hair wool smoke flow dream music fur feather dance 风 丝 梦 烟 发"),
    "strata": _any_of("paper layer layered cave marble agate topographic map canvas 纸 层 洞"),
    "orbits": _any_of("abstract geometric poster logo bauhaus product bottle watch 抽象 几何 海报"),
    "tiles": _any_of("pattern tile mosaic textile quilt fabric grid wallpaper 图案 马赛克 布"),
}
_UNNAMED: Final = [family for family in _SUBJECTS if family not in ("portrait", "city")]
_MOODS: Final = {
    "ember": _any_of("sunset dusk fire lava flame 日落 夕阳 黄昏 火"),
    "rose": _any_of("dawn sunrise blossom cherry romantic 黎明 日出 樱"),
    "night": _any_of("night midnight moonlight moonlit neon starry 夜 月光"),
    "snow": _any_of("snow snowy winter ice arctic frost 雪 冬 冰"),
    "moss": _any_of("forest jungle spring moss 森林 春"),
    "clay": _any_of("autumn terracotta clay brick rust earthy 秋 陶"),
    "dune": _any_of("desert sand 沙"),
    "harbor": _any_of("ocean sea rain rainy 海 雨"),
    "fjord": _any_of("fog foggy mist misty cloud cloudy 雾 云"),
    "ink": _any_of("monochrome noir charcoal sketch grayscale 水墨 黑白"),
    "riso": _any_of("riso retro pop comic print 复古"),
}
_HUES: Final = {
    "red": _any_of("red crimson scarlet ruby 红"),
    "orange": _any_of("orange copper amber tangerine 橙"),
    "gold": _any_of("yellow gold golden honey mustard 黄 金"),
    "green": _any_of("green emerald olive 绿"),
    "teal": _any_of("teal turquoise cyan 青"),
    "blue": _any_of("blue azure navy indigo cobalt 蓝"),
    "violet": _any_of("purple violet lavender lilac 紫"),
    "pink": _any_of("pink magenta fuchsia 粉"),
    "ink": _any_of("grey gray black 黑 灰"),
    "snow": _any_of("white 白"),
    "clay": _any_of("brown sepia 棕"),
}
_DARK: Final = _any_of("night midnight moonlight moonlit neon starry dark black noir 夜 月光 黑 暗")

_EXPANSIONS: Final = (
    ("low raking light", "soft light through haze", "clear morning light", "warm late light"),
    ("a sense of depth", "a calm balanced composition", "generous empty space", "seen from below"),
    ("restrained colour", "one strong accent colour", "close, earthy tones", "pale, airy tones"),
    ("fine film grain", "crisp edges", "quiet texture", "the texture of a screen print"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt as the drawing needs it; `place` is where it lies among `dice`'s directions."""

    family: str
    palette: Palette
    place: Vector


def read(prompt: str) -> Reading:
    """Read a prompt. The same text always reads the same."""
    words = _words(prompt)
    pairs = map(" ".join, zip(words, words[1:], strict=False))
    place = embed([*words, *pairs, prompt])
    return Reading(_family(prompt), _palette(prompt, place), place)


def expand(prompt: str) -> str:
    """The prompt with four phrases on light, composition, colour and texture.

    They follow a comma, so the subject stays; the same prompt always gets the same.
    """
    chance = generator("expansion", prompt)
    phrases = [options[chance.integers(len(options))] for options in _EXPANSIONS]
    return f"{prompt.rstrip(' ,.;，。；')}, {', '.join(phrases)}"


def _words(text: str) -> list[str]:
    """Lower-case words; Chinese and Japanese by the character."""
    return re.findall(r"[\u3040-\u9fff]|[^\W_\u3040-\u9fff]+", text.lower()) or [text]


def _family(prompt: str) -> str:
    clause = re.split(r"[,.;:，。；：、\n]", prompt.strip(), maxsplit=1)[0] or prompt
    named = _named(_SUBJECTS, clause) or _named(_SUBJECTS, prompt)
    return named[0] if named else _nearest(_UNNAMED, embed(_words(clause)))


def _palette(prompt: str, place: Vector) -> Palette:
    """By the mood and the hues that are named; else by the prompt's place.

    The first of several hues is the subject's, as in "a red boat on a blue
    sea": it becomes the accent, and the last one colours the rest.
    """
    moods, hues = _named(_MOODS, prompt)[:1], _named(_HUES, prompt)
    base, *others = moods + hues[-1:] or [_nearest(list(PALETTES), place)]
    palette = PALETTES[base].dyed(PALETTES[others[0]]) if others else PALETTES[base]
    if len(hues) > 1:
        palette = replace(palette, accent=PALETTES[hues[0]].clearest)
    dark = _DARK.search(prompt) or (not moods + hues and _likeness("dark", place) > 1.2)
    return palette.at_night() if dark else palette


def _named(table: dict[str, re.Pattern[str]], text: str) -> list[str]:
    """The keys whose words are in the text, by where they are first mentioned."""
    found = {key: match.start() for key, words in table.items() if (match := words.search(text))}
    return sorted(found, key=lambda key: found[key])


def _nearest(keys: list[str], place: Vector) -> str:
    """The key whose own direction is closest to the place."""
    return max(keys, key=lambda key: _likeness(key, place))


def _likeness(key: str, place: Vector) -> float:
    """How much a place leans in a key's direction: a draw from the bell curve, over prompts."""
    direction = embed([key])
    return float(direction @ place / (direction @ direction) ** 0.5)
