"""ComfyUI's `prompt`: a graph of nodes, of which only what is unambiguous is taken.

    {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "positive": ["6", 0], …}}, …}

An input is a value or a link, `[node id, output]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from history.metadata.limits import load_object
from history.metadata.values import Found, whole

_MAX_NODES: Final = 2000
_MAX_HOPS: Final = 12
# Where the words come from, walking back from a sampler; in this order.
_TOWARDS_WORDS: Final = (
    "positive",
    "guider",
    "conditioning",
    "conditioning_1",
    "text",
    "prompt",
    "string",
    "value",
)
_TOWARDS_NUMBER: Final = ("seed", "noise_seed", "value", "int", "number")
_LABELS: Final = {"sampler_name": "sampler", "scheduler": "scheduler", "cfg": "CFG scale"}

_Inputs = dict[str, Any]


class _Graph:
    """Node ids to their kinds and inputs; anything malformed is left out."""

    def __init__(self, data: dict[str, Any]) -> None:
        nodes = list(data.items())[:_MAX_NODES]
        self.nodes: dict[str, tuple[str, _Inputs]] = {
            key: (str(node["class_type"]), node["inputs"])
            for key, node in nodes
            if isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
        }

    def follow(self, value: Any, names: Iterable[str]) -> Any:
        """A value, or what its link leads to, by inputs of these names."""
        for _ in range(_MAX_HOPS):
            if not _is_link(value):
                return value
            inputs = self.nodes.get(value[0], ("", {}))[1]
            value = next((inputs[name] for name in names if name in inputs), None)
        return None

    def inputs(self, name: str) -> Iterator[Any]:
        """Every node's input of that name."""
        return (inputs[name] for _kind, inputs in self.nodes.values() if name in inputs)

    def samplers(self) -> list[_Inputs]:
        """The nodes that start from a prompt and noise."""
        wanted = ("positive", "guider")
        return [
            inputs
            for kind, inputs in self.nodes.values()
            if "Sampler" in kind and any(_is_link(inputs.get(name)) for name in wanted)
        ]


def comfyui(texts: Mapping[str, str]) -> Found | None:
    """The recipe, if there is a graph from which anything is safely taken."""
    data = load_object(texts.get("prompt", ""))
    graph = _Graph(data or {})
    if not graph.nodes:
        return None
    found = Found("ComfyUI")
    found.prompt(_words(graph))
    seeds = [*graph.inputs("seed"), *graph.inputs("noise_seed")]
    found.seed(_only(graph.follow(seed, _TOWARDS_NUMBER) for seed in seeds))
    found.steps(_only(graph.follow(steps, _TOWARDS_NUMBER) for steps in graph.inputs("steps")))
    found.size(*_only(_sizes(graph), otherwise=(None, None)))
    _name_rest(graph, found)
    return found if found.values else None


def _words(graph: _Graph) -> Any:
    """The positive prompt of the one sampler, or the only text there is."""
    starts = [inputs.get("positive", inputs.get("guider")) for inputs in graph.samplers()]
    positive = [graph.follow(start, _TOWARDS_WORDS) for start in starts]
    texts = [text for text in graph.inputs("text") if isinstance(text, str) and text.strip()]
    return _only(positive) or _only(texts)


def _sizes(graph: _Graph) -> Iterator[tuple[int, int]]:
    for kind, inputs in graph.nodes.values():
        if "Empty" in kind and "Latent" in kind:
            width = whole(graph.follow(inputs.get("width"), ("width", *_TOWARDS_NUMBER)))
            height = whole(graph.follow(inputs.get("height"), ("height", *_TOWARDS_NUMBER)))
            if width and height:
                yield width, height


def _name_rest(graph: _Graph, found: Found) -> None:
    for name, label in _LABELS.items():
        found.name(label, _only(graph.inputs(name)))
    for model in [*graph.inputs("unet_name"), *graph.inputs("ckpt_name")]:
        found.model(model)
    for inputs in graph.samplers():
        found.name("negative prompt", graph.follow(inputs.get("negative"), _TOWARDS_WORDS))
    for _kind, inputs in graph.nodes.values():
        if isinstance(inputs.get("lora_name"), str):
            found.lora(inputs["lora_name"], inputs.get("strength_model"))


def _only(values: Iterable[Any], otherwise: Any = None) -> Any:
    """The one value that all agree on; of two different ones, neither."""
    distinct = []
    for value in values:
        if value is not None and value not in distinct:
            distinct.append(value)
        if len(distinct) > 1:
            return otherwise
    return distinct[0] if distinct else otherwise


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
