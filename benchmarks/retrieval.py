"""The index beside what it cannot do without: building and the encoder's forward pass, search and the matrix product.

python benchmarks/retrieval.py
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from paired import report, speed_up

import hf_zoo
from hf_zoo.data import load_dataset
from hf_zoo.retrieval import TextEncoder, build_index
from hf_zoo.retrieval.exact import search_exactly

SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
BLOCK = 1 << 16


def building(num_passages):
    """An index of docstrings, and the encoder alone on the same batches."""
    texts = load_dataset("python-docs", "train")["doc"][:num_passages]
    passages = Dataset.from_dict({"text": texts})
    tokenizer = hf_zoo.create_processor("mlm-tiny")
    torch.manual_seed(0)
    model = hf_zoo.create_model("mlm-tiny", **SIZES, vocab_size=len(tokenizer), task="feature-extraction").eval()
    encoder = TextEncoder(model, tokenizer, max_length=128)
    batches = [batch for _, batch in encoder.batches(texts, 32)]

    def build():
        with tempfile.TemporaryDirectory() as folder:
            build_index(passages, encoder, Path(folder, "index"))

    @torch.inference_mode()
    def forward():
        for batch in batches:
            model(**batch)

    return build, forward


def searching(num_rows, dimension, num_questions, k=20):
    """Exact search, and the product of questions and rows that it is made of, in blocks as large."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((num_rows, dimension), dtype=np.float32)
    questions = rng.standard_normal((num_questions, dimension), dtype=np.float32)
    rows, asked, none = torch.from_numpy(vectors), torch.from_numpy(questions), np.empty(0, np.int64)

    def search():
        search_exactly(questions, [(0, vectors)], none, k)

    def product():
        for part in rows.split(BLOCK):
            asked @ part.T

    return search, product


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--passages", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    ratio, _, _ = speed_up(*building(args.passages), min(3, args.pairs))
    rows.append({"work": f"build over {args.passages:,} passages", "cost against the bare work": 1 / ratio})
    for num_questions in (1, 16, 256):
        ratio, _, _ = speed_up(*searching(args.rows, 256, num_questions), args.pairs)
        work = f"{num_questions} questions, {args.rows:,} vectors of 256"
        rows.append({"work": work, "cost against the bare work": 1 / ratio})
    report("retrieval", rows, "medians of paired runs; bare: the encoder on padded batches, the matrix product")


if __name__ == "__main__":
    hf_zoo.register()
    main()
