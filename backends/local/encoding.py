"""Prompts as the transformer reads them: encoded at their own length, and kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import torch

from backends.local.loading import Loaded

MAX_TOKENS: Final = 512  # ZImagePipeline's max_sequence_length, chat template included
KEPT: Final = 64  # prompts; 2.6 MB each at most


@dataclass(frozen=True, slots=True)
class Encoded:
    """`embeds` is (tokens, features). `left_out` counts tokens beyond what the model reads."""

    embeds: Any
    left_out: int


class PromptEncoder:
    """`ZImagePipeline._encode_prompt` without its padding to 512 tokens.

    The text encoder is causal and pads on the right: a token never sees what
    follows it, so the padding changes nothing but the time.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._kept: OrderedDict[str, Encoded] = OrderedDict()

    def encode(self, prompt: str) -> Encoded:
        """The hidden state before the last layer, as the model was trained on."""
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return self._kept[prompt]
        encoded = self._kept[prompt] = self._encode(prompt)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return encoded

    def _encode(self, prompt: str) -> Encoded:
        ids = chat_tokens(self._loaded.pipe.tokenizer, [("user", prompt)], thinking=True)
        read = torch.tensor([ids[:MAX_TOKENS]], device=self._loaded.device)
        states = self._loaded.pipe.text_encoder(
            input_ids=read, output_hidden_states=True, use_cache=False
        ).hidden_states[-2][0]
        return Encoded(states, max(0, len(ids) - MAX_TOKENS))


def chat_tokens(tokenizer: Any, turns: list[tuple[str, str]], *, thinking: bool) -> list[int]:
    """A chat as the tokenizer's own template writes it, ready for the assistant's answer.

    `thinking` false closes the model's train of thought before it begins.
    """
    messages = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    return [int(token) for token in tokenizer(text).input_ids]
