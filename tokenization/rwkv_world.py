"""The tokenizer of RWKV World models: at each place of a text the longest entry of a fixed list of byte strings.

The list is a text file, published as `rwkv_vocab_v20230424.txt` with the models; a line is an id, a Python literal of
the entry (a string, or bytes where it is no UTF-8), and its length in bytes. Id 0 is not in the file: end of text.
"""

import ast
import os
from pathlib import Path

from transformers import PreTrainedTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

END_OF_TEXT = "<|endoftext|>"
_CHARACTER = bytes_to_unicode()  # every byte as a character that can be printed, for tokens are strings


class RwkvWorldTokenizer(PreTrainedTokenizer):
    """Greedy longest match over bytes, so that every text has ids and comes back as it was.

    Args:
        vocab_file: the list of entries.
        eos_token: what id 0 is called in a text.
        pad_token: as the models were trained, the same as the end of text.
    """

    vocab_files_names = {"vocab_file": "rwkv_vocab_v20230424.txt"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"
    _auto_class = "AutoTokenizer"  # this file is saved beside the vocabulary

    def __init__(
        self, vocab_file: str, eos_token: str = END_OF_TEXT, pad_token: str = END_OF_TEXT, **kwargs: object
    ) -> None:
        self.entries = read_vocabulary(vocab_file)
        self.end_of_text = str(eos_token)
        self.ids = {self.end_of_text: 0} | {_printed(entry): number for number, entry in self.entries.items()}
        self.tokens = {number: token for token, number in self.ids.items()}
        self.tree: dict[int, dict] = {}
        for number, entry in self.entries.items():
            node = self.tree
            for byte in entry:
                node = node.setdefault(byte, {})
            node[-1] = number
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(eos_token=eos_token, pad_token=pad_token, **kwargs)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.tokens) + 1

    def get_vocab(self) -> dict[str, int]:
        """Token -> id; a byte that is no printable ASCII character stands as another, as in GPT-2's vocabulary."""
        return {**self.ids, **self._added_tokens_encoder}

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, also such as are no text."""
        numbers, start = [], 0
        while start < len(data):
            node, number, end, position = self.tree, 0, start, start
            while position < len(data) and (node := node.get(data[position])) is not None:
                position += 1
                if -1 in node:
                    number, end = node[-1], position
            numbers.append(number)  # every byte is an entry, so that one has been found
            start = end
        return numbers

    def decode_bytes(self, ids: list[int]) -> bytes:
        """The bytes that ids stand for; nothing for the end of text."""
        return b"".join(self.entries.get(number, b"") for number in ids)

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        return [self.tokens[number] for number in self.encode_bytes(text.encode("utf-8", errors="surrogatepass"))]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.tokens.get(index, "")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens; a character that is cut off shows as U+FFFD."""
        data = b"".join(self.entries.get(self.ids.get(token), token.encode()) for token in tokens)
        return data.decode("utf-8", errors="replace")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write the list of entries as it is published."""
        prefix = "" if filename_prefix is None else f"{filename_prefix}-"
        path = os.path.join(save_directory, prefix + self.vocab_files_names["vocab_file"])
        lines = [f"{number} {_literal(entry)} {len(entry)}\n" for number, entry in sorted(self.entries.items())]
        Path(path).write_text("".join(lines), encoding="utf-8")
        return (path,)


def read_vocabulary(path: str) -> dict[int, bytes]:
    """Id -> entry, of a file as it is published.

    Raises:
        ValueError: a line is not of the form, an id or entry comes twice, or a byte has no entry; the line is named.
    """
    entries: dict[int, bytes] = {}
    for count, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        where = f"{path}, line {count}"
        number, _, rest = line.partition(" ")
        literal, _, length = rest.rpartition(" ")
        try:
            number, entry, length = int(number), ast.literal_eval(literal.strip()), int(length)
        except (ValueError, SyntaxError):
            raise ValueError(f"{where}: {line[:60]!r} is not an id, a literal and a length") from None
        entry = entry.encode() if isinstance(entry, str) else entry
        if not isinstance(entry, bytes) or not entry:
            raise ValueError(f"{where}: {literal[:60]} is no string and no bytes, or empty")
        if len(entry) != length:
            raise ValueError(f"{where}: {literal[:60]} has {len(entry)} bytes and not {length}")
        if number < 1:
            raise ValueError(f"{where}: ids start at 1, for 0 is the end of text, got {number}")
        if number in entries:
            raise ValueError(f"{where}: id {number} comes twice")
        entries[number] = entry
    if len(set(entries.values())) < len(entries):
        raise ValueError(f"{path}: an entry comes twice")
    missing = {bytes([byte]) for byte in range(256)} - set(entries.values())
    if missing:
        raise ValueError(f"{path}: {len(missing)} of the 256 bytes have no entry, among them {min(missing)!r}")
    return entries


def _printed(entry: bytes) -> str:
    return "".join(_CHARACTER[byte] for byte in entry)


def _literal(entry: bytes) -> str:
    try:
        return repr(entry.decode())
    except UnicodeDecodeError:
        return repr(entry)
