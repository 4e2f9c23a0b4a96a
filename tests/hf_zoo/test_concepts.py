"""Texts as rows of sentence vectors, and a model that learns them and stops at their end."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.concepts import ConceptEncoder
from hf_zoo.retrieval.encoder import TextEncoder
from hf_zoo.tokenization.train import train_tokenizer

TEXTS = ["The cat sat. It slept! Then it ate.", "A dog barked."]


class ByLetters:
    """An encoder with the interface of sentence-transformers: counts of letters."""

    def __init__(self):
        self.calls = []

    def encode(self, sentences, batch_size=32):
        self.calls.append(sentences)
        return np.array([[s.lower().count(chr(97 + i)) for i in range(32)] for s in sentences], dtype=np.float64)


def test_rows_hold_the_vectors_of_their_sentences_and_of_the_end():
    letters = ByLetters()
    encoder = ConceptEncoder(letters)
    batch = encoder(TEXTS)
    assert batch["concepts"].shape == (2, 4, 32) and batch["concepts"].dtype == torch.float32
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert_close(batch["concepts"][0, 1], encoder.vectors(["It slept!"])[0])
    assert_close(batch["concepts"][0, 3], encoder.end_vector())
    assert_close(batch["concepts"][1, 1], encoder.end_vector())
    assert not batch["concepts"][1, 2:].any()
    assert len(letters.calls[0]) == 5  # the end of both texts is one sentence


def test_any_encoder_of_the_zoo_serves():
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 300)
    model = hf_zoo.create_model("mlm-tiny", "feature-extraction", vocab_size=len(tokenizer))
    text_encoder = TextEncoder(model, tokenizer)
    batch = ConceptEncoder(text_encoder, end=None)(TEXTS)
    assert_close(
        batch["concepts"][0, :3].numpy(), text_encoder.passages(["The cat sat.", "It slept!", "Then it ate."])
    )


def test_a_model_learns_a_text_by_heart_and_ends_where_it_ends():
    encoder = ConceptEncoder(ByLetters())
    batch = encoder(TEXTS)
    torch.manual_seed(0)
    model = hf_zoo.create_model("concept-predictor-tiny", concept_head="regression", stop_similarity=0.98).train()
    model.fit_space(batch["concepts"][batch["attention_mask"].bool()])
    model.model.space.set_end(encoder.end_vector())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        model(**batch, labels=batch["concepts"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    start = batch["concepts"][:, :1]
    made = model.eval().generate(start, max_new_concepts=6)
    assert made.lengths.tolist() == [2, 0]
    assert_close(made.concepts[0], batch["concepts"][0, 1:3], atol=0.2, rtol=0)


def test_what_cannot_be_encoded_is_one_clear_error():
    with pytest.raises(ValueError, match="int makes no vectors"):
        ConceptEncoder(3)
    with pytest.raises(ValueError, match="text 1 has no sentence"):
        ConceptEncoder(ByLetters(), end=None)(["One.", " "])
    with pytest.raises(ValueError, match="there are no texts"):
        ConceptEncoder(ByLetters())([])
    with pytest.raises(ValueError, match="texts have no end"):
        ConceptEncoder(ByLetters(), end=None).end_vector()
