"""The stand-in for the model is the real thing, small: its files, its classes, its tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from diffusers import ZImagePipeline

from backends.local.encoding import chat_tokens
from backends.local.options import LocalOptions
from tests.standins.tiny_pipeline import save_tiny_pipeline


def digests(folder: Path) -> dict[str, str]:
    weights = sorted(folder.rglob("*.safetensors"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in weights}


def test_it_is_small_and_of_the_real_classes(tiny: LocalOptions) -> None:
    folder = Path(tiny.model)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 4_000_000
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "ZImagePipeline"
    assert {part: index[part][1] for part in ("transformer", "text_encoder", "vae")} == {
        "transformer": "ZImageTransformer2DModel",
        "text_encoder": "Qwen3Model",
        "vae": "AutoencoderKL",
    }


def test_it_is_the_same_at_every_call(tiny: LocalOptions, tmp_path: Path) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = save_tiny_pipeline(tmp_path / "again")
    assert digests(again) == digests(Path(tiny.model)) and len(digests(again)) == 3
    assert torch.equal(torch.get_rng_state(), state), "nobody else's dice are thrown"


def test_its_tokenizer_is_bytes_with_a_chat_template(tiny: LocalOptions) -> None:
    tokenizer = ZImagePipeline.from_pretrained(tiny.model, dtype=torch.float32).tokenizer
    for text in ("a fox", "一只狐狸 🦊", "\n\t  two  spaces "):
        ids = tokenizer(text).input_ids
        assert len(ids) == len(text.encode()) and tokenizer.decode(ids) == text
    open_, closed = (
        tokenizer.decode(chat_tokens(tokenizer, [("user", "hi")], thinking=thinking))
        for thinking in (True, False)
    )
    assert open_ == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert closed == open_ + "<think>\n\n</think>\n\n"
