"""Prompts: encoded at their length and kept; expanded by the text encoder itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.local import encoding
from backends.local.encoding import PromptEncoder
from backends.local.expansion import expand
from backends.local.job import Stopped
from backends.local.loading import Loaded, load_pipeline
from backends.local.options import LocalOptions
from generation.errors import InvalidRequest
from tests.local.engine_bench import Bench

# -- encoding ------------------------------------------------------------------


@pytest.fixture
def loaded(tiny: LocalOptions) -> Loaded:
    return load_pipeline(Path(tiny.model), tiny, lambda _line: None)


@pytest.fixture
def passes(loaded: Loaded) -> list[int]:
    """The number of tokens of each pass through the text encoder."""
    return counted(loaded)


def counted(loaded: Loaded) -> list[int]:
    seen: list[int] = []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[1])

    loaded.pipe.text_encoder.register_forward_pre_hook(count, with_kwargs=True)
    return seen


@pytest.mark.parametrize("prompt", ["a fox", "一只狐狸", "x" * 400, "too long " * 100])
def test_without_padding_the_embeddings_are_the_stock_pipelines(
    loaded: Loaded, prompt: str
) -> None:
    with torch.no_grad():
        (theirs,) = loaded.pipe._encode_prompt(prompt, device="cpu")
        ours = PromptEncoder(loaded).encode(prompt)
    assert ours.embeds.shape == theirs.shape and bool(ours.left_out) == (len(prompt) > 512)
    torch.testing.assert_close(ours.embeds, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_a_prompt_is_encoded_at_its_own_length_and_once(loaded: Loaded, passes: list[int]) -> None:
    encoder = PromptEncoder(loaded)
    first = encoder.encode("a fox")
    assert passes == [first.embeds.shape[0]] and passes[0] < 60
    assert encoder.encode("a fox") is first and len(passes) == 1
    assert encoder.encode("a fix").embeds.shape == first.embeds.shape
    assert len(passes) == 2 and not torch.equal(encoder.encode("a fix").embeds, first.embeds)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_only_the_latest_prompts_are_kept(
    loaded: Loaded, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "KEPT", 2)
    encoder = PromptEncoder(loaded)
    for prompt in ("a", "b", "a", "c", "a"):
        encoder.encode(prompt)
    assert len(passes) == 3
    encoder.encode("b")
    assert len(passes) == 4


def test_tokens_beyond_the_models_reach_are_counted_in_the_receipt(bench: Bench) -> None:
    result = bench.run(prompt="x" * 1000)
    (warning,) = result.warnings
    assert "512 tokens" in warning and str(1000 - 512) not in warning  # the template counts too
    left_out = int(warning.split("last ")[1].split()[0])
    assert 1000 - 512 < left_out < 1000 - 512 + 60
    assert bench.run(prompt="x" * 1001).images[0].data != bench.run(prompt="y").images[0].data


# -- expansion -----------------------------------------------------------------


def test_the_expanded_prompt_is_told_and_drawn(bench: Bench) -> None:
    plain = bench.run()
    expanded = bench.run(enable_prompt_expansion=True)
    assert expanded.prompt != "a fox" and expanded.prompt.isprintable()
    assert expanded.images[0].data != plain.images[0].data
    again = bench.run(prompt=expanded.prompt)
    assert again.images[0].data == expanded.images[0].data, "nothing but the prompt changed"
    assert expanded.warnings == () and "expansion" in expanded.timings


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_expansion_depends_on_the_seed_and_on_nothing_else(loaded: Loaded) -> None:
    def written(seed: int) -> str:
        return expand(loaded, "a fox", seed, lambda: False, 40)

    once = written(7)
    torch.manual_seed(123)
    assert written(7) == once != written(8)


@torch.no_grad()  # type: ignore[untyped-decorator]
@pytest.mark.parametrize("limit", [1, 5])
def test_expansion_is_bounded_and_reads_the_prompt_once(
    loaded: Loaded, passes: list[int], limit: int
) -> None:
    expand(loaded, "a fox", 7, lambda: False, limit)
    assert len(passes) <= limit and passes[0] > 100 and set(passes[1:]) <= {1}


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_expansion_writes_what_the_language_model_itself_would(loaded: Loaded) -> None:
    """Against `Qwen3ForCausalLM` with the same weights: the scores of each next token."""
    from transformers import Qwen3ForCausalLM

    from backends.local.expansion import _scores

    encoder = loaded.pipe.text_encoder
    with torch.device("meta"):
        language = Qwen3ForCausalLM(encoder.config)
    language.model = encoder
    language.lm_head.weight = encoder.embed_tokens.weight
    ids = torch.arange(40).unsqueeze(0)
    state = encoder(input_ids=ids).last_hidden_state[0, -1]
    torch.testing.assert_close(_scores(encoder, state), language(input_ids=ids).logits[0, -1])


def test_expansion_stops_before_its_next_token(bench: Bench) -> None:
    bench.run()
    asked: list[None] = []
    passes = counted(bench.loaded)

    def stop() -> bool:
        asked.append(None)
        return len(passes) >= 3

    with pytest.raises(Stopped):
        bench.run(stop, enable_prompt_expansion=True)
    assert len(passes) == 3
    assert bench.run().images


def test_a_text_encoder_that_cant_write_says_so(
    bench_with: Callable[..., Bench], untied: Path
) -> None:
    bench = bench_with(model=str(untied))
    with pytest.raises(InvalidRequest, match="enable_prompt_expansion.*tied"):
        bench.run(enable_prompt_expansion=True)
    assert bench.run().images


def test_an_expansion_that_is_empty_leaves_the_prompt_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bench.run()
    end = bench.loaded.pipe.tokenizer.eos_token_id
    monkeypatch.setattr("backends.local.expansion._pick", lambda *_: end)
    result = bench.run(enable_prompt_expansion=True)
    assert result.prompt == "a fox" and result.images[0].data == plain.images[0].data
    assert result.warnings == ("Prompt expansion wrote nothing; the prompt was used as it is.",)


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("<think>hm\n</think>\n\n A fox.\nIn snow. ", "A fox. In snow."),
        ('"A fox."', "A fox."),
        ("a\x00b\u202ec", "a b c"),
        ("x" * 5000, "x" * 4000),
        (" \n ", ""),
    ],
)
def test_an_answer_becomes_one_plain_paragraph(answer: str, cleaned: str) -> None:
    from backends.local.expansion import _cleaned

    assert _cleaned(answer) == cleaned
