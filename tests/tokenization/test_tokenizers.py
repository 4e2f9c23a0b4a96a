"""Tokenizers: what each kind promises, that they survive saving, that bad requests say so."""

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from hf_zoo.tokenization.train import DECODER_KINDS, DECODER_TOKENS, ENCODER_TOKENS, KINDS, train_tokenizer

TEXTS = [
    "def add(first, second):\n    return first + second\n\n\nclass Adder:\n\tdef __call__(self, *terms):\n",
    "The quick brown fox jumps over the lazy dog; the dog sleeps. Café, naïve, déjà vu.\n",
] * 3
ANY_TEXT = "x  y\r\n\t e\u0301 ế 日本語 \x00 👩‍👩‍👧‍👦🇩🇪 \u200d\ufeff Ġ▁## [MASK ] <|bos| > it is n't , so . \U0010ffff"
CHAT = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "It is 2."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "It is 4."},
]


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train_tokenizer(TEXTS, kind, 340) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def test_ids_fit_the_vocabulary(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer) <= 340


@pytest.mark.parametrize("kind", DECODER_KINDS)
def test_decoder_special_tokens(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tokenizer.convert_tokens_to_ids(list(DECODER_TOKENS)) == list(range(7))
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.padding_side == "left"
    assert set(DECODER_TOKENS) <= set(tokenizer.all_special_tokens)
    assert tokenizer.decode([*range(7), *tokenizer.encode("add")], skip_special_tokens=True) == "add"
    assert tokenizer(["add", "add add"], padding=True).attention_mask[0][0] == 0
    assert "token_type_ids" not in tokenizer("add")


def test_encoder_special_tokens(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    assert tokenizer.convert_tokens_to_ids(list(ENCODER_TOKENS)) == list(range(5))
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 1, 4)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (2, 3)
    assert tokenizer.padding_side == "right"
    assert tokenizer.encode("the [MASK] dog", add_special_tokens=False).count(4) == 1


def test_wordpiece_pairs(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    encoded = tokenizer("the dog", "sleeps")
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    split = tokens.index("[SEP]")
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and tokens.count("[SEP]") == 2
    assert encoded.token_type_ids == [0] * (split + 1) + [1] * (len(tokens) - split - 1)
    assert tokenizer.decode(encoded.input_ids, skip_special_tokens=True) == "the dog sleeps"


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
@pytest.mark.parametrize("text", [ANY_TEXT, *TEXTS[:2], "", " ", "\n\n  \n"])
def test_any_text_comes_back(tokenizers, kind, text):
    assert tokenizers[kind].decode(tokenizers[kind].encode(text)) == text


def test_known_characters_come_back(tokenizers):
    tokenizer = tokenizers["char"]
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]
    assert len(tokenizer.encode(TEXTS[0])) == len(TEXTS[0])
    assert tokenizer.tokenize("a日b") == ["a", "<|unk|>", "b"]


def test_bytes_keep_their_order(tokenizers):
    assert tokenizers["byte"].encode("a\x00é") == [7 + byte for byte in "a\x00é".encode()]
    assert len(tokenizers["byte"]) == 263


def test_training_shortens(tokenizers):
    num_bytes = len(TEXTS[0].encode())
    assert len(tokenizers["bpe"].encode(TEXTS[0])) < 0.6 * num_bytes
    assert len(tokenizers["unigram"].encode(TEXTS[0])) < 0.9 * num_bytes


def test_training_repeats(tokenizers):
    for kind in ("bpe", "wordpiece", "char"):
        assert train_tokenizer(iter(TEXTS), kind, 340).get_vocab() == tokenizers[kind].get_vocab()


def test_small_vocabulary_keeps_frequent_characters():
    tokenizer = train_tokenizer(["aaab", "ab", "c"], "char", 10)
    assert tokenizer.encode("abc") == [8, 9, tokenizer.unk_token_id]
    tokenizer = train_tokenizer(["".join(map(chr, range(0x4E00, 0x5000)))], "wordpiece", 64)
    assert len(tokenizer) <= 64


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind, tmp_path):
    tokenizer = train_tokenizer(TEXTS, kind, 340, special_tokens=["<image>"], model_max_length=77)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS).data == tokenizer(TEXTS).data
    assert again("a", "b").data == tokenizer("a", "b").data
    for name in ("chat_template", "padding_side", "model_max_length", "special_tokens_map", "all_special_ids"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert again.model_max_length == 77 and again.padding_side == ("right" if kind == "wordpiece" else "left")
    assert again.tokenize("<image>") == ["<image>"] and "<image>" in again.all_special_tokens
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.model_input_names == tokenizer.model_input_names
    assert again.decode(again.encode(ANY_TEXT)) == tokenizer.decode(tokenizer.encode(ANY_TEXT))


@pytest.mark.slow
def test_loads_in_a_process_without_hf_zoo(tokenizers, tmp_path):
    """Beside the configuration of a model type that this process has never heard of, too."""
    script = (
        "import sys, json, transformers\n"
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        "assert 'hf_zoo' not in sys.modules\n"
        "print(json.dumps([tokenizer.encode('def add'), tokenizer.padding_side, tokenizer.chat_template]))"
    )
    for kind in ("bpe", "wordpiece"):
        tokenizers[kind].save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "zoo_llm"}')
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        ids, side, template = json.loads(found.stdout.strip().splitlines()[-1])
        assert ids == tokenizers[kind].encode("def add") and side == tokenizers[kind].padding_side
        if kind == "bpe":
            assert template == tokenizers[kind].chat_template


@pytest.mark.parametrize("kind", DECODER_KINDS)
def test_chat_template(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True) == (
        "<|bos|><|system|>\nAdd.<|end|>\n<|user|>\n1 + 1?<|end|>\n<|assistant|>\n"
    )
    if kind == "char":
        return  # "1" and "?" are not in the corpus
    encoded = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = [i for i, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "It is 2.<|end|>It is 4.<|end|>"
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole.startswith(tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True))


def test_chat_refuses_unknown_roles(tokenizers):
    with pytest.raises(Exception, match="unknown role 'asistant': use system, user or assistant"):
        tokenizers["bpe"].apply_chat_template([{"role": "asistant", "content": "x"}])


def test_unknown_kind():
    with pytest.raises(ValueError, match="unknown tokenizer kind 'wordpeace'. Did you mean 'wordpiece'"):
        train_tokenizer(TEXTS, "wordpeace", 300)


@pytest.mark.parametrize(
    ("kind", "least"), [("byte", 263), ("bpe", 263), ("unigram", 264), ("char", 9), ("wordpiece", 7)]
)
def test_too_small_a_vocabulary(kind, least):
    with pytest.raises(ValueError, match=f"vocab_size={least - 1} is too small for kind '{kind}'.*at least {least}"):
        train_tokenizer(TEXTS, kind, least - 1)
    assert len(train_tokenizer(TEXTS, kind, least)) <= least


def test_nothing_to_learn_from():
    for texts in ([], iter(()), ["", ""]):
        with pytest.raises(ValueError, match="no text to train a tokenizer on"):
            train_tokenizer(texts, "bpe", 300)
    with pytest.raises(ValueError, match="texts is one string"):
        train_tokenizer("def add", "char", 300)
