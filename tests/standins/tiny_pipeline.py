"""Z-Image's own classes at a size that a processor runs at once, with random weights, on disk.

    python -m tests.standins.tiny_pipeline --directory DIR

The real code runs, of diffusers and of transformers: what a tiny pipeline can't
show is the quality of an image, and speed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CAPTION: Final = 32
# Qwen3's, without tools: a train of thought is closed at once where none is wanted.
CHAT: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


def save_tiny_pipeline(folder: Path, *, tied: bool = True) -> Path:
    """A whole pipeline in diffusers' layout, the same at every call, in a second.

    `tied` is whether its text encoder can write: see `backends.local.expansion`.
    """
    tiny_pipeline(tied=tied).save_pretrained(folder)
    return folder


def tiny_pipeline(*, tied: bool = True) -> Any:
    """The same, in memory."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_autoencoder(),
            text_encoder=_text_encoder(tied),
            tokenizer=byte_tokenizer(),
            transformer=tiny_transformer(),
        )


def save_tiny_classifier(folder: Path, labels: tuple[str, str] = ("normal", "nsfw")) -> Path:
    """An image classifier whose verdict is always the first label: its head is all bias."""
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: n for n, label in enumerate(labels)},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_transformer(layers: int = 2) -> Any:
    """The real class at the width of `tests.standins.adapters.TINY`, with random weights."""
    model = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=64,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=CAPTION,
        axes_dims=[8, 12, 12],
        axes_lens=[1536, 512, 512],
    )
    with torch.no_grad():  # PyTorch leaves these as they are in memory
        for token in (model.x_pad_token, model.cap_pad_token):
            token.normal_()
    return model


def _text_encoder(tied: bool) -> Any:
    config = Qwen3Config(
        vocab_size=256 + len(SPECIAL),
        hidden_size=CAPTION,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        initializer_range=0.5,  # loud enough that different prompts differ
        bos_token_id=256,
        eos_token_id=258,
        pad_token_id=256,
    )
    return Qwen3Model(config)


def byte_tokenizer() -> Any:
    """One token a byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, *SPECIAL])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        chat_template=CHAT,
        model_max_length=4096,
    )


def _autoencoder() -> Any:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Save a tiny Z-Image pipeline and classifier.")
    parser.add_argument("--directory", type=Path, required=True)
    directory = parser.parse_args().directory
    made = {
        "model": str(save_tiny_pipeline(directory / "model")),
        "safety": str(save_tiny_classifier(directory / "safety")),
    }
    print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
