"""Masking and sentence pairs: the shares of BERT's paper, no special token touched, words whole, masks repeatable."""

import inspect

import pytest
import torch
from datasets import Dataset

from hf_zoo.tokenization.train import train_tokenizer
from hf_zoo.training.collators import IGNORED, WholeWordMaskCollator, sentence_pairs, word_numbers

TEXT = inspect.getsource(inspect)  # 3,000 lines of English and Python
LENGTH = 128


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT], "wordpiece", 400)  # few, so that most words are several pieces


@pytest.fixture(scope="module")
def rows(tokenizer):
    encoded = tokenizer(TEXT * 3, truncation=True, max_length=LENGTH, return_overflowing_tokens=True)
    count = len(encoded["input_ids"])
    return [
        {"input_ids": encoded["input_ids"][i], "word_ids": word_numbers(encoded.word_ids(i))} for i in range(count)
    ]


def without_word_ids(rows):
    return [{"input_ids": row["input_ids"]} for row in rows]


def originals(rows, tokenizer):
    return tokenizer.pad(without_word_ids(rows), return_tensors="pt")["input_ids"]


@pytest.mark.parametrize("whole_words", [True, False])
def test_shares_are_those_of_the_paper(tokenizer, rows, whole_words):
    before = originals(rows, tokenizer)
    batch = WholeWordMaskCollator(tokenizer, whole_words=whole_words)(rows)
    after, picked = batch["input_ids"], batch["labels"] != IGNORED
    ordinary = ~torch.isin(before, torch.tensor(tokenizer.all_special_ids))
    assert ordinary.sum() > 100_000
    assert picked.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(batch["labels"][picked], before[picked])
    assert torch.equal(after[~picked], before[~picked])
    masked = (after == tokenizer.mask_token_id)[picked].float().mean()
    kept = (after == before)[picked].float().mean()
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1, abs=0.01)


def test_special_tokens_are_neither_masked_nor_drawn(tokenizer, rows):
    before = originals(rows, tokenizer)
    batch = WholeWordMaskCollator(tokenizer)(rows)
    special = torch.isin(before, torch.tensor(tokenizer.all_special_ids))
    assert special.sum() > 1000 and (before == tokenizer.pad_token_id).any()
    assert torch.all(batch["labels"][special] == IGNORED)
    changed = batch["input_ids"] != before
    drawn = batch["input_ids"][changed & (batch["input_ids"] != tokenizer.mask_token_id)]
    assert len(drawn) > 1000
    assert not torch.isin(drawn, torch.tensor(tokenizer.all_special_ids)).any()


@pytest.mark.parametrize("with_column", [True, False], ids=["word_ids", "pieces"])
def test_words_are_masked_whole(tokenizer, rows, with_column):
    batch = WholeWordMaskCollator(tokenizer)(rows if with_column else without_word_ids(rows))
    several = 0
    for row, labels in zip(rows, batch["labels"], strict=True):
        words = {}
        for place, number in enumerate(row["word_ids"]):
            if number >= 0 and row["input_ids"][place] != tokenizer.unk_token_id:
                words.setdefault(number, set()).add(bool(labels[place] != IGNORED))
                several += words[number] == {True} and row["word_ids"].count(number) > 1
        assert all(len(fates) == 1 for fates in words.values())
    assert several > 1000


def test_padding_on_the_left_keeps_words_in_place(tokenizer, rows):
    right = WholeWordMaskCollator(tokenizer)(rows[-3:])
    tokenizer.padding_side = "left"
    try:
        left = WholeWordMaskCollator(tokenizer)(rows[-3:])
    finally:
        tokenizer.padding_side = "right"
    assert right["attention_mask"].min() == 0
    for row, labels, mask in zip(rows[-3:], left["labels"], left["attention_mask"], strict=True):
        by_word = {}
        for number, label in zip(row["word_ids"], labels[mask.bool()], strict=True):
            by_word.setdefault(number, set()).add(bool(label != IGNORED))
        assert all(len(fates) == 1 for fates in by_word.values())


def test_masks_depend_on_the_batch_and_the_seed_alone(tokenizer, rows):
    collator = WholeWordMaskCollator(tokenizer, seed=1)
    first = collator(rows[:8])["labels"]
    torch.rand(7)
    assert torch.equal(collator(rows[:8])["labels"], first)
    assert not torch.equal(WholeWordMaskCollator(tokenizer, seed=2)(rows[:8])["labels"], first)
    with_another_neighbour = collator([*rows[:7], rows[9]])["labels"]
    assert not torch.equal(with_another_neighbour[:7], first[:7])


def test_a_worker_makes_the_same_masks(tokenizer, rows):
    collator = WholeWordMaskCollator(tokenizer)
    here = next(iter(torch.utils.data.DataLoader(rows, 4, collate_fn=collator)))
    there = next(iter(torch.utils.data.DataLoader(rows, 4, collate_fn=collator, num_workers=1)))
    assert torch.equal(here["labels"], there["labels"])


def test_every_row_has_something_to_predict(tokenizer):
    rows = [tokenizer("def") for _ in range(50)]
    assert (WholeWordMaskCollator(tokenizer)(rows)["labels"] != IGNORED).any(1).all()


def test_a_row_of_special_tokens_stays(tokenizer):
    batch = WholeWordMaskCollator(tokenizer)([tokenizer(""), tokenizer("def")])
    assert torch.all(batch["labels"][0] == IGNORED)
    assert batch["input_ids"][0].tolist()[:2] == tokenizer("").input_ids


def test_unusable_tokenizers_are_refused():
    byte = train_tokenizer([TEXT], "byte", 300)
    with pytest.raises(ValueError, match="no mask token"):
        WholeWordMaskCollator(byte)
    byte.add_special_tokens({"mask_token": "<|mask|>"})
    with pytest.raises(ValueError, match="no word_ids column"):
        WholeWordMaskCollator(byte)([byte("some text")])
    assert (WholeWordMaskCollator(byte, whole_words=False)([byte("some text")])["labels"] != IGNORED).any()


@pytest.fixture(scope="module")
def documents():
    """Documents whose sentences say where they stand: "d3 s7."."""
    return Dataset.from_dict({"text": [" ".join(f"d{d} s{s}." for s in range(100)) for d in range(100)]})


@pytest.fixture(scope="module")
def numbered():
    words = [f"{kind}{number}" for kind in "ds" for number in range(100)]
    return train_tokenizer([" ".join(words)] * 3 + ["d s ."], "wordpiece", 600)


def test_pairs_follow_or_come_from_another_document(documents, numbered):
    pairs = sentence_pairs(documents, numbered, max_length=64, seed=0)
    assert len(pairs) > 500
    for pair in pairs:
        assert len(pair["input_ids"]) <= 64
        split = pair["token_type_ids"].index(1)
        a, b = (
            numbered.decode(part, skip_special_tokens=True).split()
            for part in (pair["input_ids"][:split], pair["input_ids"][split:])
        )
        if pair["next_sentence_label"] == 0:
            assert a[0] == b[0]  # the document
        else:
            assert a[0] != b[0]


def test_pairs_are_half_and_half(documents, numbered):
    labels = sentence_pairs(documents, numbered, max_length=32, seed=0)["next_sentence_label"]
    assert len(labels) > 1000
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.03)


def test_the_pair_that_follows_is_the_very_next_sentence(documents, numbered):
    pairs = sentence_pairs(documents, numbered, max_length=64, seed=0)
    for pair in pairs.filter(lambda pair: pair["next_sentence_label"] == 0):
        text = numbered.decode(pair["input_ids"], skip_special_tokens=True).replace(" ", "")
        places = [int(part) for part in text.replace(".", "s").split("s")[1::2]]
        assert places == list(range(places[0], places[0] + len(places)))


def test_empty_rows_separate_documents(numbered):
    lines = Dataset.from_dict({"text": ["d1 s1.", "d1 s2.", "", "d2 s1.", "d2 s2."] * 5})
    pairs = sentence_pairs(lines, numbered, max_length=32)
    assert len(pairs) > 0
    with pytest.raises(ValueError, match="two sentences"):
        sentence_pairs(Dataset.from_dict({"text": ["one", "two"]}), numbered, max_length=32)
    with pytest.raises(ValueError, match="another one"):
        sentence_pairs(Dataset.from_dict({"text": ["One. Two."]}), numbered, max_length=32)


def test_the_label_of_a_pair_goes_along(documents, numbered):
    pairs = sentence_pairs(documents, numbered, max_length=32, seed=0).select(range(4))
    batch = WholeWordMaskCollator(numbered)(list(pairs))
    assert batch["next_sentence_label"].tolist() == list(pairs["next_sentence_label"])
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels", "next_sentence_label"}
    assert batch["token_type_ids"].shape == batch["labels"].shape
