"""The processor of long texts and records: where it cuts, what it fills, that AutoProcessor gives it back."""

import pytest
import torch
from tiny import WORDS
from transformers import AutoProcessor

import hf_zoo
from hf_zoo.tokenization.hibert_processor import HibertProcessor
from hf_zoo.tokenization.train import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(WORDS)] * 3, "wordpiece", 200)


def test_texts_are_cut_into_segments_of_their_own(tokenizer):
    processor = HibertProcessor(tokenizer, segment_size=6)
    texts = [" ".join(WORDS[:9]), "the cat"]
    batch = processor(texts)
    assert set(batch) == {"input_ids", "attention_mask"}
    plain = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert batch["input_ids"].shape == (2, -(-len(plain[0]) // 4), 6)
    for ids, row, mask in zip(plain, batch["input_ids"], batch["attention_mask"], strict=True):
        again = []
        for segment, real in zip(row, mask.bool(), strict=True):
            if real.any():
                assert (segment[0], segment[real][-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
                again += segment[real][1:-1].tolist()
            assert (segment[~real] == tokenizer.pad_token_id).all()
        assert again == ids
    assert processor(texts[1], padding="max_length")["input_ids"].shape == (1, 32, 6)


def test_segments_overlap_by_the_stride_and_the_last_is_filled(tokenizer):
    processor = HibertProcessor(tokenizer, segment_size=5, segment_stride=3)
    words = [word for word in WORDS if word in tokenizer.get_vocab()][:8]
    record = [(54.7, words[:3]), (55, words[3:4]), (130, words[4:])]
    batch = processor(records=[record, [(-1, words[:1])], []])
    ids = tokenizer.convert_tokens_to_ids(words)
    pad = tokenizer.pad_token_id
    assert batch["input_ids"].tolist()[0] == [ids[0:5], ids[3:8]]
    assert batch["input_ids"].tolist()[1] == [[ids[0], *[pad] * 4], [pad] * 5]
    assert batch["attention_mask"][:, :, 0].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert batch["age_ids"].tolist()[0] == [[54, 54, 54, 55, 109], [55, 109, 109, 109, 109]]
    assert batch["age_ids"].tolist()[1][0][0] == 0
    assert batch["visit_ids"].tolist()[0] == [[0, 0, 0, 1, 2], [1, 2, 2, 2, 2]]
    assert HibertProcessor(tokenizer, segment_size=5, segment_stride=3, max_segments=1)(records=[record])[
        "input_ids"
    ].shape == (1, 1, 5)


def test_the_model_reads_both(tokenizer):
    options = {"vocab_size": len(tokenizer), "segment_size": 6, "num_ages": 110}
    model = hf_zoo.create_model("hibert-tiny", "sequence-classification", **options).eval()
    processor = HibertProcessor(tokenizer, segment_size=6)
    assert model(**processor(" ".join(WORDS))).logits.shape == (1, 2)
    batch = processor(records=[[(50, WORDS[:4]), (51, WORDS[:9])], []])
    assert model(**batch).logits.isfinite().all()


def test_auto_processor_gives_it_back(tokenizer, tmp_path):
    model = hf_zoo.create_model("hibert-tiny", vocab_size=len(tokenizer), segment_size=6)
    processor = HibertProcessor(tokenizer, segment_size=6, segment_stride=3, max_segments=9, num_ages=80)
    hf_zoo.export_standalone(model, tmp_path, processor)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is HibertProcessor
    for name in ("segment_size", "segment_stride", "max_segments", "num_ages"):
        assert getattr(again, name) == getattr(processor, name)
    text = " ".join(WORDS)
    assert torch.equal(again(text)["input_ids"], processor(text)["input_ids"])
    assert (tmp_path / "hibert_processor.py").exists()


def test_wrong_calls_are_named(tokenizer):
    processor = HibertProcessor(tokenizer, segment_size=2)
    with pytest.raises(ValueError, match="exactly one"):
        processor()
    with pytest.raises(ValueError, match="segment_size=2.*no room"):
        processor("the cat")
    with pytest.raises(ValueError, match="'longest' or 'max_length', got 'yes'"):
        processor("the cat", padding="yes")
