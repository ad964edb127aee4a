"""Prompt expansion by the pipeline's own text encoder, which is a whole language model.

Qwen3-4B ties its embeddings: the matrix that reads tokens also writes them, so
no further weight is needed.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from backends.local.encoding import chat_tokens
from backends.local.job import Stop, Stopped
from backends.local.loading import Loaded
from generation.errors import InvalidRequest

MAX_NEW: Final = 220  # tokens, about 150 English words
TEMPERATURE: Final = 0.7  # with TOP_K: Qwen3's own advice for answers without thinking
TOP_K: Final = 20
LONGEST: Final = 4000  # characters, as a prompt may have
TASK: Final = (
    "You write prompts for an image generator. Expand the user's prompt: keep every subject, "
    "quoted text and style that it names, and add what it leaves open about setting, light, "
    "composition, colour and material. Answer in the prompt's own language with the expanded "
    "prompt only, as one paragraph of at most 120 words."
)


def expand(loaded: Loaded, prompt: str, seed: int, stop: Stop, max_new: int = MAX_NEW) -> str:
    """The prompt with more detail; the same for the same seed. Empty if nothing was written.

    Raises:
        InvalidRequest: this model's text encoder can't write.
        Stopped: `stop` said so; it is asked before every token.
    """
    _check(loaded)
    tokenizer = loaded.pipe.tokenizer
    ids = chat_tokens(tokenizer, [("system", TASK), ("user", prompt)], thinking=False)
    written = _write(loaded, ids, _dice(seed), stop, max_new)
    return _cleaned(tokenizer.decode(written, skip_special_tokens=True))


def _check(loaded: Loaded) -> None:
    if not loaded.pipe.text_encoder.config.tie_word_embeddings:
        problem = "can't be had from this model: its text encoder has no tied embeddings"
        raise InvalidRequest(field="enable_prompt_expansion", problem=problem)


def _dice(seed: int) -> Any:
    return torch.Generator("cpu").manual_seed(seed)


def _write(loaded: Loaded, ids: list[int], dice: Any, stop: Stop, max_new: int) -> list[int]:
    model = loaded.pipe.text_encoder.base_model
    ends = _ends(loaded)
    written: list[int] = []
    past, new = None, ids
    while len(written) < max_new:
        if stop():
            raise Stopped
        answer = model(
            input_ids=torch.tensor([new], device=loaded.device),
            past_key_values=past,
            use_cache=True,
        )
        past = answer.past_key_values
        token = _pick(_scores(model, answer.last_hidden_state[0, -1]), dice)
        if token in ends:
            break
        written.append(token)
        new = [token]
    return written


def _ends(loaded: Loaded) -> set[int]:
    tokenizer, config = loaded.pipe.tokenizer, loaded.pipe.text_encoder.config
    ends = (tokenizer.eos_token_id, tokenizer.pad_token_id, config.eos_token_id)
    flat = (one for end in ends for one in (end if isinstance(end, list) else [end]))
    return {int(end) for end in flat if end is not None}


def _scores(model: Any, state: Any) -> Any:
    """(vocabulary,) on the processor. Rows beyond the tokenizer's are never used by it."""
    embedding = model.get_input_embeddings()
    return torch.nn.functional.linear(state, embedding.weight.to(state.device)).float().cpu()


def _pick(scores: Any, dice: Any) -> int:
    best = torch.topk(scores, min(TOP_K, scores.shape[0]))
    chances = torch.softmax(best.values / TEMPERATURE, dim=0)
    return int(best.indices[torch.multinomial(chances, 1, generator=dice)])


def _cleaned(text: str) -> str:
    """One paragraph without control characters, no longer than a prompt may be."""
    answer = text.rsplit("</think>", 1)[-1]
    plain = "".join(letter if letter.isprintable() else " " for letter in answer)
    return " ".join(plain.split())[:LONGEST].strip('"“” ')
