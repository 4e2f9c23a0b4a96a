"""Tokenizers of the presets: recipes that are trained on first use and cached, not files to carry about."""

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import cached_folder
from .load import load_dataset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1  # of the recipe; raising it leaves earlier caches behind
# The corpus is 12 MB: beyond this size a further merge is seen a handful of times, and every large preset shares one
MAX_VOCAB_SIZE = 32_768


def build_tokenizer(kind: str, vocab_size: int, name: str | None = None) -> "PreTrainedTokenizerBase":
    """A tokenizer trained on the train split of `python-source`, from the cache after the first time.

    Args:
        kind: one of `hf_zoo.tokenization.train.KINDS`.
        vocab_size: most ids it may have; it is trained to no more than `MAX_VOCAB_SIZE`.
        name: what `name_or_path` says it is, by default "zoo-<kind>-<size>".

    Raises:
        ValueError: unknown kind, or a vocabulary too small for it.
    """
    import tokenizers
    from transformers import AutoTokenizer

    vocab_size = min(vocab_size, MAX_VOCAB_SIZE)

    def build(folder: Path) -> None:
        from ..tokenization.train import train_tokenizer

        texts = load_dataset("python-source", split="train")["text"]
        tokenizer = train_tokenizer(texts, kind, vocab_size, show_progress=sys.stderr.isatty())
        tokenizer.save_pretrained(folder)

    versions = f"v{VERSION}-py{platform.python_version()}-tokenizers{tokenizers.__version__}"
    folder = cached_folder(f"tokenizers/{kind}-{vocab_size}-{versions}", build)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.name_or_path = name or f"zoo-{kind}-{vocab_size}"
    return tokenizer
