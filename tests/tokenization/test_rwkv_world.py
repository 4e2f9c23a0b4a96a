"""The tokenizer of RWKV World: longest match, lossless, loads with and without the package, strict about its file."""

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

import hf_zoo
from hf_zoo.tokenization.rwkv_world import END_OF_TEXT, RwkvWorldTokenizer, read_vocabulary

WORDS = ["th", "the", "there", " the", "ab", "abc", "bcd", "é", "日本", "日", "  ", "\n\n", "'", "\\n", '"q"']
TEXTS = ["there is the abcd", "  the\n\n'\\n'\"q\"", "naïve café 日本語 👩‍👩‍👧‍👦", "\x00\ufeff\u200d\U0010ffff", ""]


def write(path, entries):
    """A vocabulary file as it is published: ids from 1, strings, and bytes where they are no UTF-8."""
    lines = []
    for number, entry in enumerate(entries, 1):
        data = entry.encode() if isinstance(entry, str) else entry
        lines.append(f"{number} {entry!r} {len(data)}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    single = [chr(byte) if byte < 128 else bytes([byte]) for byte in range(256)]
    entries = single + [word for word in WORDS if word not in single] + [b"\xe6\x97", b"\xff\xfe"]
    return write(tmp_path_factory.mktemp("vocab") / "rwkv_vocab_v20230424.txt", entries)


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return RwkvWorldTokenizer(str(vocab_file))


def greedy(entries, data):
    """The definition: of all entries that the rest starts with, the longest."""
    numbers = []
    while data:
        entry, number = max(((e, n) for n, e in entries.items() if data.startswith(e)), key=lambda pair: len(pair[0]))
        numbers.append(number)
        data = data[len(entry) :]
    return numbers


@pytest.mark.parametrize("text", TEXTS)
def test_takes_the_longest_entry_and_gives_the_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids == greedy(tokenizer.entries, text.encode())
    assert tokenizer.decode(ids) == text


def test_a_prefix_that_is_no_entry_is_taken_back(tokenizer):
    assert [tokenizer.entries[i] for i in tokenizer.encode("ther")] == [b"the", b"r"]
    assert [tokenizer.entries[i] for i in tokenizer.encode("abcd")] == [b"abc", b"d"]


def test_any_bytes_come_back(tokenizer):
    data = bytes(range(256)) * 2 + b"\xff\xfe\xe6\x97\x00"
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_id_zero_ends_a_text(tokenizer):
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    ids = tokenizer.encode(f"ab{END_OF_TEXT}ab")
    assert ids[1] == 0 and ids[0] == ids[2]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "abab"
    assert min(tokenizer.entries) == 1
    assert len(tokenizer) == tokenizer.vocab_size == max(tokenizer.entries) + 1


def test_batches_are_padded_on_the_left(tokenizer):
    batch = tokenizer(["the", "the the"], padding=True)
    assert batch["attention_mask"][0][0] == 0
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["the", "the the"]


def test_a_cut_character_shows_as_such(tokenizer):
    ids = tokenizer.encode_bytes("日本".encode()[:5])
    assert tokenizer.decode(ids) == "日\ufffd"


def test_tokens_can_be_added(vocab_file):
    tokenizer = RwkvWorldTokenizer(str(vocab_file))
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<görs>"]) == 1
    ids = tokenizer.encode("the<görs>the")
    assert ids[1] == size and len(ids) == 3
    assert tokenizer.decode(ids) == "the<görs>the"


@pytest.mark.parametrize("name", ["zoo_rwkv6", "zoo_rwkv7"])
def test_saves_and_loads_with_autotokenizer(tokenizer, tmp_path, name):
    hf_zoo.create_config(name.removeprefix("zoo_") + "-tiny").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is RwkvWorldTokenizer
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.entries == tokenizer.entries
    assert all(again.encode(text) == tokenizer.encode(text) for text in TEXTS)


def test_loads_without_the_package(tokenizer, tmp_path):
    model = hf_zoo.create_model("rwkv7-tiny")
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    script = tmp_path / "load.py"
    script.write_text(
        "import json, sys, transformers\n"
        "sys.modules['hf_zoo'] = None  # any import of it fails\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(json.dumps([tokenizer.encode(text) for text in json.loads(sys.argv[2])]))\n"
    )
    run = subprocess.run(
        [sys.executable, script, tmp_path / "folder", json.dumps(TEXTS[:3])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1]) == [tokenizer.encode(text) for text in TEXTS[:3]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 'a'", "line 3: .* is not an id, a literal and a length"),
        ("x 'a' 1", "line 3: .* is not an id"),
        ("258 __import__('os').getcwd() 1", "line 3: .* is not an id, a literal"),
        ("258 'ab' 3", "line 3: 'ab' has 2 bytes and not 3"),
        ("258 12 2", "line 3: 12 is no string and no bytes"),
        ("0 'ab' 2", "line 3: ids start at 1"),
        ("2 'ab' 2", "line 3: id 2 comes twice"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, message):
    path = tmp_path / "vocab.txt"
    path.write_text(f"1 'p' 1\n2 'q' 1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_vocabulary(str(path))


def test_a_byte_without_an_entry_is_named(tmp_path):
    path = write(tmp_path / "vocab.txt", [bytes([byte]) for byte in range(255)])
    with pytest.raises(ValueError, match=r"1 of the 256 bytes have no entry, among them b'\\xff'"):
        read_vocabulary(str(path))
    path = write(tmp_path / "vocab.txt", [*(bytes([byte]) for byte in range(256)), "a"])
    with pytest.raises(ValueError, match="an entry comes twice"):
        read_vocabulary(str(path))
