"""Stock models of two layers in folders, with a tokenizer that needs no training: what the commands start from."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, BertForPreTraining, LlamaConfig, LlamaForCausalLM

from hf_zoo.tokenization.train import train_tokenizer

WORDS = "the cat sat on a mat and saw one red bird fly over two green hills while it rained".split()
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def text_file(path: Path, num_lines: int = 200) -> Path:
    """Lines of 5 to 14 words, the same at every call."""
    lines = (" ".join(WORDS[(i * j * 7 + i) % len(WORDS)] for j in range(5 + i % 10)) for i in range(num_lines))
    path.write_text("\n".join(lines) + "\n")
    return path


def llama_folder(path: Path, dropout: float = 0.1) -> Path:
    """A decoder, with dropout so that the random state matters."""
    tokenizer = train_tokenizer([], "byte", 300)
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=dropout, pad_token_id=0)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def bert_folder(path: Path) -> Path:
    """An encoder with both heads of pre-training."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, "wordpiece", 200)
    torch.manual_seed(0)
    config = BertConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=64)
    BertForPreTraining(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def needs_image_processors() -> None:
    """Skip a test that saves one where transformers has none."""
    try:
        transformers.AutoImageProcessor.register  # noqa: B018
    except ImportError:
        pytest.skip("transformers 5.17 has no image processors without torchvision; later releases do")
