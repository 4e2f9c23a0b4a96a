"""Sentences of texts: where they end and where they do not, how long they may be, and their tokens."""

import pytest
import torch

from hf_zoo.tokenization.sentence_segmenter import SentenceSegmenter
from hf_zoo.tokenization.train import train_tokenizer


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.14 dollars. Dr. Smith paid.", ["It costs 3.14 dollars.", "Dr. Smith paid."]),
        ("J. R. R. Tolkien wrote, e.g. letters. He did.", ["J. R. R. Tolkien wrote, e.g. letters.", "He did."]),
        ('She said "No." Then she left.', ['She said "No."', "Then she left."]),
        ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
        ("A title\n\nA text that\ngoes on.", ["A title", "A text that goes on."]),
        ("Buy:\n- milk\n- bread", ["Buy:", "- milk", "- bread"]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("  \n\n ", []),
        ("", []),
    ],
)
def test_where_sentences_end(text, sentences):
    assert SentenceSegmenter()(text) == sentences


def test_nothing_is_lost_and_nothing_is_too_long():
    text = "first part of it, second part of it; a third part that is rather long - and a fourth. " + "x" * 45
    pieces = SentenceSegmenter(max_chars=20)(text)
    assert max(map(len, pieces)) <= 20
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_tokens_are_padded_in_both_directions():
    tokenizer = train_tokenizer(["One two three. Four five. End of text."], "wordpiece", 200)
    batch = SentenceSegmenter().batch(["One two three. Four.", "Five."], tokenizer)
    assert batch["input_ids"].shape == batch["token_mask"].shape
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]  # with the end
    words = tokenizer.decode(batch["input_ids"][0, 0][batch["token_mask"][0, 0].bool()], skip_special_tokens=True)
    assert words.lower().replace(" ", "") == "onetwothree."
    assert (batch["input_ids"][1, 2] == tokenizer.pad_token_id).all()
    without = SentenceSegmenter().batch(["One two three. Four."], tokenizer, max_tokens=3, end=None)
    assert without["input_ids"].shape == torch.Size([1, 2, 3])
    with pytest.raises(ValueError, match="no sentence"):
        SentenceSegmenter().batch(["  "], tokenizer, end=None)
    with pytest.raises(ValueError, match="max_chars must be at least 1, got 0"):
        SentenceSegmenter(0)
