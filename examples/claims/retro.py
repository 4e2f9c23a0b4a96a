"""Retrieval lowers the bits per byte of modules that a decoder was not trained on.

Borgeaud et al. 2021, https://arxiv.org/abs/2112.04426, section 3. A small decoder is trained on source of the standard
library, gets attention to neighbours, and is trained on beside a database of other source. Neighbours that say
something are rare in so little text, so it first gets, for most chunks, the text itself in their place, shifted by a
few tokens, from which it learns to copy. Measured on modules of another split, whose pieces the database holds: a
piece is a document of its own, which never gets its own chunks. Shuffled neighbours are those of other chunks.
"""

import math
import re
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
STEPS, COPY_STEPS, RETRO_STEPS = 130, 300, 150
SIZES = {
    **{"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "initializer_range": 0.08, "tie_word_embeddings": True},
}
RETRO = {
    **{"chunk_size": CHUNK, "cross_layers": [2], "num_encoder_layers": 1, "encoder_hidden_size": 128},
    **{"encoder_intermediate_size": 256, "num_encoder_heads": 4},
}
SEED = 0


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

    def draw(generator):
        i = int(torch.randint(len(rows["train"]["input_ids"]), (), generator=generator))
        return {name: rows["train"]["input_ids"][i] for name in ("input_ids", "labels")}

    def drawer(share):
        def with_neighbours(generator):
            """A row with what was found for its chunks, or for a share of them the text itself, shifted."""
            i = int(torch.randint(len(rows["train"]["input_ids"]), (), generator=generator))
            ids, near = rows["train"]["input_ids"][i], rows["train"]["neighbour_ids"][i].clone()
            for u in range(len(near)):
                if torch.rand((), generator=generator) < share:
                    start = u * CHUNK + int(torch.randint(-6, 7, (), generator=generator))
                    places = torch.arange(start, start + 2 * CHUNK)
                    inside = (places >= 0) & (places < len(ids))
                    near[u, 0] = torch.where(inside, ids[places.clamp(0, len(ids) - 1)], -1)
            return {"input_ids": ids, "labels": ids, "neighbour_ids": near}

        return with_neighbours

    torch.manual_seed(SEED)
    dense = hf_zoo.create_model("llm-tiny", **SIZES)
    losses = train(dense, draw, steps=STEPS, learning_rate=3e-3, batch_size=8, seed=SEED + 1)
    claim.draw("loss of the decoder", "dense decoder", range(10, STEPS + 1, 10), losses)
    model = hf_zoo.as_retro(dense, train_only_new=False, **RETRO)
    for steps, share, rate, name in ((COPY_STEPS, 0.7, 3e-3, "text itself"), (RETRO_STEPS, 0.1, 1.5e-3, "neighbours")):
        losses = train(model, drawer(share), steps, learning_rate=rate, batch_size=8, seed=SEED + 2)
        claim.draw("loss with retrieval", f"mostly the {name}", range(10, steps + 1, 10), losses)

    ids, neighbours = rows["validation"]["input_ids"], rows["validation"]["neighbour_ids"]
    size = sum(len(text.encode()) for text in tokenizer.batch_decode(ids[:, 1:]))

    @torch.no_grad()
    def bits(given):
        """Of each row (N)."""
        found = []
        for part, near in zip(ids.split(32), given.split(32), strict=True):
            logits = model(part, neighbour_ids=near, use_cache=False).logits[:, :-1]
            nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
            found.append(nats.sum(1) / math.log(2))
        return torch.cat(found)

    generator = torch.Generator().manual_seed(3)
    flat = neighbours.flatten(0, 1)
    shuffled = flat[torch.randperm(len(flat), generator=generator)].view_as(neighbours)
    found = {"retrieved": bits(neighbours), "shuffled": bits(shuffled), "none": bits(torch.full_like(neighbours, -1))}
    per_byte = {name: float(b.sum()) / size for name, b in found.items()}
    print(per_byte, flush=True)

    def gain(name):
        """Bits a row that neighbours save, and the standard error of that mean."""
        saved = found["none"] - found[name]
        return float(saved.mean()), float(saved.std() / len(saved) ** 0.5)

    (saved, error), (saved_by_others, _) = gain("retrieved"), gain("shuffled")
    claim.compare(
        "with its index the model spends fewer bits per byte on unseen modules, by more than 4 standard errors",
        saved > 4 * error,
        retrieved=per_byte["retrieved"],
        none=per_byte["none"],
        standard_errors=saved / error,
    )
    claim.compare(
        "neighbours of other chunks save nothing",
        saved_by_others <= 0,
        shuffled=per_byte["shuffled"],
        none=per_byte["none"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
