"""The database of chunks: what is nearest is found with its continuation, and no document finds itself."""

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from tiny import WORDS, bert_folder

import hf_zoo
from hf_zoo.retrieval import ChunkDatabase, TextEncoder, add_neighbours, build_chunks
from hf_zoo.tokenization.train import train_tokenizer

M = 8


def letters(texts):
    """How often each letter stands in a text: vectors of different lengths."""
    return np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([], "byte", 300)


@pytest.fixture(scope="module")
def texts():
    made = [" ".join(WORDS[(i * j * 7 + i + j) % len(WORDS)] for j in range(3 + 3 * i)) for i in range(8)]
    return Dataset.from_dict({"name": [f"d{i}" for i in range(8)], "text": [*made, "short"][:8]})


@pytest.fixture
def database(tmp_path, texts, tokenizer):
    return build_chunks(texts, tokenizer, letters, tmp_path / "chunks", chunk_size=M, document_column="name")


def every_chunk(texts, tokenizer):
    """(document, tokens with continuation) of all chunks, by hand."""
    found = []
    for name, text in zip(texts["name"], texts["text"], strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids) // M * M, M):
            chunk = ids[start : start + 2 * M]
            found.append((name, chunk + [-1] * (2 * M - len(chunk))))
    return found


def nearest_by_hand(chunk, everything, tokenizer, k, excluded=()):
    """Distances of the k nearest, without the documents that are excluded."""
    wanted = letters([tokenizer.decode(chunk)])[0]
    keys = letters([tokenizer.decode(tokens[:M]) for _, tokens in everything])
    distances = np.square(keys - wanted).sum(1)
    kept = [d for d, (name, _) in zip(distances, everything, strict=True) if name not in excluded]
    return sorted(kept)[:k]


def test_chunks_are_whole_and_continued(database, texts, tokenizer):
    everything = every_chunk(texts, tokenizer)
    assert len(database) == len(everything)
    rows = database.index.passages()
    assert [(row["document"], row["tokens"]) for row in rows] == everything


@pytest.mark.parametrize("k", [1, 2, 5])
def test_neighbours_are_the_nearest_by_distance(database, texts, tokenizer, k):
    everything = every_chunk(texts, tokenizer)
    chunks = np.array([tokens[:M] for _, tokens in everything])
    found = database.neighbours(chunks, k)
    assert found.shape == (len(chunks), k, 2 * M)
    for chunk, near in zip(chunks, found, strict=True):
        wanted = letters([tokenizer.decode(chunk)])[0]
        got = np.square(letters(tokenizer.batch_decode(near[:, :M])) - wanted).sum(1)
        np.testing.assert_allclose(got, nearest_by_hand(chunk, everything, tokenizer, k))
        assert all(near_one.tolist() in [tokens for _, tokens in everything] for near_one in near)


@pytest.mark.parametrize("k", [1, 3])
def test_no_document_finds_itself(database, texts, tokenizer, k):
    everything = every_chunk(texts, tokenizer)
    chunks, names = np.array([tokens[:M] for _, tokens in everything]), [name for name, _ in everything]
    found = database.neighbours(chunks, k, names)
    for chunk, name, near in zip(chunks, names, found, strict=True):
        others = [tokens for other, tokens in everything if other != name]
        assert all(one.tolist() in others for one in near)
        wanted = letters([tokenizer.decode(chunk)])[0]
        got = np.square(letters(tokenizer.batch_decode(near[:, :M])) - wanted).sum(1)
        np.testing.assert_allclose(got, nearest_by_hand(chunk, everything, tokenizer, k, {name}))


def test_where_few_are_left_the_rest_is_empty(database, texts, tokenizer):
    chunk = np.array([tokens[:M] for _, tokens in every_chunk(texts, tokenizer)][:1])
    left = [tokens for name, tokens in every_chunk(texts, tokenizer) if name == "d2"]
    found = database.neighbours(chunk, len(left) + 2, [[name for name in texts["name"] if name != "d2"]])
    assert sorted(found[0, : len(left)].tolist()) == sorted(left)
    assert (found[0, len(left) :] == -1).all()
    assert database.neighbours(chunk[:0], 2).shape == (0, 2, 2 * M)
    with pytest.raises(ValueError, match="one entry for each of the 1 chunks"):
        database.neighbours(chunk, 2, ["d0", "d1"])


def test_rows_get_a_column_for_training(database, texts, tokenizer):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts["text"]]
    rows = Dataset.from_dict({"input_ids": ids, "path": texts["name"][:]})
    made = add_neighbours(rows, database, k=2, document_column="path")
    for row, name in zip(made, texts["name"], strict=True):
        chunks = np.array(row["input_ids"][: len(row["input_ids"]) // M * M]).reshape(-1, M)
        expected = database.neighbours(chunks, 2, [name] * len(chunks))
        np.testing.assert_array_equal(np.array(row["neighbour_ids"], int).reshape(expected.shape), expected)


def test_packed_rows_count_chunks_by_document(database):
    ids = list(range(60, 90))
    rows = Dataset.from_dict({"input_ids": [ids], "position_ids": [[*range(10), *range(20)]]})
    made = np.array(add_neighbours(rows, database)[0]["neighbour_ids"])
    assert made.shape == (3, 2, 2 * M)
    np.testing.assert_array_equal(made, database.neighbours(np.array([ids[:8], ids[10:18], ids[18:26]]), 2))
    rows = Dataset.from_dict({"input_ids": [ids], "position_ids": [[*range(7), *range(7), *range(16)]]})
    made = np.array(add_neighbours(rows, database)[0]["neighbour_ids"])
    assert (made[2] == -1).all() and (made[:2, 0, 0] >= 0).all()  # as many as the row could have


def test_neighbours_are_found_once(database, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_zoo.retrieval.retro._SHARD", 4)
    Dataset.from_dict({"input_ids": [list(range(60 + i, 80 + i)) for i in range(10)]}).save_to_disk(tmp_path / "rows")
    plain, calls = database.neighbours, []

    def counted(chunks, k, documents=None):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(chunks))
        return plain(chunks, k, documents)

    monkeypatch.setattr(database, "neighbours", counted)
    with pytest.raises(KeyboardInterrupt):
        add_neighbours(load_from_disk(tmp_path / "rows"), database)
    calls[:] = [0]
    made = add_neighbours(load_from_disk(tmp_path / "rows"), database)
    assert len(calls) == 2  # the last of three parts alone
    monkeypatch.setattr(database, "neighbours", plain)
    rows = load_from_disk(tmp_path / "rows")
    expected = database.neighbours(np.array(rows["input_ids"])[:, :16].reshape(-1, M), 2).reshape(10, 2, 2, -1)
    np.testing.assert_array_equal(np.array(made["neighbour_ids"]), expected)


def test_a_database_is_opened_with_its_own_encoder(database, tokenizer, tmp_path):
    again = ChunkDatabase.open(tmp_path / "chunks", tokenizer, letters)
    assert again.chunk_size == M and again.fingerprint() == database.fingerprint()
    with pytest.raises(ValueError, match="must not be compared"):
        ChunkDatabase.open(tmp_path / "chunks", tokenizer, lambda texts: 2 * letters(texts))
    encoder = TextEncoder.from_pretrained(str(bert_folder(tmp_path / "bert")))
    with pytest.raises(ValueError, match="must not be compared"):
        ChunkDatabase.open(tmp_path / "chunks", tokenizer, encoder)


def test_any_text_encoder_makes_keys(texts, tokenizer, tmp_path):
    encoder = TextEncoder.from_pretrained(str(bert_folder(tmp_path / "bert")), pooling="mean")
    database = build_chunks(texts, tokenizer, encoder, tmp_path / "chunks", chunk_size=M)
    chunks = np.array([row["tokens"][:M] for row in database.index.passages()])
    keys = encoder.passages(tokenizer.batch_decode(chunks))
    distances = np.square(keys[:, None] - keys).sum(-1)
    near = database.neighbours(chunks, 1)[:, 0, :M]
    got = np.square(encoder.passages(tokenizer.batch_decode(near)) - keys).sum(-1)
    np.testing.assert_allclose(got, distances.min(1), atol=1e-3)
    assert ChunkDatabase.open(tmp_path / "chunks", tokenizer, encoder).chunk_size == M


def test_texts_without_a_whole_chunk_are_refused(texts, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no text has chunk_size=9999 tokens"):
        build_chunks(texts, tokenizer, letters, tmp_path / "chunks", chunk_size=9999)


@torch.no_grad()
def test_a_model_writes_with_a_database(database, tokenizer):
    model = hf_zoo.create_model("retro-tiny", vocab_size=len(tokenizer), chunk_size=M).eval()
    prompt = tokenizer("the cat sat on a mat and saw", return_tensors="pt", add_special_tokens=False)
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    written = model.generate(**prompt, retriever=database.retriever(k=2), **options)
    expected = database.neighbours(written[0, : written.shape[1] // M * M].view(-1, M), 2)
    neighbours = torch.from_numpy(expected)[None]
    logits = model(written[:, :-1], neighbour_ids=neighbours).logits
    assert torch.equal(logits[:, -10:].argmax(-1), written[:, -10:])
    alone = database.retriever(k=1, document="d7")(prompt["input_ids"][:, :M])
    assert torch.equal(alone[0], torch.from_numpy(database.neighbours(prompt["input_ids"][:, :M], 1, ["d7"])[0]))
