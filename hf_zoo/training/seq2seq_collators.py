"""What encoder-decoders learn from before they are tuned: the objectives of T5 and of CodeT5, as collators.

span corruption       Raffel et al. 2019, https://arxiv.org/abs/1910.10683, section 3.1.4: 15 % of the tokens, in spans
                      of 3 on average, each replaced by a sentinel; the target is what the sentinels stand for
identifier tagging    Wang et al. 2021, https://arxiv.org/abs/2109.00859, section 3.2: which tokens of code name things
masked identifiers    the same: all occurrences of a name become one sentinel; the target is the names
dual generation       the same: code from its description, and the description from the code

Names are found by Python itself, so code must parse. Texts go through the tokenizer here, row by row.

Shapes: B batch, S source tokens, T target tokens.
"""

import ast
import hashlib
import io
import keyword
import tokenize
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .collators import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Row = dict[str, list[int]]


def add_sentinels(tokenizer: "PreTrainedTokenizerBase", count: int = 100) -> None:
    """Append `count` sentinels to a tokenizer, the first one last, as T5 has them: ids descend."""
    names = [f"<extra_id_{i}>" for i in reversed(range(count))]
    tokenizer.add_tokens(names, special_tokens=True)


def sentinel_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of <extra_id_0>, <extra_id_1>, ... as far as there are any.

    Raises:
        ValueError: there is none.
    """
    vocabulary, ids = tokenizer.get_vocab(), []
    while (name := f"<extra_id_{len(ids)}>") in vocabulary:
        ids.append(vocabulary[name])
    if not ids:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has no <extra_id_0>: add sentinels, for instance with "
            "hf_zoo.training.seq2seq_collators.add_sentinels(tokenizer), and resize the model's embeddings."
        )
    return ids


def end_token_id(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The end token as a list, empty for a tokenizer without one."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


# span corruption


def random_parts(total: int, count: int, generator: torch.Generator) -> list[int]:
    """`total` as a sum of `count` numbers of at least 1, each such sum as likely as any other."""
    cuts = torch.randperm(total - 1, generator=generator)[: count - 1].sort().values + 1
    edges = [0, *cuts.tolist(), total]
    return [b - a for a, b in zip(edges, edges[1:], strict=False)]


def random_spans(
    length: int, noise: float, mean_span: float, max_spans: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Spans (start, end) that hold `noise` of `length` places, with at least one kept place before each of them."""
    num_noise = min(max(round(length * noise), 1), length - 1)
    count = min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise, max_spans)
    lost = random_parts(num_noise, count, generator)
    kept = random_parts(length - num_noise, count, generator)
    spans, place = [], 0
    for before, inside in zip(kept, lost, strict=True):
        spans.append((place + before, place + before + inside))
        place += before + inside
    return spans


def corrupt(ids: Sequence[int], spans: list[tuple[int, int]], sentinels: list[int]) -> tuple[list[int], list[int]]:
    """Source and target: each span becomes a sentinel in the one, and follows its sentinel in the other.

    Args:
        ids: tokens of a text.
        spans: (start, end), ascending and apart.
        sentinels: their ids, as many as spans or more.
    """
    source, target, place = [], [], 0
    for sentinel, (start, end) in zip(sentinels, spans, strict=False):
        source += [*ids[place:start], sentinel]
        target += [sentinel, *ids[start:end]]
        place = end
    return source + list(ids[place:]), target


def restore(source: Sequence[int], target: Sequence[int], sentinels: list[int]) -> list[int]:
    """The text that `corrupt`, or `masked_identifiers`, took apart: every sentinel replaced by what follows it in the
    target."""
    marks, parts, current = set(sentinels), {}, None
    for token in target:
        if token in marks:
            current = parts.setdefault(token, [])
        elif current is not None:
            current.append(token)
    return [t for token in source for t in (parts.get(token, [token]) if token in marks else [token])]


class SpanCorruptionCollator:
    """Replaces spans by sentinels, afresh whenever a row comes in another batch.

    The spans depend on `seed` and on the batch's tokens alone, as those of `WholeWordMaskCollator`.

    Args:
        tokenizer: with sentinels (see `add_sentinels`) and a padding token.
        noise: share of the tokens, or words, that are lost.
        mean_span: how many of them a span holds on average.
        seed: of the spans.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", noise: float = 0.15, mean_span: float = 3.0, seed: int = 0
    ) -> None:
        if not 0 < noise < 1 or mean_span < 1:
            raise ValueError(
                f"noise is {noise} and mean_span {mean_span}: the first is between 0 and 1 (T5: 0.15), the second at "
                "least 1 (T5: 3)."
            )
        self.tokenizer = tokenizer
        self.noise = noise
        self.mean_span = mean_span
        self.seed = seed
        self.sentinels = sentinel_ids(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows with `input_ids` of two tokens or more -> a batch for a sequence-to-sequence model.

        With a column `word_ids` (-1 for special tokens) whole words are lost; special tokens always stay.
        """
        texts = repr([list(map(int, row["input_ids"])) for row in rows]).encode()
        digest = hashlib.blake2b(texts, digest_size=7, salt=str(self.seed).encode()[:16]).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        return pad_pairs(self.tokenizer, [self._corrupted(row, generator) for row in rows])

    def _corrupted(self, row: dict[str, Any], generator: torch.Generator) -> Row:
        ids, special = list(map(int, row["input_ids"])), set(self.tokenizer.all_special_ids)
        words = row.get("word_ids")
        starts = [  # of what is lost as a whole
            i
            for i, token in enumerate(ids)
            if token not in special and (words is None or i == 0 or words[i] < 0 or words[i] != words[i - 1])
        ]
        if len(starts) < 2:
            raise ValueError(f"a row of {len(starts)} words cannot lose one and keep one: leave such rows out.")
        last = max(i for i, token in enumerate(ids) if token not in special) + 1
        edges = [*starts, last]
        spans = random_spans(len(starts), self.noise, self.mean_span, len(self.sentinels), generator)
        source, target = corrupt(ids, [(edges[a], edges[b]) for a, b in spans], self.sentinels)
        end = end_token_id(self.tokenizer)
        return {"input_ids": source + ([] if source[-1:] == end else end), "labels": target + end}


# identifiers


def identifier_spans(code: str) -> list[tuple[int, int, str]]:
    """(start, end, name) of every identifier in Python code, in characters and in order; keywords are none.

    Raises:
        ValueError: the code does not parse.
    """
    try:
        tree = ast.parse(code)
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(
            f"identifiers are found in code that parses, and this does not ({error}): {code[:60]!r}"
        ) from None
    # `match`, `case`, `type` and `_` are keywords in places: identifiers are those that the syntax tree has as names
    named = {
        getattr(node, slot) for node in ast.walk(tree) for slot in ("id", "attr", "arg", "name") if hasattr(node, slot)
    }
    starts = [0]
    for line in io.StringIO(code):
        starts.append(starts[-1] + len(line))
    spans = []
    for token in tokens:
        is_soft = keyword.issoftkeyword(token.string) and token.string not in named
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string) and not is_soft:
            start = starts[token.start[0] - 1] + token.start[1]
            spans.append((start, start + len(token.string), token.string))
    return spans


def identifier_tagging(code: str, tokenizer: "PreTrainedTokenizerBase") -> Row:
    """`input_ids` and `tag_labels` (S,): 1 for tokens that hold a part of an identifier, 0 for others.

    Args:
        code: Python that parses.
        tokenizer: a fast one, which tells where in the text a token is from.
    """
    encoded = tokenizer(code, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    is_named = torch.zeros(len(code) + 1, dtype=torch.bool)
    for start, end, _ in identifier_spans(code):
        is_named[start:end] = True
    tags = [int(is_named[start:end].any()) for start, end in encoded["offset_mapping"]]
    end = end_token_id(tokenizer)
    return {"input_ids": encoded["input_ids"] + end, "tag_labels": tags + [IGNORED] * len(end)}


def masked_identifiers(code: str, tokenizer: "PreTrainedTokenizerBase", sentinels: list[int] | None = None) -> Row:
    """`input_ids` with one sentinel for all occurrences of a name, `labels` with the names, by first occurrence.

    What stands between names is encoded by itself, so that no token holds a part of a name. Names beyond the number
    of sentinels stay.

    Args:
        code: Python that parses.
        tokenizer: with sentinels.
        sentinels: their ids; those of the tokenizer without it.
    """
    sentinels = sentinel_ids(tokenizer) if sentinels is None else sentinels
    mark: dict[str, int] = {}
    pieces, place = [], 0
    for start, end, name in identifier_spans(code):
        if name not in mark and len(mark) < len(sentinels):
            mark[name] = sentinels[len(mark)]
        if name in mark:
            pieces += [code[place:start], mark[name]]
            place = end
    texts = [piece for piece in [*pieces, code[place:]] if isinstance(piece, str)]
    encoded = iter(_encode([*texts, *mark], tokenizer))
    source = [t for p in [*pieces, code[place:]] for t in (next(encoded) if isinstance(p, str) else [p])]
    target = [t for name in mark for t in (mark[name], *next(encoded))]
    end = end_token_id(tokenizer)
    return {"input_ids": source + end, "labels": target + end}


def _encode(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def dual_generation(code: str, text: str, tokenizer: "PreTrainedTokenizerBase") -> tuple[Row, Row]:
    """Two rows: code from text and text from code, each source with a first line that says what is wanted."""
    wanted = ("python:\n" + text, "text:\n" + code, code, text)
    end = end_token_id(tokenizer)
    to_code, to_text, code_ids, text_ids = (ids + end for ids in _encode(list(wanted), tokenizer))
    return {"input_ids": to_code, "labels": code_ids}, {"input_ids": to_text, "labels": text_ids}


# batches


def pad_pairs(
    tokenizer: "PreTrainedTokenizerBase", rows: list[Row], model: "PreTrainedModel | None" = None
) -> dict[str, Tensor]:
    """Rows as a batch, padded on the right: `input_ids`, `attention_mask`, and `labels`, `tag_labels` with -100.

    Args:
        tokenizer: for its padding token.
        rows: all with the same columns.
        model: if given, `decoder_input_ids` are made for it, which Trainer's label smoothing wants.
    """
    fills = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED, "tag_labels": IGNORED}
    batch = {}
    for name, fill in fills.items():
        if name in rows[0]:
            columns = [torch.as_tensor(row[name]) for row in rows]
            batch[name] = torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=fill)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    if model is not None and "labels" in batch:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    return batch


class PairCollator:
    """Makes a pair of every row and joins them.

    Args:
        tokenizer: with a padding token.
        make_pair: for instance `lambda row: masked_identifiers(row["code"], tokenizer)`.
        max_length: most tokens of a source and of a target; what is beyond is cut.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", make_pair: Callable[[dict[str, Any]], Row], max_length: int = 512
    ) -> None:
        self.tokenizer = tokenizer
        self.make_pair = make_pair
        self.max_length = max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of the dataset -> a batch."""
        pairs = [{n: ids[: self.max_length] for n, ids in self.make_pair(row).items()} for row in rows]
        return pad_pairs(self.tokenizer, pairs)


class AlternatingCollator:
    """CodeT5's way of learning several things: every batch is of one objective, drawn by the batch itself.

    Args:
        collators: one an objective.
        seed: of the draws.
    """

    def __init__(
        self, collators: Sequence[Callable[[list[dict[str, Any]]], dict[str, Tensor]]], seed: int = 0
    ) -> None:
        self.collators = list(collators)
        self.seed = seed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of the dataset -> a batch."""
        digest = hashlib.blake2b(repr(rows).encode(), digest_size=7, salt=str(self.seed).encode()[:16]).digest()
        return self.collators[int.from_bytes(digest, "big") % len(self.collators)](rows)
