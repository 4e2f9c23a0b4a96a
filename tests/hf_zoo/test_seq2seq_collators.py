"""The objectives of T5 and CodeT5: what is taken apart can be put together again."""

import keyword

import pytest
import torch

import hf_zoo
from hf_zoo.training.seq2seq_collators import (
    AlternatingCollator,
    PairCollator,
    SpanCorruptionCollator,
    add_sentinels,
    corrupt,
    dual_generation,
    identifier_spans,
    identifier_tagging,
    masked_identifiers,
    pad_pairs,
    random_spans,
    restore,
    sentinel_ids,
)

CODE = '''\
def scale(values, factor=2.0):
    """Multiply values."""
    result = [value * factor for value in values]
    match = {"scale": factor, "é": len(result)}  # scale
    return match, result
'''


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = hf_zoo.create_processor("llm-tiny")
    add_sentinels(tokenizer, 20)
    return tokenizer


def test_sentinels_descend(tokenizer):
    ids = sentinel_ids(tokenizer)
    assert ids == list(range(len(tokenizer) - 1, len(tokenizer) - 21, -1))
    with pytest.raises(ValueError, match="add_sentinels"):
        sentinel_ids(hf_zoo.create_processor("llm-tiny"))


def test_presets_bring_their_sentinels():
    tokenizer = hf_zoo.create_processor("seq2seq-tiny")
    assert len(sentinel_ids(tokenizer)) == 32
    assert sentinel_ids(tokenizer)[0] == len(tokenizer) - 1 == hf_zoo.create_config("seq2seq-tiny").vocab_size - 1


@pytest.mark.parametrize("length", [2, 3, 7, 40, 500])
def test_spans_hold_the_share_that_is_asked_for(length):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        spans = random_spans(length, 0.15, 3.0, 100, generator)
        lost = sum(end - start for start, end in spans)
        assert lost == min(max(round(0.15 * length), 1), length - 1)
        assert len(spans) == max(round(lost / 3), 1)
        edges = [0, *(place for span in spans for place in span)]
        assert all(a < b for a, b in zip(edges, edges[1:], strict=False))  # apart, and none at the very start
        assert edges[-1] <= length


def test_spans_fall_everywhere():
    generator = torch.Generator().manual_seed(0)
    lost = torch.zeros(40)
    for _ in range(4000):
        for start, end in random_spans(40, 0.15, 3.0, 100, generator):
            lost[start:end] += 1
    assert lost[0] == 0
    assert (lost[3:] / 4000 > 0.05).all()


def test_no_more_spans_than_sentinels():
    assert len(random_spans(500, 0.15, 3.0, 4, torch.Generator().manual_seed(0))) == 4


def test_corruption_as_the_paper_draws_it():
    """ "Thank you <X> me to your party <Y> week." and "<X> for inviting <Y> last"."""
    source, target = corrupt(list(range(10)), [(2, 4), (8, 9)], [99, 98])
    assert source == [0, 1, 99, 4, 5, 6, 7, 98, 9]
    assert target == [99, 2, 3, 98, 8]
    assert restore(source, target, [99, 98]) == list(range(10))


def rows_of(tokenizer, texts):
    return [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]


def test_the_collator_loses_nothing(tokenizer):
    texts = [CODE, CODE[:50], "x = 1"]
    collator = SpanCorruptionCollator(tokenizer)
    batch = collator(rows_of(tokenizer, texts))
    for text, source, mask, labels in zip(
        *(texts, *(batch[n] for n in ("input_ids", "attention_mask", "labels"))), strict=True
    ):
        source, labels = source[mask.bool()].tolist(), labels[labels != -100].tolist()
        assert source[-1] == labels[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(restore(source[:-1], labels[:-1], collator.sentinels)) == text
        num_tokens = len(tokenizer(text)["input_ids"])
        marks = sum(token in collator.sentinels for token in source)
        assert len(source) + len(labels) == num_tokens + 2 * marks + 2
    assert all(torch.equal(batch[name], again) for name, again in collator(rows_of(tokenizer, texts)).items())
    other = SpanCorruptionCollator(tokenizer, seed=1)(rows_of(tokenizer, texts))
    assert other["labels"].tolist() != batch["labels"].tolist()


def test_whole_words_are_lost(tokenizer):
    row = {"input_ids": tokenizer(CODE)["input_ids"]}
    row["word_ids"] = [i // 4 for i in range(len(row["input_ids"]))]
    collator = SpanCorruptionCollator(tokenizer, noise=0.5)
    labels = collator([row])["labels"][0, :-1].tolist()
    lengths = []
    for token in labels:
        if token in collator.sentinels:
            lengths.append(0)
        else:
            lengths[-1] += 1
    assert all(length % 4 == 0 or i == len(lengths) - 1 for i, length in enumerate(lengths))


@pytest.mark.parametrize("options", [{"noise": 0.0}, {"noise": 1.0}, {"mean_span": 0.5}])
def test_impossible_noise_is_named(tokenizer, options):
    with pytest.raises(ValueError, match=r"0\.15"):
        SpanCorruptionCollator(tokenizer, **options)


def test_rows_too_short_to_lose_a_part_are_named(tokenizer):
    with pytest.raises(ValueError, match="row of 1"):
        SpanCorruptionCollator(tokenizer)([{"input_ids": [tokenizer.get_vocab()["x"]]}])


def test_identifiers_are_what_python_says():
    spans = identifier_spans(CODE)
    assert all(CODE[start:end] == name for start, end, name in spans)
    names = [name for _, _, name in spans]
    assert sorted(set(names)) == ["factor", "len", "match", "result", "scale", "value", "values"]
    assert names.count("scale") == 1  # neither the string nor the comment
    assert not any(map(keyword.iskeyword, names))
    soft = "match x:\n    case type():\n        pass\n"
    assert [name for _, _, name in identifier_spans(soft)] == ["x", "type"]
    with pytest.raises(ValueError, match="does not"):
        identifier_spans("def (")


def test_tags_follow_the_characters(tokenizer):
    row = identifier_tagging(CODE, tokenizer)
    assert len(row["input_ids"]) == len(row["tag_labels"])
    assert row["tag_labels"][-1] == -100
    named = "".join(tokenizer.decode([i]) for i, tag in zip(*row.values(), strict=True) if tag == 1)
    other = "".join(tokenizer.decode([i]) for i, tag in zip(*row.values(), strict=True) if tag == 0)
    for name in ("factor", "result", "values"):
        assert name in named.replace(" ", "")
    assert "return" in other and "Multiply" in other
    assert "result" not in other


@pytest.mark.parametrize("count", [20, 3])
def test_one_sentinel_stands_for_a_name_everywhere(tokenizer, count):
    sentinels = sentinel_ids(tokenizer)[:count]
    row = masked_identifiers(CODE, tokenizer, sentinels)
    source, target = row["input_ids"][:-1], row["labels"][:-1]
    names = list(dict.fromkeys(name for _, _, name in identifier_spans(CODE)))[:count]
    assert [token for token in target if token in sentinels] == sentinels[: len(names)]
    occurrences = [name for _, _, name in identifier_spans(CODE) if name in names]
    assert [token for token in source if token in sentinels] == [sentinels[names.index(n)] for n in occurrences]
    assert tokenizer.decode(restore(source, target, sentinels)) == CODE


def test_both_ways_between_text_and_code(tokenizer):
    to_code, to_text = dual_generation("x = 1\n", "Set x.", tokenizer)
    assert tokenizer.decode(to_code["labels"][:-1]) == "x = 1\n"
    assert tokenizer.decode(to_text["labels"][:-1]) == "Set x."
    assert tokenizer.decode(to_code["input_ids"][:-1]).endswith("Set x.")
    assert tokenizer.decode(to_text["input_ids"][:-1]).endswith("x = 1\n")


def test_every_batch_is_of_one_objective(tokenizer):
    makers = (identifier_tagging, masked_identifiers)
    collator = AlternatingCollator(
        [PairCollator(tokenizer, lambda row, make=make: make(row["code"], tokenizer), 20) for make in makers]
    )
    batches = [collator([{"code": CODE}, {"code": f"y = {i}\n"}]) for i in range(20)]
    kinds = {tuple(sorted(batch)) for batch in batches}
    assert kinds == {("attention_mask", "input_ids", "tag_labels"), ("attention_mask", "input_ids", "labels")}
    assert max(batch["input_ids"].shape[1] for batch in batches) == 20


def test_a_model_learns_from_every_objective(tokenizer):
    model = hf_zoo.create_model("seq2seq-tiny", "pre-training", vocab_size=len(tokenizer))
    pairs = [identifier_tagging(CODE, tokenizer), masked_identifiers(CODE, tokenizer)]
    losses = [model(**pad_pairs(tokenizer, [pair])).loss for pair in pairs]
    losses.append(model(**SpanCorruptionCollator(tokenizer)(rows_of(tokenizer, [CODE]))).loss)
    both = {**pairs[1], "tag_labels": [1] * len(pairs[1]["input_ids"])}
    losses.append(model(**pad_pairs(tokenizer, [both], model)).loss)
    for loss in losses:
        assert loss.isfinite() and loss > 0
