"""What cuts long texts and health records into the segments that `zoo_hibert` reads.

A text becomes segments "[CLS] tokens [SEP]" of K tokens (Chalkidis et al. 2022, https://arxiv.org/abs/2210.05529,
section 3); a record, which is a list of visits with an age and codes, becomes windows of K codes (Li et al. 2021,
https://arxiv.org/abs/2106.11360, section III).

Shapes: B texts or records, S segments, K tokens of a segment.
"""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

Visit = tuple[float, Sequence[str]]  # age and codes


class HibertProcessor(ProcessorMixin):
    """A tokenizer, and where it cuts.

    Args:
        tokenizer: of the texts; for records its vocabulary has the codes.
        segment_size: K, special tokens included.
        segment_stride: how far apart segments start in the text or record; by default as far as they are long.
        max_segments: what lies beyond is left out.
        num_ages: ages from 0 on that the model knows; a higher one counts as the highest.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        segment_size: int = 128,
        segment_stride: int | None = None,
        max_segments: int = 32,
        num_ages: int = 110,
        **kwargs: Any,
    ) -> None:
        self.segment_size = segment_size
        self.segment_stride = segment_stride
        self.max_segments = max_segments
        self.num_ages = num_ages
        super().__init__(tokenizer, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        return ["input_ids", "attention_mask", "age_ids", "visit_ids"]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        records: Sequence[Sequence[Visit]] | None = None,
        padding: str = "longest",
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` (B, S, K), and of records `age_ids` and `visit_ids` (B, S, K).

        Args:
            text: one or several.
            records: one or several lists of visits, each (age, codes); codes that the tokenizer does not know are
                its unknown token.
            padding: "longest" for as many segments as the longest of the batch has, "max_length" for max_segments.
            return_tensors: as for a tokenizer.
            kwargs: for the tokenizer, of texts.

        Raises:
            ValueError: both or neither are given, or no room is left for a token in a segment.
        """
        if (text is None) == (records is None):
            raise ValueError("give exactly one of text and records")
        if padding not in ("longest", "max_length"):
            raise ValueError(f"padding must be 'longest' or 'max_length', got {padding!r}")
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            rows = [self.cut_text(one, **kwargs) for one in texts]
        else:
            rows = [self.cut_record(record) for record in records]
        most = (
            self.max_segments if padding == "max_length" else max((len(row["input_ids"]) for row in rows), default=1)
        )
        pad_id = self.tokenizer.pad_token_id
        fill = {"input_ids": 0 if pad_id is None else pad_id}
        names = rows[0] if rows else ("input_ids", "attention_mask")
        data = {name: [self._filled(row[name], most, fill.get(name, 0)) for row in rows] for name in names}
        return BatchFeature(data, tensor_type=return_tensors)

    def cut_text(self, text: str, **kwargs: Any) -> dict[str, list[list[int]]]:
        """Segments of one text, each with its own first and last special token; the last is not yet padded."""
        first = self.tokenizer.cls_token_id
        first = self.tokenizer.bos_token_id if first is None else first
        before = [] if first is None else [first]
        after = [] if self.tokenizer.sep_token_id is None else [self.tokenizer.sep_token_id]
        room = self.segment_size - len(before) - len(after)
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False, **kwargs)["input_ids"]
        segments = [before + part + after for part in self.windows(ids, room)]
        return {"input_ids": segments, "attention_mask": [[1] * len(part) for part in segments]}

    def cut_record(self, record: Sequence[Visit]) -> dict[str, list[list[int]]]:
        """Windows over the codes of all visits, with age and number of the visit at each code."""
        ids, ages, visits = [], [], []
        for number, (age, codes) in enumerate(record):
            ids += self.tokenizer.convert_tokens_to_ids(list(codes))
            ages += [min(max(int(age), 0), self.num_ages - 1)] * len(codes)
            visits += [number] * len(codes)
        columns = {"input_ids": ids, "attention_mask": [1] * len(ids), "age_ids": ages, "visit_ids": visits}
        return {name: self.windows(column, self.segment_size) for name, column in columns.items()}

    def windows(self, ids: list[int], size: int) -> list[list[int]]:
        """Pieces of at most `size`, the first `max_segments`; each but the last is whole, and all ids are in one."""
        stride = size if self.segment_stride is None else min(self.segment_stride, size)
        if size < 1 or stride < 1:
            raise ValueError(
                f"segment_size={self.segment_size} and segment_stride={self.segment_stride} leave no room for a token"
            )
        starts = range(0, max(len(ids) - size, 0) + stride, stride)
        return [ids[start : start + size] for start in starts][: self.max_segments]

    def _filled(self, segments: list[list[int]], most: int, value: int) -> list[list[int]]:
        rows = [part + [value] * (self.segment_size - len(part)) for part in segments]
        return rows + [[value] * self.segment_size] * (most - len(rows))
