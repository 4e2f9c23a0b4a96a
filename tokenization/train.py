"""Tokenizers of five kinds, trained on any text, as `PreTrainedTokenizerFast`: they load with no code of ours.

| kind      | unit                                             | lossless            | made for |
|-----------|--------------------------------------------------|---------------------|----------|
| byte      | a byte, nothing to train (Xue et al. 2022, ByT5) | yes                 | decoders |
| char      | a character of the texts                         | on known characters | decoders |
| bpe       | byte-level BPE (Radford et al. 2019, GPT-2)      | yes                 | decoders |
| unigram   | Unigram (Kudo 2018) over bytes                   | yes                 | decoders |
| wordpiece | WordPiece (Devlin et al. 2019, BERT), cased      | no                  | encoders |

In every decoder tokenizer <|pad|>, <|bos|>, <|eos|> are 0, 1, 2; in every encoder tokenizer [PAD], [UNK], [CLS],
[SEP], [MASK] are 0 to 4. Decoder tokenizers add no special token of their own accord, so `decode(encode(x)) == x`.

The same texts in the same order give the same ids, but for unigram: its trainer sums in the order of a hash table, and
near ties fall differently from run to run. So save a tokenizer with the model that learned its ids.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

DECODER_KINDS = ("byte", "char", "bpe", "unigram")
ENCODER_KINDS = ("wordpiece",)
KINDS = DECODER_KINDS + ENCODER_KINDS

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
DECODER_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", *ROLE_TOKENS)
ENCODER_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN_CHARACTER = "<|unk|>"  # only kind "char" can meet something it does not know

# A turn is its role's token, a line break, the text and <|end|>, at which generation stops. The generation block is
# what the model is to say, by which `return_assistant_tokens_mask` and trl's `assistant_only_loss` find it.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role not in ("system", "user", "assistant") -%}
        {{- raise_exception("unknown role '" ~ message.role ~ "': use system, user or assistant") -}}
    {%- endif -%}
    {{- "<|" ~ message.role ~ "|>\\n" -}}
    {%- if message.role == "assistant" -%}
        {%- generation -%}{{- message.content ~ "<|end|>" -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content ~ "<|end|>" -}}
    {%- endif -%}
    {{- "\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|assistant|>\\n" -}}
{%- endif -%}
"""

_NUM_BYTES = 256
# Fewest ids beside the special tokens. The Unigram trainer overshoots unless it may keep one piece that is no byte;
# WordPiece has one character, at the start of a word and inside
_ALPHABET_SIZE = {"byte": _NUM_BYTES, "char": 1, "bpe": _NUM_BYTES, "unigram": _NUM_BYTES + 1, "wordpiece": 2}


def train_tokenizer(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = CHAT_TEMPLATE,
    model_max_length: int | None = None,
    show_progress: bool = False,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        texts: what to learn from; kind "byte" reads none, kind "wordpiece" holds all of them in memory.
        kind: one of `KINDS`.
        vocab_size: most ids that the tokenizer may have, special tokens included; a small corpus gives fewer.
            Kinds "char" and "wordpiece" keep the most frequent characters if it is too small for all.
        special_tokens: further ones, after those of the kind.
        chat_template: Jinja, for decoder kinds.
        model_max_length: tokens that the model takes at most, no limit without it.
        show_progress: draw the trainer's progress bars.

    Returns:
        Pads on the left for decoder kinds, since generation continues at the right end, else on the right.

    Raises:
        ValueError: unknown kind, no text, or a vocabulary that cannot hold the special tokens and the least
            alphabet of the kind, for those over bytes all 256.
    """
    if kind not in KINDS:
        nearest = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown tokenizer kind {kind!r}. Did you mean {nearest!r}? Kinds are {', '.join(KINDS)}.")
    special = [*(ENCODER_TOKENS if kind in ENCODER_KINDS else DECODER_TOKENS)]
    special += [UNKNOWN_CHARACTER] * (kind == "char")
    special += [token for token in special_tokens if token not in special]
    alphabet_size = _ALPHABET_SIZE[kind]
    if vocab_size < len(special) + alphabet_size:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for kind {kind!r}, which needs at least "
            f"{len(special) + alphabet_size}: {len(special)} special tokens and an alphabet of {alphabet_size}."
        )
    if kind == "byte":
        tokenizer = _byte_tokenizer(special)
    else:
        train = {"char": _train_char, "bpe": _train_bpe, "unigram": _train_unigram, "wordpiece": _train_wordpiece}
        tokenizer = train[kind](_checked(texts), vocab_size, special, show_progress)
    tokenizer.add_special_tokens(special)
    return _wrap(tokenizer, kind, special, chat_template, model_max_length)


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, of which at least one must hold something."""
    if isinstance(texts, str):
        raise ValueError("texts is one string: a tokenizer learns from an iterable of them, such as [text].")
    texts = iter(texts)
    first = next((text for text in texts if text), None)
    if first is None:
        raise ValueError("there is no text to train a tokenizer on: the iterable is empty, or all its strings are.")
    return chain((first,), texts)


def _byte_tokenizer(special: list[str]) -> Tokenizer:
    """Ids of the bytes follow the special tokens, in order: byte b is `len(special) + b`."""
    alphabet = bytes_to_unicode()
    tokens = [*special, *(alphabet[byte] for byte in range(_NUM_BYTES))]
    vocab = {token: i for i, token in enumerate(tokens)}
    return _byte_level(models.BPE(vocab=vocab, merges=[]), split_words=False)


def _train_char(texts: Iterator[str], vocab_size: int, special: list[str], show_progress: bool) -> Tokenizer:
    tokens = [*special, *_by_frequency(texts)[: vocab_size - len(special)]]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNKNOWN_CHARACTER))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _by_frequency(texts: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    # Among equals the code point decides, so the order of the texts does not
    return sorted(counts, key=lambda character: (-counts[character], character))


def _train_bpe(texts: Iterator[str], vocab_size: int, special: list[str], show_progress: bool) -> Tokenizer:
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_unigram(texts: Iterator[str], vocab_size: int, special: list[str], show_progress: bool) -> Tokenizer:
    # Over bytes instead of SentencePiece's characters, so that there is nothing it cannot write
    tokenizer = _byte_level(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_wordpiece(texts: Iterator[str], vocab_size: int, special: list[str], show_progress: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece())
    # Cased: in code the case of a name carries meaning
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    texts = list(texts)
    # A character takes up to two ids, one at the start of a word and one inside: at most half of the vocabulary
    alphabet = _frequent_characters(texts, tokenizer, min(1000, max(1, (vocab_size - len(special)) // 4)))
    # The trainer would number the inside forms in the order of a hash table, which differs from run to run. As
    # special tokens they have fixed ids; the trained vocabulary then goes into a model for which they are not special
    inside = [f"##{character}" for character in alphabet if _continues_a_word(character, tokenizer)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special, *inside],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = Tokenizer(models.WordPiece(vocab=tokenizer.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    trained.normalizer = tokenizer.normalizer
    trained.pre_tokenizer = tokenizer.pre_tokenizer
    trained.decoder = tokenizer.decoder
    marks = [(token, trained.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return trained


def _frequent_characters(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[str]:
    """The characters that the normalizer leaves in place, the most frequent first."""
    characters = _by_frequency(texts)
    return [c for c in characters if tokenizer.normalizer.normalize_str(c).strip() == c][:limit]


def _continues_a_word(character: str, tokenizer: Tokenizer) -> bool:
    """False for punctuation and ideographs, which are words of their own."""
    word = tokenizer.normalizer.normalize_str(f"a{character}")
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(word)) == 1


def _byte_level(model: models.Model, split_words: bool = True) -> Tokenizer:
    """A tokenizer whose alphabet is the 256 bytes of UTF-8, each written as one printable character."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split_words)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wrap(
    tokenizer: Tokenizer, kind: str, special: list[str], chat_template: str | None, model_max_length: int | None
) -> PreTrainedTokenizerFast:
    if kind in ENCODER_KINDS:
        named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=False))
        named["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        named = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=False))
        named["model_input_names"] = ["input_ids", "attention_mask"]
        named["chat_template"] = chat_template
        if kind == "char":
            named["unk_token"] = UNKNOWN_CHARACTER
    if model_max_length is not None:
        named["model_max_length"] = model_max_length
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=[token for token in special if token not in named.values()],
        padding_side="right" if kind in ENCODER_KINDS else "left",
        **named,
    )
