"""Retrieval lowers the bits per byte of modules that a decoder was not trained on, with the decoder's weights frozen.

Borgeaud et al. 2021, https://arxiv.org/abs/2112.04426, sections 3.3 (retrofitting) and 3.4. A small decoder is trained
on source of the standard library, then only attention to neighbours and their encoder are, beside a database of other
source. Measured on modules of other splits, whose other parts the database holds: source is cut into pieces, each a
document of the database, and a piece never gets its own chunks or what continues them. Shuffled neighbours are those
of other chunks.
"""

import math
import re
import sys
import tempfile
import zlib

import numpy as np
import torch
from datasets import Dataset

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.retrieval import add_neighbours, build_chunks
from hf_zoo.tokenization.train import train_tokenizer

CHUNK, LENGTH, PIECE = 32, 256, 1100  # tokens, tokens, characters
STEPS, RETRO_STEPS = 130, 320
SIZES = {
    **{"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "initializer_range": 0.08, "tie_word_embeddings": True},
}
RETRO = {
    **{"chunk_size": CHUNK, "cross_layers": [3], "num_encoder_layers": 1, "encoder_hidden_size": 128},
    **{"encoder_intermediate_size": 256, "num_encoder_heads": 4},
}
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0


def words(texts):
    """Words and their pairs by hash, rare for often, as vectors of length 1: what a chunk is found by."""
    vectors = np.zeros((len(texts), 256), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        found = re.findall(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]", text)
        for word in (*found, *(" ".join(pair) for pair in zip(found, found[1:], strict=False))):
            code = zlib.crc32(word.encode())
            vector[code % 256] += 1 if code & 256 else -1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


def pieces(rows, count, tokenizer):
    """Pieces of whole lines that fill a row of tokens, at most so many of them."""
    found = {"text": [], "input_ids": []}
    for text in rows["text"]:
        piece = ""
        for line in text.splitlines(keepends=True):
            piece += line
            if len(piece) >= PIECE:
                ids = tokenizer(piece, add_special_tokens=False)["input_ids"]
                if len(ids) >= LENGTH:
                    found["text"].append(piece)
                    found["input_ids"].append(ids[:LENGTH])
                piece = ""
    return Dataset.from_dict(found).shuffle(seed=7).select(range(min(count, len(found["text"]))))


def main():
    claim = Claim("retro", "Borgeaud et al. 2021")
    source = {split: load_dataset("python-source", split) for split in ("train", "validation")}
    known = source["train"].shuffle(seed=1).select(range(130))
    tokenizer = train_tokenizer(known["text"][:], "bpe", SIZES["vocab_size"])
    texts = {"train": pieces(known, 2200, tokenizer), "validation": pieces(source["validation"], 400, tokenizer)}
    first, everything = 0, []
    for split, rows in texts.items():
        texts[split] = rows.add_column("piece", list(range(first, first + len(rows))))
        everything.append(texts[split])
        first += len(rows)
    with tempfile.TemporaryDirectory() as folder:
        from datasets import concatenate_datasets

        database = build_chunks(
            concatenate_datasets(everything).remove_columns("input_ids"),
            *(tokenizer, words, f"{folder}/chunks"),
            chunk_size=CHUNK,
            document_column="piece",
        )
        rows = {split: add_neighbours(part, database, k=1, document_column="piece") for split, part in texts.items()}
        rows = {split: part.with_format("torch")[:] for split, part in rows.items()}
    print(f"{len(database)} chunks", flush=True)

    def drawer(*names):
        def draw(generator):
            i = int(torch.randint(len(rows["train"]["input_ids"]), (), generator=generator))
            example = {name: rows["train"][name][i] for name in names}
            return {**example, "labels": example["input_ids"]}

        return draw

    torch.manual_seed(SEED)
    dense = hf_zoo.create_model("llm-tiny", **SIZES)
    losses = train(dense, drawer("input_ids"), steps=STEPS, learning_rate=3e-3, batch_size=8, seed=SEED + 1)
    claim.draw("loss of the decoder", "dense decoder", range(10, STEPS + 1, 10), losses)
    model = hf_zoo.as_retro(dense, **RETRO)
    losses = train(
        model, drawer("input_ids", "neighbour_ids"), RETRO_STEPS, learning_rate=4e-3, batch_size=8, seed=SEED + 2
    )
    claim.draw("loss with retrieval", "decoder frozen", range(10, RETRO_STEPS + 1, 10), losses)

    ids, neighbours = rows["validation"]["input_ids"], rows["validation"]["neighbour_ids"]
    size = sum(len(text.encode()) for text in tokenizer.batch_decode(ids[:, 1:]))

    @torch.no_grad()
    def bits_per_byte(given):
        nats = 0.0
        for part, near in zip(ids.split(32), given.split(32), strict=True):
            nats += model(part, labels=part, neighbour_ids=near, use_cache=False).loss.item() * part[:, 1:].numel()
        return nats / math.log(2) / size

    generator = torch.Generator().manual_seed(3)
    flat = neighbours.flatten(0, 1)
    found = {
        "retrieved": bits_per_byte(neighbours),
        "shuffled": bits_per_byte(flat[torch.randperm(len(flat), generator=generator)].view_as(neighbours)),
        "none": bits_per_byte(torch.full_like(neighbours, -1)),
    }
    claim.compare(
        "retrieved neighbours take at least 2 % of the bits per byte of modules that were not trained on",
        found["retrieved"] < 0.98 * found["none"],
        retrieved=found["retrieved"],
        none=found["none"],
    )
    claim.compare(
        "and neighbours of other chunks, with the same weights, do not take half of that",
        found["none"] - found["shuffled"] < 0.5 * (found["none"] - found["retrieved"]),
        shuffled=found["shuffled"],
        none=found["none"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
